"""Small 3-D residual U-Net for the phantom cohorts of `bmjax demo`.

bmjax train configs/demo.py --workdir runs/demo --data.store demo/store/source
"""

from bmjax import Experiment
from bmjax.study import demo


def experiment() -> Experiment:
    return demo.experiment()
