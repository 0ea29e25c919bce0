"""Carry parameters from one network over to another, and say what became of each.

Strict in both directions, after `merge_params` of big_vision: a tensor that has no
counterpart, on either side, is an error unless a pattern names it. Nothing is adapted
that was not asked for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jax import Array

from bmjax.surgery.kernels import ChannelMap, ClassMap, KernelRule, fit_kernel
from bmjax.surgery.paths import first_match, flatten, rename, require_matches, unflatten
from bmjax.surgery.report import GraftReport, Outcome, Row, mismatch_table, shape_text
from bmjax.surgery.torch_names import torch_names
from bmjax.typing import Params

HeadRule = Literal["init", "keep", "map", "nnunet"]
Leaf = Array | np.ndarray

# those of FCN enlarge its logits: both their channels are classes
_SCORE_KERNELS = r"(.*/)?up_\d+/kernel"
_DECODER_KERNELS = r"(.*/)?decoder/up_\d+/kernel"
_HEADS = r"(.*/)?heads/.*"
_INPUT_KERNELS = (
    "encoder/stem/kernel",  # SegResNet
    "encoder/stem/block_0/conv/kernel",  # ResEncUNet
    "encoder/stage_0/block_0/conv/kernel",  # PlainUNet
    "encoder/stage_0/conv_0/kernel",  # UNet2D, ConvNet, FCN
)


def graft(
    target: Params,
    source: Params,
    *,
    skip: tuple[str, ...] = (),
    rename_paths: tuple[tuple[str, str], ...] = (),
    heads: HeadRule = "keep",
    channels: ChannelMap | None = None,
    classes: ClassMap | None = None,
    kernels: KernelRule = "exact",
    strict: bool = True,
) -> tuple[dict[str, Any], GraftReport]:
    r"""Parameters of `target`, replaced by those of `source` wherever paths agree.

    Args:
      target: freshly initialised parameters, plain nested dicts.
      source: trained parameters, plain nested dicts.
      skip: regular expressions; a path that one of them matches in full is left
        initialised in the target and unused in the source.
      rename_paths: regular expressions of the source's paths and what they become,
        such as `("backbone/(.*)", r"encoder/\1")`.
      heads: `init` leaves the output layers initialised, `keep` carries them over,
        `map` carries over the classes that both have by name, `nnunet` does as
        nnU-Net's `-pretrained_weights`: it leaves what torch calls `.seg_layers.`
        and so keeps SegResNet's head.
      channels: names of the input channels; None takes them in their order.
      classes: names of the classes; None takes them in their order.
      kernels: how kernels of another size are made to fit; `exact` refuses them.
      strict: refuse tensors without counterpart of the same shape. Otherwise they are
        left initialised, or unused, and the report says so.

    Returns:
      The new parameters, in the types of the target, and the account.

    Raises:
      ValueError: a pattern matches nothing; a tensor is not finite; the classes
        contradict `heads`; strict and tensors are missing, left over or of another
        shape.
    """
    wanted = flatten(target)
    _check_finite(flatten(source))
    given = rename(flatten(source), rename_paths)
    require_matches(skip, [*wanted, *given])
    _check_classes(heads, classes)
    held = _held_back(target, {*wanted, *given}, heads=heads, skip=skip)
    fit = _Fit(
        heads=heads,
        channels=channels,
        classes=classes,
        kernels=kernels,
        inputs=_input_kernels(wanted, channels),
    )

    leaves: dict[str, Leaf] = {}
    rows: list[Row] = []
    problems: list[tuple[str, str, str]] = []
    for path, old in wanted.items():
        leaves[path] = old
        if path in held:
            rows.append(_row(path, "initialised", old, held[path]))
            continue
        if path not in given:
            rows.append(_row(path, "initialised", old, "not in the source"))
            problems.append((path, shape_text(old.shape), "missing"))
            continue
        name, new = given[path]
        leaf, notes = fit(path, old, new)
        if leaf is None:
            found = shape_text(new.shape)
            note = f"source has another shape, {found}"
            rows.append(_row(path, "initialised", old, note))
            problems.append((path, shape_text(old.shape), found))
            continue
        outcome: Outcome = "adapted" if notes else "transferred"
        notes += [f"was {name}"] if name != path else []
        notes += [f"from {new.dtype}"] if new.dtype != old.dtype else []
        if heads == "nnunet" and re.fullmatch(_HEADS, path):
            notes.append("kept, since nnU-Net leaves out `.seg_layers.` alone")
        leaves[path] = leaf.astype(old.dtype)
        rows.append(_row(path, outcome, old, "; ".join(notes)))
    used = {row.path for row in rows if row.outcome in ("transferred", "adapted")}
    for path in sorted(given.keys() - used):
        new = given[path][1]
        if path in wanted:
            rows.append(_row(path, "unused", new, "target's is left as it was"))
        elif path in held:
            rows.append(_row(path, "unused", new, held[path]))
        else:
            rows.append(_row(path, "unused", new, "not in the target"))
            problems.append((path, "missing", shape_text(new.shape)))
    if strict and problems:
        raise ValueError(_strict_message(problems))
    return unflatten(leaves), GraftReport(rows=tuple(rows))


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Makes one tensor of the source fit its place in the target."""

    heads: HeadRule
    channels: ChannelMap | None
    classes: ClassMap | None
    kernels: KernelRule
    inputs: tuple[str, ...]

    def __call__(
        self, path: str, old: Leaf, new: Leaf
    ) -> tuple[Leaf | None, list[str]]:
        """The fitted tensor, None if there is none; and what was done to it."""
        notes: list[str] = []
        if path in self.inputs and self.channels is not None:
            if new.shape[-2] < len(self.channels.source):
                return None, notes
            new = self.channels.carry(np.asarray(new))
            notes.append(self.channels.note)
        is_kernel = path.rpartition("/")[2] == "kernel"
        is_transposed = re.fullmatch(_DECODER_KERNELS, path) is not None
        is_score = re.fullmatch(_SCORE_KERNELS, path) is not None and not is_transposed
        if is_kernel and new.shape[:-2] != old.shape[:-2]:
            size, was = tuple(old.shape[:-2]), shape_text(new.shape[:-2])
            rule = "exact" if is_score else self.kernels
            fitted = fit_kernel(
                np.asarray(new), size, rule=rule, is_transposed=is_transposed
            )
            if fitted is None:
                return None, notes
            new = fitted
            notes.append(f"{was} taps to {shape_text(size)} by rule {self.kernels}")
        if self.heads == "map" and self.classes is not None:
            is_head = is_score or re.fullmatch(_HEADS, path) is not None
            if is_head and self.classes.source != self.classes.target:
                num_axes = 2 if is_score else 1
                if not self._has_classes(old, new, num_axes):
                    return None, notes
                new = self.classes.carry(
                    np.asarray(old), np.asarray(new), num_axes=num_axes
                )
                notes.append(self.classes.note)
        return (new if new.shape == old.shape else None), notes

    def _has_classes(self, old: Leaf, new: Leaf, num_axes: int) -> bool:
        if self.classes is None:
            return False
        theirs = (len(self.classes.source),) * num_axes
        ours = (len(self.classes.target),) * num_axes
        split = old.ndim - num_axes
        return (*old.shape[:split], *theirs) == new.shape and old.shape[split:] == ours


