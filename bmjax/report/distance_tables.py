"""Tables of surface distances, lesion-wise scores and agreement of volumes."""

from collections.abc import Mapping
from typing import Any

from bmjax.report.page import Cell, Table
from bmjax.report.tables import DASH, number

SURFACE_COLUMNS = (
    ("hd95_surfel", "HD95 surfel", 2),
    ("hd95_monai", "HD95 MONAI", 2),
    ("assd_surfel", "ASSD surfel", 2),
    ("nsd_surfel_1mm", "NSD 1 mm", 3),
)
LESION_COLUMNS = (
    ("lesionwise_dice_brats2023", "Dice BraTS 2023", 3),
    ("lesionwise_hd95_brats2023", "HD95 BraTS 2023", 1),
    ("lesionwise_dice_bratseval", "Dice brats-evaluation", 3),
    ("rq", "RQ", 3),
    ("sq", "SQ", 3),
    ("pq", "PQ", 3),
)


def surface_table(summary: Mapping[str, Any]) -> Table | None:
    """Surface distances and lesion-wise scores by region, each by its own name."""
    columns = [*SURFACE_COLUMNS, *LESION_COLUMNS]
    regions: Mapping[str, Any] = summary["regions"]
    rows = []
    for name, measured in regions.items():
        if "hd95_surfel" not in measured:
            continue
        cells = [Cell(text=name, kind="name", is_number=False)]
        for metric, _, digits in columns:
            described = measured.get(metric)
            mean = described["mean"] if described else None
            cells.append(Cell(text=number(mean, digits=digits)))
        cells.append(Cell(text=str(measured["hd95_surfel"]["n_infinite"])))
        rows.append(tuple(cells))
    if not rows:
        return None
    return Table(
        columns=("region", *(title for _, title, _ in columns), "one mask empty"),
        rows=tuple(rows),
        caption="Means over the cases in which the number is defined and finite; "
        "distances in mm. Surfel: surface elements weighted by area; RQ, SQ, PQ: "
        "recognition, segmentation and panoptic quality of lesions.",
    )


def agreement_table(summary: Mapping[str, Any]) -> Table | None:
    """Bias, limits of agreement and correlation of the volumes by region."""
    rows = []
    for name, measured in summary["regions"].items():
        found = measured.get("agreement")
        if not found or found["n"] < 2:
            continue
        icc = found["icc"]
        texts = (
            str(found["n"]),
            number(found["bias"]),
            _range(found["bias_ci95_low"], found["bias_ci95_high"]),
            _range(found["lower"], found["upper"]),
            number(icc["value"]),
            _range(icc["ci95_low"], icc["ci95_high"]),
        )
        cells = [Cell(text=text) for text in texts]
        rows.append((Cell(text=name, kind="name", is_number=False), *cells))
    if not rows:
        return None
    return Table(
        columns=(
            "region",
            "n",
            "bias [ml]",
            "95 % CI",
            "limits [ml]",
            "ICC",
            "95 % CI",
        ),
        rows=tuple(rows),
        caption="Volumes: predicted \N{MINUS SIGN} reference (Bland-Altman); ICC: "
        "absolute agreement of single measurements.",
    )


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return DASH
    return f"{number(low)} to {number(high)}"
