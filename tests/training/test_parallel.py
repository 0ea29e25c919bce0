"""One device, eight devices and pmap give the same run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax import losses, models, sharding
from bmjax.augment import AugmentPolicy
from bmjax.training import Optimizer, initial_state, make_train_step

REGIONS = (("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,)))
PLAIN = models.PlainUNet(
    features=(4, 8, 8),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernel_sizes=((3, 3, 3),) * 3,
    num_classes=3,
)
UNET2D = models.UNet2D(features=(4, 8, 8), num_classes=3, p_drop=0.3)
SIZES = {"plain": (8, 8, 8), "unet2d": (16, 16)}
MODELS = {"plain": PLAIN, "unet2d": UNET2D}


def batches(size, num):
    rng = np.random.default_rng(0)
    for _ in range(num):
        yield {
            "image": rng.normal(size=(8, *size, 4)).astype(np.float32),
            "labels": rng.integers(0, 4, (8, *size)).astype(np.int8),
        }


def run(name, optimizer, *, devices, parallel):
    model, size = MODELS[name], SIZES[name]
    mesh = sharding.data_mesh(jax.devices()[:devices])
    update = optimizer.transformation()
    step = make_train_step(
        model=model,
        loss=losses.DiceBCE(batch_dice=True),
        augment=AugmentPolicy(),
        optimizer=update,
        regions=REGIONS,
        seed=3,
    )
    compiled = sharding.parallelise(step, mesh, parallel=parallel)
    variables = model.init(jax.random.key(0), jnp.zeros((1, *size, 4)))
    state = sharding.replicate(initial_state(variables, update), mesh)
    seen = []
    for batch in batches(size, 5):
        placed = sharding.put_batch(batch, mesh, parallel=parallel)
        state, metrics = compiled(state, placed)
        seen.append(float(metrics["loss"]))
    return seen, jax.device_get(state.variables)


def has_true_gradient(path):
    """Biases in front of a norm have none: rounding alone moves them under Adam."""
    names = [getattr(part, "key", "") for part in path]
    return not (names[-1] == "bias" and "conv" in "/".join(names))


@pytest.mark.parametrize(
    "name", ["plain", pytest.param("unet2d", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "optimizer", ["sgd", pytest.param("adam", marks=pytest.mark.slow)]
)
def test_one_device_eight_devices_and_pmap_agree(name, optimizer):
    # a large eps: Adam turns rounding of a vanishing gradient into whole steps
    spec = Optimizer(name=optimizer, peak_lr=1e-2, num_steps=5, momentum=0.9, eps=1e-3)
    one = run(name, spec, devices=1, parallel="jit")
    for other in (
        run(name, spec, devices=8, parallel="jit"),
        run(name, spec, devices=8, parallel="pmap"),
    ):
        np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
        pairs = zip(
            jax.tree_util.tree_leaves_with_path(one[1]),
            jax.tree.leaves(other[1]),
            strict=True,
        )
        for (path, ours), theirs in pairs:
            if optimizer == "sgd" or has_true_gradient(path):
                distance = np.linalg.norm(ours - theirs)
                scale = max(np.linalg.norm(ours), 1e-3)
                assert distance <= 1e-5 * scale, jax.tree_util.keystr(path)
