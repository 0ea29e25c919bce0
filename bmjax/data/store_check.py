"""Verifies a store: every array is the one that was written, and fits all that is said.

Hashes find damage on disk; beyond them, shapes are compared with plan and geometry, and
the index of regions and lesions is made again from the labels.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bmjax.data.geometry import Geometry
from bmjax.data.index import index_lesions, region_locations
from bmjax.data.layout import Problem
from bmjax.data.parallel import Progress, run_all
from bmjax.data.soundness import count_labels
from bmjax.data.store import Store, array_facts
from bmjax.planning import Plan


@dataclass(frozen=True, kw_only=True)
class StoreReport:
    """What `check_store` found, sorted by case.

    Attributes:
      root: the store.
      num_cases: that it lists.
      num_bytes: of all arrays, read to their end.
      problems: what makes it unfit to train on.
      warnings: what should be known.
    """

    root: Path
    num_cases: int
    num_bytes: int
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        entries = {"problems": self.problems, "warnings": self.warnings}
        return {
            "root": str(self.root),
            "ok": self.ok,
            "num_cases": self.num_cases,
            "num_bytes": self.num_bytes,
        } | {
            name: [
                {"case": entry.case, "file": str(entry.file), "message": entry.message}
                for entry in found
            ]
            for name, found in entries.items()
        }

    def __str__(self) -> str:
        size = f"{self.num_bytes / 2**30:.2f} GiB"
        lines = [f"{self.root}: a store of {self.num_cases} cases, {size} read"]
        for name, found in (("warning", self.warnings), ("problem", self.problems)):
            lines += [f"{name}: {entry}" for entry in found]
        lines.append(
            "no problem found"
            if self.ok
            else "remove the folders of these cases and run `bmjax prepare` again, "
            "which keeps the others"
        )
        return "\n".join(lines)


def is_store(path: Path) -> bool:
    """Whether a folder was made by `prepare`, be it complete or not."""
    return (path / "plan.json").is_file() and (path / "cases").is_dir()


def check_store(
    store: str | Path,
    *,
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> StoreReport:
    """Read a store to its end and report all problems of all cases.

    Args:
      store: folder made by `prepare`.
      num_workers: processes; None: one for each processor.
      progress: told after each case.

    Raises:
      FileNotFoundError: it is not complete.
      ValueError: it was written by another version.
    """
    root = Path(store)
    opened = Store(root)
    outcomes = run_all(
        partial(_inspect, folder=root / "cases", plan=opened.plan),
        opened.ids,
        num_workers=num_workers,
        progress=progress,
        names=opened.ids,
    )
    problems: list[Problem] = []
    warnings: list[Problem] = []
    num_bytes = 0
    for case, outcome in zip(opened.ids, outcomes, strict=True):
        if outcome.error is not None:
            problems.append(Problem(case, root / "cases" / case, str(outcome.error)))
            continue
        faults, remarks, size = outcome.value
        problems += faults
        warnings += remarks
        num_bytes += size
    listed = set(opened.ids)
    for folder in sorted((root / "cases").iterdir()):
        if folder.name not in listed:
            text = "not a case of this store, left by another run; it is not used"
            warnings.append(Problem("", folder, text))
    return StoreReport(
        root=root,
        num_cases=len(opened.ids),
        num_bytes=num_bytes,
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def _inspect(
    case: str, *, folder: Path, plan: Plan
) -> tuple[list[Problem], list[Problem], int]:
    """Problems and warnings of one case, and the bytes that were read."""
    facts = json.loads((folder / case / "case.json").read_text(encoding="utf-8"))
    problems, arrays = [], {}
    for name, expected in facts["arrays"].items():
        path = folder / case / name
        try:
            arrays[name] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            problems.append(Problem(case, path, f"cannot be read: {error}"))
            continue
        found = array_facts(arrays[name])
        for fact, want in expected.items():
            if found[fact] != want:
                message = f"{fact} {found[fact]} where {want} was written"
                problems.append(Problem(case, path, message))
    if not problems:
        texts = _contradictions(facts, arrays, plan, folder / case)
        problems = [Problem(case, folder / case / name, text) for name, text in texts]
    warnings = []
    for source in facts["sources"].values():
        path = Path(source["path"])
        if not path.is_file():
            warnings.append(Problem(case, path, "its source is not there any more"))
        elif path.stat().st_size != source["size_bytes"]:
            text = "its source has changed since; run `bmjax prepare` again"
            warnings.append(Problem(case, path, text))
    return problems, warnings, sum(array.nbytes for array in arrays.values())


def _contradictions(
    facts: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    plan: Plan,
    folder: Path,
) -> list[tuple[str, str]]:
    """File and fault, where whole arrays do not fit the plan or each other."""
    faults = []
    if facts["plan_digest"] != plan.digest():
        text = f"prepared by plan {facts['plan_digest']}, the store's is "
        faults.append(("case.json", text + plan.digest()))
    geometry = Geometry.from_dict(facts["geometry"])
    image, size = arrays["image.npy"], geometry.size_after_resampling
    if image.shape != (*size, len(plan.channels)):
        text = f"{image.shape} where the geometry says {size} and the plan "
        faults.append(("image.npy", text + f"{len(plan.channels)} channels"))
    if not np.isfinite(image.sum(dtype=np.float64)):
        faults.append(("image.npy", "holds NaN or infinite values"))
    if "labels.npy" not in arrays:
        return faults
    labels = arrays["labels.npy"]
    if labels.shape != size:
        faults.append(("labels.npy", f"{labels.shape} where the image has {size}"))
    known = {0, *(value for _, value in plan.labels)}
    odd = sorted(set(count_labels(labels)) - known)
    if odd:
        faults.append(("labels.npy", f"values {odd} that the plan does not know"))
    locations = np.concatenate(
        list(region_locations(labels, dict(plan.regions)).values())
    )
    if not np.array_equal(locations, arrays["locations.npy"]):
        faults.append(("locations.npy", "not the regions of its labels"))
    lesions = index_lesions(labels, spacing_mm=geometry.new_spacing_mm)
    written = json.loads((folder / "lesions.json").read_text(encoding="utf-8"))
    if lesions.facts != written or not np.array_equal(
        lesions.voxels, arrays["lesion_voxels.npy"]
    ):
        faults.append(("lesions.json", "not the lesions of its labels"))
    return faults
