"""MONAI's SegResNet without deep supervision (Luu et al. 2024).

As in the authors' trainer: Adam with coupled weight decay and an epsilon of 1e-5, in
float32. The network halves three times along every axis, whatever the plan says.

bmjax train configs/segresnet.py --workdir runs/segresnet --data.store STORE
"""

from bmjax import Experiment, losses, models
from bmjax.data.pipeline import Loader
from bmjax.training import Fit, Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=models.SegResNet(),
        loss=losses.DiceBCE(),
        data=Loader(p_lesion=0.33, centring="class"),
        optimizer=Optimizer(
            name="adam",
            peak_lr=1e-4,
            eps=1e-5,
            weight_decay=1e-5,
            num_epochs=100,
            hold_steps=250,
        ),
        fit=Fit(validate_every=250, num_val_batches=50, checkpoint_every=1250),
    )
