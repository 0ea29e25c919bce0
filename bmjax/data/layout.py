"""Reads the channel, case, patient and visit of a scan from the names people gave it.

Understood are the BraTS releases (`BraTS-MET-00001-000/BraTS-MET-00001-000-t1c.nii.gz`,
`BraTS20_Training_001_t1ce.nii.gz`), UCSF-BMSR (`100101A/100101A_T1post.nii.gz`), BIDS
(`sub-01_ses-2_ce-gad_T1w.nii.gz`), and any folder whose files end in one of the names
below: one folder for each case, all files in one, or images and labels apart.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LABELS = "labels"
PREFERRED_LABELS = "bratsseg"
ALIASES = {
    "t1c": ("t1c", "t1ce", "t1gd", "t1gad", "t1post", "t1wce", "t1wgd", "cet1", "t1km"),
    "t1n": ("t1n", "t1", "t1w", "t1pre", "t1native"),
    "t2f": ("t2f", "flair", "fla", "t2flair", "t2wflair"),
    "t2w": ("t2w", "t2", "t2synth", "t2tse"),
    LABELS: (PREFERRED_LABELS, "seg", "label", "labels", "segmentation", "dseg"),
}
_SUFFIXES = (".nii.gz", ".nii")
_UCSF = re.compile(r"(?P<patient>\d{6})(?P<visit>[A-Z])")  # 100101A
_PATIENT_AND_VISIT = (
    re.compile(r"(?P<patient>.*\d{4,})-(?P<visit>\d{3})"),  # BraTS-MET-00001-000
    re.compile(r"(?P<patient>Brats1\d_.+)_(?P<visit>\d)", re.I),  # Brats18_2013_10_1
    _UCSF,
    re.compile(r"(?P<patient>sub-[^_]+)_ses-(?P<visit>[^_]+)"),  # BIDS
)
# BraTS wrote 4 for enhancing tumour until 2021; later 4 is the resection cavity
_ENHANCING_IS_4 = re.compile(r"brats(1[78]|19|20|2018|2019|2020|2021)_.*", re.I)


@dataclass(frozen=True)
class Problem:
    """One fault: the case, the file (None: several or none), and its repair."""

    case: str
    file: Path | None
    message: str

    def __str__(self) -> str:
        where = [text for text in (self.case, str(self.file or "")) if text]
        return ": ".join([*where, self.message])


def some_of(notes: Sequence[Problem], most: int = 8) -> list[str]:
    """The first notes, a line each, and how many more there are."""
    lines = [str(note) for note in notes[:most]]
    if len(notes) > most:
        lines.append(
            f"and {len(notes) - most} more such files; `bmjax check` lists all"
        )
    return lines


@dataclass
class Found:
    """The files that belong to one case, not yet judged.

    Attributes:
      id: name of the case.
      patient: whose scan it is.
      visit: which of the patient's scans, empty where the name does not say.
      files: by channel (or `labels`), every file that claims to be it.
      columns: free facts about the case, from a manifest.
    """

    id: str
    patient: str
    visit: str
    files: dict[str, list[Path]] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)


@dataclass
class Survey:
    """What was found under a root, and what could not be used.

    Attributes:
      found: by case id.
      faults: what makes a case unusable.
      ignored: (path, reason) of what was left aside.
    """

    found: dict[str, Found] = field(default_factory=dict)
    faults: list[Problem] = field(default_factory=list)
    ignored: list[tuple[Path, str]] = field(default_factory=list)


def patient_and_visit(case: str) -> tuple[str, str]:
    """Whose scan it is and which of them; the case itself where its name is silent."""
    for pattern in _PATIENT_AND_VISIT:
        match = pattern.fullmatch(case)
        if match:
            return match["patient"], match["visit"]
    return case, ""


def release_label_map(case: str) -> tuple[tuple[int, int], ...]:
    """What the labels of a case must be mapped by, as its release documents it."""
    return ((4, 3),) if _ENHANCING_IS_4.fullmatch(case) else ()


def roles(channels: Sequence[str]) -> dict[str, str]:
    """From a file's last word, in lower case and without separators, to its channel."""
    by_word = {word: role for role, words in ALIASES.items() for word in words}
    return by_word | {word_of(channel): channel for channel in channels}


def in_our_words(channels: Sequence[str]) -> tuple[str, ...]:
    """Channel names by our words where they are known ones: `T1Gd` is `t1c`.

    They stay as they are, in lower case, where two would become the same.
    """
    names = tuple(channel.lower() for channel in channels)
    known = {word: role for word, role in roles(()).items() if role != LABELS}
    ours = tuple(known.get(word_of(name), name) for name in names)
    return ours if len(set(ours)) == len(ours) else names


