"""Quality measures, each definition under its own name."""

from bmjax.metrics import case, lesions, overlap, statistics

__all__ = ["case", "lesions", "overlap", "statistics"]
