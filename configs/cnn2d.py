"""2-D network without skips, for the CNN of Kaur and Singh (2024).

Each region of the store gets a sigmoid and binary cross-entropy (step 9 of the paper's
algorithm), so that `bmjax predict` makes whole volumes, slice by slice. The paper's
softmax, Table 4 and figures: `bmjax study kaur2024`.

bmjax prepare RAW STORE --configuration 2d
bmjax train configs/cnn2d.py --workdir runs/cnn2d --data.store STORE
"""

from bmjax import Experiment, losses, models
from bmjax.data.pipeline import Loader
from bmjax.training import Fit, Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=models.ConvNet(),
        loss=losses.BinaryCrossEntropy(),
        data=Loader(patch_size=(256, 256), batch_size=8),
        optimizer=Optimizer(
            name="adam",
            peak_lr=1e-3,
            schedule="constant",
            num_epochs=35,
            eps=1e-7,
            weight_decay=0.0,
            clip_norm=None,
            plateau_factor=0.2,
            plateau_patience=2,
            plateau_min_lr=1e-6,
        ),
        fit=Fit(monitor="loss", min_delta=1e-4),
    )
