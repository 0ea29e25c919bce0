"""What label values mean, which regions are predicted, and the way between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Preset = Literal["brats-mets", "brats-rc", "lesion"]


@dataclass(frozen=True, kw_only=True)
class LabelScheme:
    """The meaning of the label values, and the regions a network predicts.

    Attributes:
      labels: name and value of each label in a label file.
      regions: name and label values of each region; one sigmoid head each, in order.
      paint: label value written where a region is predicted, one per region, painted
        in order so that later regions overwrite earlier ones.
    """

    labels: tuple[tuple[str, int], ...]
    regions: tuple[tuple[str, tuple[int, ...]], ...]
    paint: tuple[int, ...]

    def painted(self, value: int) -> int:
        """The label written where exactly the regions of a label are predicted."""
        result = 0
        for (_, members), paint in zip(self.regions, self.paint, strict=True):
            result = paint if value in members else result
        return result

    def lost(self) -> tuple[str, ...]:
        """Labels that do not come back as themselves from their regions."""
        return tuple(
            name for name, value in self.labels if self.painted(value) != value
        )

    def table(self) -> str:
        """Which label belongs to which region, and what it comes back as."""
        names = [name for name, _ in self.regions]
        rows = [("value", "label", *names, "comes back as")]
        for name, value in self.labels:
            marks = ["x" if value in members else "-" for _, members in self.regions]
            rows.append((str(value), name, *marks, str(self.painted(value))))
        return _aligned(rows)


BRATS_METS = LabelScheme(
    labels=(("NETC", 1), ("SNFH", 2), ("ET", 3)),
    regions=(("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,))),
    paint=(2, 1, 3),
)
BRATS_RC = LabelScheme(  # BraTS 2024 and later, after surgery
    labels=(*BRATS_METS.labels, ("RC", 4)),
    regions=(*BRATS_METS.regions, ("RC", (4,))),
    paint=(*BRATS_METS.paint, 4),
)
# of each label wherever it is shown, told apart by the colour-blind too
LABEL_COLOURS = {"ET": "#3ddc84", "SNFH": "#ffd23f", "NETC": "#b184ff"}

LESION = LabelScheme(labels=(("lesion", 1),), regions=(("lesion", (1,)),), paint=(1,))
PRESETS: dict[Preset, LabelScheme] = {
    "brats-mets": BRATS_METS,
    "brats-rc": BRATS_RC,
    "lesion": LESION,
}


def parse_label_map(entries: Sequence[str]) -> dict[int, int]:
    """From entries like "4=3" to the map from a file's values to the scheme's.

    Raises:
      ValueError: an entry is no such pair, or a value is mapped twice.
    """
    found: dict[int, int] = {}
    for entry in entries:
        old, separator, new = entry.partition("=")
        if not (separator and old.strip().isdigit() and new.strip().isdigit()):
            raise ValueError(
                f"label map {entry!r}: expected FILE=USED, two label values such as 4=3"
            )
        if int(old) in found:
            raise ValueError(
                f"label map: {old} is mapped to {found[int(old)]} and to {new}; keep "
                "one of them"
            )
        found[int(old)] = int(new)
    return found


def describe_label_map(label_map: Mapping[int, int], scheme: LabelScheme) -> str:
    """The map in words, one line for each value of the files.

    Raises:
      ValueError: a value is mapped to one that the scheme does not have.
    """
    names = {0: "background"} | {value: name for name, value in scheme.labels}
    odd = sorted(set(label_map.values()) - set(names))
    if odd:
        known = ", ".join(f"{value} {name}" for value, name in names.items())
        raise ValueError(
            f"label map: {', '.join(map(str, odd))} is no label here; map to {known}"
        )
    full = {value: value for value in names} | dict(label_map)
    rows = [("in the files", "used as", "")]
    for old, new in sorted(full.items()):
        note = "" if old in label_map else "as it is"
        rows.append((str(old), f"{new} {names[new]}", note))
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
