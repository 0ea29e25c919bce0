"""A slice of a patch beside its labels and its prediction, as colours."""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

# Okabe and Ito's colours, told apart by colour-blind eyes; one per label or region
_COLOURS = np.array(
    [(86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66)],
    np.float32,
)
_OPACITY = 0.55


def picture(
    image: Float[np.ndarray, "*s c"],
    labels: Int[np.ndarray, "*s"],
    predicted: Bool[np.ndarray, "*s k"],
) -> UInt8[np.ndarray, "y x 3"]:
    """First channel, labels on it, and prediction on it, side by side.

    Args:
      image: one patch, of two or three axes.
      labels: of it; the slice shown is the one with most of them.
      predicted: its regions, each painted over those before it.
    """
    if labels.ndim == 3:
        z = int(np.argmax(np.count_nonzero(labels, axis=(1, 2))))
        image, labels, predicted = image[z], labels[z], predicted[z]
    plain = image[..., 0].astype(np.float32)
    low, high = np.percentile(plain, (1, 99))
    grey = np.clip((plain - low) / max(float(high - low), 1e-6), 0, 1) * 255
    grey = np.repeat(grey[..., None], 3, axis=-1)
    truth, guess = grey.copy(), grey.copy()
    for label in np.unique(labels[labels > 0]):
        _paint(truth, labels == label, int(label) - 1)
    for region in range(predicted.shape[-1]):
        _paint(guess, predicted[..., region], region)
    return np.concatenate([grey, truth, guess], axis=1).astype(np.uint8)


def _paint(canvas: np.ndarray, where: np.ndarray, index: int) -> None:
    colour = _COLOURS[index % len(_COLOURS)]
    canvas[where] = (1 - _OPACITY) * canvas[where] + _OPACITY * colour
