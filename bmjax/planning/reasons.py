"""Says why a plan is as it is: one reason for each decision, from the fingerprint."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bmjax.planning import rules, topology
from bmjax.planning.plan import Plan
from bmjax.planning.topology import BUDGETS, Preset


@dataclass(frozen=True)
class Reason:
    """One decision of a plan.

    Attributes:
      decision: what was decided, by the plan's own word for it.
      value: how, in words.
      why: the rule, with the numbers that it was applied to.
    """

    decision: str
    value: str
    why: str


_NORMALISERS = {
    "zscore": "z-score of each case: intensities of MR have no unit",
    "ct": "clipped and scaled by the foreground of all cases: CT has a unit",
    "none": "left as it is",
    "rescale_to_0_1": "each case's range to 0 to 1",
    "rgb_to_0_1": "divided by 255",
}


def explain(
    plan: Plan,
    fingerprint: Mapping[str, Any],
    *,
    preset: Preset = "default",
    memory_gb: float | None = None,
) -> tuple[Reason, ...]:
    """The reason of each decision; what the rules would decide otherwise was given.

    Args:
      plan: of this data set, or moved onto it from another.
      fingerprint: of the data set.
      preset: the planner that the plan is of.
      memory_gb: the memory that it was made for [GB]; None: the preset's own.
    """
    rank = len(plan.spacing_mm)
    name, own = _rules_own(plan, fingerprint, preset, memory_gb)
    reasons = [
        Reason(
            "channels",
            ", ".join(plan.channels),
            "; ".join(
                f"{', '.join(_those(plan, scheme))}: {text}"
                for scheme, text in _NORMALISERS.items()
                if scheme in plan.normalization
            ),
        ),
        _mask(plan, fingerprint),
        Reason(
            "orientation",
            plan.orientation,
            "axes are turned to right, anterior, superior on reading, and back on "
            "writing"
            if plan.orientation == "RAS"
            else "axes stay as they are stored, as nnU-Net's reader leaves them",
        ),
        _spacing(plan, fingerprint, name),
        Reason(
            "transpose_forward",
            " ".join(map(str, plan.transpose_forward)),
            "the axis of the coarsest voxels comes first"
            if plan.transpose_forward != (0, 1, 2)
            else "the first axis already is the one of the coarsest voxels",
        ),
        Reason(
            "median_size",
            _text(plan.median_size),
            f"median of {len(fingerprint['spacings_mm'])} cases, cropped to what is "
            "not 0, at that spacing",
        ),
        _patch(plan, own, preset, memory_gb),
        Reason(
            "strides",
            " ".join("x".join(map(str, stride)) for stride in plan.strides),
            f"an axis is halved while its feature map keeps {topology.MIN_EDGE} "
            "voxels, together with those whose voxels are less than twice the finest",
        ),
        Reason(
            "kernel_sizes",
            " ".join("x".join(map(str, kernel)) for kernel in plan.kernel_sizes),
            "3 along an axis once its voxels are less than twice the finest, 1 before",
        ),
        Reason(
            "features",
            " ".join(map(str, plan.features)),
            f"{topology.BASE_FEATURES} doubled at each stage, at most "
            f"{topology.MAX_FEATURES[rank]}; {_blocks(preset, len(plan.features))}",
        ),
        _batch(plan, own, fingerprint, preset),
        _batch_dice(plan, own),
    ]
    return tuple(reasons)


def _rules_own(
    plan: Plan,
    fingerprint: Mapping[str, Any],
    preset: Preset,
    memory_gb: float | None,
) -> tuple[str, rules.Configuration]:
    """The rules' configuration at the plan's spacing; "" where that was given."""
    options: dict[str, Any] = {
        "num_outputs": len(plan.regions) + 1,
        "preset": preset,
        "memory_gb": memory_gb,
    }
    found = rules.configurations(fingerprint, **options)
    for name, own in found.items():
        if len(own.spacing_mm) == len(plan.spacing_mm) and np.allclose(
            own.spacing_mm, plan.spacing_mm
        ):
            return name, own
    if len(plan.spacing_mm) == 2:
        return "", found["2d"]
    back = [plan.transpose_forward.index(i) for i in range(3)]
    given = tuple(plan.spacing_mm[i] for i in back)
    return "", rules.configurations(fingerprint, spacing_mm=given, **options)[
        "3d_fullres"
    ]


def _mask(plan: Plan, fingerprint: Mapping[str, Any]) -> Reason:
    kept = float(np.median(fingerprint["relative_size_after_crop"]))
    why = (
        f"cropping to what is not 0 keeps {kept:.0%} of a case (median), and below "
        f"{rules.MASK_NORM_BELOW:.0%} mean and spread are those of the inside"
    )
    if plan.use_mask_for_norm != rules.use_mask_for_norm(fingerprint):
        why = f"given; the rule says otherwise: {why}"
    return Reason("use_mask_for_norm", str(plan.use_mask_for_norm).lower(), why)


def _spacing(plan: Plan, fingerprint: Mapping[str, Any], name: str) -> Reason:
    value = f"{_text(plan.spacing_mm)} mm"
    target = rules.target_spacing(fingerprint)
    if not name:
        return Reason(
            "spacing_mm", value, f"given; the rule's own is {_text(target)} mm as read"
        )
    if name == "3d_lowres":
        why = (
            f"from {_text(target)} mm in steps of {rules.LOWRES_STEP} until a patch "
            f"covers {rules.LOWRES_BELOW:.0%} of a case"
        )
        return Reason("spacing_mm", value, why)
    median = np.median(fingerprint["spacings_mm"], axis=0)
    why = f"median of {len(fingerprint['spacings_mm'])} cases"
    if not np.allclose(median, target):
        why += (
            f", but along the thick axis the tenth percentile: its voxels are "
            f"{max(median):g} mm, more than {rules.ANISOTROPY:g} times the others', "
            "and its slices are few"
        )
    if name == "2d":
        why += ", within the slices"
    return Reason("spacing_mm", value, why)


def _patch(
    plan: Plan, own: rules.Configuration, preset: Preset, memory_gb: float | None
) -> Reason:
    rank = len(plan.patch_size)
    budget = BUDGETS[preset]
    net = replace(own.net, patch_size=plan.patch_size, strides=plan.strides)
    net = replace(net, features=plan.features)
    cost = topology.feature_map_voxels(
        net, budget=budget, num_outputs=len(plan.regions) + 1
    )
    allowed = topology.reference_voxels(preset, rank=rank, memory_gb=memory_gb)
    batch = topology.REFERENCE_BATCH[rank]
    if rank == 2:
        allowed, batch = allowed / batch, 1
    gigabytes = memory_gb or budget.memory_gb
    why = (
        f"in the proportions of 1/spacing, at most the median case, shrunk until its "
        f"feature maps fit: {cost / 1e6:.0f} of {allowed / 1e6:.0f} million numbers "
        f"for {'one patch' if rank == 2 else f'a batch of {batch}'} on "
        f"{gigabytes:g} GB ({preset})"
    )
    if plan.patch_size != own.net.patch_size:
        why = (
            f"given; the rules' own is {_text(own.net.patch_size)}. Its feature maps "
            f"are {cost / 1e6:.0f} of {allowed / 1e6:.0f} million numbers"
        )
    return Reason("patch_size", _text(plan.patch_size), why)


def _batch(
    plan: Plan,
    own: rules.Configuration,
    fingerprint: Mapping[str, Any],
    preset: Preset,
) -> Reason:
    share = BUDGETS[preset].max_dataset_fraction
    voxels = float(np.prod(plan.median_size)) * len(fingerprint["spacings_mm"])
    covered = plan.batch_size * float(np.prod(plan.patch_size)) / voxels
    if plan.batch_size != own.net.batch_size:
        why = f"given; the rules' own is {own.net.batch_size}"
    elif plan.batch_size == topology.MIN_BATCH:
        why = "the least"
    else:
        why = "as many as fit beside the patch"
        if share < 1:
            why += f" and see at most {share:.0%} of the data set's voxels"
    why += f"; a batch sees {covered:.1%} of the data set"
    return Reason("batch_size", str(plan.batch_size), why)


def _batch_dice(plan: Plan, own: rules.Configuration) -> Reason:
    covered = float(np.prod(plan.patch_size) / np.prod(plan.median_size))
    value = str(plan.batch_dice).lower()
    if plan.batch_dice != own.batch_dice:
        return Reason("batch_dice", value, "given; the rules' own is the contrary")
    if len(plan.patch_size) == 2:
        why = "always for slices: many hold no lesion"
    elif plan.batch_dice:
        why = (
            f"a patch covers {covered:.0%} of a case, less than "
            f"{rules.LOWRES_BELOW:.0%}, and often holds no lesion; there is a "
            "3d_lowres configuration too"
        )
    else:
        why = f"a patch covers {covered:.0%} of a case, so that each stands for itself"
    return Reason("batch_dice", value, why)


def _blocks(preset: Preset, num_stages: int) -> str:
    budget = BUDGETS[preset]
    last = len(budget.encoder_blocks) - 1
    blocks = [budget.encoder_blocks[min(i, last)] for i in range(num_stages)]
    kind = "residual blocks" if budget.is_residual else "convolutions"
    return (
        f"{' '.join(map(str, blocks))} {kind} in the encoder, {budget.decoder_blocks} "
        "in each stage of the decoder"
    )


def _those(plan: Plan, scheme: str) -> list[str]:
    pairs = zip(plan.channels, plan.normalization, strict=True)
    return [channel for channel, its_scheme in pairs if its_scheme == scheme]


def _text(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)
