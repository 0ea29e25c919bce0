"""nnU-Net's trained models as runs of ours, and the other way round.

A model folder of nnU-Net holds plans.json, dataset.json and
fold_0/checkpoint_final.pth; the checkpoint holds both files again, under `init_args`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bmjax import models
from bmjax.data.layout import in_our_words
from bmjax.experiment import Experiment
from bmjax.planning import Plan
from bmjax.planning.nnunet import (
    read_architecture,
    read_channels,
    read_plan,
    read_scheme,
    write_configuration,
)
from bmjax.planning.rules import Configuration
from bmjax.planning.topology import Topology
from bmjax.runs import Run
from bmjax.weights import write_weights

_BACKGROUND = "background"
_MIRRORS = "inference_allowed_mirroring_axes"
_READERS = {"RAS": "NibabelIOWithReorient", "stored": "SimpleITKIO"}
_FAULTS = (KeyError, TypeError, AttributeError, IndexError)


def names_in(
    metadata: Mapping[str, Any],
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Input channels, in our words where they are known, and outputs of a checkpoint.

    A network that chooses one label for each voxel has an output for the background.

    Args:
      metadata: what lies beside the tensors of a weight file.

    Returns:
      None where the file does not say.
    """
    dataset = _init_args(metadata).get("dataset_json")
    if not isinstance(dataset, dict):
        return None
    try:
        regions = tuple(name for name, _ in read_scheme(dataset).regions)
        channels = in_our_words(read_channels(dataset))
    except _FAULTS as error:
        raise ValueError(f"its dataset_json is not nnU-Net's: {error!r}") from error
    return channels, regions if _has_regions(dataset) else (_BACKGROUND, *regions)


def read_model(metadata: Mapping[str, Any]) -> tuple[Experiment, Plan]:
    """The network that a checkpoint of nnU-Net holds, and how its images are prepared.

    Where it was trained without mirroring along some axis, the experiment has none, so
    that prediction refuses flips.

    Raises:
      ValueError: the file does not say, or the network has no counterpart here.
    """
    args = _init_args(metadata)
    plans, dataset = args.get("plans"), args.get("dataset_json")
    if not isinstance(plans, dict) or not isinstance(dataset, dict):
        raise ValueError(
            "it does not say which network it is of: only nnU-Net's checkpoints hold "
            "plans; give the run folder of a target network too"
        )
    try:
        configuration = str(args["configuration"])
        plan = read_plan(plans, dataset, configuration=configuration)
        network = read_architecture(plans, configuration)
    except _FAULTS as error:
        raise ValueError(f"its plans are not nnU-Net's: {error!r}") from error
    if not _has_regions(dataset):
        raise ValueError(
            "its network chooses one label for each voxel (softmax), while ours say "
            "yes or no to each region; begin a training with it instead: `bmjax train "
            "CONFIG --workdir RUN --from-torch FILE`"
        )
    num_convs = set(network.decoder_blocks)
    if network.name == "PlainConvUNet":
        num_convs |= set(network.encoder_blocks)
    if len(num_convs) != 1 or network.name not in (
        "PlainConvUNet",
        "ResidualEncoderUNet",
    ):
        raise ValueError(
            f"its network, {network.name} with {network.encoder_blocks} and "
            f"{network.decoder_blocks} convolutions, has no counterpart here; expected "
            "PlainConvUNet or ResidualEncoderUNet with as many in every stage"
        )
    shape: dict[str, Any] = {
        "features": network.features,
        "strides": network.strides,
        "kernel_sizes": network.kernel_sizes,
        "num_classes": plan.num_classes,
        "num_convs": num_convs.pop(),
    }
    model = (
        models.PlainUNet(**shape)
        if network.name == "PlainConvUNet"
        else models.ResEncUNet(**shape, num_blocks=network.encoder_blocks)
    )
    plan = Plan.from_dict(
        plan.to_dict() | {"channels": list(in_our_words(plan.channels))}
    )
    experiment = Experiment(model=model).resolve(plan)
    axes = metadata.get(_MIRRORS, range(len(plan.spacing_mm)))
    if len(axes or ()) < len(plan.spacing_mm):
        experiment = experiment.replace({"augment.p_mirror": 0.0})
    return experiment, plan


