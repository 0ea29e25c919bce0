"""Patches for one training: from the store onto the devices, moved by its policy."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jax.sharding import Mesh

from bmjax import sharding
from bmjax.data.pipeline import Batches, batches
from bmjax.data.source import Variation
from bmjax.experiment import Experiment
from bmjax.sharding import Parallel


def patch_stream(
    experiment: Experiment,
    ids: tuple[str, ...],
    stream: str,
    num_steps: int,
    *,
    start: int = 0,
) -> Batches:
    """This process's share of the batches of a stream."""
    size = experiment.data.batch_size or 1
    return batches(
        experiment.data,
        ids,
        seed=experiment.seed,
        stream=stream,
        num_steps=num_steps,
        start=start,
        slots=sharding.local_slots(size),
        variation=variation(experiment) if stream == "train" else None,
    )


def variation(experiment: Experiment) -> Variation:
    """What the pipeline has to send along for the experiment's augmentation."""
    augment = experiment.augment
    added = augment.new_lesions
    return Variation(
        spatial=augment.spatial,
        donor_size=added.paste_size if added.p_pasted > 0 else 0,
        donor_mm3=added.paste_mm3,
    )


def placing(
    experiment: Experiment, mesh: Mesh, *, parallel: Parallel
) -> Callable[[Any], Any]:
    """From a host batch, of patches or of boxes around them, to patches on devices.

    A program of its own, so that the two sizes compile one training step.
    """
    size = experiment.data.patch_size or ()
    place = sharding.parallelise_samples(
        partial(experiment.augment.place, size=size), mesh, parallel=parallel
    )

    def put(batch: Any) -> Any:
        arrays = sharding.put_batch(batch, mesh, parallel=parallel)
        return arrays if set(arrays) == {"image", "labels"} else place(arrays)

    return put
