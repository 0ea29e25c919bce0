"""Parameter surgery on plain nested dicts."""

from bmjax.surgery.graft import HeadRule, graft
from bmjax.surgery.kernels import ChannelMap, ClassMap, KernelRule, fit_kernel
from bmjax.surgery.paths import flatten, label_paths, unflatten
from bmjax.surgery.report import GraftReport, Row
from bmjax.surgery.spec import Surgery
from bmjax.surgery.torch_names import from_torch, to_torch, torch_names

__all__ = [
    "ChannelMap",
    "ClassMap",
    "GraftReport",
    "HeadRule",
    "KernelRule",
    "Row",
    "Surgery",
    "fit_kernel",
    "flatten",
    "from_torch",
    "graft",
    "label_paths",
    "to_torch",
    "torch_names",
    "unflatten",
]
