"""The convolution algorithms that a run was begun with, or that are timed for it."""

from pathlib import Path

from rich.console import Console

from bmjax import sharding
from bmjax.experiment import Experiment, load
from bmjax.training import time_convolutions


def with_convolutions(
    run: Path,
    experiment: Experiment,
    *,
    num_channels: int,
    num_devices: int | None,
    is_timed: bool,
    console: Console,
) -> Experiment:
    """The experiment with the algorithms to train by.

    A run that was begun keeps its own: timing again could change the result.

    Args:
      run: run folder, perhaps not there yet.
      experiment: resolved.
      num_channels: of an image.
      num_devices: as for `bmjax train`.
      is_timed: find the fastest, if the run is not begun and none are given.
      console: where findings are shown.

    Raises:
      ValueError: asked for timing where there is nothing to choose.
    """
    if experiment.convolutions:
        return experiment
    if (run / "experiment.json").is_file():
        begun = load(run, allow=experiment.packages())
        return experiment.replace({"convolutions": begun.convolutions})
    if not is_timed:
        return experiment
    data, num_parts = experiment.data, experiment.optimizer.accumulate
    batch_size = (data.batch_size or 1) // num_parts
    mesh = sharding.data_mesh(sharding.devices_for(batch_size, num_devices))
    shape = (batch_size, *(data.patch_size or ()), num_channels)
    with console.status("timing the algorithms of each convolution"):
        found = time_convolutions(
            experiment.model,
            shape,
            mesh,
            tell=lambda line: console.print(line, markup=False, soft_wrap=True),
        )
    count = f"{len(found)} convolutions" if found else "no convolution"
    console.print(f"{run.name}: {count} by another algorithm than the rule's")
    return experiment.replace({"convolutions": found})