def survey_folder(
    root: Path,
    *,
    channels: Sequence[str],
    label_name: str = "",
    allow_outside: bool = False,
) -> Survey:
    """Every scan under a folder, by case.

    Args:
      root: searched with its subfolders; names that begin with a dot are passed over.
      channels: names of the wanted channels, beside those known by their aliases.
      label_name: how the names of label files end, where there are several kinds.
      allow_outside: follow links that lead out of the folder.
    """
    survey = Survey()
    by_word = roles(channels)
    if label_name:
        by_word[word_of(label_name)] = LABELS
    label_words: dict[Path, str] = {}
    for path in files_under(root, survey, allow_outside=allow_outside):
        stem = stem_of(path) or ""
        split = _split_bids if stem.startswith("sub-") else _split
        case, role, word = split(stem, by_word)
        if role is None:
            survey.ignored.append((path, "no known channel in its name"))
            continue
        case = case or path.parent.resolve().name
        if case not in survey.found:
            survey.found[case] = Found(case, *patient_and_visit(case))
        survey.found[case].files.setdefault(role, []).append(path)
        if role == LABELS:
            label_words[path] = word
    _choose_labels(survey, label_words, word_of(label_name))
    return survey


def _choose_labels(survey: Survey, words: dict[Path, str], wanted: str) -> None:
    """Keep the label files of one convention where a release has two."""
    has_preferred = PREFERRED_LABELS in words.values()
    for found in survey.found.values():
        files = found.files.get(LABELS, [])
        here = {words[path] for path in files}
        if wanted:
            kept, reason = wanted, f"labels by another name than {wanted}"
        elif PREFERRED_LABELS in here:
            kept, reason = PREFERRED_LABELS, "labels in the BraTS convention preferred"
        elif has_preferred and _UCSF.fullmatch(found.id):
            kept = PREFERRED_LABELS
            reason = (
                "one label for all, unlike the BraTS-seg of other cases; to take this "
                "kind for every case: --label-name seg --labels lesion"
            )
        else:
            continue
        survey.ignored += [(path, reason) for path in files if words[path] != kept]
        files = [path for path in files if words[path] == kept]
        if files:
            found.files[LABELS] = files
        else:
            found.files.pop(LABELS, None)


def stem_of(path: Path) -> str | None:
    """A volume's name without .nii or .nii.gz; None for other files."""
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return None


def names_a_file(case: str) -> bool:
    """Whether a case's id can be the name of its files, and leads to no other folder.

    Two hundred bytes leave room for what is put before and after it.
    """
    is_plain = case.isprintable() and not set(case) & {"/", "\\"}
    return is_plain and case not in ("", ".", "..") and len(case.encode()) <= 200


def is_there(path: Path) -> bool:
    """Whether there is such a file; there is none of a name that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def leaves(path: Path, root: Path) -> bool:
    """Whether a path leads, links followed, out of root, or nowhere at all."""
    try:
        return not path.resolve().is_relative_to(root.resolve())
    except (ValueError, RuntimeError):  # a null byte, links in a circle
        return True


def _split(stem: str, by_word: dict[str, str]) -> tuple[str, str | None, str]:
    """Case, channel and the word that names it: the longest known end of a stem."""
    starts = [0, *(match.end() for match in re.finditer(r"[-_. ]+", stem))]
    for start in starts[-3:]:
        word = word_of(stem[start:])
        if word in by_word:
            return stem[:start].rstrip("-_. "), by_word[word], word
    return stem, None, ""


def _split_bids(stem: str, by_word: dict[str, str]) -> tuple[str, str | None, str]:
    """Subject and session, channel, and the suffix that names it.

    Contrast agent is an entity of its own (`ce-gad`); labels are a `dseg`, or a mask
    or region of interest of the `label-lesion`.
    """
    *parts, suffix = stem.split("_")
    entities = dict(part.split("-", 1) for part in parts if "-" in part)
    case = "_".join(p for p in parts if p.startswith(("sub-", "ses-")))
    word = word_of(suffix)
    if word in ("mask", "roi") and entities.get("label", "").lower() == "lesion":
        return case, LABELS, word
    role = by_word.get(word)
    if role == "t1n" and entities.get("ce", "none").lower() not in ("none", "no"):
        role = "t1c"
    return case, role, word


def word_of(name: str) -> str:
    """A name in lower case, without separators."""
    return re.sub(r"[-_. ]+", "", name).lower()


def files_under(
    root: Path, survey: Survey, *, allow_outside: bool = False
) -> Iterator[Path]:
    """The volumes under a folder, in the order of their names.

    Args:
      root: searched with its subfolders, without names that begin with a dot.
      survey: gets links that dangle or lead outside as faults.
      allow_outside: follow links that lead out of the folder.
    """
    seen = {root.resolve()}
    for folder, names, files in os.walk(root, followlinks=True):
        kept = []
        for name in sorted(names):
            path = Path(folder, name)
            real = path.resolve()
            if name.startswith(".") or real in seen:
                continue
            if path.is_symlink() and not allow_outside and leaves(path, root):
                survey.faults.append(Problem(name, path, _OUTSIDE.format(real)))
                continue
            seen.add(real)
            kept.append(name)
        names[:] = kept
        for name in sorted(files):
            path = Path(folder, name)
            if name.startswith(".") or stem_of(path) is None:
                continue
            if path.is_symlink() and not path.exists():
                message = f"a link to {os.readlink(path)}, which does not exist"
                survey.faults.append(Problem(path.parent.name, path, message))
            elif path.is_symlink() and not allow_outside and leaves(path, root):
                message = _OUTSIDE.format(path.resolve())
                survey.faults.append(Problem(path.parent.name, path, message))
            else:
                yield path


_OUTSIDE = (
    "a link to {}, outside of the data folder; copy it, or allow links to lead outside"
)
