"""Carry parameters from one network over to another, and say what became of each.

Strict in both directions, after `merge_params` of big_vision: a tensor that has no
counterpart, on either side, is an error unless a pattern names it.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jax import Array

from bmjax.typing import Params, Size

Outcome = Literal["transferred", "adapted", "initialised", "unused"]
OUTCOMES: tuple[Outcome, ...] = ("transferred", "adapted", "initialised", "unused")
Leaf = Array | np.ndarray

_HEADS = r"(.*/)?heads/.*"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one tensor.

    Attributes:
      path: name such as `encoder/stage_0/block_1/conv/kernel`.
      outcome: `transferred` as it was, `adapted` on the way, left `initialised` in the
        target, or `unused` in the source.
      shape: shape in the target; in the source if unused.
      note: why, or how it was changed.
    """

    path: str
    outcome: Outcome
    shape: Size
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class GraftReport:
    """Account of a graft; `print` it.

    Attributes:
      rows: one per tensor of the target, then one per unused tensor of the source.
    """

    rows: tuple[Row, ...]

    def paths(self, outcome: Outcome) -> tuple[str, ...]:
        """Names of the tensors with this outcome."""
        return tuple(row.path for row in self.rows if row.outcome == outcome)

    def summary(self) -> str:
        """One line of counts."""
        parts = []
        for outcome in OUTCOMES:
            shapes = [row.shape for row in self.rows if row.outcome == outcome]
            num_values = sum(int(np.prod(shape)) for shape in shapes)
            parts.append(f"{outcome} {len(shapes)} ({num_values:,} values)")
        return "tensors: " + ", ".join(parts)

    def __str__(self) -> str:
        """Table of all tensors; untouched transfers are counted by module."""
        plain = Counter(
            "/".join(row.path.split("/")[:2]) + "/..."
            for row in self.rows
            if row.outcome == "transferred" and not row.note
        )
        lines = [
            ("transferred", module, "", f"{count} tensors")
            for module, count in plain.items()
        ]
        lines += [
            (row.outcome, row.path, _shape_text(row.shape), row.note)
            for outcome in OUTCOMES
            for row in self.rows
            if row.outcome == outcome and (outcome != "transferred" or row.note)
        ]
        widths = [max((len(line[i]) for line in lines), default=0) for i in range(3)]
        table = [
            "  ".join(
                [line[i].ljust(width) for i, width in enumerate(widths)] + [line[3]]
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*table, self.summary()])


def flatten(tree: Params) -> dict[str, Any]:
    """Leaves of nested dicts by path, keys joined with `/`, in sorted order."""
    flat: dict[str, Any] = {}
    for name in sorted(tree):
        value = tree[name]
        if isinstance(value, Mapping):
            flat.update({f"{name}/{rest}": v for rest, v in flatten(value).items()})
        else:
            flat[name] = value
    return flat


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from paths: the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *modules, name = path.split("/")
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[name] = value
    return tree


def graft(
    target: Params,
    source: Params,
    *,
    skip: tuple[str, ...] = (),
    heads: Literal["init", "keep"] = "keep",
    strict: bool = True,
) -> tuple[dict[str, Any], GraftReport]:
    """Parameters of `target`, replaced by those of `source` wherever paths agree.

    Args:
      target: freshly initialised parameters, plain nested dicts.
      source: trained parameters, plain nested dicts.
      skip: regular expressions; a path that one of them matches in full is left
        initialised in the target and unused in the source.
      heads: `init` leaves everything below `heads/` initialised, `keep` carries it
        over.
      strict: refuse tensors without counterpart of the same shape. Otherwise they are
        left initialised, or unused, and the report says so.

    Returns:
      The new parameters, in the types of the target, and the account.

    Raises:
      ValueError: a pattern of `skip` matches nothing; a tensor is not finite; strict
        and tensors are missing, left over or of another shape.
    """
    wanted, given = flatten(target), flatten(source)
    patterns = (*skip, *([_HEADS] if heads == "init" else []))
    _check_patterns(skip, [*wanted, *given])
    _check_finite(given)

    leaves: dict[str, Leaf] = {}
    rows: list[Row] = []
    problems: list[tuple[str, str, str]] = []
    for path, old in wanted.items():
        new = given.get(path)
        pattern = _first_match(patterns, path)
        leaves[path] = old
        if pattern is not None:
            why = "head" if pattern == _HEADS else f"skipped by '{pattern}'"
            rows.append(_row(path, "initialised", old, why))
        elif new is None:
            rows.append(_row(path, "initialised", old, "not in the source"))
            problems.append((path, _shape_text(old.shape), "missing"))
        elif new.shape != old.shape:
            found = _shape_text(new.shape)
            note = f"source has another shape, {found}"
            rows.append(_row(path, "initialised", old, note))
            problems.append((path, _shape_text(old.shape), found))
        else:
            leaves[path] = new.astype(old.dtype)
            changed = "" if new.dtype == old.dtype else f"from {new.dtype}"
            rows.append(_row(path, "transferred", old, changed))
    transferred = {row.path for row in rows if row.outcome == "transferred"}
    for path in sorted(given.keys() - transferred):
        new = given[path]
        pattern = _first_match(patterns, path)
        if path not in wanted:
            why = "not in the target" if pattern is None else "skipped"
            rows.append(_row(path, "unused", new, why))
            if pattern is None:
                problems.append((path, "missing", _shape_text(new.shape)))
        else:
            rows.append(_row(path, "unused", new, "target's is left initialised"))
    if strict and problems:
        raise ValueError(_strict_message(problems))
    return unflatten(leaves), GraftReport(rows=tuple(rows))


def _first_match(patterns: tuple[str, ...], path: str) -> str | None:
    return next((p for p in patterns if re.fullmatch(p, path)), None)


def _check_patterns(patterns: tuple[str, ...], paths: list[str]) -> None:
    for pattern in patterns:
        if not any(re.fullmatch(pattern, path) for path in paths):
            tops = sorted({"/".join(path.split("/")[:2]) for path in paths})
            raise ValueError(
                f"skip pattern '{pattern}' matches no tensor of target or source; a "
                f"pattern must match a whole path, such as 'heads/.*'. Modules: "
                + ", ".join(tops)
            )


def _check_finite(leaves: Mapping[str, Leaf]) -> None:
    bad = [p for p, leaf in leaves.items() if not np.isfinite(np.asarray(leaf)).all()]
    if bad:
        raise ValueError(
            f"source holds NaN or infinite values in {len(bad)} tensors, first "
            f"{bad[0]}; take an earlier checkpoint of that run"
        )


def _strict_message(problems: list[tuple[str, str, str]]) -> str:
    rows = [("path", "target expects", "source has"), *problems]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    table = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return (
        f"{len(problems)} tensors do not fit:\n"
        + "\n".join(f"  {line.rstrip()}" for line in table)
        + "\nBuild both networks from the same plan, or name what may differ: "
        "skip=('encoder/stage_0/.*',) leaves those paths initialised, heads='init' the "
        "heads; strict=False leaves out all that does not fit."
    )


def _row(path: str, outcome: Outcome, leaf: Leaf, note: str) -> Row:
    return Row(path=path, outcome=outcome, shape=tuple(leaf.shape), note=note)


def _shape_text(shape: Size) -> str:
    return "x".join(str(size) for size in shape) or "scalar"
