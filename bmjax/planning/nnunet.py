"""nnU-Net's files as plans of ours, and the other way round, as plain dicts.

Plans come in two formats: up to nnU-Net 2.2 the network is described by keys such as
`UNet_class_name` and `pool_op_kernel_sizes`, later by an `architecture`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bmjax.planning import rules
from bmjax.planning.channels import NORMALIZATIONS, normalization_of
from bmjax.planning.labels import BRATS_METS, LabelScheme
from bmjax.planning.plan import Plan
from bmjax.planning.topology import BUDGETS, Preset

_ORIENTATIONS: dict[str, Literal["RAS", "stored"]] = {
    "SimpleITKIO": "stored",
    "NibabelIO": "stored",
    "SimpleITKIOWithReorient": "RAS",
    "NibabelIOWithReorient": "RAS",
}
_PLANNERS: dict[Preset, tuple[str, str]] = {
    "default": ("ExperimentPlanner", "nnUNetPlans"),
    "resenc": ("ResEncUNetPlanner", "nnUNetResEncUNetPlans"),
    "resenc_m": ("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans"),
    "resenc_l": ("nnUNetPlannerResEncL", "nnUNetResEncUNetLPlans"),
    "resenc_xl": ("nnUNetPlannerResEncXL", "nnUNetResEncUNetXLPlans"),
}
_NETWORKS = "dynamic_network_architectures.architectures.unet."


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The network of one configuration.

    Attributes:
      name: class name, `PlainConvUNet` or `ResidualEncoderUNet`.
      features: channels of each stage.
      strides: stride that enters each stage.
      kernel_sizes: convolution kernel of each stage [vox].
      encoder_blocks: convolutions, or residual blocks, of each encoder stage.
      decoder_blocks: convolutions of each decoder stage, deepest first.
    """

    name: str
    features: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]


def read_scheme(dataset: Mapping[str, Any]) -> LabelScheme:
    """Labels and regions of a `dataset.json`.

    Labels that are no regions become regions of one label each.
    """
    foreground = {
        name: tuple(value) if isinstance(value, Sequence) else (value,)
        for name, value in dataset["labels"].items()
        if name not in ("background", "ignore")
    }
    regions = tuple(foreground.items())
    values = sorted({value for members in foreground.values() for value in members})
    if any(len(members) > 1 for members in foreground.values()):
        if "regions_class_order" not in dataset:
            raise ValueError(
                f"dataset.json: the regions {list(foreground)} need a "
                "regions_class_order, the label painted for each"
            )
        paint = tuple(dataset["regions_class_order"])
        labels = tuple((f"label_{value}", value) for value in values)
        if regions == BRATS_METS.regions:
            labels = BRATS_METS.labels
    else:
        paint = tuple(members[0] for members in foreground.values())
        labels = tuple((name, members[0]) for name, members in foreground.items())
    return LabelScheme(labels=labels, regions=regions, paint=paint)


