"""The smallest recipe that goes through the whole transfer study."""

from bmjax import Experiment, losses, models
from bmjax.data.pipeline import Loader
from bmjax.training import Fit, Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=models.PlainUNet(
            features=(4, 8, 8),
            strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
            kernel_sizes=((3, 3, 3),) * 3,
        ),
        loss=losses.DiceBCE(),
        data=Loader(p_lesion=0.5),
        optimizer=Optimizer(epoch_steps=4),
        fit=Fit(log_every=1, validate_every=4, num_val_batches=1, checkpoint_every=2),
    )
