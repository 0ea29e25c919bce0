"""State, optimiser, step, loop and log of a training run."""

from bmjax.training.log import RunLog, TrainingBar
from bmjax.training.loop import DeviceMemoryError, Fit, NonFiniteLossError, Stop, fit
from bmjax.training.optim import Optimizer
from bmjax.training.state import TrainState, initial_state
from bmjax.training.step import make_train_step, make_validation_step

__all__ = [
    "DeviceMemoryError",
    "Fit",
    "NonFiniteLossError",
    "Optimizer",
    "RunLog",
    "Stop",
    "TrainState",
    "TrainingBar",
    "fit",
    "initial_state",
    "make_train_step",
    "make_validation_step",
]
