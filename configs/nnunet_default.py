"""nnU-Net's default: plain U-Net of the plan, Dice and BCE (Luu et al. 2024).

As in the authors' trainer: 250 steps an epoch, learning rate set per epoch, the same
recipe from scratch and for fine-tuning. Their code ran 100 epochs; the paper's 200 for
pre-training are `--optimizer.num-steps 50000`.

bmjax train configs/nnunet_default.py --workdir runs/default --data.store STORE
"""

from bmjax import Experiment
from bmjax.study import recipes


def experiment() -> Experiment:
    return recipes.default()
