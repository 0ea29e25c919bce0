"""Compares a folder of predictions, or a second reader, with references."""

from bmjax.evaluation.folders import BothEmpty, evaluate
from bmjax.evaluation.result import Evaluation

__all__ = ["BothEmpty", "Evaluation", "evaluate"]
