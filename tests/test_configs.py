"""Every config loads, survives JSON, and traces a training step without arrays."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import bmjax
from bmjax.experiment import Experiment
from bmjax.training import initial_state, make_train_step

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_short_and_survives_json(path):
    assert len(path.read_text().splitlines()) <= 50
    experiment = bmjax.load(path)
    assert Experiment.from_json(experiment.to_json()) == experiment


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_traces_and_lowers_for_cuda(path, brats_plan):
    experiment = bmjax.load(path).resolve(brats_plan)
    optimizer = experiment.optimizer.transformation()
    size = experiment.data.patch_size
    batch = {
        "image": jax.ShapeDtypeStruct((2, *size, 4), jnp.float32),
        "labels": jax.ShapeDtypeStruct((2, *size), jnp.int8),
    }
    variables = jax.eval_shape(experiment.model.init, jax.random.key(0), batch["image"])
    state = jax.eval_shape(lambda v: initial_state(v, optimizer), variables)
    step = make_train_step(
        model=experiment.model,
        loss=experiment.loss,
        augment=experiment.augment,
        optimizer=optimizer,
        regions=brats_plan.regions,
        seed=0,
    )
    traced = jax.jit(step).trace(state, batch)
    after, metrics = traced.out_info
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics["loss"].shape == ()
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" in text
    # none but the rounds of augmentation's random numbers
    assert text.count("stablehlo.while") <= 1
