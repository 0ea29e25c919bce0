"""The record of a prediction run: which cases were asked for, and what became of each.

`predict.json` is rewritten, whole, after every case, so that an interrupted run goes on
where it stopped and an evaluation knows what is missing. A finished case stays finished
as long as network, plan, settings and input files are the same.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bmjax import __version__
from bmjax.data import streams
from bmjax.data.cases import Case
from bmjax.inference.outputs import Outputs
from bmjax.inference.windows import SlidingWindow
from bmjax.planning.plan import Plan

NAME = "predict.json"
_SAME_TO_ROUNDING = ("batch_size", "empty")


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What became of one case.

    Attributes:
      case: its id.
      path: its label file.
      seconds: spent on this case alone, from reading to writing [s].
      error: why it failed; None if it did not.
      volumes_ml: volume of each predicted region [ml].
      files: those written beside the label file.
      warnings: what was odd about the input, and what was changed about the result.
      is_kept: an earlier run finished it.
    """

    case: str
    path: Path
    seconds: float = 0.0
    error: str | None = None
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    is_kept: bool = False


def model_digest(forward: Callable[..., Any]) -> str:
    """Sixteen digits that tell one set of parameters from another.

    A plain function shows none of its parameters, so it equals no other, not even
    itself in a later run.
    """
    leaves = jax.tree_util.tree_flatten_with_path(forward)[0]
    arrays = [(path, leaf) for path, leaf in leaves if hasattr(leaf, "dtype")]
    if not arrays:
        return f"unnamed-{secrets.token_hex(8)}"
    digest = hashlib.sha256()
    for path, leaf in arrays:
        values = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {values.dtype} ".encode())
        digest.update(f"{values.shape} ".encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]


class Record:
    """The cases of a run and their outcomes, kept in step with `predict.json`."""

    def __init__(
        self,
        out: Path,
        *,
        run: dict[str, Any],
        inputs: dict[str, list[list[int]]],
        images: dict[str, dict[str, str]],
        results: dict[str, CaseResult | None],
        others: list[dict[str, Any]],
    ) -> None:
        self._out = out
        self._run = run
        self._inputs = inputs
        self._images = images
        self._results = results
        self._others = others
        self._write()

    @classmethod
    def open(
        cls,
        out: Path,
        *,
        cases: Sequence[Case],
        unusable: Mapping[str, str],
        model: str,
        plan: Plan,
        settings: SlidingWindow,
        outputs: Outputs,
        overwrite: bool,
    ) -> "Record":
        """Begin a run, or go on with the one that the folder holds.

        Raises:
          ValueError: two cases share an id, or the folder holds other predictions.
        """
        if "" in unusable:  # a fault of the data set, not of one case
            raise ValueError(unusable[""])
        _require_names([case.id for case in cases])
        run = {
            "bmjax": __version__,
            "model": model,
            "plan": plan.digest(),
            "settings": json.loads(json.dumps(asdict(settings))),
            "outputs": json.loads(json.dumps(asdict(outputs))),
        }
        streams.remove_unfinished(out)
        earlier = _read(out / NAME)
        if not overwrite:
            _require_same(out, run, earlier, [case.id for case in cases])
        is_same = earlier is not None and _identity(earlier) == _identity(run)
        entries = (
            {e["case"]: e for e in earlier["cases"]} if earlier and is_same else {}
        )
        inputs = {case.id: _inputs(case) for case in cases}
        images = {
            case.id: {c: str(path.resolve()) for c, path in case.images.items()}
            for case in cases
        }
        results: dict[str, CaseResult | None] = {
            case.id: _kept(out, entries.get(case.id), inputs[case.id]) for case in cases
        }
        for name, message in unusable.items():
            results[name] = CaseResult(
                case=name, path=path_of(out, name), error=message
            )
            inputs[name] = []
        others = [entry for name, entry in entries.items() if name not in results]
        return cls(
            out, run=run, inputs=inputs, images=images, results=results, others=others
        )

    def is_pending(self, case: str) -> bool:
        """Whether a case is still to be done."""
        return self._results[case] is None

    def num_settled(self) -> int:
        """Cases done, failed or kept."""
        return sum(result is not None for result in self._results.values())

    def num_cases(self) -> int:
        """Cases asked for in this run."""
        return len(self._results)

    def settle(self, result: CaseResult) -> None:
        """Note what became of a case; a failed one leaves no file behind."""
        if result.error is not None:
            result.path.unlink(missing_ok=True)
        self._results[result.case] = result
        self._write()

    def results(self) -> list[CaseResult]:
        """What became of each case so far, in the order of asking."""
        return [result for result in self._results.values() if result is not None]

    def _write(self) -> None:
        entries = [self._entry(name) for name in self._results]
        record = {**self._run, "cases": sorted(entries + self._others, key=_case_of)}
        text = json.dumps(record, indent=1)
        streams.write_pieces(self._out / NAME, [text.encode()])

    def _entry(self, name: str) -> dict[str, Any]:
        result = self._results[name]
        entry: dict[str, Any] = {"case": name, "inputs": self._inputs[name]}
        entry |= {"images": self._images.get(name, {})}
        if result is None:
            return entry | {"status": "pending"}
        entry |= {"seconds": round(result.seconds, 3), "file": result.path.name}
        entry |= {"warnings": list(result.warnings)}
        entry |= {"files": [path.name for path in result.files]}
        if result.error is not None:
            return entry | {"status": "failed", "error": result.error}
        return entry | {
            "status": "done",
            "num_bytes": result.path.stat().st_size,
            "volumes_ml": dict(result.volumes_ml),
        }


