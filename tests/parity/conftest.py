"""The public references: imported when the first parity test runs, one thread each."""

import importlib
from functools import partial

import jax
import pytest

PACKAGES = ("torch", "monai", "dynamic_network_architectures", "nnunetv2")


@pytest.fixture(scope="session", autouse=True)
def references():
    for name in PACKAGES:
        pytest.importorskip(
            name, reason=f"{name} is missing: pip install 'bmjax[parity]'"
        )
    importlib.import_module("torch").set_num_threads(1)


@pytest.fixture
def double():
    """JAX computes in float64."""
    with jax.enable_x64(True):
        yield


class _Wide:
    """torch, but what asks for float32 by name gets float64."""

    def __init__(self, torch):
        self.torch = torch
        self.float32 = torch.float64

    def __getattr__(self, name):
        return getattr(self.torch, name)


@pytest.fixture
def double_losses(monkeypatch):
    """nnU-Net's losses, which go through float32 whatever they get, keep float64."""
    torch = importlib.import_module("torch")
    dice = importlib.import_module("nnunetv2.training.loss.dice")
    monkeypatch.setattr(dice, "torch", _Wide(torch))
    forward = torch.nn.BCEWithLogitsLoss.forward
    monkeypatch.setattr(
        torch.nn.BCEWithLogitsLoss,
        "forward",
        lambda self, logits, targets: forward(self, logits, targets.to(logits.dtype)),
    )


class _Single:
    """torch, but what asks for float16 by name gets float32."""

    def __init__(self, torch):
        self.torch = torch
        self.half = torch.float32

    def __getattr__(self, name):
        return getattr(self.torch, name)


@pytest.fixture
def in_float32(monkeypatch):
    """nnU-Net's predictor adds up in float32, where it would in float16."""
    torch = importlib.import_module("torch")
    nnunet = importlib.import_module("nnunetv2.inference.sliding_window_prediction")
    module = importlib.import_module("nnunetv2.inference.predict_from_raw_data")
    monkeypatch.setattr(module, "torch", _Single(torch))
    weights = partial(nnunet.compute_gaussian, dtype=torch.float32)
    weights.cache_clear = nnunet.compute_gaussian.cache_clear
    monkeypatch.setattr(module, "compute_gaussian", weights)
