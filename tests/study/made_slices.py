"""Slices with discs of three classes, which any network can tell apart."""

import numpy as np

CLASSES = ("NETC", "SNFH", "ET")
SIZE = 64


def made_batch(count, seed=0):
    """Oedema around enhancing tumour around necrosis, in noise; with exam names."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    image = rng.normal(0.3, 0.03, (count, SIZE, SIZE, 4)).astype(np.float32)
    labels = np.zeros((count, SIZE, SIZE), np.int8)
    for i in range(count):
        cy, cx = rng.integers(18, SIZE - 18, 2)
        distance = np.hypot(y - cy, x - cx)
        for radius, value in ((15, 2), (10, 3), (5, 1)):
            labels[i][distance < radius] = value
        for value, channel in ((2, 3), (3, 2), (1, 1)):
            image[i, ..., channel] += 0.4 * (labels[i] == value)
    return {
        "image": image,
        "labels": labels,
        "exams": [f"exam-{i}" for i in range(count)],
    }
