"""The training plan: every decision between a raw data set and a network, as one value.

The decisions are those of nnU-Net (Isensee et al. 2021, experiment planner): target
spacing, patch, topology, batch size and the Dice convention follow from the
fingerprint alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from bmjax.planning import rules, soundness, topology
from bmjax.planning.channels import normalization_of
from bmjax.planning.labels import BRATS_METS, LabelScheme

ConfigurationName = Literal["3d_fullres", "3d_lowres", "2d", "3d_cascade_fullres"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How cases are prepared and which network fits them.

    Sizes and spacings are in array order (z y x; y x for a 2-D plan) after
    `transpose_forward`.

    Attributes:
      channels: names of the input channels, in order.
      labels: name and value of each label.
      regions: name and label values of each predicted region, in order of the heads.
      paint: label value painted for each region, in order.
      orientation: turn every image to this orientation on reading; "stored" keeps it.
      transpose_forward: order of the array's axes after reading.
      spacing_mm: target spacing [mm].
      normalization: scheme of each channel, see `data.normalise`.
      foreground: mean, spread, 0.5 and 99.5 percentile of each channel's foreground
        voxels, which "ct" goes by; empty where nobody does.
      use_mask_for_norm: take mean and spread inside the non-zero region only.
      patch_size: training patch and prediction window [vox].
      batch_size: patches per step.
      features: channels of each stage.
      strides: stride that enters each stage; the first is all ones.
      kernel_sizes: convolution kernel of each stage [vox].
      batch_dice: sum the Dice terms over the batch before dividing.
      median_size: median size of the cases at `spacing_mm` [vox].
    """

    channels: tuple[str, ...]
    labels: tuple[tuple[str, int], ...]
    regions: tuple[tuple[str, tuple[int, ...]], ...]
    paint: tuple[int, ...]
    orientation: Literal["RAS", "stored"] = "RAS"
    transpose_forward: tuple[int, ...] = (0, 1, 2)
    spacing_mm: tuple[float, ...]
    normalization: tuple[str, ...]
    foreground: tuple[tuple[float, float, float, float], ...] = ()
    use_mask_for_norm: bool
    patch_size: tuple[int, ...]
    batch_size: int
    features: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    batch_dice: bool
    median_size: tuple[int, ...]

    def __post_init__(self) -> None:
        soundness.require_sound(vars(self))
        stages = {len(self.features), len(self.strides), len(self.kernel_sizes)}
        if len(stages) != 1:
            raise ValueError(
                "plan: features, strides and kernel_sizes must name the same number of "
                f"stages, got {len(self.features)}, {len(self.strides)} and "
                f"{len(self.kernel_sizes)}"
            )
        if len(self.paint) != len(self.regions):
            raise ValueError(
                f"plan: {len(self.regions)} regions need as many paint labels, "
                f"got {self.paint}"
            )
        if len(self.normalization) != len(self.channels):
            raise ValueError(
                f"plan: channels {self.channels} need one normalization each, "
                f"got {self.normalization}"
            )
        if "ct" in self.normalization and len(self.foreground) != len(self.channels):
            raise ValueError(
                'plan: normalization "ct" needs the foreground of each of the channels '
                f"{self.channels}, got {len(self.foreground)} of them"
            )
        if sorted(self.transpose_forward) != [0, 1, 2]:
            raise ValueError(
                "plan: transpose_forward must order the axes 0, 1, 2, "
                f"got {self.transpose_forward}"
            )
        ranks = {len(self.spacing_mm), len(self.patch_size), len(self.strides[0])}
        if len(ranks) != 1:
            raise ValueError(
                f"plan: spacing_mm {self.spacing_mm}, patch_size {self.patch_size} and "
                f"strides {self.strides} must have the same number of axes"
            )
        topology.require_divisible(self.patch_size, self.strides)

    @property
    def num_classes(self) -> int:
        """Number of heads, one for each region."""
        return len(self.regions)

    def to_dict(self) -> dict[str, Any]:
        """The plan as values that JSON can hold."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Plan":
        """The plan that `to_dict` wrote.

        Raises:
          ValueError: a field is unknown or missing.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        missing = sorted(known - set(values))
        if unknown or missing:
            raise ValueError(
                f"plan: unknown fields {unknown}, missing fields {missing}; was it "
                "written by another version of bmjax?"
            )
        return cls(**{name: _as_tuple(value) for name, value in values.items()})

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that `to_dict` made, as JSON.

        Raises:
          ValueError: it is no plan.
        """
        try:
            return cls.from_dict(json.loads(text))
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a plan ({error!r})") from error

    def digest(self) -> str:
        """Twelve hexadecimal digits that change with any decision of the plan."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _as_tuple(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_as_tuple(item) for item in value)
    return value


