"""Finds the cases of a data set, and names every fault of every case at once."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bmjax.data.layout import LABELS, Found, Problem, Survey, survey_folder
from bmjax.data.manifest import survey_manifest
from bmjax.data.parallel import Progress, run_all
from bmjax.data.soundness import Finding, inspect_files

CHANNELS = ("t1c", "t1n", "t2f", "t2w")
LABEL_VALUES = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scan of one patient: where its files are.

    Attributes:
      id: unique in its data set.
      patient: whose scan it is.
      visit: which of the patient's scans, empty if unknown.
      images: channel -> file, in the order asked for.
      labels: expert label map, if there is one.
      columns: free facts from a manifest, such as primary tumour or scanner.
    """

    id: str
    patient: str
    visit: str = ""
    images: Mapping[str, Path]
    labels: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckReport:
    """What `check` found, sorted by case.

    Attributes:
      root: the data set.
      cases: those that are complete, whether or not their files are sound.
      problems: what must be repaired.
      warnings: what should be known.
      grids: number of cases on each grid.
      label_voxels: number of voxels of each label value, over all cases.
      num_files: files read to their end.
    """

    root: Path
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    grids: Mapping[str, int]
    label_voxels: Mapping[int, int]
    num_files: int

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
            "cases": [case.id for case in self.cases],
            "num_files": self.num_files,
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

    def __str__(self) -> str:
        patients = len({case.patient for case in self.cases})
        labelled = sum(case.labels is not None for case in self.cases)
        lines = [
            f"{self.root}: {len(self.cases)} complete cases of {patients} patients, "
            f"{labelled} with labels, {self.num_files} files read to their end"
        ]
        lines += [f"  {count} x {grid}" for grid, count in self.grids.items()]
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


def survey(
    root: str | Path, *, channels: Sequence[str] = CHANNELS, allow_outside: bool = False
) -> Survey:
    """The files of a manifest (.csv, .tsv) or of a folder, with or without one."""
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder or manifest")
    manifest = root if root.is_file() else root / "manifest.csv"
    if not manifest.is_file():
        return survey_folder(root, channels=channels, allow_outside=allow_outside)
    if manifest.suffix.lower() not in (".csv", ".tsv"):
        raise ValueError(f"{root}: expected a folder of cases or a .csv manifest")
    return survey_manifest(manifest, channels=channels, allow_outside=allow_outside)


def sort_cases(
    root: str | Path,
    *,
    channels: Sequence[str] = CHANNELS,
    need_labels: bool = False,
    ids: Iterable[str] | None = None,
    allow_outside: bool = False,
    allow_missing: bool = False,
) -> tuple[list[Case], list[Problem], list[Problem]]:
    """The complete cases of a data set, what makes others unusable, and what is odd.

    Args:
      root: folder or manifest, see `survey`.
      channels: every case must have each of them.
      need_labels: every case must have labels, too.
      ids: only these cases; None: all.
      allow_outside: follow links and paths that lead out of the data set.
      allow_missing: a case with one of the channels is complete.
    """
    root = Path(root)
    seen = survey(root, channels=channels, allow_outside=allow_outside)
    wanted = None if ids is None else set(ids)
    problems = list(seen.faults)
    cases = []
    for found in seen.found.values():
        present = [channel for channel in channels if channel in found.files]
        wanted_of_it = present if allow_missing and present else channels
        faults = list(_incomplete(found, wanted_of_it, need_labels))
        problems += faults
        if not faults:
            cases.append(_case(found, wanted_of_it))
    if wanted is not None:
        cases = [case for case in cases if case.id in wanted]
        problems = [problem for problem in problems if problem.case in wanted]
        known = {*seen.found, *(fault.case for fault in seen.faults)}
        for name in sorted(wanted - known):
            message = f"no such case under {root}; it holds {_some(seen.found)}"
            problems.append(Problem(name, None, message))
    elif not seen.found and not problems:
        names = ", ".join(f"CASE-{channel}.nii.gz" for channel in channels)
        problems.append(
            Problem("", root, f"no case found; expected files like {names}")
        )
    notes = [Problem("", path, f"not used: {reason}") for path, reason in seen.ignored]
    cases.sort(key=lambda case: case.id)
    problems.sort(key=lambda problem: (problem.case, str(problem.file)))
    return cases, problems, notes


