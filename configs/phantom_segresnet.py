"""Small SegResNet for the phantom transfer study.

bash launch/transfer_phantom.sh WORKDIR
"""

from bmjax import Experiment, losses, models
from bmjax.data.pipeline import Loader
from bmjax.training import Fit, Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=models.SegResNet(num_features=8),
        loss=losses.DiceBCE(),
        data=Loader(p_lesion=0.67),
        optimizer=Optimizer(
            name="adam", peak_lr=1e-3, eps=1e-5, num_epochs=20, epoch_steps=20
        ),
        fit=Fit(validate_every=100, num_val_batches=4, checkpoint_every=100),
    )
