"""Folds side by side on rows of devices are the folds trained apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax import fold_mesh, losses, models, sharding
from bmjax.augment import AugmentPolicy
from bmjax.training import Optimizer, initial_state, make_train_step

REGIONS = (("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,)))
MODEL = models.PlainUNet(
    features=(4, 8, 8),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernel_sizes=((3, 3, 3),) * 3,
    num_classes=3,
)
SIZE = (8, 8, 8)
OPTIMIZER = Optimizer(peak_lr=1e-2, num_steps=5, momentum=0.9)


def batches(fold, num=4):
    rng = np.random.default_rng(fold)
    for _ in range(num):
        yield {
            "image": rng.normal(size=(2, *SIZE, 4)).astype(np.float32),
            "labels": rng.integers(0, 4, (2, *SIZE)).astype(np.int8),
        }


def train_step(augment):
    return make_train_step(
        model=MODEL,
        loss=losses.DiceBCE(batch_dice=True),
        augment=augment,
        optimizer=OPTIMIZER.transformation(),
        regions=REGIONS,
        seed=3,
    )


def begin(fold, mesh):
    variables = MODEL.init(jax.random.key(fold), jnp.zeros((1, *SIZE, 4)))
    state = initial_state(variables, OPTIMIZER.transformation())
    return sharding.replicate(state, mesh)


def apart(fold, mesh):
    """Losses and last state of one fold on its own row."""
    step = train_step(sharding.samplewise(AugmentPolicy(), mesh))
    compiled, state, seen = sharding.parallelise(step, mesh), begin(fold, mesh), []
    for batch in batches(fold):
        state, metrics = compiled(state, sharding.put_batch(batch, mesh))
        seen.append(float(metrics["loss"]))
    return seen, jax.device_get(state)


def together(mesh):
    """The same of all folds in one program."""
    rows = fold_mesh.rows(mesh)
    begun = [begin(i, row) for i, row in enumerate(rows)]
    folds = fold_mesh.SideBySide(mesh, begun[0])
    compiled, state = folds.parallelise(train_step(AugmentPolicy())), folds.stack(begun)
    seen = []
    for each in zip(*(batches(i) for i in range(len(rows))), strict=True):
        placed = [sharding.put_batch(b, row) for b, row in zip(each, rows, strict=True)]
        state, metrics = compiled(state, folds.join(placed))
        seen.append(np.asarray(metrics["loss"]))
    assert compiled._cache_size() == 1
    return np.array(seen).T, [folds.part(state, i) for i in range(len(rows))]


@pytest.mark.slow  # tests/end_to_end/test_folds.py has the same of whole runs
def test_folds_of_a_device_each_are_to_the_byte_what_they_are_apart():
    mesh = fold_mesh.fold_mesh(2, 2, num_devices=2)
    losses_together, states = together(mesh)
    alone, state = apart(1, fold_mesh.rows(mesh)[1])
    np.testing.assert_array_equal(losses_together[1], np.float32(alone))
    jax.tree.map(np.testing.assert_array_equal, states[1], state)


@pytest.mark.slow
def test_folds_of_two_devices_each_share_batches_as_they_do_apart():
    mesh = fold_mesh.fold_mesh(2, 2)
    assert mesh.devices.shape == (2, 2)  # eight are there, of which two divide a batch
    losses_together, states = together(mesh)
    alone, state = apart(1, fold_mesh.rows(mesh)[1])
    np.testing.assert_allclose(losses_together[1], alone, rtol=1e-5)
    for ours, theirs in zip(
        jax.tree.leaves(states[1]), jax.tree.leaves(state), strict=True
    ):
        assert np.linalg.norm(ours - theirs) <= 1e-5 * max(np.linalg.norm(theirs), 1e-3)


def test_one_fold_can_be_exchanged():
    mesh = fold_mesh.fold_mesh(3, 2, num_devices=3)
    places = fold_mesh.rows(mesh)
    trees = [
        sharding.replicate({"scalar": jnp.asarray(i), "one": jnp.full((1,), i)}, place)
        for i, place in enumerate(places)
    ]
    folds = fold_mesh.SideBySide(mesh, trees[0])
    new = sharding.replicate(
        {"scalar": jnp.asarray(7), "one": jnp.full((1,), 8)}, places[1]
    )
    state = folds.with_part(folds.stack(trees), 1, new)
    found = [
        jax.tree.map(np.ndarray.tolist, jax.device_get(folds.part(state, i)))
        for i in range(3)
    ]
    assert found == [
        {"scalar": 0, "one": [0]},
        {"scalar": 7, "one": [8]},
        {"scalar": 2, "one": [2]},
    ]
    assert folds.part(state, 1)["one"].sharding.device_set == set(
        places[1].devices.flat
    )


@pytest.mark.parametrize("folds, devices", [(9, None), (3, 8), (2, 10), (2, 0), (2, 1)])
def test_devices_that_do_not_go_round_are_refused(folds, devices):
    said = f"{folds} folds side by side need the same .* JAX found 8 .*launch/folds.sh"
    with pytest.raises(ValueError, match=said):
        fold_mesh.fold_mesh(folds, 2, num_devices=devices)


def test_the_step_of_all_folds_can_be_lowered_for_cuda():
    mesh = fold_mesh.fold_mesh(2, 2)
    begun = [begin(i, row) for i, row in enumerate(fold_mesh.rows(mesh))]
    folds = fold_mesh.SideBySide(mesh, begun[0])
    batch = folds.join(
        [
            sharding.put_batch(next(batches(i)), row)
            for i, row in enumerate(fold_mesh.rows(mesh))
        ]
    )
    step = folds.parallelise(train_step(AugmentPolicy()))
    lowered = step.trace(folds.stack(begun), batch).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert "stablehlo.convolution" in text
    assert "all_reduce" in text
