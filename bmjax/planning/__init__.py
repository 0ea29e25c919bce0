"""From a data set's fingerprint to a training plan: pure arithmetic."""

from bmjax.planning.fingerprint import summarise
from bmjax.planning.labels import BRATS_METS, LabelScheme
from bmjax.planning.nnunet import plan_from_nnunet
from bmjax.planning.plan import Plan, make_plan

__all__ = [
    "BRATS_METS",
    "LabelScheme",
    "Plan",
    "make_plan",
    "plan_from_nnunet",
    "summarise",
]
