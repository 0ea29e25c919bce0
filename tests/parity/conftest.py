"""The public references: imported when the first parity test runs, one thread each."""

import importlib

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
