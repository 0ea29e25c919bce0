"""Tables of an evaluation, from plain dicts."""

import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

from bmjax.metrics import statistics
from bmjax.metrics.proportion import wilson
from bmjax.report.page import Cell, Table

Row = Mapping[str, Any]
MAX_WRONG = 40
DASH = "\N{EN DASH}"
SUMMARY_COLUMNS = (
    ("dice", "Dice", 3),
    ("sensitivity", "sensitivity", 3),
    ("precision", "precision", 3),
    ("specificity", "specificity", 5),
    ("lesionwise_dice_brats2023", "lesion-wise Dice", 3),
    ("reference_ml", "reference [ml]", 2),
    ("predicted_ml", "predicted [ml]", 2),
)


def number(value: Any, *, digits: int = 3) -> str:
    """A number as text; a dash where it is undefined."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def interval(described: Mapping[str, Any], *, digits: int = 3) -> str:
    """The 95 % confidence interval of a mean as text, empty below three cases."""
    low, high = described.get("ci95_low"), described.get("ci95_high")
    if low is None or high is None or described["n"] < 3:
        return ""
    return f"{number(low, digits=digits)} to {number(high, digits=digits)}"


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Mean and standard deviation of each metric by region."""
    regions: Mapping[str, Any] = summary["regions"]
    used = [
        (metric, title, digits)
        for metric, title, digits in SUMMARY_COLUMNS
        if any(metric in measured for measured in regions.values())
    ]
    rows = []
    for name, measured in regions.items():
        row = [Cell(text=name, kind="name", is_number=False)]
        dice = measured.get("dice", {})
        row.append(Cell(text=str(dice.get("n", 0))))
        for metric, _, digits in used:
            described = measured.get(metric)
            if metric in ("dice", "lesionwise_dice_brats2023"):
                row.append(Cell(text=mean_sd(described, digits)))
            else:
                mean = described["mean"] if described else None
                row.append(Cell(text=number(mean, digits=digits)))
            if metric == "dice":
                row.append(Cell(text=interval(dice) or DASH, kind="quiet"))
                row.append(Cell(text=number(dice.get("median"))))
        rows.append(tuple(row))
    titles = [title for _, title, _ in used]
    at = 1 + titles.index("Dice") if "Dice" in titles else 0
    return Table(
        columns=("region", "n", *titles[:at], "95 % CI", "median", *titles[at:]),
        rows=tuple(rows),
        caption="Means over cases, with \N{PLUS-MINUS SIGN} the standard deviation; n: "
        "cases in which Dice is defined; lesion-wise Dice by the BraTS-METS 2023 rule.",
    )


def cases_table(
    rows: Sequence[Row], *, regions: Sequence[str], shown: Container[str] = ()
) -> Table:
    """One line per case: Dice, volumes and lesions of each region.

    Args:
      rows: rows of the cases.
      regions: regions to show.
      shown: cases that the page shows, to link to.
    """
    metrics = (
        ("dice", "Dice", 3),
        ("reference_ml", "ref. ml", 2),
        ("predicted_ml", "pred. ml", 2),
    )
    lines = []
    for row in rows:
        cells = [_case_cell(row, shown)]
        for region in regions:
            for metric, _, digits in metrics:
                value = row.get(f"{metric}_{region}")
                kind = "bad" if metric == "dice" and value == 0 else "plain"
                cells.append(Cell(text=number(value, digits=digits), kind=kind))
            cells.append(Cell(text=found_lesions(row, region)))
        lines.append(tuple(cells))
    return Table(
        columns=("case", *(*(t for _, t, _ in metrics), "lesions") * len(regions)),
        rows=tuple(lines),
        groups=(("", 1), *((region, len(metrics) + 1) for region in regions)),
        caption="Lesions: found / in the reference + false positives.",
    )


def comparison_table(
    rows_by_name: Mapping[str, Sequence[Row]],
    *,
    regions: Sequence[str],
    metric: str = "dice",
    digits: int = 3,
) -> Table:
    """One line per case, one column per region and method; the best in bold.

    Args:
      rows_by_name: rows of each method's evaluation.
      regions: regions to show.
      metric: column of the rows, without the region.
      digits: decimals.
    """
    names = list(rows_by_name)
    by_case: dict[str, dict[str, Row]] = {}
    for name, rows in rows_by_name.items():
        for row in rows:
            by_case.setdefault(str(row["case"]), {})[name] = row
    shown = {
        region: [
            name
            for name in names
            if any(
                math.isfinite(_value(found.get(name), f"{metric}_{region}"))
                for found in by_case.values()
            )
        ]
        for region in regions
    }
    lines: list[tuple[Cell, ...]] = []
    columns: dict[tuple[str, str], list[float]] = {}
    for case, found in sorted(by_case.items()):
        cells = [Cell(text=case, kind="name", is_number=False)]
        for region in regions:
            values = [_value(found.get(n), f"{metric}_{region}") for n in shown[region]]
            for name, value in zip(shown[region], values, strict=True):
                columns.setdefault((region, name), []).append(value)
            cells += _best_in_bold(values, digits)
        lines.append(tuple(cells))
    means, spreads = [], []
    for region in regions:
        described = [statistics.describe(columns[region, n]) for n in shown[region]]
        means += _best_in_bold([d["mean"] for d in described], digits)
        spreads += [
            Cell(text=number(d["sd"], digits=digits), kind="quiet") for d in described
        ]
    return Table(
        columns=("case", *(name for region in regions for name in shown[region])),
        rows=tuple(lines),
        footer=(
            (Cell(text="mean", kind="name", is_number=False), *means),
            (Cell(text="standard deviation", kind="quiet", is_number=False), *spreads),
        ),
        groups=(
            ("", 1),
            *((region, len(shown[region])) for region in regions if shown[region]),
        ),
    )


