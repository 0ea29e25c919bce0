"""From a preprocessed volume to a label file."""

from bmjax.inference.export import export_case, paint
from bmjax.inference.outputs import Outputs
from bmjax.inference.predict import predict_cases
from bmjax.inference.record import CaseResult
from bmjax.inference.sliding import fold_logits, sliding_logits, stack_folds
from bmjax.inference.windows import SlidingWindow

__all__ = [
    "CaseResult",
    "Outputs",
    "SlidingWindow",
    "export_case",
    "fold_logits",
    "paint",
    "predict_cases",
    "sliding_logits",
    "stack_folds",
]
