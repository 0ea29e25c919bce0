"""Pages, pictures and tables for people.

The pages need the `report` extra (matplotlib); the tables for the terminal do not, so
the doors are loaded when first touched.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmjax.report.against import write_against_report
    from bmjax.report.comparison import Cohort, write_comparison_report
    from bmjax.report.evaluation import write_evaluation_report
    from bmjax.report.predictions import write_predictions_report
    from bmjax.report.preview import Tile, write_sheet
    from bmjax.report.progress import write_progress
    from bmjax.report.run import write_run_report
    from bmjax.report.tracking import write_tracking_report
    from bmjax.report.volumes import CaseSources
    from bmjax.report.watch import server

_DOORS = {
    "CaseSources": "volumes",
    "Cohort": "comparison",
    "Tile": "preview",
    "server": "watch",
    "write_against_report": "against",
    "write_comparison_report": "comparison",
    "write_evaluation_report": "evaluation",
    "write_predictions_report": "predictions",
    "write_progress": "progress",
    "write_run_report": "run",
    "write_sheet": "preview",
    "write_tracking_report": "tracking",
}
__all__ = [
    "CaseSources",
    "Cohort",
    "Tile",
    "can_draw",
    "server",
    "write_against_report",
    "write_comparison_report",
    "write_evaluation_report",
    "write_predictions_report",
    "write_progress",
    "write_run_report",
    "write_sheet",
    "write_tracking_report",
]


def can_draw() -> bool:
    """Whether matplotlib is installed, which comes with the `report` extra."""
    return find_spec("matplotlib") is not None


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module 'bmjax.report' has no attribute '{name}'")
    try:
        return getattr(import_module(f"bmjax.report.{_DOORS[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("matplotlib", "PIL"):
            raise
        raise ModuleNotFoundError(
            f"pages need {error.name}, which is not installed; "
            "install it with: pip install 'bmjax[report]'",
            name=error.name,
        ) from error
