"""Names and axes between torch state dicts, as numpy, and parameters of ours.

Known are nnU-Net's PlainConvUNet and ResidualEncoderUNet (PlainUNet and ResEncUNet
here) and MONAI's SegResNet; the parameter tree itself tells which one it is. nnU-Net's
networks hold the same tensor under several names: `.conv` is also `.all_modules.0`,
`.norm` also `.all_modules.1`, and the encoder hangs below the decoder once more.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from bmjax.surgery.paths import flatten, unflatten
from bmjax.surgery.report import mismatch_table, shape_text
from bmjax.typing import Params, Size

# left there by DistributedDataParallel and torch.compile
_PREFIXES = r"^((module|_orig_mod)\.)+"
_SUFFIX = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_UNET_MODULES = (
    (r"encoder/stem/block_(\d+)/(conv|norm)", "encoder.stem.convs.{0}.{1}"),
    (
        r"decoder/stage_(\d+)/block_(\d+)/(conv|norm)",
        "decoder.stages.{0}.convs.{1}.{2}",
    ),
    (r"decoder/up_(\d+)", "decoder.transpconvs.{0}"),
    (r"heads/level_(\d+)", "decoder.seg_layers.{0}"),
)
_PLAIN_ENCODER = (
    (
        r"encoder/stage_(\d+)/block_(\d+)/(conv|norm)",
        "encoder.stages.{0}.0.convs.{1}.{2}",
    ),
)
_RESIDUAL_ENCODER = (
    (
        r"encoder/stage_(\d+)/block_(\d+)/(conv|norm)_(\d)",
        "encoder.stages.{0}.blocks.{1}.conv{3}.{2}",
    ),
    (
        r"encoder/stage_(\d+)/block_(\d+)/skip_(conv|norm)",
        "encoder.stages.{0}.blocks.{1}.skip.{skip}.{2}",
    ),
)
_SEGRESNET = (
    (r"encoder/stem", "convInit.conv"),
    (r"encoder/down_(\d+)", "down_layers.{0}.0.conv"),
    (r"encoder/stage_(\d+)/block_(\d+)/norm_(\d)", "down_layers.{0}.{1}.norm{2}"),
    (r"encoder/stage_(\d+)/block_(\d+)/conv_(\d)", "down_layers.{0}.{1}.conv{2}.conv"),
    (r"decoder/up_(\d+)", "up_samples.{0}.0.conv"),
    (r"decoder/stage_(\d+)/block_(\d+)/norm_(\d)", "up_layers.{0}.{1}.norm{2}"),
    (r"decoder/stage_(\d+)/block_(\d+)/conv_(\d)", "up_layers.{0}.{1}.conv{2}.conv"),
    (r"decoder/norm", "conv_final.0"),
    (r"heads/level_0", "conv_final.2.conv"),
)


def from_torch(
    target: Params, state: Mapping[str, np.ndarray], *, strict: bool = True
) -> dict[str, Any]:
    """Parameters of ours from a torch state dict.

    Args:
      target: parameters of the network that receives them, or their shapes alone
        (`jax.eval_shape`), plain nested dicts.
      state: torch's tensors by name.
      strict: refuse tensors that are missing, left over or of another shape.
        Otherwise take those that are there in the shapes that they have, those left
        over under their own names, for `graft` to decide.

    Returns:
      Nested dicts of numpy arrays, in the types of the target.

    Raises:
      ValueError: the network has no counterpart in torch; two names of one tensor
        disagree; strict and tensors do not fit, all of them listed.
    """
    leaves = flatten(target)
    given = _without_aliases(state)
    found: dict[str, np.ndarray] = {}
    problems: list[tuple[str, str, str]] = []
    for path, name in torch_names(target).items():
        want = leaves[path]
        expects = _their_shape(name, tuple(want.shape))
        if name not in given:
            problems.append((name, shape_text(expects), "missing"))
            continue
        tensor = given.pop(name)
        if tensor.shape != expects:
            problems.append((name, shape_text(expects), shape_text(tensor.shape)))
        # always a copy: torch changes its tensors in place
        found[path] = np.array(_to_ours(name, tensor), dtype=want.dtype, order="C")
    problems += [(name, "missing", shape_text(x.shape)) for name, x in given.items()]
    if strict and problems:
        raise ValueError(_message(problems))
    return {**unflatten(found), **given}


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """State dict that the torch network loads, every alias written.

    Raises:
      ValueError: the network has no counterpart in torch.
    """
    state: dict[str, np.ndarray] = {}
    leaves = flatten(params)
    for path, name in torch_names(params).items():
        tensor = np.array(_to_theirs(name, np.asarray(leaves[path])), order="C")
        state.update(dict.fromkeys(_aliases(name), tensor))
    return state


def torch_names(params: Params) -> dict[str, str]:
    """Torch's name of each parameter, by path; of aliases the shortest name.

    Args:
      params: parameters, or their shapes alone.

    Raises:
      ValueError: the network has no counterpart in torch.
    """
    leaves = flatten(params)
    is_segresnet = "encoder/stem/kernel" in leaves
    rules = _SEGRESNET if is_segresnet else _UNET_MODULES
    if not is_segresnet:
        is_residual = "encoder/stem/block_0/conv/kernel" in leaves
        rules += _RESIDUAL_ENCODER if is_residual else _PLAIN_ENCODER
    names: dict[str, str] = {}
    for path in leaves:
        module, _, kind = path.rpartition("/")
        match, pattern = _first_match(rules, module)
        if match is None or kind not in _SUFFIX:
            raise ValueError(
                f"parameter '{path}' has no counterpart in torch; only PlainUNet, "
                "ResEncUNet and SegResNet can be exchanged with nnU-Net and MONAI"
            )
        numbers = list(match.groups())
        if module.startswith(("decoder/", "heads/")) and numbers:
            # level 0 is the full resolution here, the deepest one there
            deepest = sum(p in leaves for p in _ups(len(leaves))) - 1
            numbers[0] = str(deepest - int(numbers[0]))
        if pattern.startswith("down_layers.{0}.{1}"):
            numbers[1] = str(int(numbers[1]) + 1)  # 0 is the strided convolution
        skip = _skip_place(leaves, numbers[0]) if "{skip}" in pattern else ""
        names[path] = f"{pattern.format(*numbers, skip=skip)}.{_SUFFIX[kind]}"
    return names


def _ups(count: int) -> list[str]:
    return [f"decoder/up_{i}/kernel" for i in range(count)]


def _first_match(
    rules: tuple[tuple[str, str], ...], module: str
) -> tuple[re.Match[str] | None, str]:
    for regex, pattern in rules:
        match = re.fullmatch(regex, module)
        if match:
            return match, pattern
    return None, ""


def _skip_place(leaves: Mapping[str, Any], stage: str) -> int:
    """Place of the projection in the shortcut: after a pool if the stage strides.

    The upsampling back from the stage has its strides as kernel.
    """
    up = leaves.get(f"decoder/up_{int(stage) - 1}/kernel")
    return int(up is not None and any(size > 1 for size in up.shape[:-2]))


def _is_transposed(name: str) -> bool:
    return ".transpconvs." in name


def _to_ours(name: str, tensor: np.ndarray) -> np.ndarray:
    """`f c *k`, or transposed `c f *k`, as `*k c f`."""
    if tensor.ndim < 3:
        return tensor
    channels = (0, 1) if _is_transposed(name) else (1, 0)
    return tensor.transpose(*range(2, tensor.ndim), *channels)


def _to_theirs(name: str, array: np.ndarray) -> np.ndarray:
    """`*k c f` as `f c *k`, or transposed `c f *k`."""
    if array.ndim < 3:
        return array
    num_axes = array.ndim - 2
    fan_in, fan_out = num_axes, num_axes + 1
    channels = (fan_in, fan_out) if _is_transposed(name) else (fan_out, fan_in)
    return array.transpose(*channels, *range(num_axes))


def _their_shape(name: str, shape: Size) -> Size:
    return _to_theirs(name, np.broadcast_to(np.zeros(()), shape)).shape


def _aliases(name: str) -> list[str]:
    """All names of a tensor in the torch network, the shortest first."""
    names = [name]
    if name.startswith(("encoder.", "decoder.stages.")):
        *module, layer, kind = name.split(".")
        place = {"conv": "0", "norm": "1"}[layer]
        names.append(".".join([*module, "all_modules", place, kind]))
    if name.startswith("encoder."):
        names += [f"decoder.{alias}" for alias in names]
    return names


def _shortest(name: str) -> str:
    """The first of the names that `_aliases` lists, from any of them."""
    name = re.sub(r"^decoder\.encoder\.", "encoder.", name)
    name = name.replace(".all_modules.0.", ".conv.")
    # the norm follows the convolution, or a dropout in between
    return re.sub(r"\.all_modules\.[12]\.", ".norm.", name)


def _without_aliases(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    first: dict[str, str] = {}
    for given, tensor in state.items():
        name = _shortest(re.sub(_PREFIXES, "", given))
        if name not in found:
            found[name], first[name] = tensor, given
        elif not np.array_equal(found[name], tensor, equal_nan=True):
            raise ValueError(
                f"torch state dict: '{first[name]}' and '{given}' are one tensor of "
                "the network, but their values differ; the file is damaged or was "
                "edited, export it again from the network"
            )
    return found


def _message(problems: list[tuple[str, str, str]]) -> str:
    table = mismatch_table(problems, head=("torch name", "network expects", "file has"))
    return (
        f"{len(problems)} tensors of the torch file do not fit the network:\n{table}\n"
        "Build the network from the plan that the weights were trained with; "
        "strict=False takes what there is and leaves the rest to graft."
    )
