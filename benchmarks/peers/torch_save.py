"""PyTorch's way to keep a training state: one `torch.save` of its dictionaries."""

from pathlib import Path

import torch

from benchmarks.bench_checkpoint import Moved
from benchmarks.peers.torch import build
from benchmarks.timing import Work


def checkpoint(moved: Moved, *, setting: str, scratch: Path) -> Work:
    model = build(moved.net)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2, momentum=0.99)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    path = scratch / "checkpoint.pt"
    calls = {
        "save": lambda: torch.save(state, path),
        "restore": lambda: torch.load(path, weights_only=True),
    }
    calls["save"]()
    num_params = sum(p.numel() for p in model.parameters())
    return Work(call=calls[moved.way], facts={"num_params": num_params})