def read_channels(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """Channel names of a `dataset.json`, in order and in lower case."""
    names = dataset.get("channel_names") or dataset["modality"]
    return tuple(names[key].lower() for key in sorted(names, key=int))


def read_fingerprint(
    fingerprint: Mapping[str, Any], dataset: Mapping[str, Any]
) -> dict[str, Any]:
    """A `dataset_fingerprint.json` in the words of `fingerprint.summarise`.

    Relative sizes are known by their median only, so that every case gets it.
    """
    channels = read_channels(dataset)
    known = fingerprint["foreground_intensity_properties_per_channel"]
    names = {"percentile_00_5": "p0_5", "percentile_99_5": "p99_5"}
    relative = fingerprint["median_relative_size_after_cropping"]
    return {
        "channels": list(channels),
        "spacings_mm": [list(s) for s in fingerprint["spacings"]],
        "sizes_after_crop": [list(s) for s in fingerprint["shapes_after_crop"]],
        "relative_size_after_crop": [relative] * len(fingerprint["spacings"]),
        "intensity": {
            name: {names.get(k, k): v for k, v in known[str(i)].items()}
            for i, name in enumerate(channels)
            if str(i) in known
        },
        "label_voxels": {},
    }


def configuration_of(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One configuration with all it inherits.

    Raises:
      ValueError: there is no such configuration.
    """
    found = plans["configurations"]
    if name not in found:
        raise ValueError(
            f"plans: no configuration {name!r}; they hold {', '.join(sorted(found))}"
        )
    own = dict(found[name])
    parent = own.pop("inherits_from", None)
    return own if parent is None else configuration_of(plans, parent) | own


def read_architecture(plans: Mapping[str, Any], configuration: str) -> Architecture:
    """The network of a configuration, from plans of either format."""
    values = configuration_of(plans, configuration)
    if "architecture" in values:
        network = values["architecture"]
        kwargs = network["arch_kwargs"]
        blocks = kwargs.get("n_blocks_per_stage") or kwargs["n_conv_per_stage"]
        return Architecture(
            name=network["network_class_name"].rsplit(".", 1)[-1],
            features=tuple(kwargs["features_per_stage"]),
            strides=_tuples(kwargs["strides"]),
            kernel_sizes=_tuples(kwargs["kernel_sizes"]),
            encoder_blocks=tuple(blocks),
            decoder_blocks=tuple(kwargs["n_conv_per_stage_decoder"]),
        )
    base, most = values["UNet_base_num_features"], values["unet_max_num_features"]
    strides = _tuples(values["pool_op_kernel_sizes"])
    return Architecture(
        name=values["UNet_class_name"],
        features=tuple(min(most, base * 2**i) for i in range(len(strides))),
        strides=strides,
        kernel_sizes=_tuples(values["conv_kernel_sizes"]),
        encoder_blocks=tuple(values["n_conv_per_stage_encoder"]),
        decoder_blocks=tuple(values["n_conv_per_stage_decoder"]),
    )


def read_plan(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    *,
    configuration: str = "3d_fullres",
) -> Plan:
    """A configuration of a `plans.json` of either format, with its `dataset.json`.

    Raises:
      ValueError: the configuration is a cascade, or its reader or a normalization is
        not known here.
    """
    values = configuration_of(plans, configuration)
    if values.get("previous_stage"):
        raise ValueError(
            f"plans: {configuration} is the second stage of a cascade, which is not "
            "supported; use 3d_fullres"
        )
    reader = plans["image_reader_writer"]
    if reader not in _ORIENTATIONS:
        raise ValueError(
            f"plans: image reader {reader!r} is not known; expected one of "
            f"{', '.join(_ORIENTATIONS)}"
        )
    schemes = {theirs: ours for ours, theirs in NORMALIZATIONS.items()}
    unknown = sorted(set(values["normalization_schemes"]) - set(schemes))
    if unknown:
        raise ValueError(
            f"plans: normalization {unknown} is not known; expected some of "
            f"{', '.join(schemes)}"
        )
    scheme, network = read_scheme(dataset), read_architecture(plans, configuration)
    return Plan(
        channels=read_channels(dataset),
        labels=scheme.labels,
        regions=scheme.regions,
        paint=scheme.paint,
        orientation=_ORIENTATIONS[reader],
        transpose_forward=tuple(plans["transpose_forward"]),
        spacing_mm=tuple(float(s) for s in values["spacing"]),
        normalization=tuple(schemes[n] for n in values["normalization_schemes"]),
        foreground=_foreground(plans, values),
        use_mask_for_norm=any(values["use_mask_for_norm"]),
        patch_size=tuple(values["patch_size"]),
        batch_size=values["batch_size"],
        features=network.features,
        strides=network.strides,
        kernel_sizes=network.kernel_sizes,
        batch_dice=values["batch_dice"],
        median_size=tuple(round(n) for n in values["median_image_size_in_voxels"]),
    )


def _foreground(
    plans: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[tuple[float, float, float, float], ...]:
    """What CT normalization goes by, for each channel; nothing without it."""
    if NORMALIZATIONS["ct"] not in values["normalization_schemes"]:
        return ()
    known = plans["foreground_intensity_properties_per_channel"]
    names = ("mean", "std", "percentile_00_5", "percentile_99_5")
    mean, std, low, high = (
        [known[k][name] for k in sorted(known, key=int)] for name in names
    )
    return tuple(zip(mean, std, low, high, strict=True))


def plan_from_nnunet(
    fingerprint: Mapping[str, Any],
    dataset: Mapping[str, Any],
    preset: Preset = "default",
    *,
    memory_gb: float | None = None,
) -> dict[str, Any]:
    """The `plans.json` that nnU-Net's planner makes, in its newer format.

    Args:
      fingerprint: content of `dataset_fingerprint.json`.
      dataset: content of `dataset.json`.
      preset: which planner.
      memory_gb: nnU-Net's `gpu_memory_target` [GB]; None: the preset's own.
    """
    ours = read_fingerprint(fingerprint, dataset)
    found = rules.configurations(
        ours,
        num_outputs=len(dataset["labels"]),
        preset=preset,
        num_cases=dataset["numTraining"],
        memory_gb=memory_gb,
    )
    planner, name = _PLANNERS[preset]
    schemes = [normalization_of(channel) for channel in ours["channels"]]
    is_masked = rules.use_mask_for_norm(ours)
    configurations = {
        key: write_configuration(
            found[key],
            preset=preset,
            data_identifier=_data_identifier(key, preset),
            normalization=schemes,
            use_mask_for_norm=is_masked,
        )
        for key in ("2d", "3d_lowres", "3d_fullres")
        if key in found
    }
    if "3d_lowres" in configurations:
        configurations["3d_lowres"]["next_stage"] = "3d_cascade_fullres"
        configurations["3d_cascade_fullres"] = {
            "inherits_from": "3d_fullres",
            "previous_stage": "3d_lowres",
        }
    order = list(rules.transpose_forward(rules.target_spacing(ours)))
    spacing = np.median(ours["spacings_mm"], axis=0)[order]
    size = np.median(ours["sizes_after_crop"], axis=0)[order]
    return {
        "dataset_name": dataset.get("name", ""),
        "plans_name": name,
        "original_median_spacing_after_transp": spacing.tolist(),
        "original_median_shape_after_transp": [round(n) for n in size.tolist()],
        "image_reader_writer": dataset.get(
            "overwrite_image_reader_writer", "SimpleITKIO"
        ),
        "transpose_forward": order,
        "transpose_backward": [order.index(i) for i in range(3)],
        "configurations": configurations,
        "experiment_planner_used": planner,
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": fingerprint[
            "foreground_intensity_properties_per_channel"
        ],
    }


def write_configuration(
    configuration: rules.Configuration,
    *,
    preset: Preset,
    data_identifier: str,
    normalization: Sequence[str],
    use_mask_for_norm: bool,
) -> dict[str, Any]:
    """One configuration in nnU-Net's newer format."""
    net = configuration.net
    resampling: dict[str, Any] = {
        f"resampling_fn_{kind}": "resample_data_or_seg_to_shape"
        for kind in ("data", "seg", "probabilities")
    }
    orders = {"data": (False, 3), "seg": (True, 1), "probabilities": (False, 1)}
    for kind, (is_labels, order) in orders.items():
        resampling[f"resampling_fn_{kind}_kwargs"] = {
            "is_seg": is_labels,
            "order": order,
            "order_z": 0,
            "force_separate_z": None,
        }
    return {
        "data_identifier": data_identifier,
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": net.batch_size,
        "patch_size": list(net.patch_size),
        "median_image_size_in_voxels": list(configuration.median_size),
        "spacing": list(configuration.spacing_mm),
        "normalization_schemes": [NORMALIZATIONS[name] for name in normalization],
        # only the z-score knows how to leave the outside alone
        "use_mask_for_norm": [
            use_mask_for_norm and n == "zscore" for n in normalization
        ],
        **resampling,
        "architecture": _write_architecture(configuration, preset),
        "batch_dice": configuration.batch_dice,
    }


def _write_architecture(
    configuration: rules.Configuration, preset: Preset
) -> dict[str, Any]:
    net, budget = configuration.net, BUDGETS[preset]
    rank, num_stages = len(net.patch_size), len(net.strides)
    last = len(budget.encoder_blocks) - 1
    blocks = [budget.encoder_blocks[min(i, last)] for i in range(num_stages)]
    network = "ResidualEncoderUNet" if budget.is_residual else "PlainConvUNet"
    key = "n_blocks_per_stage" if budget.is_residual else "n_conv_per_stage"
    return {
        "network_class_name": _NETWORKS + network,
        "arch_kwargs": {
            "n_stages": num_stages,
            "features_per_stage": list(net.features),
            "conv_op": f"torch.nn.modules.conv.Conv{rank}d",
            "kernel_sizes": [list(k) for k in net.kernel_sizes],
            "strides": [list(s) for s in net.strides],
            key: blocks,
            "n_conv_per_stage_decoder": [budget.decoder_blocks] * (num_stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{rank}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _data_identifier(configuration: str, preset: Preset) -> str:
    """The residual planners share the default planner's data where it is the same."""
    is_shared = preset != "default" and configuration != "3d_lowres"
    name = _PLANNERS["default" if is_shared else preset][1]
    return f"{name}_{configuration}"


def _tuples(rows: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in rows)
