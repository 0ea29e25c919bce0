import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bmjax.ops import connected_components


def same_partition(ours, theirs):
    """Whether two numberings group the voxels in the same way."""
    pairs = set(zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True))
    firsts, seconds = zip(*pairs, strict=True)
    return len(pairs) == len(set(firsts)) == len(set(seconds))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_components_are_those_of_scipy(seed, share):
    mask = np.random.default_rng(seed).random((2, 5, 6, 7, 2)) < share
    ours = np.asarray(connected_components(jnp.asarray(mask)))
    for sample, channel in np.ndindex(2, 2):
        theirs, _ = ndimage.label(mask[sample, ..., channel], np.ones((3, 3, 3)))
        assert same_partition(ours[sample, ..., channel], theirs)


def test_a_winding_path_is_one_component():
    mask = np.zeros((1, 9, 9, 1), bool)
    mask[0, ::2] = True
    mask[0, 1::4, -1] = mask[0, 3::4, 0] = True
    found = np.unique(connected_components(jnp.asarray(mask)))
    np.testing.assert_array_equal(found, [0, 81])


def test_an_empty_mask_has_none():
    mask = jnp.zeros((2, 4, 4, 4, 1), bool)
    assert not jax.jit(connected_components)(mask).any()
