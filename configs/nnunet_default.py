"""nnU-Net's default: plain U-Net of the plan, Dice and BCE (Luu et al. 2024).

As in the authors' trainer: 250 steps an epoch, learning rate set per epoch, the same
recipe from scratch and for fine-tuning. Their code ran 100 epochs; the paper's 200 for
pre-training are `--optimizer.num-steps 50000`.

bmjax train configs/nnunet_default.py --workdir runs/default --data.store STORE
"""

from bmjax import Experiment, losses, models
from bmjax.data.pipeline import Loader
from bmjax.training import Fit, Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=models.PlainUNet(),
        loss=losses.DiceBCE(),
        data=Loader(p_lesion=0.33, centring="class"),
        optimizer=Optimizer(num_epochs=100, hold_steps=250),
        fit=Fit(validate_every=250, num_val_batches=50, checkpoint_every=1250),
    )
