"""How sure a prediction is: the entropy of its probability, and how folds disagree."""

import numpy as np
from jaxtyping import Float


def sigmoid(logits: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Probability of a logit, without overflow."""
    # exp of what is never positive
    small = np.exp(-np.abs(logits))
    return np.where(logits < 0, small, 1).astype(logits.dtype) / (1 + small)


def mean_probability(
    logits: Float[np.ndarray, "f *s"], *, average: str
) -> Float[np.ndarray, "*s"]:
    """Probability of several folds: of their mean logit, or the mean of theirs."""
    if average == "logits" or len(logits) == 1:
        return sigmoid(logits.mean(axis=0))
    return sigmoid(logits).mean(axis=0)


def entropy_bits(probs: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Entropy of yes or no [bit]: 0 where it is certain, 1 at one half."""
    result = np.zeros_like(probs)
    for p in (probs, 1 - probs):
        is_open = p > 0
        result[is_open] -= p[is_open] * np.log2(p[is_open])
    return result


def disagreement(logits: Float[np.ndarray, "f *s"]) -> Float[np.ndarray, "*s"]:
    """Standard deviation of the folds' probabilities, 0 to 0.5."""
    return sigmoid(logits).std(axis=0)
