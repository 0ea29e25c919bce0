"""nnU-Net: predictor around the same network, preprocessing, augmentation, export."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (
    DefaultPreprocessor,
)
from nnunetv2.preprocessing.resampling import default_resampling
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from benchmarks.bench_augment import Samples
from benchmarks.bench_preprocess import DATASET, NAMES, Files, Zoom
from benchmarks.bench_sliding import Exam, Volume
from benchmarks.nets import NUM_CLASSES
from benchmarks.peers.monai import predictor
from benchmarks.peers.torch import DEVICE
from benchmarks.timing import Work


def sliding(volume: Volume | Exam, *, setting: str, scratch: Path) -> Work:
    has_flips = volume.flips == "all"
    whole = nnUNetPredictor(use_mirroring=has_flips, device=DEVICE, allow_tqdm=False)
    if isinstance(volume, Exam):
        return _exam(volume, whole, scratch)
    network, num_params = predictor(volume)
    whole.network = network
    whole.allowed_mirroring_axes = (0, 1, 2)
    whole.configuration_manager = SimpleNamespace(patch_size=volume.window)
    whole.label_manager = SimpleNamespace(num_segmentation_heads=NUM_CLASSES)
    image = torch.from_numpy(np.moveaxis(volume.draw(), -1, 0).copy())
    return Work(
        call=lambda: whole.predict_sliding_window_return_logits(image).cpu(),
        facts={"num_params": num_params},
    )


def _exam(exam: Exam, whole: nnUNetPredictor, scratch: Path) -> Work:
    """As `nnUNetv2_predict` does it, but in one process and with the model loaded."""
    paths = exam.files.paths(scratch)
    whole.initialize_from_trained_model_folder(str(scratch / "model"), (0,))
    out = scratch / "theirs"
    out.mkdir(exist_ok=True)
    files = [str(paths[name]) for name in NAMES]
    num_params = sum(p.numel() for p in whole.network.parameters())
    return Work(
        call=lambda: whole.predict_from_files_sequential([files], [str(out / "exam")]),
        facts={"num_params": num_params},
    )


def preprocess(case: Zoom | Files, *, setting: str, scratch: Path) -> Work:
    if isinstance(case, Zoom):
        return _resampling(case)
    return _export(case, scratch) if case.is_export else _preparation(case, scratch)


def _resampling(zoom: Zoom) -> Work:
    array = zoom.draw()
    array = array[None] if zoom.is_labels else array
    order = 1 if zoom.is_labels else 3

    def call() -> None:
        default_resampling.resample_data_or_seg_to_shape(
            array,
            zoom.new_size,
            current_spacing=(1, 1, 1),
            new_spacing=tuple(
                a / b for a, b in zip(zoom.size, zoom.new_size, strict=True)
            ),
            is_seg=zoom.is_labels,
            order=order,
            force_separate_z=False,
        )

    return Work(call=call)


def augment(samples: Samples, *, setting: str, scratch: Path) -> Work:
    torch.set_num_threads(samples.threads or torch.get_num_threads())
    limit = np.deg2rad(30)
    transforms = nnUNetTrainer.get_training_transforms(
        np.array(samples.patch_size),
        (-limit, limit),
        None,  # deep supervision's smaller targets are made later on our side
        (0, 1, 2),
        do_dummy_2d_data_aug=False,
        use_mask_for_norm=[True] * 4,
        foreground_labels=[1, 2, 3],
    )
    image, labels = samples.draw()
    whole = torch.from_numpy(np.moveaxis(image, -1, 0).copy())
    outside = (image == 0).all(-1) & (labels == 0)
    marked = torch.from_numpy(np.where(outside, -1, labels).astype(np.int16)[None])
    pending: list[tuple[torch.Tensor, torch.Tensor]] = []
    np.random.seed(0)  # noqa: NPY002, they draw from the global generator
    torch.manual_seed(0)

    def before() -> None:
        # they work in place; their loader cuts afresh, which is not counted
        pending[:] = [
            (whole.clone(), marked.clone()) for _ in range(samples.num_samples)
        ]

    def call() -> None:
        while pending:
            own_image, own_labels = pending.pop()
            transforms(image=own_image, segmentation=own_labels)

    return Work(
        call=call, before=before, facts={"samples_per_call": samples.num_samples}
    )


def _preparation(files: Files, scratch: Path) -> Work:
    paths = files.paths(scratch)
    plans = PlansManager(files.plans(scratch))
    preprocessor = DefaultPreprocessor(verbose=False)
    out = scratch / "nnunet"

    def before() -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()

    return Work(
        call=lambda: preprocessor.run_case_save(
            str(out / "case"),
            [str(paths[name]) for name in NAMES],
            str(paths["seg"]),
            plans,
            plans.get_configuration("3d_fullres"),
            DATASET,
        ),
        before=before,
    )


def _export(files: Files, scratch: Path) -> Work:
    source = files.paths(scratch)[NAMES[0]]
    plans = PlansManager(files.plans(scratch))
    way = json.loads((scratch / "geometry.json").read_text())  # as ours went it
    _, facts = SimpleITKIO().read_images([str(source)])
    facts |= {
        "shape_before_cropping": way["size"],
        "bbox_used_for_cropping": [
            [*edge] for edge in zip(way["crop_start"], way["crop_stop"], strict=True)
        ],
        "shape_after_cropping_and_before_resampling": way["size_after_crop"],
    }
    logits = files.logits(tuple(way["size_after_resampling"]))
    logits = torch.from_numpy(np.moveaxis(logits, -1, 0).copy())
    return Work(
        call=lambda: export_prediction_from_logits(
            logits,
            facts,
            plans.get_configuration("3d_fullres"),
            plans,
            DATASET,
            str(scratch / "theirs"),
            num_threads_torch=torch.get_num_threads(),
        )
    )
