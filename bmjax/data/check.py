"""The door `check`: every problem of every case of a data set, in one report."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bmjax.data.cases import Case, sort_cases
from bmjax.data.description import Description, RawData, describe
from bmjax.data.layout import LABELS, Problem
from bmjax.data.parallel import Progress, run_all
from bmjax.data.soundness import Finding, inspect_files
from bmjax.planning.labels import describe_label_map


@dataclass(frozen=True)
class CheckReport:
    """What `check` found, sorted by case.

    Attributes:
      root: the data set.
      description: its channels and labels.
      cases: those that are complete, whether or not their files are sound.
      problems: what must be repaired.
      warnings: what should be known.
      grids: number of cases on each grid.
      label_voxels: number of voxels of each label value, mapped, over all cases.
      num_files: files read to their end.
      num_stripped: cases whose brain sequences all show a brain on zeros; None where
        no case has such a sequence.
    """

    root: Path
    description: Description
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    grids: Mapping[str, int]
    label_voxels: Mapping[int, int]
    num_files: int
    num_stripped: int | None

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        listed = {"problems": self.problems, "warnings": self.warnings}
        return {
            "root": str(self.root),
            "ok": self.ok,
            "channels": list(self.description.channels),
            "normalization": list(self.description.normalization),
            "labels": dict(self.description.scheme.labels),
            "regions": {k: list(v) for k, v in self.description.scheme.regions},
            "label_maps": [
                {"map": {str(a): b for a, b in pairs}, "num_cases": count}
                for pairs, count in self._label_maps().items()
            ],
            "cases": [case.id for case in self.cases],
            "num_files": self.num_files,
            "num_stripped": self.num_stripped,
            "grids": dict(self.grids),
            "label_voxels": {str(k): n for k, n in self.label_voxels.items()},
        } | {
            name: [
                {
                    "case": entry.case,
                    "file": None if entry.file is None else str(entry.file),
                    "message": entry.message,
                }
                for entry in entries
            ]
            for name, entries in listed.items()
        }

    def _label_maps(self) -> Counter[tuple[tuple[int, int], ...]]:
        return Counter(case.reading.label_map for case in self.cases if case.labels)

    def __str__(self) -> str:
        patients = len({case.patient for case in self.cases})
        labelled = sum(case.labels is not None for case in self.cases)
        lines = [
            f"{self.root}: {len(self.cases)} complete cases of {patients} patients, "
            f"{labelled} with labels, {self.num_files} files read to their end"
        ]
        lines.append(f"  {self.description.channel_text()}")
        lines += [f"  {count} x {grid}" for grid, count in self.grids.items()]
        if self.num_stripped is not None:
            lines.append(
                f"  {self.num_stripped} of {len(self.cases)} cases show a brain on a "
                "background of zeros"
            )
        if labelled:
            lines += _indented(self.description.scheme.table())
        for pairs, count in self._label_maps().items():
            if pairs:
                lines.append(f"  label map of {count} cases:")
                text = describe_label_map(dict(pairs), self.description.scheme)
                lines += _indented(text, by=4)
        if self.label_voxels:
            counts = ", ".join(f"{k}: {n}" for k, n in self.label_voxels.items())
            lines.append(f"  voxels by label: {counts}")
        for name, entries in (("warning", self.warnings), ("problem", self.problems)):
            if entries:
                plural = "s" * (len(entries) > 1)
                cases = len({entry.case for entry in entries})
                lines.append(f"{len(entries)} {name}{plural} in {cases} of the cases:")
                lines += [f"  {entry}" for entry in entries]
        lines.append(
            "no problem found" if self.ok else "repair these, then check again"
        )
        return "\n".join(lines)


def check(
    root: str | Path,
    *,
    data: RawData | None = None,
    need_labels: bool = False,
    ids: Iterable[str] | None = None,
    num_workers: int | None = None,
    timeout_s: float | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every file of a data set to its end and report all problems of all cases.

    Args:
      root: folder or manifest, see `cases.survey`.
      data: what its names do not say: channels, labels, how files are taken.
      need_labels: every case must have labels, too.
      ids: only these cases; None: all.
      num_workers: processes; None: one for each processor; 1: this process.
      timeout_s: longest wait for the next case of a process [s]; None: for ever.
      progress: told after each case.
    """
    data = data or RawData()
    found = describe(root, data)
    label_values = tuple(value for _, value in found.scheme.labels)
    cases, problems, warnings = sort_cases(
        root,
        channels=found.channels,
        need_labels=need_labels,
        ids=ids,
        label_name=data.label_name,
        reading=data.reading(),
        allow_outside=data.allow_outside,
    )
    outcomes = run_all(
        partial(_inspect, label_values=label_values),
        cases,
        num_workers=num_workers,
        timeout_s=timeout_s,
        progress=progress,
        names=[case.id for case in cases],
    )
    findings: list[Finding] = []
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        findings.append(outcome.value)
    label_voxels: Counter[int] = Counter()
    for finding in findings:
        problems += finding.problems
        warnings += finding.warnings
        label_voxels.update(finding.label_voxels)
    judged = [f.is_stripped for f in findings if f.is_stripped is not None]
    grids = Counter(finding.grid for finding in findings if finding.grid)
    same, doubtful = _duplicates(cases, findings)
    problems += same
    warnings += doubtful
    if any(finding.has_labels for finding in findings):
        absent = [value for value in label_values if not label_voxels[value]]
        if len(absent) == len(label_values):
            message = "no case has a lesion in its labels, so nothing can be learnt"
            problems.append(Problem("", None, message))
        elif absent:
            text = ", ".join(map(str, absent))
            warnings.append(Problem("", None, f"label {text} occurs in no case"))
        warnings += [
            Problem("", None, f"label {name} is not told apart by the regions")
            for name in found.scheme.lost()
        ]
    return CheckReport(
        root=Path(root),
        description=found,
        cases=tuple(cases),
        problems=tuple(sorted(problems, key=_order)),
        warnings=tuple(sorted(warnings, key=_order)),
        grids=dict(grids.most_common()),
        label_voxels=dict(sorted(label_voxels.items())),
        num_files=sum(finding.num_files for finding in findings),
        num_stripped=sum(map(bool, judged)) if judged else None,
    )


