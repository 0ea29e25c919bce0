"""State, optimiser, step, loop and log of a training run."""

from bmjax.device_memory import DeviceMemoryError
from bmjax.training.algorithms import time_convolutions
from bmjax.training.learner import Fit, Learner, NonFiniteLossError
from bmjax.training.log import RunLog, TrainingBars
from bmjax.training.loop import Stop, fit
from bmjax.training.optim import Optimizer
from bmjax.training.patience import Patience, Progress
from bmjax.training.state import TrainState, from_items, initial_state, to_items
from bmjax.training.step import make_train_step, make_validation_step
from bmjax.training.validation import validation

__all__ = [
    "DeviceMemoryError",
    "Fit",
    "Learner",
    "NonFiniteLossError",
    "Optimizer",
    "Patience",
    "Progress",
    "RunLog",
    "Stop",
    "TrainState",
    "TrainingBars",
    "fit",
    "from_items",
    "initial_state",
    "make_train_step",
    "make_validation_step",
    "time_convolutions",
    "to_items",
    "validation",
]
