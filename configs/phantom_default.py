"""Small plain U-Net for the phantom transfer study, with Dice and BCE.

bash launch/transfer_phantom.sh WORKDIR
"""

from bmjax import Experiment, losses, models
from bmjax.data.pipeline import Loader
from bmjax.training import Fit, Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=models.PlainUNet(
            features=(16, 32, 64, 96),
            strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
            kernel_sizes=((3, 3, 3),) * 4,
        ),
        loss=losses.DiceBCE(),
        data=Loader(p_lesion=0.67),
        optimizer=Optimizer(name="adam", peak_lr=2e-3, num_epochs=20, epoch_steps=20),
        fit=Fit(validate_every=100, num_val_batches=4, checkpoint_every=100),
    )
