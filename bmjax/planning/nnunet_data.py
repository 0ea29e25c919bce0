"""A data set's facts as nnU-Net writes them down: dataset.json and its fingerprint."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bmjax.planning.channels import normalization_of
from bmjax.planning.labels import LabelScheme

READER = "NibabelIOWithReorient"  # turns to RAS, as we read
_CHANNEL_FOR = {"ct": "CT", "none": "noNorm"}  # others go by their own name


def write_dataset(
    channels: Sequence[str],
    normalization: Sequence[str],
    scheme: LabelScheme,
    *,
    num_cases: int,
    name: str = "",
) -> dict[str, Any]:
    """The content of a dataset.json that nnU-Net reads as this data set.

    Args:
      channels: names, in order. A channel whose name does not ask for its
        normalization gets the name that does, as nnU-Net knows no other way.
      normalization: scheme of each.
      scheme: labels and regions.
      num_cases: with labels.
      name: of the data set.
    """
    names = {}
    for i, (channel, wanted) in enumerate(zip(channels, normalization, strict=True)):
        is_asked_for = normalization_of(channel) == wanted
        names[str(i)] = channel if is_asked_for else _CHANNEL_FOR.get(wanted, wanted)
    is_plain = all(len(members) == 1 for _, members in scheme.regions)
    labels: dict[str, Any] = {"background": 0}
    for region, members in scheme.regions:
        labels[region] = members[0] if len(members) == 1 else list(members)
    dataset: dict[str, Any] = {
        "name": name,
        "channel_names": names,
        "labels": labels,
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": READER,
    }
    return dataset if is_plain else {**dataset, "regions_class_order": [*scheme.paint]}


def write_fingerprint(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a dataset_fingerprint.json from a fingerprint of ours."""
    names = {"p0_5": "percentile_00_5", "p99_5": "percentile_99_5"}
    return {
        "spacings": fingerprint["spacings_mm"],
        "shapes_after_crop": fingerprint["sizes_after_crop"],
        "foreground_intensity_properties_per_channel": {
            str(i): {names.get(k, k): v for k, v in values.items()}
            for i, channel in enumerate(fingerprint["channels"])
            if (values := fingerprint["intensity"].get(channel))
        },
        "median_relative_size_after_cropping": float(
            np.median(fingerprint["relative_size_after_crop"])
        ),
    }
