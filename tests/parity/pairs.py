"""A network of ours beside its public reference, with the same random weights."""

import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bmjax import models
from bmjax.surgery import flatten, from_torch

CHANNELS = 4
CUBE, TWO = (3, 3, 3), (2, 2, 2)
FEATURES = (32, 64, 128, 256, 320, 320)
REGIONS = (("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,)))
SBT = {
    "features": FEATURES,
    "strides": ((1, 1, 1), (1, 2, 2), TWO, TWO, TWO, TWO),
    "kernel_sizes": ((1, 3, 3), *(CUBE,) * 5),
    "num_classes": 3,
}
BRATS = {
    "features": FEATURES,
    "strides": ((1, 1, 1), TWO, TWO, TWO, TWO, (2, 2, 1)),
    "kernel_sizes": (CUBE,) * 6,
    "num_classes": 3,
}
# every kind of stage: flat kernels, strides that differ by axis, odd sizes at depth
_SMALL = {
    "features": (4, 6, 8, 8),
    "strides": ((1, 1, 1), (1, 2, 2), TWO, (2, 2, 1)),
    "kernel_sizes": ((1, 3, 3), *(CUBE,) * 3),
    "num_classes": 3,
}
_FLAT = {
    "features": (4, 6, 8),
    "strides": ((1, 1), (2, 2), (1, 2)),
    "kernel_sizes": ((3, 3),) * 3,
    "num_classes": 3,
}
_SEGRESNET = models.SegResNet(
    num_classes=3,
    num_features=8,
    num_groups=4,
    num_blocks_down=(1, 2, 2),
    num_blocks_up=(1, 1),
)
# with the image size
SMALL_NETS = {
    "PlainUNet": (models.PlainUNet(**_SMALL), (12, 16, 8)),
    "ResEncUNet": (models.ResEncUNet(**_SMALL, num_blocks=(1, 2, 1, 1)), (12, 16, 8)),
    "SegResNet": (_SEGRESNET, (8, 12, 8)),
    "PlainUNet in 2-D": (models.PlainUNet(**_FLAT), (8, 24)),
    "ResEncUNet in 2-D": (models.ResEncUNet(**_FLAT, num_blocks=(1, 2, 1)), (8, 24)),
    "SegResNet in 2-D": (_SEGRESNET, (12, 8)),
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Network of ours, reference, and the parameters that both have.

    Attributes:
      model: network of ours.
      net: torch module.
      params: the module's tensors under our names.
    """

    model: Any
    net: Any
    params: dict[str, Any]


def reference(model, *, num_axes):
    """The public network of the same topology."""
    from dynamic_network_architectures.architectures import unet
    from monai.networks.nets import SegResNet
    from torch import nn

    if isinstance(model, models.SegResNet):
        return SegResNet(
            spatial_dims=num_axes,
            init_filters=model.num_features,
            in_channels=CHANNELS,
            out_channels=model.num_classes,
            norm=("GROUP", {"num_groups": model.num_groups}),
            blocks_down=model.num_blocks_down,
            blocks_up=model.num_blocks_up,
        )
    # what nnU-Net's planner writes beside the topology
    options = {
        "input_channels": CHANNELS,
        "n_stages": len(model.features),
        "features_per_stage": model.features,
        "conv_op": {2: nn.Conv2d, 3: nn.Conv3d}[num_axes],
        "kernel_sizes": model.kernel_sizes,
        "strides": model.strides,
        "num_classes": model.num_classes,
        "conv_bias": True,
        "norm_op": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[num_axes],
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": True,
    }
    if isinstance(model, models.PlainUNet):
        return unet.PlainConvUNet(
            n_conv_per_stage=2, n_conv_per_stage_decoder=2, **options
        )
    num_blocks = model.num_blocks or (1, 3, 4, *(6,) * 6)[: len(model.features)]
    return unet.ResidualEncoderUNet(
        n_blocks_per_stage=num_blocks, n_conv_per_stage_decoder=1, **options
    )


def make_pair(model, *, num_axes=3, dtype="float32", head_gain=1):
    """Both networks with the reference's own start; no norm or bias is 0 or 1.

    Args:
      model: network of ours.
      num_axes: of space.
      dtype: type of the parameters.
      head_gain: factor of the heads' kernels.
    """
    import torch

    torch.manual_seed(0)
    net = reference(model, num_axes=num_axes).to(getattr(torch, dtype))
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            if tensor.ndim == 1:
                low, high = (0.5, 1.5) if name.endswith("weight") else (-0.5, 0.5)
                tensor.uniform_(low, high)
            elif re.match(r"decoder.seg_layers|conv_final", name):
                tensor *= head_gain
    target = shapes(model, num_axes=num_axes, dtype=dtype)
    return Pair(model=model, net=net, params=from_torch(target, state_of(net)))


def shapes(model, *, num_axes=3, dtype="float32"):
    """Shapes of the parameters of ours."""
    image = jax.ShapeDtypeStruct((1, *(128,) * num_axes, CHANNELS), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), params)


def state_of(net):
    """The state dict as numpy; its memory is the module's own."""
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


def gradients_of(pair):
    """Gradients of the module's tensors under our names, by path."""
    grads = {name: x.grad.numpy() for name, x in pair.net.named_parameters()}
    return flatten(from_torch(pair.params, grads))


def outputs_of(net, image):
    """Logits of the module at each resolution, in torch's order of axes."""
    import torch

    outputs = net(torch.from_numpy(channels_first(image)))
    return outputs if isinstance(outputs, list) else [outputs]


def draw_image(*space, batch=2, dtype="float32", seed=1):
    """Standard normal images, ours."""
    size = (batch, *space, CHANNELS)
    return np.random.default_rng(seed).normal(size=size).astype(dtype)


def shrunk(maps, sizes):
    """Maps `b k *s` at each size, as nnU-Net's loader makes them."""
    import torch
    from batchgeneratorsv2.transforms.utils import deep_supervision_downsampling

    scales = [
        [n / m for n, m in zip(size, maps.shape[2:], strict=True)] for size in sizes
    ]
    shrink = deep_supervision_downsampling.DownsampleSegForDSTransform(scales)
    samples = [shrink(segmentation=torch.from_numpy(x))["segmentation"] for x in maps]
    return [torch.stack(level) for level in zip(*samples, strict=True)]


def regions_of(labels):
    """Label maps `b *s` as regions `b k *s`."""
    return np.stack([np.isin(labels, values) for _, values in REGIONS], 1)


def channels_first(x):
    """`b *s c` as `b c *s`."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def channels_last(x):
    """`b c *s` as `b *s c`, from torch or numpy."""
    return np.moveaxis(np.asarray(x), 1, -1)


def distance(ours, theirs):
    """Norm of the difference, in norms of the reference."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def is_inert(path, params):
    """Whether a parameter is a bias of a convolution that a norm of it follows."""
    module, _, kind = path.rpartition("/")
    norm = module.replace("conv", "norm")
    return kind == "bias" and norm != module and f"{norm}/scale" in params
