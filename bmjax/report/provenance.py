"""What a page was made from and with: versions, weights, settings, hashes of files."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import bmjax
from bmjax.report.page import Block, Details, Facts
from bmjax.report.sources import flat

LIBRARIES = ("jax", "flax", "numpy", "scipy", "matplotlib")


def versions() -> Details:
    """What this page was drawn with."""
    items = [("bmjax", bmjax.__version__), ("Python", platform.python_version())]
    for name in LIBRARIES:
        try:
            items.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            items.append((name, "not installed"))
    return Details(title="Versions", blocks=(Facts(items=tuple(items)),))


def of_files(files: Sequence[Path]) -> list[Block]:
    """The SHA-256 of each file that is there."""
    items = tuple(
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest()[:32])
        for path in files
        if path.is_file()
    )
    title = "Files (SHA-256, first 32 digits)"
    return [Details(title=title, blocks=(Facts(items=items),))] if items else []


def of_prediction(record: Mapping[str, Any]) -> list[Block]:
    """Weights, plan and settings that predict.json names."""
    if not record:
        return []
    names = {
        "bmjax": "bmjax",
        "model": "weights (hash)",
        "plan": "plan (hash)",
        "settings": "settings",
    }
    items = flat({title: record[n] for n, title in names.items() if n in record})
    return [Details(title="Prediction", blocks=(Facts(items=tuple(items.items())),))]
