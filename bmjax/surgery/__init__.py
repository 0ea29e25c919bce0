"""Parameter surgery on plain nested dicts."""

from bmjax.surgery.graft import GraftReport, Row, flatten, graft, unflatten
from bmjax.surgery.torch_names import from_torch, to_torch

__all__ = [
    "GraftReport",
    "Row",
    "flatten",
    "from_torch",
    "graft",
    "to_torch",
    "unflatten",
]
