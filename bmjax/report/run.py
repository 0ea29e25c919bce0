"""The page of one training run: curves, held-out cases, provenance."""

from pathlib import Path

from bmjax.report import provenance, sections
from bmjax.report.page import Block, Details, Facts, Page, Section, Text
from bmjax.report.sources import RunFiles, flat, read_run

HASHED = ("experiment.json", "plan.json", "split.json", "data.json", "metrics.jsonl")


def write_run_report(
    run: str | Path, out: str | Path, *, figures: Path | None = None
) -> Path:
    """Write one self-contained page of a run folder, complete or not.

    Args:
      run: folder made by `bmjax train`.
      out: the page.
      figures: folder for every chart as PNG and PDF, if wanted.

    Raises:
      FileNotFoundError: there is no such folder.
    """
    return run_page(run).write(out, figures=figures)


def run_page(run: str | Path) -> Page:
    """The page of a run folder as it is now; see `write_run_report`."""
    files = read_run(Path(run))
    evaluation = files.evaluation
    parts = [_summary(files), sections.curves_section({files.name: files.records})]
    if evaluation is not None:
        cases = sections.hardest_first(evaluation, name="prediction")
        parts += [
            sections.results_section(evaluation, title="Held-out cases"),
            sections.lesions_section(evaluation),
            sections.cases_section(cases, order=", hardest first"),
        ]
    parts.append(_provenance(files, Path(run)))
    model = files.experiment.get("model", {})
    name = model.get("net", model).get("type", "")  # of regions: the network itself
    store = files.experiment.get("data", {}).get("store")
    return Page(
        title=f"Training run {files.name}",
        subtitle=f"{name} on {store}" if name and store else name,
        sections=tuple(parts),
        bound=sections.BOUND,
    )


def _summary(files: RunFiles) -> Section:
    blocks: list[Block] = []
    if files.evaluation is not None and files.evaluation.rows:
        blocks.append(sections.headline(files.evaluation))
    last = [r for r in files.records if r["kind"] == "train"][-1:]
    facts = [
        ("training cases", str(len(files.split["train"]))) if files.split else None,
        ("held-out cases", str(len(files.split["val"]))) if files.split else None,
        ("steps done", f"{last[0]['step']:,}") if last else None,
        ("time per step", f"{last[0]['step_ms']:.0f} ms")
        if last and "step_ms" in last[0]
        else None,
    ]
    items = tuple(fact for fact in facts if fact is not None)
    if items:
        blocks.append(Facts(items=items))
    blocks += [
        Text(text=f"Not in this folder: {name}.", kind="missing")
        for name in files.missing
    ]
    return Section(title="Summary", blocks=tuple(blocks))


def _provenance(files: RunFiles, run: Path) -> Section:
    blocks: list[Block] = []
    for title, values in (
        ("Experiment", files.experiment),
        ("Plan", files.plan),
        ("Split", files.split),
        ("Hashes of the prepared cases", files.data),
    ):
        if values:
            items = tuple(flat(values).items())
            blocks.append(Details(title=title, blocks=(Facts(items=items),)))
    if files.graft:
        lines = tuple(Text(text=line) for line in files.graft.splitlines() if line)
        blocks.append(Details(title="Origin of the first parameters", blocks=lines))
    blocks += provenance.of_prediction(files.predict)
    blocks += provenance.of_files([run / name for name in HASHED])
    blocks.append(provenance.versions())
    if files.evaluation is not None:
        blocks.append(sections.conventions_details(files.evaluation))
    return Section(title="Provenance", blocks=tuple(blocks))
