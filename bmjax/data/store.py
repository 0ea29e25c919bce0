"""Keeps prepared cases on disk, one folder each, to be memory-mapped by many readers.

    STORE/store.json              version, plan digest, patient and visit of each case
    STORE/plan.json               the plan that all cases were prepared by
    STORE/fingerprint.json        what the plan was made from, if it was measured
    STORE/cases/CASE/image.npy    z y x c, float32 or float16
                     labels.npy   z y x, int8
                     locations.npy      voxels of each region, see case.json
                     lesions.json       facts of each lesion
                     lesion_voxels.npy  voxels of each lesion, see lesions.json
                     case.json    geometry, free columns, hashes of sources and arrays

A case's folder appears under its name once it is complete; store.json comes last.
"""

import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int8, Int32

from bmjax import __version__
from bmjax.data.cases import Case
from bmjax.data.geometry import Geometry
from bmjax.data.index import index_lesions, region_locations
from bmjax.data.layout import LABELS
from bmjax.data.parallel import Progress, require_all, run_all
from bmjax.data.preprocess import preprocess
from bmjax.data.reading import Reading
from bmjax.data.streams import remove_unfinished, write_pieces
from bmjax.locks import held
from bmjax.planning import Plan

VERSION = 2
Precision = Literal["float32", "float16"]
TEMPORARY = ".tmp-"
# numpy parses a file's header with `ast`, in which two threads of CPython 3.11 disturb
# each other (python/cpython#106905)
_PARSING = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class StoredCase:
    """One prepared case; its arrays are memory-mapped.

    Attributes:
      id: of the case.
      patient: whose scan it is.
      visit: which of the patient's scans.
      columns: free facts from the manifest.
      source: the case's own files, where they were when it was prepared.
      image: normalised channels on the plan's grid, float32 or float16.
      labels: on the same grid; None for a case without.
      voxels: up to 10,000 voxels (or 1 %) of each region, z y x; empty where absent.
      lesions: facts of each lesion, see `index.Lesions`.
      lesion_voxels: voxels of each lesion, lesion after lesion.
      geometry: the way back to the scanner's grid.
      warnings: what was odd in preparation.
    """

    id: str
    patient: str
    visit: str
    columns: Mapping[str, str]
    source: Case
    image: Float[np.ndarray, "z y x c"]
    labels: Int8[np.ndarray, "z y x"] | None
    voxels: Mapping[str, Int32[np.ndarray, "_ 3"]]
    lesions: Sequence[Mapping[str, Any]]
    lesion_voxels: Int32[np.ndarray, "n 3"]
    geometry: Geometry
    warnings: tuple[str, ...]


