"""MONAI: its sliding window around the same network, and its Dice."""

from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.metrics import compute_dice

from benchmarks.bench_metrics import Scored
from benchmarks.bench_sliding import Volume
from benchmarks.nets import NUM_CLASSES, REGIONS
from benchmarks.peers.torch import DEVICE, build
from benchmarks.timing import Work


def sliding(volume: Volume, *, setting: str, scratch: Path) -> Work:
    network, num_params = predictor(volume)
    if volume.flips == "all":
        network = Mirrored(network)
    image = torch.from_numpy(np.moveaxis(volume.draw(), -1, 0)[None].copy()).to(DEVICE)

    @torch.inference_mode()
    def call() -> None:
        sliding_window_inference(
            image,
            volume.window,
            volume.net.batch_size if volume.net else 1,
            network,
            overlap=0.5,
            mode="gaussian",
        ).cpu()

    return Work(call=call, facts={"num_params": num_params})


def metrics(scored: Scored, *, setting: str, scratch: Path) -> Work:
    prediction, reference = scored.draw()

    def call() -> None:
        masks = [
            torch.from_numpy(np.stack([np.isin(x, v) for _, v in REGIONS])[None])
            for x in (prediction, reference)
        ]
        compute_dice(*masks)

    return Work(call=call)


def predictor(volume: Volume) -> tuple[torch.nn.Module, int | None]:
    """The network, or one that passes on its first channels; its parameters."""
    if volume.net is None:
        return FirstChannels(), None
    network = build(volume.net).to(DEVICE).eval()
    network.decoder.deep_supervision = False
    return network, sum(p.numel() for p in network.parameters())


class FirstChannels(torch.nn.Module):
    """No network."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As many channels as there are classes."""
        return x[:, :NUM_CLASSES].clone()


class Mirrored(torch.nn.Module):
    """The mean over all mirrored copies, which MONAI leaves to its user."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows."""
        total = self.network(x)
        axes = range(2, x.ndim)
        chosen = [c for n in axes for c in combinations(axes, n - 1)]
        for flipped in chosen:
            total += self.network(x.flip(flipped)).flip(flipped)
        return total / (len(chosen) + 1)
