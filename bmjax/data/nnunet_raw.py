"""Finds the cases of a data set in nnU-Net's raw layout, described by a dataset.json.

    Dataset001_Name/dataset.json
                    imagesTr/CASE_0000.nii.gz   one file for each channel, by number
                    labelsTr/CASE.nii.gz

The files of test cases, in imagesTs (labelsTs), are found by giving that folder.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bmjax.data.layout import (
    LABELS,
    Found,
    Problem,
    Survey,
    files_under,
    in_our_words,
    is_there,
    leaves,
    patient_and_visit,
    stem_of,
)
from bmjax.planning.nnunet import read_channels

NAME = "dataset.json"
_UNUSABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_NUMBERED = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")


def find_description(root: Path) -> Path | None:
    """The dataset.json of a data set: in its folder, or beside its imagesTr."""
    folder = root.parent if root.is_file() else root
    beside = (folder / NAME, folder.parent / NAME)
    places = beside if folder.name.startswith("images") else beside[:1]
    return next((path for path in places if path.is_file()), None)


def read_description(path: Path) -> dict[str, Any]:
    """The content of a dataset.json.

    Raises:
      ValueError: it is not JSON, or lacks the names of channels or labels.
    """
    try:
        dataset = json.loads(path.read_text(encoding="utf-8"))
        names = dataset.get("channel_names") or dataset["modality"]
        if sorted(map(int, names)) != list(range(len(names))) or not names:
            raise ValueError(f"channels numbered {', '.join(names)}, not from 0 on")
        if not all(isinstance(name, str) for name in names.values()):
            raise ValueError(f"channels named {list(names.values())}, not by text")
        if not dataset["labels"]:
            raise ValueError("no labels")
        for case, entry in dataset.get("dataset", {}).items():
            files = [*entry["images"], entry.get("label") or ""]
            if not all(isinstance(file, str) for file in files):
                raise ValueError(f"case {case} has files {files}, not paths")
    except _UNUSABLE as error:
        raise ValueError(
            f"{path}: not nnU-Net's description of a data set ({error!r}); it holds "
            'at least "channel_names" and "labels"'
        ) from error
    return dataset


def channel_names(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """Channels by our words, in order; equal names are told apart by their number."""
    names = read_channels(dataset)
    if len(set(names)) < len(names):
        names = tuple(f"{name}_{i:04d}" for i, name in enumerate(names))
    return in_our_words(names)


def has_numbered_files(root: Path) -> bool:
    """Whether a folder, or its imagesTr, holds files named after channel numbers."""
    folder = root / "imagesTr" if (root / "imagesTr").is_dir() else root
    stems = (stem_of(path) for path in folder.iterdir())
    return any(stem and _NUMBERED.fullmatch(stem) for stem in stems)


def survey_nnunet(
    root: Path, description: Path, *, allow_outside: bool = False
) -> Survey:
    """The cases of a data set, or of one of its folders of images.

    Args:
      root: the folder with imagesTr, or a folder of images.
      description: its dataset.json.
      allow_outside: follow links and paths that lead out of the data set.
    """
    dataset = read_description(description)
    channels = channel_names(dataset)
    survey = Survey()
    if "dataset" in dataset and root == description.parent:
        _read_list(survey, dataset["dataset"], channels, root, allow_outside)
        return survey
    images = root / "imagesTr" if (root / "imagesTr").is_dir() else root
    for path in files_under(images, survey, allow_outside=allow_outside):
        match = _NUMBERED.fullmatch(stem_of(path) or "")
        if match is None:
            survey.ignored.append((path, "no channel number in its name"))
            continue
        number = int(match["number"])
        if number >= len(channels):
            reason = f"no channel {number} in {description.name}"
            survey.ignored.append((path, reason))
            continue
        found = _case(survey, match["case"])
        found.files.setdefault(channels[number], []).append(path)
    labels = images.with_name(images.name.replace("images", "labels", 1))
    if labels != images and labels.is_dir():
        for path in files_under(labels, survey, allow_outside=allow_outside):
            case = stem_of(path) or ""
            if case in survey.found:
                survey.found[case].files.setdefault(LABELS, []).append(path)
            else:
                survey.ignored.append((path, f"no images {case}_0000 belong to it"))
    return survey


def _read_list(
    survey: Survey,
    listed: Mapping[str, Any],
    channels: Sequence[str],
    root: Path,
    allow_outside: bool,
) -> None:
    """The cases of a dataset.json that names each file."""
    for case, entry in listed.items():
        found = _case(survey, case)
        files = dict(zip(channels, entry["images"], strict=False))
        for role, name in {**files, LABELS: entry.get("label")}.items():
            if not name:
                continue
            path = root / name
            if not allow_outside and leaves(path, root):
                message = (
                    f"named in {NAME}, lies outside of the data folder; move it in, or "
                    "allow paths to lead outside (--allow-outside)"
                )
                survey.faults.append(Problem(case, path, message))
            elif not is_there(path):
                message = f"no such file, named in {NAME}"
                survey.faults.append(Problem(case, path, message))
            else:
                found.files[role] = [path]


def _case(survey: Survey, case: str) -> Found:
    if case not in survey.found:
        survey.found[case] = Found(case, *patient_and_visit(case))
    return survey.found[case]
