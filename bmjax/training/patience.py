"""How long a run waits for a better value, as Keras counts it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class Patience:
    """Counts the looks since the best value.

    Attributes:
      best: highest value seen; None before the first.
      waited: looks since then.
    """

    best: float | None = None
    waited: int = 0

    def look(self, value: float, *, min_delta: float = 0.0) -> None:
        """Take one more value.

        Args:
          value: higher is better.
          min_delta: smallest rise that counts.
        """
        if self.best is None or value > self.best + min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1

    def is_out(self, patience: int | None) -> bool:
        """Whether as many looks brought nothing better; None waits for ever."""
        return patience is not None and self.waited >= patience


@dataclass
class Progress:
    """What the loop remembers beside the arrays; saved with each checkpoint.

    Attributes:
      score: running mean of the validation pseudo-Dice; None before the first.
      window: losses since the last training record.
      best_score: highest `score`, whose checkpoint is kept.
      lr_factor: of all learning rates, lowered at each plateau.
      plateau: waits for the next lowering.
      stopping: waits for the early end.
      next_batch: where the training stream goes on.
    """

    score: float | None = None
    window: list[float] = field(default_factory=list)
    best_score: float | None = None
    lr_factor: float = 1.0
    plateau: Patience = field(default_factory=Patience)
    stopping: Patience = field(default_factory=Patience)
    next_batch: int = 0

    @staticmethod
    def from_dict(facts: Mapping[str, Any]) -> "Progress":
        """Read back `dataclasses.asdict`; what is absent has its default."""
        known = {field.name for field in fields(Progress)}
        found = {name: value for name, value in facts.items() if name in known}
        for name in ("plateau", "stopping"):
            if name in found:
                found[name] = Patience(**found[name])
        return Progress(**found)
