"""The vocabulary of array shapes: one letter per axis, one name per kind of array.

Axes, in the order in which they occur: `b` batch, `z y x` space (`*s` any space),
`c` input channel, `k` class or region, `l` lesion, `n` case, `w` window.
Space is always z, y, x: x varies fastest in a NIfTI file and last in an array.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float, Int, Key, PRNGKeyArray, Shaped

Volume = Shaped[np.ndarray, "z y x"]
Image = Float[Array, "b *s c"]
Labels = Int[Array, "b *s"]
Targets = Float[Array, "b *s k"]
Logits = Float[Array, "b ... k"]  # the resolutions of one network differ
Scalar = Float[Array, ""]
RandomKey = PRNGKeyArray
SampleKeys = Key[Array, " b"]
Params = Mapping[str, Any]
Spacing = tuple[float, float, float]
Size = tuple[int, ...]