def make_plan(
    fingerprint: Mapping[str, Any],
    *,
    spacing_mm: tuple[float, ...] | None = None,
    patch_size: tuple[int, ...] | None = None,
    batch_size: int | None = None,
    preset: topology.Preset = "default",
    configuration: ConfigurationName = "3d_fullres",
    memory_gb: float | None = None,
    scheme: LabelScheme = BRATS_METS,
    normalization: tuple[str, ...] | None = None,
) -> Plan:
    """The plan that nnU-Net's rules make of a fingerprint.

    Args:
      fingerprint: what `fingerprint.summarise` returns.
      spacing_mm: target spacing instead of the rule's, z y x as read [mm].
      patch_size: patch instead of the rule's, in the plan's axes [vox].
      batch_size: batch size instead of the rule's.
      preset: which of nnU-Net's planners: its network and its memory target.
      configuration: a 3-D network at full or at low resolution, or a 2-D one for the
        slices.
      memory_gb: of the GPU [GB]; None: the one that the preset is made for.
      scheme: the labels and regions.
      normalization: scheme of each channel; None: what their names ask for.

    Raises:
      ValueError: the fingerprint holds no case, a given size is impossible, or there
        is no such configuration.
    """
    found = rules.configurations(
        fingerprint,
        num_outputs=len(scheme.regions) + 1,
        preset=preset,
        spacing_mm=spacing_mm,
        memory_gb=memory_gb,
    )
    chosen = _choose(found, configuration)
    net = chosen.net
    if patch_size is not None:
        net = _with_patch(chosen, patch_size)
    if batch_size is not None:
        net = replace(net, batch_size=batch_size)
    channels = tuple(fingerprint["channels"])
    normalization = normalization or tuple(map(normalization_of, channels))
    return Plan(
        channels=channels,
        labels=scheme.labels,
        regions=scheme.regions,
        paint=scheme.paint,
        transpose_forward=rules.transpose_forward(
            spacing_mm or rules.target_spacing(fingerprint)
        ),
        spacing_mm=chosen.spacing_mm,
        normalization=normalization,
        foreground=(
            _foreground(fingerprint, channels) if "ct" in normalization else ()
        ),
        use_mask_for_norm=rules.use_mask_for_norm(fingerprint),
        patch_size=net.patch_size,
        batch_size=net.batch_size,
        features=net.features,
        strides=net.strides,
        kernel_sizes=net.kernel_sizes,
        batch_dice=chosen.batch_dice,
        median_size=tuple(round(n) for n in chosen.median_size),
    )


def _choose(found: Mapping[str, rules.Configuration], name: str) -> rules.Configuration:
    if name == "3d_cascade_fullres":
        raise ValueError(
            "plan: the cascade, a 3d_fullres network that sees the output of a "
            "3d_lowres one, cannot be trained here; use 3d_fullres, or 3d_lowres alone"
        )
    if name in found:
        return found[name]
    if "3d_fullres" not in found:
        raise ValueError(
            "plan: the cases are single slices, so there is no 3-D configuration; use "
            'configuration="2d"'
        )
    raise ValueError(
        "plan: there is no 3d_lowres configuration, as a patch of 3d_fullres covers "
        f"enough of a case ({found['3d_fullres'].net.patch_size} of "
        f"{tuple(round(n) for n in found['3d_fullres'].median_size)} voxels); use "
        "3d_fullres"
    )


def _foreground(
    fingerprint: Mapping[str, Any], channels: tuple[str, ...]
) -> tuple[tuple[float, float, float, float], ...]:
    known = fingerprint["intensity"]
    absent = [channel for channel in channels if channel not in known]
    if absent:
        raise ValueError(
            f"plan: no foreground intensities of {', '.join(absent)} are known, which "
            'normalization "ct" needs; measure cases with labels'
        )
    return tuple(
        (known[c]["mean"], known[c]["std"], known[c]["p0_5"], known[c]["p99_5"])
        for c in channels
    )


def _with_patch(
    chosen: rules.Configuration, patch_size: tuple[int, ...]
) -> topology.Topology:
    if len(patch_size) != len(chosen.spacing_mm):
        raise ValueError(
            f"patch_size {patch_size} needs {len(chosen.spacing_mm)} axes, as the "
            f"spacing {chosen.spacing_mm} has"
        )
    net = topology.pool(chosen.spacing_mm, patch_size)
    if net.patch_size != tuple(patch_size):
        raise ValueError(
            f"patch_size {patch_size} is not divisible by "
            f"{topology.divisor(net.strides)}, the product of the strides at a spacing "
            f"of {chosen.spacing_mm} mm; the nearest legal patch is "
            f"{topology.nearest_legal(chosen.spacing_mm, patch_size)}"
        )
    return replace(net, batch_size=chosen.net.batch_size)
