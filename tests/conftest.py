"""Eight virtual CPU devices and strict ranks, set before JAX starts."""

import dataclasses
import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# the same small programs are compiled by many tests; two workers never share a file
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
CACHE = Path(tempfile.gettempdir()) / f"bmjax-tests-{os.getuid()}-{WORKER}"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def real_cases() -> Path:
    """Folder of the twelve real BraTS-Africa cases."""
    folder = SHARED / "data" / "brats_africa"
    if not folder.is_dir():
        pytest.skip("the twelve BraTS-Africa cases are not on this machine")
    return folder


@pytest.fixture(scope="session")
def phantom_raw(tmp_path_factory) -> Path:
    """Four synthetic cases at 5 mm, in BraTS folders with a manifest."""
    from bmjax.data.phantom import SOURCE, write_cohort

    folder = tmp_path_factory.mktemp("phantom") / "raw"
    small = dataclasses.replace(SOURCE, num_cases=4, spacing_mm=(5.0, 5.0, 5.0))
    write_cohort(small, folder)
    return folder


@pytest.fixture(scope="session")
def phantom_store(phantom_raw) -> Path:
    """The same cases, prepared."""
    import bmjax

    store = phantom_raw.parent / "store"
    bmjax.prepare(phantom_raw, store, patch_size=(16, 16, 16), num_workers=1)
    return store


@pytest.fixture
def stopped_after(monkeypatch):
    """`with stopped_after(n):` has trainings stop once n updates of theirs are done."""
    from bmjax.training import Stop

    @contextmanager
    def stopped(num_updates):
        class StopsThere(Stop):
            asked = 0

            @property
            def is_asked(self):
                self.asked += 1
                return self.asked > num_updates

            @is_asked.setter
            def is_asked(self, value):
                pass

        with monkeypatch.context() as patch:
            patch.setattr("bmjax.trainer.Stop", StopsThere)
            yield

    return stopped


@pytest.fixture
def tiny_experiment(phantom_store):
    """Eight steps of a three-stage network on the four cases."""
    from bmjax import models
    from bmjax.data.pipeline import Loader
    from bmjax.experiment import Experiment
    from bmjax.training import Fit, Optimizer

    return Experiment(
        model=models.PlainUNet(
            features=(4, 8, 8),
            strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
            kernel_sizes=((3, 3, 3),) * 3,
        ),
        data=Loader(
            store=str(phantom_store),
            patch_size=(16, 16, 16),
            batch_size=2,
            held_out=("BraTS-PHM-00004-000",),
        ),
        optimizer=Optimizer(num_steps=8, momentum=0.9),
        fit=Fit(log_every=3, validate_every=4, num_val_batches=2, checkpoint_every=3),
    )


@pytest.fixture(scope="session")
def brats_plan():
    """A small plan of four channels and the three regions."""
    from bmjax.planning import BRATS_METS, Plan

    return Plan(
        channels=("t1c", "t1n", "t2f", "t2w"),
        labels=BRATS_METS.labels,
        regions=BRATS_METS.regions,
        paint=BRATS_METS.paint,
        spacing_mm=(1.0, 1.0, 1.0),
        normalization=("zscore",) * 4,
        use_mask_for_norm=True,
        patch_size=(32, 32, 32),
        batch_size=2,
        features=(8, 16, 32),
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
        kernel_sizes=((3, 3, 3),) * 3,
        batch_dice=True,
        median_size=(40, 40, 40),
    )
