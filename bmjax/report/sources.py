"""Reads what a run or an evaluation left behind, and says what is missing."""

import csv
import glob
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

TEXT_COLUMNS = frozenset(
    {
        *("case", "patient", "visit", "region", "kind", "size_bin", "volume_bin"),
        *("track", "date", "origin", "parent", "fate", "merged_into", "progressions"),
        *("first_visit", "last_visit", "from_visit", "to_visit", "earlier"),
        *("check", "severity", "message", "file", "sha256"),
    }
)

MAP_KINDS = ("entropy", "disagreement", "explain_*")


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """The files that one case was evaluated from.

    Attributes:
      prediction: predicted labels.
      reference: reference labels.
      images: image of each channel, as far as known.
    """

    prediction: Path
    reference: Path
    images: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class EvaluationFiles:
    """An evaluation folder, read.

    Attributes:
      rows: of cases.csv.
      lesions: of lesions.csv.
      summary: summary.json.
      conventions: conventions.json.
      froc: rows of froc.csv, empty without probabilities.
      files: of each case, from files.json.
    """

    rows: tuple[dict[str, Any], ...]
    lesions: tuple[dict[str, Any], ...]
    summary: dict[str, Any]
    conventions: dict[str, Any]
    froc: tuple[dict[str, Any], ...] = ()
    files: Mapping[str, CaseFiles] = field(default_factory=dict)

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions whose components are lesions: those to show first."""
        measured: Mapping[str, Any] = self.summary["regions"]
        names = tuple(name for name, found in measured.items() if "detection" in found)
        return names or tuple(measured)


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A run folder, read as far as it goes.

    Attributes:
      name: name of the folder.
      experiment: experiment.json, empty if absent.
      plan: plan.json, empty if absent.
      split: split.json, empty if absent.
      data: data.json, hashes of the prepared cases, empty if absent.
      predict: record of the prediction of the held-out cases, empty if absent.
      records: lines of metrics.jsonl.
      graft: graft.txt, empty if absent.
      evaluation: of the held-out cases, None if absent.
      missing: what is absent, in words.
    """

    name: str
    experiment: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    predict: dict[str, Any] = field(default_factory=dict)
    records: tuple[dict[str, Any], ...] = ()
    graft: str = ""
    evaluation: EvaluationFiles | None = None
    missing: tuple[str, ...] = ()


def read_evaluation(folder: Path) -> EvaluationFiles:
    """Read the files that `bmjax evaluate --out` wrote.

    Raises:
      FileNotFoundError: it is no evaluation folder.
    """
    for name in ("cases.csv", "summary.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder}: has no {name}; make it with `bmjax evaluate PREDICTIONS "
                f"REFERENCE --out {folder}`"
            )
    return EvaluationFiles(
        rows=tuple(read_csv(folder / "cases.csv")),
        lesions=tuple(read_csv(folder / "lesions.csv")),
        summary=read_json(folder / "summary.json"),
        conventions=read_json(folder / "conventions.json"),
        froc=tuple(read_csv(folder / "froc.csv")),
        files={
            case: CaseFiles(
                prediction=Path(entry["prediction"]),
                reference=Path(entry["reference"]),
                images={c: Path(p) for c, p in entry["images"].items()},
            )
            for case, entry in read_json(folder / "files.json").items()
        },
    )


def read_run(run: Path) -> RunFiles:
    """Read a run folder; what it lacks is listed, not an error.

    Raises:
      FileNotFoundError: there is no such folder.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such run folder")
    missing = [
        f"{name}: {meaning}"
        for name, meaning in (
            ("experiment.json", "what was run"),
            ("plan.json", "how images were prepared"),
            ("split.json", "which cases were held out"),
            ("metrics.jsonl", "the training curves"),
        )
        if not (run / name).is_file()
    ]
    evaluation = None
    # the tables are written before the summary, so a run that is watched has both
    if (run / "validation" / "summary.json").is_file():
        evaluation = read_evaluation(run / "validation")
    else:
        missing.append("validation/: scores of the held-out cases, made at the end")
    experiment = read_json(run / "experiment.json")
    if evaluation is not None:
        store = experiment.get("data", {}).get("store")
        evaluation = _with_images(evaluation, Path(store) if store else None)
    graft = run / "graft.txt"
    return RunFiles(
        name=run.resolve().name,
        experiment=experiment,
        plan=read_json(run / "plan.json"),
        split=read_json(run / "split.json"),
        data=read_json(run / "data.json"),
        predict=read_json(run / "validation" / "predict.json"),
        records=tuple(read_records(run / "metrics.jsonl")),
        graft=graft.read_text() if graft.is_file() else "",
        evaluation=evaluation,
        missing=tuple(missing),
    )


def read_records(path: Path) -> list[dict[str, Any]]:
    """Lines of a log; a last line that is still being written is left out."""
    records = []
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return records


def maps_beside(prediction: Path, case: str) -> dict[str, Path]:
    """Maps of uncertainty and explanation that lie beside a prediction, by name."""
    found = {}
    for kind in MAP_KINDS:
        for path in sorted(
            prediction.parent.glob(f"{glob.escape(case)}_{kind}.nii.gz")
        ):
            name = path.name.removesuffix(".nii.gz").removeprefix(f"{case}_")
            found[name] = path
    return found


def flat(value: Any, path: str = "") -> dict[str, str]:
    """Nested values as dotted names and texts."""
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for name, item in value.items():
            found |= flat(item, f"{path}.{name}" if path else str(name))
        return found
    if isinstance(value, list) and value and isinstance(value[0], list):
        return {path: "; ".join(" ".join(map(str, item)) for item in value)}
    if isinstance(value, list):
        return {path: ", ".join(map(str, value))}
    return {path: str(value)}


def _with_images(evaluation: EvaluationFiles, store: Path | None) -> EvaluationFiles:
    """Cases whose images are not known get those that the run's store was made from."""
    files = dict(evaluation.files)
    for case, known in evaluation.files.items():
        if store is not None and not known.images:
            facts = read_json(store / "cases" / case / "case.json")
            found = {c: Path(s["path"]) for c, s in facts.get("sources", {}).items()}
            files[case] = replace(known, images=found)
    return replace(evaluation, files=files)


def read_json(path: Path) -> dict[str, Any]:
    """A file's content, empty where there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def read_csv(path: Path) -> list[dict[str, Any]]:
    """A table's rows, numbers as such; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            {name: _typed(name, text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def _typed(name: str, text: str) -> Any:
    """A number where the column holds numbers; NaN where it is blank."""
    if name in TEXT_COLUMNS:
        return text
    if not text:
        return math.nan
    try:
        return float(text)
    except ValueError:
        return text
