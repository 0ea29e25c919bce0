"""nnU-Net's plain U-Net with the Tversky and weighted BCE loss (Luu et al. 2024).

The authors' code weights each voxel's cross-entropy by 1 + 10 y; the paper's text, a
positive weight of 10, is `--loss.voxel-weight 0 --loss.positive-weight 10`.

bmjax train configs/nnunet_tverskybce.py --workdir runs/tverskybce --data.store STORE
"""

from bmjax import Experiment
from bmjax.study import recipes


def experiment() -> Experiment:
    return recipes.tverskybce()