def find_cases(
    root: str | Path,
    *,
    channels: Sequence[str] = CHANNELS,
    need_labels: bool = False,
    ids: Iterable[str] | None = None,
    allow_outside: bool = False,
) -> list[Case]:
    """The cases of a data set, sorted by id; arguments as in `sort_cases`.

    Raises:
      ValueError: names everything that keeps a case from being used.
    """
    cases, problems, _ = sort_cases(
        root,
        channels=channels,
        need_labels=need_labels,
        ids=ids,
        allow_outside=allow_outside,
    )
    if problems:
        raise ValueError("\n".join(str(problem) for problem in problems))
    return cases


def check(
    root: str | Path,
    *,
    channels: Sequence[str] = CHANNELS,
    label_values: Sequence[int] = LABEL_VALUES,
    need_labels: bool = False,
    ids: Iterable[str] | None = None,
    allow_outside: bool = False,
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every file of a data set to its end and report all problems of all cases.

    Args:
      root: folder or manifest, see `survey`.
      channels: every case must have each of them.
      label_values: values that a label map may hold, beside 0.
      need_labels: every case must have labels.
      ids: only these cases; None: all.
      allow_outside: follow links and paths that lead out of the data set.
      num_workers: processes; None: one for each processor.
      progress: told after each case.
    """
    cases, problems, warnings = sort_cases(
        root,
        channels=channels,
        need_labels=need_labels,
        ids=ids,
        allow_outside=allow_outside,
    )
    outcomes = run_all(
        partial(_inspect, label_values=tuple(label_values)),
        cases,
        num_workers=num_workers,
        progress=progress,
        names=[case.id for case in cases],
    )
    grids: Counter[str] = Counter()
    label_voxels: Counter[int] = Counter()
    num_files = 0
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        finding = outcome.value
        problems += finding.problems
        warnings += finding.warnings
        grids.update([finding.grid] if finding.grid else [])
        label_voxels.update(finding.label_voxels)
        num_files += finding.num_files
    absent = [value for value in label_values if not label_voxels[value]]
    if absent and any(case.labels for case in cases):
        text = ", ".join(map(str, absent))
        warnings.append(Problem("", None, f"label {text} occurs in no case"))
    return CheckReport(
        root=Path(root),
        cases=tuple(cases),
        problems=tuple(sorted(problems, key=lambda p: (p.case, str(p.file)))),
        warnings=tuple(sorted(warnings, key=lambda p: (p.case, str(p.file)))),
        grids=dict(grids.most_common()),
        label_voxels=dict(sorted(label_voxels.items())),
        num_files=num_files,
    )


def _inspect(case: Case, *, label_values: tuple[int, ...]) -> Finding:
    files = {**case.images, **({LABELS: case.labels} if case.labels else {})}
    return inspect_files(case.id, files, label_values=label_values)


def _case(found: Found, channels: Sequence[str]) -> Case:
    return Case(
        id=found.id,
        patient=found.patient,
        visit=found.visit,
        images={channel: found.files[channel][0] for channel in channels},
        labels=found.files[LABELS][0] if LABELS in found.files else None,
        columns=found.columns,
    )


def _incomplete(
    found: Found, channels: Sequence[str], need_labels: bool
) -> Iterable[Problem]:
    """What is missing from a case, or there twice."""
    wanted = [*channels, LABELS] if need_labels else [*channels]
    missing = [role for role in wanted if role not in found.files]
    if missing:
        present = sorted(path.name for paths in found.files.values() for path in paths)
        expected = f"{found.id}-{'seg' if missing[0] == LABELS else missing[0]}.nii.gz"
        message = (
            f"{', '.join(missing)} missing; found {', '.join(present)}, "
            f"expected a name like {expected}"
        )
        yield Problem(found.id, None, message)
    for role in (*channels, LABELS):
        paths = found.files.get(role, [])
        if len(paths) > 1:
            both = " and ".join(map(str, paths))
            yield Problem(found.id, None, f"{role} is there twice: {both}; keep one")


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return (", ".join(listed[:5]) or "no case") + more
