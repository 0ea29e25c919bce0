"""Paths of parameters: labels and new names."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.surgery import flatten, label_paths, unflatten
from bmjax.surgery.paths import rename

NET = {
    "encoder": {"conv": {"kernel": 1, "bias": 2}, "norm": {"scale": 3}},
    "heads": {"level_0": {"kernel": 4}},
}
_names = st.text("abc_01", min_size=1, max_size=4)
_trees = st.recursive(
    st.integers(1, 3).map(np.ones),
    lambda children: st.dictionaries(_names, children, min_size=1, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_names, _trees, min_size=1, max_size=3))
@settings(deadline=None, max_examples=50)
def test_unflatten_undoes_flatten(tree):
    flat = flatten(tree)
    again = flatten(unflatten(flat))
    assert list(flat) == list(again)
    assert all(flat[path] is again[path] for path in flat)


def test_the_first_pattern_that_matches_in_full_gives_the_label():
    rules = ((".*/bias", "slow"), ("encoder/.*", "frozen"))
    labels = label_paths(NET, rules, default="trained")
    assert flatten(labels) == {
        "encoder/conv/bias": "slow",
        "encoder/conv/kernel": "frozen",
        "encoder/norm/scale": "frozen",
        "heads/level_0/kernel": "trained",
    }


def test_without_rules_all_get_the_default():
    assert set(flatten(label_paths(NET, (), default=0)).values()) == {0}


def test_a_label_for_nothing_is_refused():
    with pytest.raises(ValueError, match="'encoder' matches no tensor.*encoder/conv"):
        label_paths(NET, (("encoder", 0),), default=1)


def test_renamed_paths_remember_their_old_names():
    found = rename(flatten(NET), ((r"encoder/(\w+)/(.*)", r"body/\2/\1"),))
    assert found["body/scale/norm"] == ("encoder/norm/scale", 3)
    assert found["heads/level_0/kernel"] == ("heads/level_0/kernel", 4)


def test_two_paths_never_become_one():
    with pytest.raises(ValueError, match="rename makes 'x' of both"):
        rename(flatten(NET), (("encoder/conv/.*", "x"),))


def test_a_rename_of_nothing_is_refused():
    with pytest.raises(ValueError, match="'stem/.*' matches no tensor"):
        rename(flatten(NET), (("stem/.*", "x"),))
