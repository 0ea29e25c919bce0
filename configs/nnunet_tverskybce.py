"""nnU-Net's plain U-Net with the Tversky and weighted BCE loss (Luu et al. 2024).

The authors' code weights each voxel's cross-entropy by 1 + 10 y; the paper's text, a
positive weight of 10, is `--loss.voxel-weight 0 --loss.positive-weight 10`.

bmjax train configs/nnunet_tverskybce.py --workdir runs/tverskybce --data.store STORE
"""

from bmjax import Experiment, losses, models
from bmjax.data.pipeline import Loader
from bmjax.training import Fit, Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=models.PlainUNet(),
        loss=losses.TverskyBCE(),
        data=Loader(p_lesion=0.33, centring="class"),
        optimizer=Optimizer(num_epochs=100, hold_steps=250),
        fit=Fit(validate_every=250, num_val_batches=50, checkpoint_every=1250),
    )
