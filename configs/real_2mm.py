"""Small 3-D residual U-Net for real BraTS cases at 2 mm, for a CPU and half an hour.

Measured: 22 minutes on 2 shared cores of an AMD EPYC; mean held-out Dice over three
BraTS-Africa cases WT 0.837, TC 0.460, ET 0.489 (README).

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
        optimizer=Optimizer(name="adam", peak_lr=1e-3, num_steps=700),
        fit=Fit(validate_every=175, num_val_batches=12, checkpoint_every=175),
    )
