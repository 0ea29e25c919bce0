"""Keeps lesions that are too small for a new grid from vanishing on it."""

import cc3d
import numpy as np
from jaxtyping import Integer
from scipy import ndimage

from bmjax.data.resample import nearest


def keep_lesions(
    before: Integer[np.ndarray, "z y x"], after: Integer[np.ndarray, "u v w"]
) -> list[str]:
    """Put back, in place, lesions that resampling has lost; what was done, in words.

    A lesion is a 26-connected component. A lost one gets the voxels whose centres lie
    in it, or, where there are none, the one voxel that its own middle lies in.
    """
    warnings = []
    boxes = ndimage.find_objects(before)
    present = ndimage.find_objects(after, max_label=len(boxes))
    for value, box in enumerate(boxes, start=1):
        if box is not None and present[value - 1] is None:
            count = np.count_nonzero(before[box] == value)
            warnings.append(f"label {value} ({count} voxels) vanished in resampling")
    components = cc3d.connected_components(before > 0, connectivity=26)
    voxels = np.argwhere(components)  # n 3
    owner = components[tuple(voxels.T)]
    scale = np.divide(after.shape, before.shape)
    landing = np.minimum(
        ((voxels + 0.5) * scale).astype(int), np.array(after.shape) - 1
    )
    num_lesions = int(components.max())
    is_kept = np.zeros(num_lesions + 1, bool)
    is_kept[owner[after[tuple(landing.T)] > 0]] = True
    sources = [nearest(n, m) for n, m in zip(before.shape, after.shape, strict=True)]
    for lost in (np.flatnonzero(~is_kept[1:]) + 1).tolist():
        is_own = owner == lost
        own, own_landing = voxels[is_own], landing[is_own]
        low, high = own.min(0), own.max(0) + 1
        rows = [
            np.flatnonzero((source >= a) & (source < b))
            for source, a, b in zip(sources, low, high, strict=True)
        ]
        here = np.ix_(*(source[row] for source, row in zip(sources, rows, strict=True)))
        is_inside = components[here] == lost
        if is_inside.any():
            part = after[np.ix_(*rows)]
            part[is_inside] = before[here][is_inside]
            after[np.ix_(*rows)] = part
        else:
            middle = np.abs(own - own.mean(0)).sum(1).argmin()
            after[tuple(own_landing[middle])] = before[tuple(own[middle])]
        warnings.append(
            f"a lesion of {len(own)} voxels near {tuple(own[0].tolist())} was too "
            "small for the new grid and was kept by its nearest voxels"
        )
    return warnings