def found_interval(found: Mapping[str, Any]) -> str:
    """The share of lesions found with its 95 % confidence interval as text."""
    low, high = wilson(found["num_found"], found["num_lesions"])
    if math.isnan(low):
        return DASH
    share = found["num_found"] / found["num_lesions"]
    return f"{100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def detection_table(summary: Mapping[str, Any]) -> Table | None:
    """Lesions found by size, and false positives; None where no region has lesions."""
    rows, bins = [], ()
    for name, measured in summary["regions"].items():
        detection = measured.get("detection")
        if not detection:
            continue
        bins = tuple(detection["by_size"])
        cells = [Cell(text=name, kind="name", is_number=False)]
        for found in (detection["all"], *detection["by_size"].values()):
            text = f"{found['num_found']} / {found['num_lesions']}"
            if found["num_lesions"]:
                text += f", {found_interval(found)}"
            cells.append(
                Cell(text=text, kind="plain" if found["num_lesions"] else "quiet")
            )
        per_case = detection["false_positives_per_case"]
        cells.append(Cell(text=number(per_case, digits=2)))
        rows.append(tuple(cells))
    if not rows:
        return None
    return Table(
        columns=("region", "all lesions", *bins, "false positives per case"),
        rows=tuple(rows),
        caption="Reference lesions found (at least one common voxel) / all, by "
        "equivalent diameter, with Wilson's 95 % confidence interval.",
    )


def failures_table(failures: Sequence[Mapping[str, str]]) -> Table:
    """Cases that could not be evaluated, and why."""
    return Table(
        columns=("case", "reason"),
        rows=tuple(
            (
                Cell(text=f["case"], kind="name", is_number=False),
                Cell(text=f["message"], kind="bad", is_number=False),
            )
            for f in failures
        ),
    )


def missed_table(
    lesions: Sequence[Row],
    *,
    region: str,
    shown: Container[str] = (),
    limit: int = MAX_WRONG,
) -> Table:
    """The largest missed lesions and false positives of a region, with their place.

    Args:
      lesions: rows of lesions.csv.
      region: whose lesions.
      shown: cases whose slices the page has; their lesions are links into them.
      limit: lines at most.
    """
    wrong = [r for r in lesions if r["region"] == region and not r["is_found"]]
    wrong.sort(key=lambda r: -r["volume_mm3"])
    rows = []
    for row in wrong[:limit]:
        x, y, z = (row[f"centre_{a}_mm"] for a in "xyz")
        is_shown = row["case"] in shown
        rows.append(
            (
                _case_cell(row, shown),
                Cell(
                    text="missed" if row["kind"] == "reference" else "false positive",
                    is_number=False,
                ),
                Cell(text=number(row["volume_mm3"], digits=0)),
                Cell(text=number(row["diameter_mm"], digits=1)),
                Cell(
                    text=", ".join(number(value, digits=1) for value in (x, y, z)),
                    case=row["case"] if is_shown else "",
                    centre_mm=(x, y, z) if is_shown else None,
                ),
            )
        )
    more = f" ({len(wrong) - limit} smaller ones not listed)" if wrong[limit:] else ""
    return Table(
        columns=("case", "what", "volume [mm\u00b3]", "diameter [mm]", "x, y, z [mm]"),
        rows=tuple(rows),
        caption=f"Missed {region} lesions and false positives, largest first{more}; "
        "place in RAS+ world coordinates, as a link into the slices of the case where "
        "they are on this page.",
    )


def froc_table(summary: Mapping[str, Any]) -> Table | None:
    """Sensitivity at rates of false positives per case; None without probabilities."""
    rows, rates = [], ()
    for name, measured in summary["regions"].items():
        found = measured.get("froc")
        if not found:
            continue
        rates = tuple(found["sensitivity_at"])
        values = (*found["sensitivity_at"].values(), found["score"], found["area"])
        cells = [Cell(text=number(value)) for value in values]
        rows.append((Cell(text=name, kind="name", is_number=False), *cells))
    if not rows:
        return None
    return Table(
        columns=("region", *rates, "mean", "area"),
        rows=tuple(rows),
        caption="Share of lesions found at so many false positives per case (FROC), "
        "from probabilities.",
    )


def mean_sd(described: Mapping[str, Any] | None, digits: int) -> str:
    """A mean with its standard deviation as text."""
    if described is None or not described["n"]:
        return DASH
    text = number(described["mean"], digits=digits)
    if described["n"] > 1:
        text += f" \N{PLUS-MINUS SIGN} {number(described['sd'], digits=digits)}"
    return text


def found_lesions(row: Row, region: str) -> str:
    """Lesions found / in the reference + invented, as text."""
    found, false = (
        row.get(f"{metric}_{region}")
        for metric in ("found_lesions", "false_positive_lesions")
    )
    if found is None or false is None:
        return DASH
    return f"{found:.0f} / {row[f'reference_lesions_{region}']:.0f} + {false:.0f}"


def _case_cell(row: Row, shown: Container[str]) -> Cell:
    case = str(row["case"])
    link = case if case in shown else ""
    return Cell(text=case, kind="name", is_number=False, case=link)


def _value(row: Row | None, column: str) -> float:
    value = row.get(column) if row is not None else None
    return math.nan if value is None else float(value)


def _best_in_bold(values: Sequence[float], digits: int) -> list[Cell]:
    texts = [number(v, digits=digits) for v in values]
    finite = [v for v in values if math.isfinite(v)]
    best = number(max(finite), digits=digits) if len(finite) > 1 else None
    return [Cell(text=t, kind="best" if t == best else "plain") for t in texts]
