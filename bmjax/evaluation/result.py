"""The outcome of an evaluation: its tables, its summary, and how they are written."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmjax.data import streams
from bmjax.data.tables import write_csv


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out, as plain rows.

    Attributes:
      regions: names of the regions and labels, in the order of the tables.
      rows: one dict per evaluated case: case, patient, visit, free columns of the
        manifest, then `METRIC_REGION` columns; NaN where a metric is undefined.
      lesions: one dict per reference lesion or false positive.
      froc: one dict per operating point and region; empty without probabilities.
      failures: one dict per case that could not be evaluated: case, file, message.
      summary: what summary.json holds.
      nnunet: the same cases as nnU-Net's own summary.json has them.
      conventions: the definition of each column.
      files: prediction, reference and images of each evaluated case.
    """

    regions: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    lesions: tuple[dict[str, Any], ...]
    froc: tuple[dict[str, Any], ...]
    failures: tuple[dict[str, str], ...]
    summary: dict[str, Any]
    nnunet: dict[str, Any]
    conventions: dict[str, Any]
    files: dict[str, dict[str, Any]]

    @property
    def ok(self) -> bool:
        """Whether every expected case was evaluated, and there was one."""
        return bool(self.rows) and not self.failures

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe; undefined and infinite numbers are None."""
        return _json_safe(
            {
                "regions": list(self.regions),
                "cases": list(self.rows),
                "lesions": list(self.lesions),
                "failures": list(self.failures),
                "summary": self.summary,
                "conventions": self.conventions,
                "files": self.files,
            }
        )

    def write(self, out: Path) -> None:
        """Write all tables into a folder; each file appears complete."""
        streams.remove_unfinished(out)
        write_csv(out / "cases.csv", self.rows)
        write_csv(out / "lesions.csv", self.lesions)
        if self.froc:
            write_csv(out / "froc.csv", self.froc)
        for name in ("summary", "conventions", "files"):
            _write_json(out / f"{name}.json", _json_safe(getattr(self, name)))
        # NaN is written as nnU-Net does, whose readers expect numbers
        _write_json(out / "summary_nnunet.json", self.nnunet)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1)
    streams.write_pieces(path, [text.encode() + b"\n"])


def _json_safe(value: Any) -> Any:
    """The value with tuples as lists and undefined numbers as None."""
    if isinstance(value, dict):
        return {str(name): _json_safe(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
