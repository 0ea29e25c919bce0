"""What a data set holds: its channels with their normalisation, its labels, regions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bmjax.data.layout import in_our_words
from bmjax.data.nnunet_raw import channel_names, find_description, read_description
from bmjax.data.reading import Reading
from bmjax.planning import labels
from bmjax.planning.channels import NORMALIZATIONS, normalization_of
from bmjax.planning.labels import LabelScheme
from bmjax.planning.nnunet import read_channels, read_scheme

CHANNELS = ("t1c", "t1n", "t2f", "t2w")


@dataclass(frozen=True, kw_only=True)
class RawData:
    """What a person says of a raw data set, beyond what its names say.

    Attributes:
      channels: names of the input channels, in order; none: those of dataset.json, or
        t1c t1n t2f t2w.
      normalization: CHANNEL=SCHEME for each channel that is not z-scored or has a name
        that says so; schemes: zscore, ct, none, rescale_to_0_1, rgb_to_0_1.
      labels: labels and regions; `dataset` takes those of dataset.json, or brats-mets.
      label_map: FILE=USED for each label value that the files write differently, such
        as 4=3.
      label_name: how the names of label files end, where there are several kinds.
      resample_to: channel on whose grid the others are resampled where they lie on
        another.
      allow_outside: follow links and paths that lead out of the data folder.
    """

    channels: tuple[str, ...] = ()
    normalization: tuple[str, ...] = ()
    labels: Literal["dataset", "brats-mets", "brats-rc", "lesion"] = "dataset"
    label_map: tuple[str, ...] = ()
    label_name: str = ""
    resample_to: str = ""
    allow_outside: bool = False

    def reading(self) -> Reading:
        """How its files are read."""
        return Reading(
            label_map=tuple(sorted(labels.parse_label_map(self.label_map).items())),
            resample_to=self.resample_to or None,
        )


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a data set holds.

    Attributes:
      channels: names of the input channels, in order.
      normalization: scheme of each.
      scheme: labels and regions.
      dataset: content of its dataset.json; None if it has none.
    """

    channels: tuple[str, ...]
    normalization: tuple[str, ...]
    scheme: LabelScheme
    dataset: Mapping | None = None

    def channel_text(self) -> str:
        """The channels and how each is normalised, in words."""
        pairs = zip(self.channels, self.normalization, strict=True)
        return "channels " + ", ".join(f"{name} ({scheme})" for name, scheme in pairs)


def describe(root: str | Path, data: RawData | None = None) -> Description:
    """What a raw data set holds, from its dataset.json and from what is said of it.

    Args:
      root: folder of cases, or a manifest.
      data: what is said of it; this goes before the file.

    Raises:
      ValueError: a normalisation or a label map does not fit, or the file is damaged.
    """
    data = data or RawData()
    path = find_description(Path(root))
    dataset = None if path is None else read_description(path)
    channels = known = CHANNELS
    schemes = {channel: normalization_of(channel) for channel in in_our_words(CHANNELS)}
    if dataset is not None:
        channels = known = channel_names(dataset)
        theirs = read_channels(dataset)
        schemes = dict(zip(known, map(normalization_of, theirs), strict=True))
    if data.channels:
        channels = in_our_words(data.channels)
    given = _pairs(data.normalization, channels)
    normalization = tuple(
        given.get(name, schemes.get(name, normalization_of(name))) for name in channels
    )
    if data.labels != "dataset":
        scheme = labels.PRESETS[data.labels]
    else:
        scheme = labels.BRATS_METS if dataset is None else read_scheme(dataset)
    label_map = labels.parse_label_map(data.label_map)
    if label_map:
        labels.describe_label_map(label_map, scheme)  # refuses one that does not fit
    return Description(
        channels=channels, normalization=normalization, scheme=scheme, dataset=dataset
    )


def _pairs(entries: tuple[str, ...], channels: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for entry in entries:
        name, _, scheme = entry.partition("=")
        (channel,) = in_our_words((name,))
        if channel not in channels or scheme not in NORMALIZATIONS:
            raise ValueError(
                f"normalization {entry!r}: expected CHANNEL=SCHEME with a channel of "
                f"{', '.join(channels)} and a scheme of {', '.join(NORMALIZATIONS)}"
            )
        found[channel] = scheme
    return found
