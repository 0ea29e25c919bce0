"""From a preprocessed volume to a label file."""

from bmjax.inference.export import export_case, paint
from bmjax.inference.predict import predict_cases
from bmjax.inference.record import CaseResult
from bmjax.inference.sliding import SlidingWindow, sliding_logits

__all__ = [
    "CaseResult",
    "SlidingWindow",
    "export_case",
    "paint",
    "predict_cases",
    "sliding_logits",
]
