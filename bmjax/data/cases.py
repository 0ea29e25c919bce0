"""Finds the cases of a data set, whatever its layout."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bmjax.data.description import CHANNELS, describe
from bmjax.data.layout import (
    LABELS,
    Found,
    Problem,
    Survey,
    names_a_file,
    release_label_map,
    survey_folder,
)
from bmjax.data.manifest import survey_manifest
from bmjax.data.nnunet_raw import (
    channel_names,
    find_description,
    has_numbered_files,
    read_description,
    survey_nnunet,
)
from bmjax.data.reading import Reading

_NO_NAME = (
    "cannot name a case: its files are named after it; give it a name of at most 200 "
    "bytes without slashes and control characters"
)
__all__ = ["CHANNELS", "Case", "find_cases", "sort_cases", "survey"]


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
      reading: what is changed about the files while they are read.
    """

    id: str
    patient: str
    visit: str = ""
    images: Mapping[str, Path]
    labels: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    reading: Reading = Reading()

    def __post_init__(self) -> None:
        """Refuse an id by which files would be written elsewhere.

        Raises:
          ValueError: it cannot name a file.
        """
        if not names_a_file(self.id):
            raise ValueError(f"{self.id!r} {_NO_NAME}")


def survey(
    root: str | Path,
    *,
    channels: Sequence[str] | None = None,
    label_name: str = "",
    allow_outside: bool = False,
) -> Survey:
    """The files of a manifest (.csv, .tsv), of nnU-Net's layout, or of a folder.

    Args:
      root: a manifest; or a folder, whose manifest.csv goes before its files' names.
      channels: names of the wanted channels; None: those that the data set has.
      label_name: how the names of label files end, where there are several kinds.
      allow_outside: follow links and paths that lead out of the data set.

    Raises:
      FileNotFoundError: there is no such folder or file.
      ValueError: its description does not fit, or its files are named by channel
        number without one.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder or manifest")
    if root.is_file() and root.suffix.lower() not in (".csv", ".tsv"):
        raise ValueError(f"{root}: expected a folder of cases or a .csv manifest")
    description = find_description(root)
    names = CHANNELS if channels is None else tuple(channels)
    known, dataset = (), {}
    if description is not None:
        dataset = read_description(description)
        known = channel_names(dataset)
        names = tuple(dict.fromkeys((*known, *(channels or ()))))
    manifest = root if root.is_file() else root / "manifest.csv"
    if manifest.is_file():
        return survey_manifest(manifest, channels=names, allow_outside=allow_outside)
    if description is not None and (has_numbered_files(root) or "dataset" in dataset):
        absent = [name for name in channels or () if name not in known]
        if absent:
            raise ValueError(
                f"{description}: its channels are {', '.join(known)}; "
                f"{', '.join(absent)} wanted: correct its channel_names, or ask for "
                "other channels"
            )
        return survey_nnunet(root, description, allow_outside=allow_outside)
    if names and description is None and has_numbered_files(root):
        raise ValueError(
            f"{root}: its files are named by channel number (CASE_0000), but no "
            "dataset.json says which channel that is; put one into the folder, or "
            "beside imagesTr"
        )
    return survey_folder(
        root, channels=names, label_name=label_name, allow_outside=allow_outside
    )


def sort_cases(
    root: str | Path,
    *,
    channels: Sequence[str] | None = None,
    need_labels: bool = False,
    ids: Iterable[str] | None = None,
    label_name: str = "",
    reading: Reading | None = None,
    allow_outside: bool = False,
    allow_missing: bool = False,
) -> tuple[list[Case], list[Problem], list[Problem]]:
    """The complete cases of a data set, what makes others unusable, and what is odd.

    Args:
      root: folder or manifest, see `survey`.
      channels: every case must have each of them; None: those of its dataset.json, or
        t1c t1n t2f t2w.
      need_labels: every case must have labels, too.
      ids: only these cases; None: all.
      label_name: how the names of label files end, where there are several kinds.
      reading: how the files are to be taken; without a label map, the labels of BraTS
        2018 to 2021 are taken as those releases define them.
      allow_outside: follow links and paths that lead out of the data set.
      allow_missing: a case with one of the channels is complete.
    """
    root, reading = Path(root), reading or Reading()
    seen = survey(
        root, channels=channels, label_name=label_name, allow_outside=allow_outside
    )
    if channels is None:
        channels = describe(root).channels
    wanted = None if ids is None else set(ids)
    problems = list(seen.faults)
    cases = []
    for found in seen.found.values():
        present = [channel for channel in channels if channel in found.files]
        wanted_of_it = present if allow_missing and present else channels
        faults = list(_incomplete(found, wanted_of_it, need_labels))
        problems += faults
        if not faults:
            cases.append(_case(found, wanted_of_it, reading))
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
    ignored = sorted(seen.ignored)
    notes = [Problem("", path, f"not used: {reason}") for path, reason in ignored]
    cases.sort(key=lambda case: case.id)
    problems.sort(key=lambda problem: (problem.case, str(problem.file)))
    return cases, problems, notes


def find_cases(
    root: str | Path,
    *,
    channels: Sequence[str] | None = None,
    need_labels: bool = False,
    ids: Iterable[str] | None = None,
    label_name: str = "",
    reading: Reading | None = None,
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
        label_name=label_name,
        reading=reading,
        allow_outside=allow_outside,
    )
    if problems:
        raise ValueError("\n".join(str(problem) for problem in problems))
    return cases


def _case(found: Found, channels: Sequence[str], reading: Reading) -> Case:
    label_map = reading.label_map or release_label_map(found.id)
    return Case(
        id=found.id,
        patient=found.patient,
        visit=found.visit,
        images={channel: found.files[channel][0] for channel in channels},
        labels=found.files[LABELS][0] if LABELS in found.files else None,
        columns=found.columns,
        reading=replace(reading, label_map=label_map),
    )


def _incomplete(
    found: Found, channels: Sequence[str], need_labels: bool
) -> Iterable[Problem]:
    """What is missing from a case, or there twice."""
    if not names_a_file(found.id):
        yield Problem(found.id, None, _NO_NAME)
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
