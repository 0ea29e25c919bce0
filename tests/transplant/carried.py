"""A small run folder and the variables that it holds."""

import jax
import jax.numpy as jnp
import numpy as np

from bmjax.runs import Run
from bmjax.surgery import Surgery, flatten, unflatten
from bmjax.transplant import Origin, transplant

ONE = {"num_devices": 1}


def drawn(model, plan, seed=0):
    """Variables that all differ."""
    image = jnp.zeros((1, *plan.patch_size, len(plan.channels)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    rng = np.random.default_rng(seed)
    flat = {p: x.shape for p, x in flatten(shapes).items()}
    return unflatten(
        {p: rng.uniform(0.1, 1, size=s).astype(np.float32) for p, s in flat.items()}
    )


def a_run(experiment, plan, seed=0):
    return Run(experiment, plan, 0, drawn(experiment.model, plan, seed))


def with_source(run, **surgery):
    return Origin(run=run, surgery=Surgery(**surgery))


def from_file(file, **surgery):
    return Origin(from_torch=file, surgery=Surgery(**surgery))


def into(experiment, plan, origin):
    variables = drawn(experiment.model, plan)
    return transplant(variables, model=experiment.model, plan=plan, origin=origin)