class Store:
    """A folder of prepared cases.

    Holds paths and names only, so that it can be sent to other processes.

    Args:
      path: folder made by `prepare_store`.

    Raises:
      FileNotFoundError: there is no complete store.
      ValueError: it was written by another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "store.json").is_file():
            raise FileNotFoundError(
                f"{self.path}: no complete store here; run `bmjax prepare` (again)"
            )
        facts = _read_json(self.path / "store.json")
        if facts["version"] != VERSION:
            raise ValueError(
                f"{self.path}: a store of version {facts['version']}, this program "
                f"reads version {VERSION}; prepare it again"
            )
        self.plan = Plan.from_dict(_read_json(self.path / "plan.json"))
        self.ids: tuple[str, ...] = tuple(facts["cases"])
        self.patients: dict[str, str] = {
            case: entry["patient"] for case, entry in facts["cases"].items()
        }

    @property
    def fingerprint(self) -> dict[str, Any] | None:
        """What the plan was made from; None if it was given."""
        path = self.path / "fingerprint.json"
        return _read_json(path) if path.is_file() else None

    def case(self, case: str) -> StoredCase:
        """One case by its id.

        Raises:
          KeyError: the store has no such case.
        """
        if case not in self.patients:
            raise KeyError(f"{self.path}: no case {case}")
        return _open(self.path / "cases" / case)

    def digest(self, case: str) -> str:
        """Short hash of the files that a case was prepared from, and of the plan."""
        facts = _read_json(self.path / "cases" / case / "case.json")
        text = json.dumps(_essence(facts), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def prepare_store(
    cases: Sequence[Case],
    plan: Plan,
    store: str | Path,
    *,
    fingerprint: Mapping[str, Any] | None = None,
    dtype: Precision = "float32",
    num_workers: int | None = None,
    timeout_s: float | None = None,
    progress: Progress | None = None,
) -> Store:
    """Preprocess cases into a store; those already there and unchanged are kept.

    Args:
      cases: all that the store shall list.
      plan: how they are preprocessed.
      store: folder, made where it is missing.
      fingerprint: what the plan was made from, to be kept beside it.
      dtype: of the images; float16 takes half the space, and readers get float32.
      num_workers: processes; None: one for each processor.
      timeout_s: longest wait for the next case of a process [s]; None: for ever.
      progress: told after each case.

    Raises:
      ValueError: lists all cases that could not be prepared; the others are done.
    """
    with held(Path(store), doing="preparing", otherwise="choose another folder"):
        return fill_store(
            cases,
            plan,
            Path(store),
            fingerprint=fingerprint,
            dtype=dtype,
            num_workers=num_workers,
            timeout_s=timeout_s,
            progress=progress,
        )


def fill_store(
    cases: Sequence[Case],
    plan: Plan,
    store: Path,
    *,
    fingerprint: Mapping[str, Any] | None = None,
    dtype: Precision = "float32",
    num_workers: int | None = None,
    timeout_s: float | None = None,
    progress: Progress | None = None,
) -> Store:
    """As `prepare_store`, for a caller that holds the folder."""
    folder = store / "cases"
    names = [case.id for case in cases]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{store}: case {', '.join(twice)} given twice")
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(left)
    remove_unfinished(store, within="tree")
    (store / "store.json").unlink(missing_ok=True)
    _write_json(store / "plan.json", plan.to_dict())
    if fingerprint is not None:
        _write_json(store / "fingerprint.json", fingerprint)
    else:
        (store / "fingerprint.json").unlink(missing_ok=True)
    outcomes = run_all(
        partial(prepare_case, plan=plan, folder=folder, dtype=dtype),
        cases,
        num_workers=num_workers,
        timeout_s=timeout_s,
        progress=progress,
        names=names,
    )
    require_all(outcomes, names, "be prepared (the others are kept)")
    facts = {
        "version": VERSION,
        "plan_digest": plan.digest(),
        "cases": {
            case.id: {"patient": case.patient, "visit": case.visit}
            for case in sorted(cases, key=lambda case: case.id)
        },
    }
    _write_json(store / "store.json", facts)
    return Store(store)


def prepare_case(case: Case, *, plan: Plan, folder: Path, dtype: Precision) -> None:
    """Write a case's folder into another, unless it is there and up to date."""
    target = folder / case.id
    made_from = {
        "version": VERSION,
        "id": case.id,
        "patient": case.patient,
        "visit": case.visit,
        "columns": dict(case.columns),
        "reading": case.reading.to_dict(),
        "plan_digest": plan.digest(),
        "dtype": dtype,
        "sources": _sources(case, plan),
    }
    if (target / "case.json").is_file():
        facts = _read_json(target / "case.json")
        if _essence(facts) == _essence(made_from):
            if facts["sources"] != made_from["sources"]:  # same files, moved
                facts["sources"] = made_from["sources"]
                facts["geometry"]["source"] = str(
                    case.reading.source(case.images, plan.channels[0])
                )
                _write_json(target / "case.json", facts)
            return
    prepared = preprocess(case, plan)
    image = _as_dtype(case.id, prepared.image, dtype)
    part = folder / f"{TEMPORARY}{case.id[:100]}-{secrets.token_hex(4)}"
    part.mkdir()
    regions = {}
    arrays = {"image.npy": image}
    if prepared.labels is not None:
        locations = region_locations(prepared.labels, dict(plan.regions))
        regions = _rows(locations)
        spacing_mm = prepared.geometry.new_spacing_mm
        lesions = index_lesions(prepared.labels, spacing_mm=spacing_mm)
        arrays |= {
            "labels.npy": prepared.labels,
            "locations.npy": np.concatenate(list(locations.values())),
            "lesion_voxels.npy": lesions.voxels,
        }
        _write_json(part / "lesions.json", lesions.facts)
    facts = {
        **made_from,
        "bmjax": __version__,
        "geometry": prepared.geometry.to_dict(),
        "regions": regions,
        "arrays": {name: _save(part / name, array) for name, array in arrays.items()},
        "warnings": list(prepared.warnings),
    }
    _write_json(part / "case.json", facts)
    if target.exists():
        old = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        target.rename(old)
        part.rename(target)
        shutil.rmtree(old)
    else:
        part.rename(target)


