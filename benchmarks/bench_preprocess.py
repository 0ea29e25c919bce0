"""From a case's files to a training-ready one, its resampling, and logits back again.

Set BMJAX_BENCH_CASE to the folder of one BraTS case to measure on it; without it a case
of the same size is drawn.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.nets import CHANNELS
from benchmarks.timing import Work

PEERS = ("nnunet", "scipy")
NAMES = ("t1c", "t1n", "t2f", "t2w")
DATASET = {
    "channel_names": dict(zip("0123", NAMES, strict=True)),
    "labels": {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3},
    "regions_class_order": [2, 1, 3],
    "numTraining": 100,
    "file_ending": ".nii.gz",
}
Triple = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Zoom:
    """A case on one grid that is wanted on another.

    Attributes:
      size: before [vox].
      new_size: after [vox].
      is_labels: labels, or the channels of an image.
    """

    size: Triple
    new_size: Triple
    is_labels: bool

    def draw(self) -> np.ndarray:
        """Noise `c z y x`, or three nested balls `z y x` as labels."""
        if not self.is_labels:
            rng = np.random.default_rng(0)
            return rng.standard_normal((CHANNELS, *self.size), np.float32)
        return _balls(self.size)


@dataclass(frozen=True, kw_only=True)
class Files:
    """A case as it is downloaded, wanted at another spacing, or its logits back.

    Attributes:
      spacing_mm: of the network.
      size: draw a case of this size, instead of taking the given one [vox].
      is_export: from logits to a label file; otherwise from files to a prepared case.
    """

    spacing_mm: tuple[float, float, float]
    size: Triple | None = None
    is_export: bool = False
    peers: tuple[str, ...] = ("nnunet",)

    def paths(self, scratch: Path) -> dict[str, Path]:
        """The files of the case by channel, and `seg`; drawn where none is given."""
        given = None if self.size else os.environ.get("BMJAX_BENCH_CASE")
        folder = Path(given) if given else scratch / "drawn"
        paths = {
            role: folder / f"{folder.name}-{role}.nii.gz" for role in (*NAMES, "seg")
        }
        if not given and not paths["seg"].is_file():
            _draw(paths, self.size or (155, 240, 240))
        return paths

    def plans(self, scratch: Path) -> dict:
        """nnU-Net's plans for it, which both sides follow."""
        path = scratch / "plans.json"
        if not path.is_file():  # ours comes first; a peer's Python may have no bmjax
            from bmjax.planning.nnunet import plan_from_nnunet

            keys = ("mean", "median", "std", "min", "max")
            facts = dict.fromkeys((*keys, "percentile_00_5", "percentile_99_5"), 1.0)
            fingerprint = {
                "spacings": [[1.0] * 3],
                "shapes_after_crop": [[140, 170, 140]],
                "median_relative_size_after_cropping": 0.3,
                "foreground_intensity_properties_per_channel": dict.fromkeys(
                    "0123", facts
                ),
            }
            plans = plan_from_nnunet(fingerprint, DATASET)
            fullres = plans["configurations"]["3d_fullres"]
            fullres["spacing"] = list(self.spacing_mm)
            path.write_text(json.dumps(plans))
        return json.loads(path.read_text())

    def logits(self, size: Triple) -> np.ndarray:
        """Blocks of noise, `z y x k`."""
        rng = np.random.default_rng(0)
        coarse = rng.standard_normal((*(n // 8 + 1 for n in size), 3), np.float32)
        fine = coarse.repeat(8, 0).repeat(8, 1).repeat(8, 2)
        return np.ascontiguousarray(fine[tuple(slice(n) for n in size)])


def _balls(size: Triple) -> np.ndarray:
    """Three nested balls as labels."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    return (3 - np.digitize(radius, (0.2, 0.3, 0.4))).astype(np.int8)


def _draw(paths: dict[str, Path], size: Triple) -> None:
    """A ball of smooth noise in a field of zeros, with its labels."""
    from scipy.ndimage import gaussian_filter

    from bmjax.data import nifti

    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    is_inside = sum(axis**2 for axis in axes) < 0.6
    for seed, name in enumerate(NAMES):
        noise = np.random.default_rng(seed).standard_normal(size, np.float32)
        smooth = gaussian_filter(noise, 1.5)
        image = 500 + 300 * smooth / smooth.std()
        image = np.where(is_inside, np.maximum(image, 1), 0).astype(np.int16)
        nifti.write(paths[name], image, affine=affine)
    nifti.write(paths["seg"], _balls(size), affine=affine)


def _both(size: Triple, new_size: Triple) -> dict[str, Zoom]:
    text = f"{'x'.join(map(str, size))} to {'x'.join(map(str, new_size))}"
    return {
        f"{kind} {text}": Zoom(size=size, new_size=new_size, is_labels=kind == "labels")
        for kind in ("image", "labels")
    }


CASES = {
    **_both((136, 171, 140), (68, 86, 70)),
    **_both((149, 171, 140), (149, 342, 280)),  # 1 mm to 1 x 0.5 x 0.5 mm
    "prepare at 1 mm": Files(spacing_mm=(1.0, 1.0, 1.0)),
    "prepare at 1x0.5x0.5 mm": Files(spacing_mm=(1.0, 0.5, 0.5)),
    "export from 1x0.5x0.5 mm": Files(spacing_mm=(1.0, 0.5, 0.5), is_export=True),
}
QUICK = {
    **_both((8, 9, 7), (4, 5, 6)),
    "prepare": Files(spacing_mm=(1.0, 0.5, 0.5), size=(16, 18, 20)),
    "export": Files(spacing_mm=(1.0, 0.5, 0.5), size=(16, 18, 20), is_export=True),
}


def ours(case: Zoom | Files, *, scratch: Path) -> Work:
    if isinstance(case, Zoom):
        return _resampling(case)
    return _export(case, scratch) if case.is_export else _preparation(case, scratch)


def _resampling(zoom: Zoom) -> Work:
    from bmjax.data import resample

    array = zoom.draw()

    def image() -> None:
        for channel in array:
            resample.resample(channel, zoom.new_size, kind="cubic")

    def labels() -> None:
        resample.resample_labels(array, zoom.new_size)

    return Work(
        call=labels if zoom.is_labels else image,
        before=resample.blocks.cache_clear,  # every case has a size of its own
    )


def _preparation(files: Files, scratch: Path) -> Work:
    from bmjax.data.store import prepare_store

    case, plan, facts = case_and_plan(files, scratch)
    store = scratch / "store"
    return Work(
        call=lambda: prepare_store([case], plan, store, num_workers=1),
        before=lambda: shutil.rmtree(store, ignore_errors=True),
        facts=facts,
    )


def _export(files: Files, scratch: Path) -> Work:
    from bmjax.data.preprocess import preprocess
    from bmjax.inference.export import export_case

    case, plan, facts = case_and_plan(files, scratch)
    geometry = preprocess(case, plan).geometry
    (scratch / "geometry.json").write_text(json.dumps(geometry.to_dict()))
    logits = files.logits(geometry.size_after_resampling)[None]
    out = scratch / "ours.nii.gz"
    return Work(call=lambda: export_case(logits, geometry, plan, out), facts=facts)


def case_and_plan(files: Files, scratch: Path):
    """The case, its plan, and what a row says of it."""
    from bmjax.data.cases import Case
    from bmjax.planning.nnunet import read_plan

    paths = files.paths(scratch)
    name = paths["seg"].parent.name
    plan = read_plan(files.plans(scratch), DATASET)
    labels = paths.pop("seg")
    case = Case(id=name, patient=name, images=paths, labels=labels)
    return case, plan, {"data": name}
