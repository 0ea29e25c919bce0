"""Moves a plan onto another data set, and says what is carried over with it.

As in nnU-Net's `move_plans_between_datasets`, everything is carried over but the names:
a network pre-trained on the one data set then fits the other. The normalisation goes
with it, which is a trap: where one data set is cropped to brains and the other is not,
the carried `use_mask_for_norm` lets the background's zeros into mean and spread.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from bmjax.planning.plan import Plan


@dataclass(frozen=True)
class Carried:
    """One decision of a plan that was moved.

    Attributes:
      decision: the plan's word for it.
      value: what it is now.
      own: what the data set's own plan would say.
      is_kept: whether it stayed the data set's own, rather than carried over.
    """

    decision: str
    value: Any
    own: Any
    is_kept: bool = False

    def __str__(self) -> str:
        if self.is_kept:
            return f"{self.decision}: {self.value}, kept, as this data set's own"
        if self.value == self.own:
            return f"{self.decision}: {self.value}, carried over, as its own would be"
        return f"{self.decision}: {self.value}, carried over; its own is {self.own}"


@dataclass(frozen=True)
class Moved:
    """A plan for one data set with the decisions of another.

    Attributes:
      plan: the plan.
      carried: each decision, in the plan's order.
      warnings: what is easily overlooked.
    """

    plan: Plan
    carried: tuple[Carried, ...]
    warnings: tuple[str, ...]


_NORMALISATION = ("normalization", "foreground", "use_mask_for_norm")
_OF_THE_DATA_SET = ("labels", "regions", "paint")


def move_plan(
    plan: Plan, own: Plan, *, keep_source_normalization: bool = False
) -> Moved:
    """A plan of another data set for the one whose own plan is given.

    Args:
      plan: whose decisions to take; its channels are matched by name.
      own: the data set's own plan, whose labels and regions stay.
      keep_source_normalization: normalise this data set, the source of what the
        network learns first, by its own rules instead of the moved ones.

    Raises:
      ValueError: the data set lacks a channel of the plan.
    """
    absent = [channel for channel in plan.channels if channel not in own.channels]
    if absent:
        raise ValueError(
            f"plan: its channels are {', '.join(plan.channels)}, but this data set "
            f"has {', '.join(own.channels)}; {', '.join(absent)} missing"
        )
    order = [own.channels.index(channel) for channel in plan.channels]
    own = replace(
        own,
        channels=plan.channels,
        normalization=tuple(own.normalization[i] for i in order),
        foreground=tuple(own.foreground[i] for i in order) if own.foreground else (),
    )
    kept = (*_OF_THE_DATA_SET, *(_NORMALISATION if keep_source_normalization else ()))
    moved = replace(plan, **{name: getattr(own, name) for name in kept})
    carried = tuple(
        Carried(name, getattr(moved, name), getattr(own, name), is_kept=name in kept)
        for name in plan.to_dict()
    )
    return Moved(moved, carried, tuple(_warnings(plan, moved, own)))


def _warnings(plan: Plan, moved: Plan, own: Plan) -> list[str]:
    warnings = []
    differs = [
        name for name in _NORMALISATION if getattr(moved, name) != getattr(own, name)
    ]
    if "use_mask_for_norm" in differs and "zscore" in moved.normalization:
        effect = (
            "its zeros around the brain enter mean and spread of the z-score"
            if own.use_mask_for_norm
            else "what is not 0 alone makes mean and spread, and 0 stays 0"
        )
        warnings.append(
            f"use_mask_for_norm {str(moved.use_mask_for_norm).lower()} is carried over "
            f"where this data set's own is {str(own.use_mask_for_norm).lower()}: "
            f"{effect}; --keep-source-normalization keeps its own"
        )
        differs.remove("use_mask_for_norm")
    if differs:
        warnings.append(
            f"{' and '.join(differs)} carried over differ from this data set's own; "
            "--keep-source-normalization keeps its own"
        )
    if plan.regions != moved.regions:
        theirs = ", ".join(name for name, _ in plan.regions)
        ours = ", ".join(name for name, _ in moved.regions)
        warnings.append(
            f"the regions stay this data set's own ({ours}) where the plan's are "
            f"{theirs}: heads of the same name alone can be carried over later"
        )
    return warnings


def move_nnunet_plans(
    plans: Mapping[str, Any],
    *,
    dataset_name: str,
    plans_name: str | None = None,
    image_reader_writer: str,
) -> dict[str, Any]:
    """nnU-Net's plans for another of its data sets, as nnU-Net itself moves them.

    Args:
      plans: content of a plans.json, of either format.
      dataset_name: where to, such as `Dataset111_Meta`.
      plans_name: new name of the plans; None keeps it.
      image_reader_writer: reader of that data set.
    """
    moved = deepcopy(dict(plans))
    old = moved["plans_name"]
    moved["dataset_name"] = dataset_name
    moved["image_reader_writer"] = image_reader_writer
    if plans_name is not None and plans_name != old:
        moved["plans_name"] = plans_name
        for configuration in moved["configurations"].values():
            identifier = configuration.get("data_identifier")
            if identifier is not None:
                rest = identifier.removeprefix(old)
                is_named_so = rest != identifier
                configuration["data_identifier"] = (
                    plans_name + rest if is_named_so else f"{plans_name}_{identifier}"
                )
    return moved
