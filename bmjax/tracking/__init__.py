"""Follows lesions through the scans of a patient."""

from bmjax.tracking.folders import track
from bmjax.tracking.matching import Criteria, match
from bmjax.tracking.result import Tracking
from bmjax.tracking.timepoints import find_timepoints

__all__ = ["Criteria", "Tracking", "find_timepoints", "match", "track"]
