"""Exams as axial slices of one size: written once, then streamed slice by slice.

The study's steps in its order: whole exam scaled channel by channel, every slice
resized to a square. A slice is read from its file when a batch needs it, so that memory
does not grow with the number of exams.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float16, Int8

from bmjax.data import streams
from bmjax.data.cases import Case
from bmjax.data.cropping import read_cropped
from bmjax.data.normalise import normalise
from bmjax.data.resample import resample, resample_labels

CHANNELS = ("t1n", "t2w", "t1c", "t2f")  # the study's order: T1, T2, T1c, FLAIR
CLASSES = ("NETC", "SNFH", "ET")  # labels 1, 2, 3
Scaling = Literal["unit", "zscore"]
_SCHEMES: dict[Scaling, str] = {"unit": "rescale_to_0_1", "zscore": "zscore"}


@dataclass(frozen=True, kw_only=True)
class Slicing:
    """How exams become slices.

    Attributes:
      size: rows and columns of a slice [pixel].
      every: keep one slice in so many, from the lowest on.
      first: lowest slice that is kept.
      stop: slice to stop before; None keeps all above. The notebooks keep 22 to 121.
      scaling: `unit` maps the range of each channel of an exam to 0 to 1; `zscore`
        gives it mean 0 and spread 1. The paper names both.
      binary: all labels as one class, metastasis.
    """

    size: int = 256
    every: int = 1
    first: int = 0
    stop: int | None = None
    scaling: Scaling = "unit"
    binary: bool = False


@dataclass(frozen=True)
class Exam:
    """An exam as stored.

    Attributes:
      id: of the case.
      patient: whose exam it is.
      num_slices: how many are kept.
      labelled: pixels with a label, of each slice.
      largest_label: largest label value; 0 for none.
    """

    id: str
    patient: str
    num_slices: int
    labelled: tuple[int, ...]
    largest_label: int


def cut_exam(
    case: Case, slicing: Slicing
) -> tuple[Float16[np.ndarray, "n y x c"], Int8[np.ndarray, "n y x"]]:
    """Slices of one exam, with their labels.

    Half precision keeps 11 bits, more than the 8 of the pictures that the published
    code makes, and halves the disk.

    Raises:
      ValueError: a file is damaged, files do not fit each other, labels are missing or
        unknown, or no slice lies in the range.
    """
    # enhancing tumour is 3; readings map BraTS' older 4 before
    values = None if slicing.binary else (1, 2, 3)
    raw = read_cropped(case, channels=CHANNELS, label_values=values)
    if raw.labels is None:
        raise ValueError(f"{case.id}: has no labels to train with")
    kept = range(raw.size[0])[slicing.first : slicing.stop : slicing.every]
    if not kept:
        raise ValueError(
            f"{case.id}: none of its {raw.size[0]} slices lies in the range from "
            f"{slicing.first} to {slicing.stop}; widen it"
        )
    box = tuple(
        slice(s, s + n) for s, n in zip(raw.start, raw.brain.shape, strict=True)
    )
    size = (len(kept), slicing.size, slicing.size)
    image = np.empty((*size, len(CHANNELS)), np.float16)
    for i in range(len(CHANNELS)):
        whole = np.zeros(raw.size, np.float32)
        whole[box] = raw.images[i]
        scaled = normalise(whole, scheme=_SCHEMES[slicing.scaling])[kept]
        image[..., i] = resample(np.ascontiguousarray(scaled), size, kind="linear")
    labels = np.zeros(raw.size, np.int8)
    labels[box] = raw.labels > 0 if slicing.binary else raw.labels
    labels = resample_labels(np.ascontiguousarray(labels[kept]), size)
    return image, labels


class SliceStore:
    """Slices of many exams on disk: two files for each, and `index.json`.

    Args:
      folder: made by `write_slices`.
    """

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        self.folder = folder
        self.slicing = Slicing(**index["slicing"])
        self.exams = {
            facts["id"]: Exam(**{**facts, "labelled": tuple(facts["labelled"])})
            for facts in index["exams"]
        }

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the label values from 1 on; where none exceeds 1, one class."""
        largest = max(exam.largest_label for exam in self.exams.values())
        return CLASSES if largest > 1 else ("metastasis",)

    @property
    def patients(self) -> dict[str, str]:
        """Exam id -> patient."""
        return {exam.id: exam.patient for exam in self.exams.values()}

    def image(self, exam: str, index: int) -> Float[np.ndarray, "y x c"]:
        """One slice, read alone."""
        return _row(self.folder / f"{exam}.image.npy", index).astype(np.float32)

    def labels(self, exam: str, index: int) -> Int8[np.ndarray, "y x"]:
        """Its labels."""
        return _row(self.folder / f"{exam}.labels.npy", index)

    def pairs(self, ids: Sequence[str]) -> list[tuple[str, int]]:
        """Exam and number of every slice, in order."""
        return [(id_, i) for id_ in ids for i in range(self.exams[id_].num_slices)]

    def in_order(
        self, ids: Sequence[str], *, batch_size: int
    ) -> Iterator[dict[str, Any]]:
        """Every slice once; the last batch may be smaller."""
        return self._batches(self.pairs(ids), batch_size)

    def shuffled(
        self, ids: Sequence[str], *, batch_size: int, seed: int, epoch: int
    ) -> Iterator[dict[str, Any]]:
        """Every slice once in an order that seed and epoch decide, in whole batches.

        Raises:
          ValueError: there are fewer slices than a batch has.
        """
        pairs = self.pairs(ids)
        if len(pairs) < batch_size:
            raise ValueError(
                f"{len(pairs)} training slices do not fill a batch of {batch_size}; "
                "lower the batch size or keep more slices"
            )
        order = np.random.default_rng((seed, epoch)).permutation(len(pairs))
        whole = len(pairs) // batch_size * batch_size
        return self._batches([pairs[i] for i in order[:whole]], batch_size)

    def _batches(
        self, pairs: Sequence[tuple[str, int]], batch_size: int
    ) -> Iterator[dict[str, Any]]:
        for start in range(0, len(pairs), batch_size):
            part = pairs[start : start + batch_size]
            yield {
                "image": np.stack([self.image(*pair) for pair in part]),
                "labels": np.stack([self.labels(*pair) for pair in part]),
                "exams": [exam for exam, _ in part],
            }


