"""Small 3-D residual U-Net for real BraTS cases at 2 mm, for a CPU and half an hour.

Measured: 24 minutes on 2 cores of an AMD EPYC; mean held-out Dice over three
BraTS-Africa cases WT 0.824, TC 0.500, ET 0.507 (README).

bmjax prepare RAW STORE --spacing-mm 2 2 2 --patch-size 64 64 64
bmjax train configs/real_2mm.py --workdir runs/real_2mm --data.store STORE
"""

from bmjax import Experiment, losses, models
from bmjax.data.pipeline import Loader
from bmjax.training import Fit, Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=models.ResEncUNet(
            features=(16, 32, 64, 128, 128),
            strides=((1, 1, 1), *((2, 2, 2),) * 4),
            kernel_sizes=((3, 3, 3),) * 5,
            num_blocks=(1, 1, 2, 2, 2),
        ),
        loss=losses.DiceBCE(batch_dice=False),
        data=Loader(
            patch_size=(64, 64, 64),
            batch_size=2,
            p_lesion=0.5,
            held_out=(
                "BraTS-SSA-00051-000",
                "BraTS-SSA-00081-000",
                "BraTS-SSA-00110-000",
            ),
        ),
        optimizer=Optimizer(name="adam", peak_lr=1e-3, num_steps=1250, ema_decay=0.99),
        fit=Fit(validate_every=575, num_val_batches=6, checkpoint_every=575),
    )