def describe(run: Run) -> dict[str, Any]:
    """What nnU-Net's checkpoint holds beside the tensors, but for its optimiser.

    Raises:
      ValueError: nnU-Net has no such network, or would use it differently.
    """
    model, plan = run.experiment.model, run.plan
    if not isinstance(model, models.PlainUNet | models.ResEncUNet):
        raise ValueError(
            f"nnU-Net's plans cannot describe a {type(model).__name__}; write its "
            "state dict alone, to a file that ends in .pt or .safetensors"
        )
    if not any(len(labels) > 1 for _, labels in plan.regions):
        raise ValueError(
            "nnU-Net gives regions of one label each a softmax with the background, "
            "while this network says yes or no to each; write its state dict alone, to "
            "a file that ends in .pt or .safetensors"
        )
    unknown = sorted(set(plan.normalization) - {"zscore", "none"})
    if unknown:
        raise ValueError(
            f"the plan's normalization {', '.join(unknown)} needs intensities of the "
            "data set that a run does not hold; write the state dict alone, to a file "
            "that ends in .pt or .safetensors"
        )
    name = "3d_fullres" if len(plan.spacing_mm) == 3 else "2d"
    order = list(plan.transpose_forward)
    plans = {
        "dataset_name": "bmjax",
        "plans_name": "bmjaxPlans",
        "image_reader_writer": _READERS[plan.orientation],
        "transpose_forward": order,
        "transpose_backward": [order.index(i) for i in range(3)],
        "configurations": {name: _configuration(run, model, name)},
        "experiment_planner_used": "bmjax",
        "label_manager": "LabelManager",
        # no normalization that is admitted above looks at them
        "foreground_intensity_properties_per_channel": {
            str(i): {} for i in range(len(plan.channels))
        },
    }
    dataset = {
        "channel_names": {str(i): c for i, c in enumerate(plan.channels)},
        "labels": {_BACKGROUND: 0, **{n: list(values) for n, values in plan.regions}},
        "regions_class_order": list(plan.paint),
        "file_ending": ".nii.gz",
    }
    mirrors = run.experiment.augment.p_mirror > 0
    return {
        "trainer_name": "nnUNetTrainer",
        "init_args": {
            "plans": plans,
            "configuration": name,
            "fold": 0,
            "dataset_json": dataset,
        },
        _MIRRORS: list(range(len(plan.spacing_mm))) if mirrors else None,
    }


def write_model_folder(
    folder: Path, state: Mapping[str, np.ndarray], described: Mapping[str, Any]
) -> None:
    """A folder that `nnUNetv2_predict_from_modelfolder -f 0` predicts with.

    Args:
      folder: made if it is not there.
      state: torch's tensors by name.
      described: from `describe`.
    """
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    args = described["init_args"]
    for name, key in (("plans.json", "plans"), ("dataset.json", "dataset_json")):
        (folder / name).write_text(json.dumps(args[key], indent=1))
    path = folder / "fold_0" / "checkpoint_final.pth"
    write_weights(path, state, metadata=described)


def _configuration(
    run: Run, model: models.PlainUNet | models.ResEncUNet, name: str
) -> dict[str, Any]:
    plan, is_residual = run.plan, isinstance(model, models.ResEncUNet)
    features, strides, kernels = model.features, model.strides, model.kernel_sizes
    if features is None or strides is None or kernels is None:
        raise ValueError(
            "nnU-Net's plans name the features, strides and kernels of every stage; "
            "give the model all three"
        )
    values = write_configuration(
        Configuration(
            spacing_mm=plan.spacing_mm,
            median_size=plan.median_size,
            net=Topology(
                patch_size=run.experiment.data.patch_size or plan.patch_size,
                strides=strides,
                kernel_sizes=kernels,
                features=features,
                batch_size=run.experiment.data.batch_size or plan.batch_size,
            ),
            batch_dice=plan.batch_dice,
        ),
        preset="resenc" if is_residual else "default",
        data_identifier=f"bmjaxPlans_{name}",
        normalization=plan.normalization,
        use_mask_for_norm=plan.use_mask_for_norm,
    )
    network = values["architecture"]["arch_kwargs"]
    network["n_conv_per_stage_decoder"] = [model.num_convs] * (len(features) - 1)
    if not isinstance(model, models.ResEncUNet):
        network["n_conv_per_stage"] = [model.num_convs] * len(features)
    elif model.num_blocks is not None:
        network["n_blocks_per_stage"] = list(model.num_blocks)
    return values


def _init_args(metadata: Mapping[str, Any]) -> dict[str, Any]:
    found = metadata.get("init_args")
    return found if isinstance(found, dict) else {}


def _has_regions(dataset: Mapping[str, Any]) -> bool:
    """Whether nnU-Net predicts regions, each by a sigmoid, or labels by a softmax."""
    values = dataset["labels"].values()
    return any(isinstance(v, list | tuple) and len(v) > 1 for v in values)
