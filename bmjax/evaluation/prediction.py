"""Reads the prediction of a case: labels, probabilities, or both.

Labels are `CASE.nii.gz`. Probabilities are, in the same folder,

- `CASE_prob_REGION.nii.gz`: one volume per region of the scheme (all of them);
- `CASE.npz` with the array `probabilities`, k z y x, as `nnUNetv2_predict
  --save_probabilities` writes it: one channel per region, or background and one channel
  per label, whose sum over the labels of a region is the region's. Axes as they lie in
  the image file (nnU-Net's SimpleITKIO and NibabelIO).

Without `CASE.nii.gz` labels are made from them: regions above one half are painted in
the scheme's order, of labels the likeliest is taken.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from bmjax.data import nifti
from bmjax.data.streams import fault
from bmjax.evaluation.pairing import file_of
from bmjax.npz import read_npz
from bmjax.planning.labels import LabelScheme

Probabilities = dict[str, Float[np.ndarray, "z y x"]]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was predicted for a case.

    Attributes:
      labels: label map.
      probs: probability of each region of the scheme; empty if unknown.
    """

    labels: nifti.Scan
    probs: dict[str, nifti.Scan]


def read_prediction(
    path: Path, case_id: str, *, scheme: LabelScheme, reference: nifti.Scan
) -> Prediction:
    """Read the label file and the probabilities beside it.

    Args:
      path: where the label file is, or would be.
      case_id: the case.
      scheme: regions and labels.
      reference: lends its geometry to an npz file that has no label file.

    Raises:
      FileNotFoundError: there is neither.
      ValueError: files are missing, do not fit the scheme or the grid, or hold other
        values than probabilities.
    """
    is_there = path.is_file()
    labels = nifti.read_labels(path) if is_there else None
    npz = path.parent / f"{case_id}.npz"
    files = {n: file_of(path.parent, f"{case_id}_prob_{n}") for n, _ in scheme.regions}
    if npz.is_file():
        grid = labels or reference
        header = nifti.read_header(grid.path)
        probs, painted = _from_npz(npz, scheme=scheme, grid=header)
        scans = {
            n: nifti.Scan(p, grid.affine, grid.spacing_mm, npz)
            for n, p in probs.items()
        }
    elif any(file.is_file() for file in files.values()):
        absent = [file.name for file in files.values() if not file.is_file()]
        if absent:
            raise ValueError(
                f"{case_id}: no {', '.join(absent)} in {path.parent}; give the "
                "probability of every region, or of none"
            )
        scans = {name: nifti.read(file) for name, file in files.items()}
        for scan in scans.values():
            _require_probabilities(scan.path, scan.array)
        grid = next(iter(scans.values()))
        painted = _painted({n: scan.array for n, scan in scans.items()}, scheme)
    elif labels is None:
        raise FileNotFoundError(
            f"{case_id}: no prediction {path.name} in {path.parent}; predict this "
            "case, or name the cases to evaluate"
        )
    else:
        return Prediction(labels=labels, probs={})
    if labels is None:
        labels = nifti.Scan(painted, grid.affine, grid.spacing_mm, path)
    return Prediction(labels=labels, probs=scans)


def _from_npz(
    path: Path, *, scheme: LabelScheme, grid: nifti.Header
) -> tuple[Probabilities, Integer[np.ndarray, "z y x"]]:
    try:
        content = read_npz(path, ["probabilities"])
        channels = content["probabilities"].astype(np.float32)
    except (ValueError, OSError) as error:
        raise fault(
            path,
            f"no readable array `probabilities` ({error})",
            "write it with nnUNetv2_predict --save_probabilities",
        ) from error
    if channels.ndim != 4 or channels.shape[1:] != grid.size:
        raise fault(
            path,
            f"probabilities of shape {channels.shape} where (k, *{grid.size}) is "
            f"expected, the grid of {grid.path}",
            "predict on that grid",
        )
    _require_probabilities(path, channels)
    channels = _turned(channels, grid.axes)
    regions, labels = scheme.regions, scheme.labels
    if len(channels) == len(regions):
        names = [name for name, _ in regions]
        probs = dict(zip(names, channels, strict=True))
        return probs, _painted(probs, scheme)
    if len(channels) != len(labels) + 1:
        raise fault(
            path,
            f"{len(channels)} channels",
            f"expected {len(regions)}, the regions {[n for n, _ in regions]}, or "
            f"{len(labels) + 1}, background and the labels {[n for n, _ in labels]}",
        )
    of_label = {value: channels[i] for i, (_, value) in enumerate(labels, start=1)}
    probs = {
        name: np.sum([of_label[v] for v in values], axis=0) for name, values in regions
    }
    values = np.array([0, *(value for _, value in labels)], np.int16)
    return probs, values[channels.argmax(axis=0)]


def _painted(probs: Probabilities, scheme: LabelScheme) -> Integer[np.ndarray, "z y x"]:
    labels = np.zeros(next(iter(probs.values())).shape, np.int16)
    for (name, _), value in zip(scheme.regions, scheme.paint, strict=True):
        labels[probs[name] > 0.5] = value
    return labels


def _require_probabilities(path: Path, values: Float[np.ndarray, "..."]) -> None:
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN fails, too
        raise fault(
            path,
            f"values from {low:g} to {high:g} are no probabilities",
            "store numbers from 0 to 1, not logits",
        )


def _turned(
    channels: Float[np.ndarray, "k _ _ _"], axes: str
) -> Float[np.ndarray, "k z y x"]:
    """From stored axes, such as LPS for x, y, z, to the RAS of the reader."""
    letters = axes[::-1]
    order = [
        next(i for i, letter in enumerate(letters) if letter in pair)
        for pair in ("IS", "PA", "LR")
    ]
    flips = tuple(i for i, at in enumerate(order, start=1) if letters[at] in "IPL")
    turned = channels.transpose(0, *(1 + at for at in order))
    return np.ascontiguousarray(np.flip(turned, flips))
