"""What each value of a plan must be, whoever wrote it: a file may say anything."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from bmjax.planning.channels import NORMALIZATIONS

MAX_LABEL = 127  # labels are stored as int8
_MAX_COUNT = 2**31 - 1
_SHOWN = 80


def require_sound(values: Mapping[str, Any]) -> None:
    """Refuse a plan by which cases cannot be prepared or networks built.

    Args:
      values: the fields of a plan, lists as tuples.

    Raises:
      ValueError: names the first field that is not as it must be.
    """
    for name, (is_sound, expected) in _RULES.items():
        if not is_sound(values[name]):
            found = repr(values[name])
            found = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}..."
            raise ValueError(
                f"plan: {name} is {found}; expected {expected}. Make the plan again "
                "with `bmjax plan`"
            )
    ranks = {len(row) for name in ("strides", "kernel_sizes") for row in values[name]}
    if len(ranks) != 1:
        raise ValueError(
            f"plan: strides and kernel_sizes have rows of {sorted(ranks)} axes; "
            "expected as many in each, 2 or 3"
        )


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MAX_COUNT


def _is_label(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_LABEL


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _all(rule: Callable[[Any], bool], *, at_least: int = 1) -> Callable[[Any], bool]:
    """A tuple of so many values of a kind, or more."""
    return lambda value: (
        isinstance(value, tuple) and len(value) >= at_least and all(map(rule, value))
    )


def _is_size(value: Any) -> bool:
    return _all(_is_count)(value) and len(value) in (2, 3)


def _is_pair(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, tuple)
        and len(value) == 2
        and _is_name(value[0])
        and rule(value[1])
    )


def _is_row(value: Any) -> bool:
    return _all(_is_number)(value) and len(value) == 4


def _is_spacing(value: Any) -> bool:
    return _all(_is_number)(value) and min(value) > 0


_LABEL = f"whole numbers from 1 to {MAX_LABEL}"
_COUNTS = (_all(_is_count), "whole numbers from 1 on")
_SIZES = (_all(_is_size), "a row of 2 or 3 whole numbers from 1 on for each stage")
_YES_OR_NO = (lambda value: isinstance(value, bool), "true or false")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "channels": (_all(_is_name), "the names of the channels"),
    "labels": (_all(_is_pair(_is_label)), f"names and values, {_LABEL}"),
    "regions": (_all(_is_pair(_all(_is_label))), f"names and values, {_LABEL}"),
    "paint": (_all(_is_label), _LABEL),
    "orientation": (lambda value: value in ("RAS", "stored"), "RAS or stored"),
    "transpose_forward": (
        _all(lambda value: type(value) is int),
        "0, 1, 2 in some order",
    ),
    "spacing_mm": (_is_spacing, "lengths above 0 mm"),
    "normalization": (
        _all(lambda value: isinstance(value, str) and value in NORMALIZATIONS),
        f"some of {', '.join(NORMALIZATIONS)}",
    ),
    "foreground": (_all(_is_row, at_least=0), "four numbers for each channel"),
    "use_mask_for_norm": _YES_OR_NO,
    "patch_size": (_is_size, "2 or 3 whole numbers from 1 on"),
    "batch_size": (_is_count, "a whole number from 1 on"),
    "features": _COUNTS,
    "strides": _SIZES,
    "kernel_sizes": _SIZES,
    "batch_dice": _YES_OR_NO,
    "median_size": _COUNTS,
}