def _inspect(case: Case, *, label_values: tuple[int, ...]) -> Finding:
    files = {**case.images, **({LABELS: case.labels} if case.labels else {})}
    return inspect_files(
        case.id, files, label_values=label_values, reading=case.reading
    )


def _duplicates(
    cases: Sequence[Case], findings: Sequence[Finding]
) -> tuple[list[Problem], list[Problem]]:
    """Images that are there twice: across patients a problem, else a warning."""
    owners: dict[str, list[tuple[Case, str]]] = defaultdict(list)
    for case, finding in zip(cases, findings, strict=True):
        for channel, digest in finding.digests.items():
            owners[digest].append((case, channel))
    twins: dict[tuple[str, str], list[str]] = defaultdict(list)
    by_id = {case.id: case for case in cases}
    problems, warnings = [], []
    for found in owners.values():
        for case, channel in found[1:]:
            first, other = found[0]
            if first.id == case.id:
                message = f"{other} and {channel} hold the same voxels; replace one"
                problems.append(Problem(case.id, case.images[channel], message))
            else:
                twins[case.id, first.id].append(channel)
    for (case, first), channels in twins.items():
        message = f"the same scan as {first} ({', '.join(channels)})"
        if by_id[case].patient == by_id[first].patient:
            warnings.append(Problem(case, None, f"{message}, of the same patient"))
        else:
            message += (
                ", of another patient by its name: a split could put it on both "
                "sides; remove one, or give both one patient in a manifest"
            )
            problems.append(Problem(case, None, message))
    return problems, warnings


def _order(problem: Problem) -> tuple[str, str]:
    return problem.case, str(problem.file)


def _indented(text: str, by: int = 2) -> list[str]:
    return [" " * by + line for line in text.splitlines()]