def _held_back(
    target: Params, paths: set[str], *, heads: HeadRule, skip: tuple[str, ...]
) -> dict[str, str]:
    """Why a path is to stay as the target has it, for those that are."""
    found: dict[str, str] = {}
    if heads == "init":
        found = {
            path: "head"
            for path in paths
            if first_match((_HEADS, _SCORE_KERNELS), path)
            and not re.fullmatch(_DECODER_KERNELS, path)
        }
    elif heads == "nnunet":
        names = torch_names(target)
        found = {path: "head" for path in names if ".seg_layers." in names[path]}
    matches = {path: first_match(skip, path) for path in paths}
    return found | {p: f"skipped by '{m}'" for p, m in matches.items() if m is not None}


def _input_kernels(
    wanted: Mapping[str, Leaf], channels: ChannelMap | None
) -> tuple[str, ...]:
    if channels is None or channels.is_identity:
        return ()
    missing = [path for path in channels.kernels if path not in wanted]
    known = tuple(path for path in _INPUT_KERNELS if path in wanted)[:1]
    if missing or not (channels.kernels or known):
        raise ValueError(
            f"no kernel {', '.join(missing) or 'that sees the image'} is known in the "
            "target, so its channels cannot be matched by name; give the paths of the "
            "kernels that do, such as encoder/stage_0/conv_0/kernel (input_kernels)"
        )
    return channels.kernels or known


def _check_classes(heads: HeadRule, classes: ClassMap | None) -> None:
    if heads == "map" and (classes is None or not classes.shared):
        names = (
            "their names were not given"
            if classes is None
            else f"the source has {', '.join(classes.source)}, the target "
            f"{', '.join(classes.target)}"
        )
        raise ValueError(
            f"heads='map' needs classes that both networks have, but {names}; name "
            "the source's in the target's words, or draw the heads anew: heads='init'"
        )
    if heads == "keep" and classes and classes.source != classes.target:
        raise ValueError(
            "heads='keep' needs the same classes in the same order; the target has "
            f"{', '.join(classes.target)}, the source {', '.join(classes.source)}. "
            "Name the source's in the target's words, match them by name "
            "(heads='map'), or draw the heads anew (heads='init')"
        )


def _check_finite(leaves: Mapping[str, Leaf]) -> None:
    bad = [p for p, leaf in leaves.items() if not np.isfinite(np.asarray(leaf)).all()]
    if bad:
        raise ValueError(
            f"source holds NaN or infinite values in {len(bad)} tensors, first "
            f"{bad[0]}; take an earlier checkpoint of that run"
        )


def _strict_message(problems: list[tuple[str, str, str]]) -> str:
    table = mismatch_table(problems, head=("path", "target expects", "source has"))
    return (
        f"{len(problems)} tensors do not fit:\n{table}\n"
        "Build both networks from the same plan, or name what may differ: "
        "skip=('encoder/stage_0/.*',) leaves those paths initialised, heads='init' the "
        "heads; kernels='centre' makes kernels of another size fit; in Python "
        "strict=False leaves out all that does not fit."
    )


def _row(path: str, outcome: Outcome, leaf: Leaf, note: str) -> Row:
    return Row(path=path, outcome=outcome, shape=tuple(leaf.shape), note=note)
