"""nnU-Net: its predictor around the same network, and its resampling."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.resampling import default_resampling

from benchmarks.bench_preprocess import Zoom
from benchmarks.bench_sliding import Volume
from benchmarks.nets import NUM_CLASSES
from benchmarks.peers.monai import predictor
from benchmarks.peers.torch import DEVICE
from benchmarks.timing import Work


def sliding(volume: Volume, *, setting: str, scratch: Path) -> Work:
    network, num_params = predictor(volume)
    whole = nnUNetPredictor(use_mirroring=False, device=DEVICE, allow_tqdm=False)
    whole.network = network
    whole.configuration_manager = SimpleNamespace(patch_size=volume.window)
    whole.label_manager = SimpleNamespace(num_segmentation_heads=NUM_CLASSES)
    image = torch.from_numpy(np.moveaxis(volume.draw(), -1, 0).copy())
    return Work(
        call=lambda: whole.predict_sliding_window_return_logits(image).cpu(),
        facts={"num_params": num_params},
    )


def preprocess(zoom: Zoom, *, setting: str, scratch: Path) -> Work:
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