def write_slices(
    cases: Sequence[Case],
    folder: Path,
    slicing: Slicing,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> SliceStore:
    """Cut all exams; a store that holds the same ones by the same rules is kept.

    Args:
      cases: exams with labels.
      folder: made if absent; its index appears when all is written.
      slicing: how to cut.
      progress: told after each exam: done, in all, its id.

    Raises:
      ValueError: an exam cannot be used; nothing of it is left behind.
    """
    path = folder / "index.json"
    sources = {case.id: _fingerprint(case) for case in cases}
    if path.is_file():
        known = json.loads(path.read_text())
        if known["slicing"] == asdict(slicing) and known["sources"] == sources:
            return SliceStore(folder)
        path.unlink()
    exams = []
    for done, case in enumerate(cases, start=1):
        image, labels = cut_exam(case, slicing)
        _write(folder / f"{case.id}.image.npy", image)
        _write(folder / f"{case.id}.labels.npy", labels)
        labelled = tuple(np.count_nonzero(labels, axis=(1, 2)).tolist())
        largest = int(labels.max())
        exams.append(Exam(case.id, case.patient, len(labels), labelled, largest))
        if progress is not None:
            progress(done, len(cases), case.id)
    index = {
        "slicing": asdict(slicing),
        "sources": sources,
        "exams": [*map(asdict, exams)],
    }
    streams.write_pieces(path, [json.dumps(index, indent=1).encode()])
    return SliceStore(folder)


def _fingerprint(case: Case) -> Mapping[str, Any]:
    """The files of an exam with their sizes: another file makes another store."""
    files = [case.images[channel] for channel in CHANNELS]
    files += [case.labels] if case.labels is not None else []
    return {str(path): path.stat().st_size for path in files}


def _write(path: Path, array: np.ndarray) -> None:
    """Write an array under a hidden name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    with part.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    part.replace(path)


def _row(path: Path, index: int) -> np.ndarray:
    # mapped for this one read: pages of other slices never count as ours
    return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[index])
