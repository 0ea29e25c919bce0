"""MONAI's SegResNet without deep supervision (Luu et al. 2024).

As in the authors' trainer: Adam with coupled weight decay and an epsilon of 1e-5, in
float32. The network halves three times along every axis, whatever the plan says.

bmjax train configs/segresnet.py --workdir runs/segresnet --data.store STORE
"""

from bmjax import Experiment
from bmjax.study import recipes


def experiment() -> Experiment:
    return recipes.segresnet()
