"""nnU-Net's residual-encoder U-Net with its 1000 epochs of 250 steps.

bmjax train configs/resenc_m.py --workdir runs/resenc_m --data.store STORE
"""

from bmjax import Experiment, losses, models
from bmjax.data.pipeline import Loader
from bmjax.training import Fit, Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=models.ResEncUNet(),
        loss=losses.DiceBCE(),
        data=Loader(p_lesion=0.33, centring="class"),
        optimizer=Optimizer(num_epochs=1000, hold_steps=250),
        fit=Fit(validate_every=250, num_val_batches=50, checkpoint_every=2500),
    )
