"""Memory of a training step, by liveness and as compiled."""

import pytest

from bmjax import losses, models
from bmjax.planning import make_plan
from bmjax.planning.reasons import explain
from bmjax.preparation import Planned
from bmjax.training import Optimizer
from bmjax.training.memory import estimate_step, measure_step

REGIONS = (("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,)))


def step(size):
    return {
        "model": models.PlainUNet(
            features=(8, 16),
            strides=((1, 1, 1), (2, 2, 2)),
            kernel_sizes=((3, 3, 3),) * 2,
            num_classes=3,
        ),
        "loss": losses.DiceBCE(),
        "optimizer": Optimizer().transformation(),
        "regions": REGIONS,
        "size": size,
        "num_channels": 4,
    }


def test_the_estimate_grows_with_the_patch_and_counts_parameters_once():
    small, large = (
        estimate_step(**step((1, 16, 16, 16))),
        estimate_step(**step((2, 16, 16, 32))),
    )
    assert small.params == large.params == small.grads
    assert large.activations == pytest.approx(4 * small.activations, rel=0.05)
    assert small.total > small.activations


@pytest.mark.slow
def test_the_estimate_is_near_what_compiles():
    """Lower, by what the convolutions themselves ask for: see `training.memory`."""
    one = step((1, 32, 32, 32))
    assert 0.5 < estimate_step(**one).total / measure_step(**one) < 1.1


def test_without_an_accelerator_the_number_is_called_an_estimate():
    fingerprint = {
        "channels": ["t1c", "t1n"],
        "spacings_mm": [[1.0, 1.0, 1.0]] * 3,
        "sizes_after_crop": [[40, 48, 40]] * 3,
        "relative_size_after_crop": [0.4] * 3,
        "intensity": {},
    }
    plan = make_plan(fingerprint)
    planned = Planned(
        plan=plan,
        fingerprint=fingerprint,
        reasons=explain(plan, fingerprint),
        moved=None,
        preset="default",
        num_cases=3,
    )
    num_bytes, how = planned.step_memory()
    assert num_bytes > 2**20
    assert how.startswith("liveness estimate of PlainUNet, as this process has no")