def _sources(case: Case, plan: Plan) -> dict[str, dict[str, Any]]:
    files = {channel: case.images.get(channel) for channel in plan.channels}
    files[LABELS] = case.labels
    sources = {}
    for role, path in files.items():
        if path is not None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = path.stat().st_size
            sources[role] = {
                "path": str(path.absolute()),
                "size_bytes": size,
                "sha256": digest,
            }
    return sources


def _essence(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a prepared case depends on; not where its sources lie."""
    names = ("version", "id", "patient", "visit", "columns", "reading", "plan_digest")
    names += ("dtype",)
    hashes = {role: source["sha256"] for role, source in facts["sources"].items()}
    return {"sources": hashes, **{name: facts.get(name) for name in names}}


def _open(folder: Path) -> StoredCase:
    facts = _read_json(folder / "case.json")
    has_labels = (folder / "labels.npy").is_file()
    voxels, lesions = {}, []
    lesion_voxels = np.zeros((0, 3), np.int32)
    if has_labels:
        locations = _map(folder / "locations.npy")
        voxels = {k: locations[slice(*rows)] for k, rows in facts["regions"].items()}
        lesions = _read_json(folder / "lesions.json")
        lesion_voxels = _map(folder / "lesion_voxels.npy")
    files = {role: Path(source["path"]) for role, source in facts["sources"].items()}
    labels_path = files.pop(LABELS, None)
    who = {name: facts[name] for name in ("id", "patient", "visit", "columns")}
    return StoredCase(
        **who,
        source=Case(
            **who,
            images=files,
            labels=labels_path,
            reading=Reading.from_dict(facts["reading"]),
        ),
        image=_map(folder / "image.npy"),
        labels=_map(folder / "labels.npy") if has_labels else None,
        voxels=voxels,
        lesions=lesions,
        lesion_voxels=lesion_voxels,
        geometry=Geometry.from_dict(facts["geometry"]),
        warnings=tuple(facts["warnings"]),
    )


def _map(path: Path) -> np.ndarray:
    mode = "r" if os.path.getsize(path) > 128 else None  # a header cannot be mapped
    with _PARSING:
        return np.load(path, mmap_mode=mode, allow_pickle=False)


def _as_dtype(
    case: str, image: Float[np.ndarray, "z y x c"], dtype: Precision
) -> Float[np.ndarray, "z y x c"]:
    if dtype == "float32":
        return np.ascontiguousarray(image)
    largest = max(-image.min(), image.max())
    if largest > np.finfo(dtype).max:
        raise ValueError(
            f"{case}: a value of {largest:g} does not fit {dtype}; prepare as float32"
        )
    return image.astype(dtype, order="C")


def _rows(
    locations: Mapping[str, Int32[np.ndarray, "_ 3"]],
) -> dict[str, tuple[int, int]]:
    """Where the voxels of each region lie, one region after the other."""
    stops = np.cumsum([len(voxels) for voxels in locations.values()]).tolist()
    pairs = zip([0, *stops[:-1]], stops, strict=True)
    return dict(zip(locations, pairs, strict=True))


def array_facts(array: np.ndarray) -> dict[str, Any]:
    """By which a stored array is known again."""
    # a view of bytes, which an empty array has as well
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    digest = hashlib.sha256(content.data)
    return {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "sha256": digest.hexdigest(),
    }


def _save(path: Path, array: np.ndarray) -> dict[str, Any]:
    try:
        with path.open("xb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # of a full disk numpy tells two numbers and no name
        remedy = "make room on its disk, and run the same command again"
        text = f"{path.name} could not be written whole ({error}); {remedy}"
        raise OSError(text) from error
    return array_facts(array)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, values: Any) -> None:
    text = json.dumps(values, indent=1, ensure_ascii=False)
    write_pieces(path, [text.encode() + b"\n"])
