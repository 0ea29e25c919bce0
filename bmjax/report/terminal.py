"""What the terminal shows of an evaluation."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table as RichTable

from bmjax.report import distance_tables, tables
from bmjax.report.page import Table

MAX_PRINTED_CASES = 24


def evaluation_table(evaluation: Mapping[str, Any]) -> Group:
    """All tables of an evaluation given by `Evaluation.to_dict()`."""
    summary, rows = evaluation["summary"], evaluation["cases"]
    parts = []
    regions = [r for r in summary["regions"] if "detection" in summary["regions"][r]]
    if rows and len(rows) <= MAX_PRINTED_CASES:
        parts.append(_by_case(rows, regions))
    num_failed = len(evaluation["failures"])
    title = f"Mean over {len(rows)} cases" + (
        f"; {num_failed} failed" if num_failed else ""
    )
    parts.append(_means(summary["regions"], title))
    for title, table in (
        ("Surfaces and lesions", distance_tables.surface_table(summary)),
        ("Lesions found, by size", tables.detection_table(summary)),
        ("Agreement of volumes", distance_tables.agreement_table(summary)),
        ("Lesions found at false positives per case", tables.froc_table(summary)),
    ):
        if table is not None:
            parts.append(_plain(table, title))
    for column, groups in summary["groups"].items():
        for value, group in groups.items():
            title = f"{column} {value}: mean over {group['num_evaluated']} cases"
            parts.append(_means(group["regions"], title))
    return Group(*parts)


def _by_case(rows: Any, regions: list[str]) -> RichTable:
    table = RichTable(title="Dice by case", title_justify="left")
    table.add_column("case")
    for region in regions:
        table.add_column(region, justify="right")
        table.add_column("lesions", justify="right", style="dim")
    for row in rows:
        cells = [str(row["case"])]
        for region in regions:
            dice = tables.number(row[f"dice_{region}"])
            cells += [dice, tables.found_lesions(row, region)]
        table.add_row(*cells)
    return table


def _means(regions: Mapping[str, Any], title: str) -> RichTable:
    table = RichTable(title=title, title_justify="left")
    for name in ("region", "n", "Dice", "95 % CI", "sens.", "spec.", "prec."):
        table.add_column(name, justify="left" if name == "region" else "right")
    for name in ("ref. ml", "pred. ml", "lesions found", "false pos. / case"):
        table.add_column(name, justify="right")
    for name, measured in regions.items():
        if not measured:
            continue
        dice, detection = measured["dice"], measured.get("detection")
        found = detection["all"] if detection else None
        rate = detection["false_positives_per_case"] if detection else None
        table.add_row(
            name,
            str(dice["n"]),
            tables.mean_sd(dice, 3),
            tables.interval(dice),
            tables.number(measured["sensitivity"]["mean"]),
            tables.number(measured["specificity"]["mean"], digits=5),
            tables.number(measured["precision"]["mean"]),
            *(
                tables.number(measured[m]["mean"], digits=2)
                for m in ("reference_ml", "predicted_ml")
            ),
            f"{found['num_found']} / {found['num_lesions']}" if found else "",
            tables.number(rate, digits=2) if detection else "",
        )
    return table


def _plain(table: Table, title: str) -> RichTable:
    """A table of the page, as text."""
    shown = RichTable(title=title, title_justify="left")
    for i, name in enumerate(table.columns):
        shown.add_column(name, justify="right" if i else "left")
    for row in table.rows:
        shown.add_row(*(cell.text for cell in row))
    return shown
