"""PyTorch: nnU-Net's own networks and loss, MONAI's SegResNet, a 2-D U-Net as Keras's.

The training step is that of nnU-Net's trainer: forward, loss with deep supervision,
backward, clipping at norm 12, SGD with Nesterov momentum.
"""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.bench_blocks import Block
from benchmarks.nets import CHANNELS, NUM_CLASSES, Net
from benchmarks.timing import Work

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.backends.cudnn.benchmark = True


def step(net: Net, *, setting: str, scratch: Path) -> Work:
    model, image = placed(net, setting)
    targets = [
        torch.randint(0, 2, (net.batch_size, NUM_CLASSES, *size), device=DEVICE).bool()
        for size in _output_sizes(net)
    ]
    criterion = _loss(net)
    optimizer = torch.optim.SGD(
        model.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True
    )

    def call() -> None:
        optimizer.zero_grad(set_to_none=True)
        with _precision(net):
            outputs = model(image)
            if net.has_deep_supervision:
                value = criterion(outputs, targets)
            else:
                value = criterion(outputs, targets[0])
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 12)
        optimizer.step()
        _finish()

    return _work(call, model, setting)


def forward(net: Net, *, setting: str, scratch: Path) -> Work:
    model, image = placed(net, setting)
    model.eval()
    if net.has_deep_supervision:
        model.decoder.deep_supervision = False

    @torch.inference_mode()
    def call() -> None:
        with _precision(net):
            model(image)
        _finish()

    return _work(call, model, setting)


def blocks(block: Block, *, setting: str, scratch: Path) -> Work:
    rank = len(block.size)
    kind = {"conv": "Conv", "up": "ConvTranspose", "norm": "InstanceNorm"}[block.layer]
    kind = getattr(nn, f"{kind}{rank}d")
    if block.layer == "norm":
        layer = nn.Sequential(kind(block.channels, affine=True), nn.LeakyReLU(0.01))
    else:
        padding = (block.kernel - 1) // 2 if block.layer == "conv" else 0
        options = {"stride": block.stride, "padding": padding, "bias": False}
        layer = kind(block.channels, block.features, block.kernel, **options)
    memory = _memory_format(setting, rank)
    layer = layer.to(DEVICE, memory_format=memory)
    x = torch.randn(block.batch_size, block.channels, *block.size, device=DEVICE)
    x = x.contiguous(memory_format=memory)
    if block.part == "forward":

        @torch.inference_mode()
        def run() -> None:
            layer(x)
            _finish()

        return Work(call=run)
    wanted = list(layer.parameters()) if block.part == "kernel gradient" else []
    if block.part == "input gradient":
        wanted = [x.requires_grad_()]
        if block.layer == "norm":
            wanted += layer.parameters()
    for parameter in layer.parameters():
        parameter.requires_grad_(any(parameter is tensor for tensor in wanted))
    y = layer(x)
    grads = torch.randn_like(y)

    def run() -> None:
        torch.autograd.grad(y, wanted, grads, retain_graph=True)
        _finish()

    return Work(call=run)


def placed(net: Net, setting: str) -> tuple[Any, torch.Tensor]:
    """A network and an image on the device, in the memory format of the setting."""
    torch.manual_seed(0)
    rank = len(net.patch_size)
    memory = _memory_format(setting, rank)
    model = build(net).to(DEVICE, memory_format=memory)
    image = torch.randn(net.batch_size, CHANNELS, *net.patch_size, device=DEVICE)
    image = image.contiguous(memory_format=memory)
    return torch.compile(model) if setting == "compiled" else model, image


