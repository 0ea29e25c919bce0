"""Quality measures, each definition under its own name."""

from bmjax.metrics import (
    agreement,
    case,
    challenge,
    conventions,
    detection,
    instances,
    lesions,
    overlap,
    pixel,
    statistics,
    surface,
    surfels,
)

__all__ = [
    "agreement",
    "case",
    "challenge",
    "conventions",
    "detection",
    "instances",
    "lesions",
    "overlap",
    "pixel",
    "statistics",
    "surface",
    "surfels",
]
