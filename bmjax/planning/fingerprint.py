"""The fingerprint of a data set: what the plan needs to know about its cases.

Conventions of nnU-Net's fingerprint extractor: sizes are those after cropping to the
non-zero region; intensities are those of sampled foreground voxels, pooled over cases.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

NUM_SAMPLES = 100_000_000  # over the whole data set, nnU-Net's number
SEED = 1234


def measure_case(
    image: Float[np.ndarray, "z y x c"],
    labels: Integer[np.ndarray, "z y x"] | None,
    *,
    channels: Sequence[str],
    spacing_mm: Sequence[float],
    size: Sequence[int],
    num_samples: int = 10_000,
    seed: int = SEED,
) -> dict[str, Any]:
    """The facts of one case, to be given to `summarise`.

    Args:
      image: the case after cropping to its non-zero region, not normalised.
      labels: its labels, if it has any.
      channels: name of each channel of `image`.
      spacing_mm: voxel size, z y x [mm].
      size: size before cropping [vox].
      num_samples: foreground voxels to draw, with replacement.
      seed: of the draw.
    """
    facts: dict[str, Any] = {
        "channels": tuple(channels),
        "spacing_mm": tuple(float(s) for s in spacing_mm),
        "size": tuple(int(s) for s in size),
        "size_after_crop": image.shape[:3],
        "samples": {},
        "label_voxels": {},
    }
    if labels is None:
        return facts
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    facts["label_voxels"] = {
        str(int(v)): int(n) for v, n in zip(values, counts, strict=True)
    }
    foreground = np.flatnonzero(labels.reshape(-1) > 0)
    if foreground.size:
        draw = np.random.RandomState(seed).choice(foreground, num_samples, replace=True)
        drawn = image.reshape(-1, image.shape[-1])[draw]  # n c
        facts["samples"] = {
            name: drawn[:, i].astype(np.float32) for i, name in enumerate(channels)
        }
    return facts


def summarise(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fingerprint of a data set from the facts of its cases.

    Args:
      cases: what `measure_case` returned for each case: `channels`, `spacing_mm`,
        `size`, `size_after_crop`, `samples` (sampled foreground values by channel) and
        `label_voxels` (number of voxels by label value).

    Returns:
      A dict that JSON can hold.

    Raises:
      ValueError: there is no case, or the cases have different channels.
    """
    if not cases:
        raise ValueError("fingerprint: there is no case to summarise")
    channels = tuple(cases[0]["channels"])
    for number, case in enumerate(cases):
        if tuple(case["channels"]) != channels:
            raise ValueError(
                f"fingerprint: case {case.get('id', number)} has channels "
                f"{tuple(case['channels'])}, the first case has {channels}"
            )
    label_voxels: Counter[str] = Counter()
    for case in cases:
        label_voxels.update({str(k): int(n) for k, n in case["label_voxels"].items()})
    intensity = {}
    for name in channels:
        pooled = [
            np.asarray(case["samples"][name], np.float32)
            for case in cases
            if len(case["samples"].get(name, ()))
        ]
        if pooled:
            intensity[name] = _intensity(np.concatenate(pooled))
    return {
        "channels": list(channels),
        "spacings_mm": [[float(s) for s in case["spacing_mm"]] for case in cases],
        "sizes_after_crop": [[int(s) for s in c["size_after_crop"]] for c in cases],
        "relative_size_after_crop": [
            float(np.prod(c["size_after_crop"], dtype=np.float64) / np.prod(c["size"]))
            for c in cases
        ],
        "intensity": intensity,
        "label_voxels": dict(sorted(label_voxels.items())),
    }


def _intensity(values: Float[np.ndarray, " n"]) -> dict[str, float]:
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "median": float(median),
        "std": float(values.std(dtype=np.float64)),
        "min": float(values.min()),
        "max": float(values.max()),
        "p0_5": float(low),
        "p99_5": float(high),
    }


def require_cases(fingerprint: Mapping[str, Any]) -> None:
    """Refuse a fingerprint that holds no case or whose lists differ in length.

    Raises:
      ValueError: says which.
    """
    lengths = {
        name: len(fingerprint[name])
        for name in ("spacings_mm", "sizes_after_crop", "relative_size_after_crop")
    }
    if not lengths["spacings_mm"]:
        raise ValueError("fingerprint: it holds no case, so nothing can be planned")
    if len(set(lengths.values())) != 1:
        raise ValueError(f"fingerprint: one entry per case expected, got {lengths}")