def build(net: Net) -> nn.Module:
    """The public network of the same topology."""
    rank = len(net.patch_size)
    if net.kind == "UNet2D":
        return KerasUNet(net.features)
    if net.kind == "SegResNet":
        from monai.networks.nets import SegResNet

        return SegResNet(
            spatial_dims=rank,
            init_filters=net.features[0],
            in_channels=CHANNELS,
            out_channels=NUM_CLASSES,
            blocks_down=net.num_blocks,
            blocks_up=(1,) * (len(net.num_blocks) - 1),
        )
    options = {
        "input_channels": CHANNELS,
        "n_stages": len(net.features),
        "features_per_stage": net.features,
        "conv_op": getattr(nn, f"Conv{rank}d"),
        "kernel_sizes": 3,
        "strides": (1, *(2,) * (len(net.features) - 1)),
        "num_classes": NUM_CLASSES,
        "conv_bias": True,
        "norm_op": getattr(nn, f"InstanceNorm{rank}d"),
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": True,
    }
    from dynamic_network_architectures.architectures import unet

    if net.kind == "PlainUNet":
        return unet.PlainConvUNet(
            n_conv_per_stage=2, n_conv_per_stage_decoder=2, **options
        )
    return unet.ResidualEncoderUNet(
        n_blocks_per_stage=net.num_blocks, n_conv_per_stage_decoder=1, **options
    )


class KerasUNet(nn.Module):
    """U-Net of convolution, ReLU and batch norm; dropout after each pool."""

    def __init__(self, features: tuple[int, ...]) -> None:
        super().__init__()
        inputs = (CHANNELS, *features)
        self.down = nn.ModuleList(
            _pair(c, f) for c, f in zip(inputs, features, strict=False)
        )
        self.up = nn.ModuleList(
            _pair(f + c, f) for f, c in zip(features, features[1:], strict=False)
        )
        self.head = nn.Conv2d(features[0], NUM_CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits at full resolution."""
        skips = []
        for stage in self.down[:-1]:
            skips.append(stage(x))
            pooled = nn.functional.max_pool2d(skips[-1], 2)
            x = nn.functional.dropout(pooled, 0.2, self.training)
        x = self.down[-1](x)
        for stage, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = nn.functional.interpolate(x, scale_factor=2)
            x = stage(torch.cat([x, skip], 1))
        return self.head(x)


def _pair(channels: int, features: int) -> nn.Sequential:
    layers = []
    for inputs in (channels, features):
        norm = nn.BatchNorm2d(features, eps=1e-3, momentum=0.01)
        layers += [nn.Conv2d(inputs, features, 3, padding=1), nn.ReLU(True), norm]
    return nn.Sequential(*layers)


def _loss(net: Net) -> nn.Module:
    from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    dice = {"batch_dice": True, "do_bg": True, "smooth": 1e-5, "ddp": False}
    loss = DC_and_BCE_loss({}, dice, dice_class=MemoryEfficientSoftDiceLoss)
    if not net.has_deep_supervision:
        return loss
    weights = 0.5 ** np.arange(len(net.features) - 1)
    if len(weights) > 1:
        weights[-1] = 0
    return DeepSupervisionWrapper(loss, weights / weights.sum())


def _output_sizes(net: Net) -> list[tuple[int, ...]]:
    levels = range(len(net.features) - 1 if net.has_deep_supervision else 1)
    return [tuple(n >> level for n in net.patch_size) for level in levels]


def _work(call: Any, model: Any, setting: str) -> Work:
    compile_s = None
    if setting == "compiled":
        # it compiles while it runs: what the first call takes more than the second
        marks = [perf_counter()]
        for _ in range(2):
            call()
            marks.append(perf_counter())
        compile_s = (marks[1] - marks[0]) - (marks[2] - marks[1])
    num_params = sum(p.numel() for p in model.parameters())
    return Work(call=call, compile_s=compile_s, facts={"num_params": num_params})


def _memory_format(setting: str, rank: int) -> torch.memory_format:
    if setting != "channels_last":
        return torch.contiguous_format
    return torch.channels_last_3d if rank == 3 else torch.channels_last


def _precision(net: Net) -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=net.dtype == "bfloat16")


def _finish() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