def path_of(out: Path, case: str) -> Path:
    """The label file of a case."""
    return out / f"{case}.nii.gz"


def _case_of(entry: Mapping[str, Any]) -> str:
    return entry["case"]


def _identity(run: Mapping[str, Any]) -> dict[str, Any]:
    """What the label files of a run depend on, beside the images."""
    settings = {k: v for k, v in run["settings"].items() if k not in _SAME_TO_ROUNDING}
    outputs = run.get("outputs", asdict(Outputs()))  # older runs wrote labels alone
    return {
        "model": run["model"],
        "plan": run["plan"],
        "settings": settings,
        "outputs": json.loads(json.dumps(outputs)),
    }


def _inputs(case: Case) -> list[list[int]]:
    """Size and time of each image, to notice that it was replaced."""
    found = []
    for path in case.images.values():
        if path.exists():
            facts = path.stat()
            found.append([facts.st_size, facts.st_mtime_ns])
    return found


def _kept(
    out: Path, entry: Mapping[str, Any] | None, inputs: list[list[int]]
) -> CaseResult | None:
    """The result of an earlier run, if its file is there and its input unchanged."""
    if entry is None or entry["status"] != "done" or entry["inputs"] != inputs:
        return None
    path = path_of(out, entry["case"])
    if not path.is_file() or path.stat().st_size != entry["num_bytes"]:
        return None
    files = tuple(out / name for name in entry.get("files", ()))
    if not all(file.is_file() for file in files):
        return None
    return CaseResult(
        case=entry["case"],
        path=path,
        files=files,
        seconds=entry["seconds"],
        volumes_ml=entry["volumes_ml"],
        warnings=tuple(entry["warnings"]),
        is_kept=True,
    )


def _require_names(names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"case ids must differ, but {repeated} occur more than once")


def _require_same(
    out: Path,
    run: Mapping[str, Any],
    earlier: Mapping[str, Any] | None,
    names: list[str],
) -> None:
    if earlier is None:
        present = [path_of(out, name) for name in names if path_of(out, name).exists()]
        if present:
            raise ValueError(
                f"{present[0]} exists, but {out / NAME} does not, so it is not from an "
                "earlier run; choose another folder, or overwrite"
            )
    elif _identity(earlier) != _identity(run):
        old, new = _identity(earlier), _identity(run)
        differ = [name for name in new if old[name] != new[name]]
        raise ValueError(
            f"{out} holds predictions made with another {' and '.join(differ)}; choose "
            "another folder, or overwrite"
        )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        for entry in record["cases"]:
            _ = entry["case"], entry["status"]
        _identity(record)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not the record of a prediction run ({error!r}); remove it"
        ) from error
    return record
