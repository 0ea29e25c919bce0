"""Grafting of parameters between nested dicts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.surgery import flatten, graft, unflatten

_names = st.text("abc_01", min_size=1, max_size=4)
_trees = st.recursive(
    st.integers(1, 3).map(np.ones),
    lambda children: st.dictionaries(_names, children, min_size=1, max_size=3),
    max_leaves=8,
)


def _net(value: float, num_in: int = 4, num_classes: int = 3) -> dict:
    return {
        "encoder": {
            "stage_0": {"conv": {"kernel": np.full((3, 3, num_in, 8), value)}},
            "stage_1": {"conv": {"kernel": np.full((3, 3, 8, 8), value)}},
        },
        "heads": {"level_0": {"kernel": np.full((1, 1, 8, num_classes), value)}},
    }


@given(st.dictionaries(_names, _trees, min_size=1, max_size=3))
@settings(deadline=None, max_examples=50)
def test_unflatten_undoes_flatten(tree):
    flat = flatten(tree)
    again = flatten(unflatten(flat))
    assert list(flat) == list(again)
    assert all(flat[path] is again[path] for path in flat)


def test_equal_nets_transfer_every_tensor():
    params, report = graft(_net(0.0), _net(1.0))
    assert all((leaf == 1).all() for leaf in flatten(params).values())
    assert len(report.paths("transferred")) == 3
    assert not report.paths("initialised") and not report.paths("unused")


def test_heads_init_leaves_the_heads_of_the_target():
    params, report = graft(_net(0.0, num_classes=2), _net(1.0), heads="init")
    assert (params["heads"]["level_0"]["kernel"] == 0).all()
    assert (params["encoder"]["stage_0"]["conv"]["kernel"] == 1).all()
    assert report.paths("initialised") == ("heads/level_0/kernel",)
    assert report.paths("unused") == ("heads/level_0/kernel",)


def test_a_skipped_path_is_left_initialised_and_the_report_says_by_which_pattern():
    params, report = graft(_net(0.0, num_in=7), _net(1.0), skip=("encoder/stage_0/.*",))
    assert (params["encoder"]["stage_0"]["conv"]["kernel"] == 0).all()
    assert "skipped by 'encoder/stage_0/.*'" in str(report)


def test_strict_error_lists_both_sides_with_shapes_and_the_remedy():
    target, source = _net(0.0, num_in=7), _net(1.0)
    source["extra"] = {"kernel": np.ones((2, 5))}
    del source["encoder"]["stage_1"]
    with pytest.raises(ValueError) as error:
        graft(target, source)
    text = str(error.value)
    assert "3 tensors do not fit" in text
    assert "3x3x7x8" in text and "3x3x4x8" in text and "2x5" in text
    assert "skip=" in text and "heads='init'" in text


def test_not_strict_reports_what_strict_refuses():
    source = _net(1.0, num_in=7)
    source["extra"] = {"kernel": np.ones((2, 5))}
    params, report = graft(_net(0.0), source, strict=False)
    assert (params["encoder"]["stage_0"]["conv"]["kernel"] == 0).all()
    assert report.paths("initialised") == ("encoder/stage_0/conv/kernel",)
    assert set(report.paths("unused")) == {
        "encoder/stage_0/conv/kernel",
        "extra/kernel",
    }


def test_a_skip_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(ValueError, match="'encoder/stage_9' matches no tensor"):
        graft(_net(0.0), _net(1.0), skip=("encoder/stage_9",))


def test_a_source_with_nan_is_refused_by_name():
    source = _net(1.0)
    source["encoder"]["stage_1"]["conv"]["kernel"][0] = np.nan
    with pytest.raises(ValueError, match="encoder/stage_1/conv/kernel"):
        graft(_net(0.0), source)


def test_values_take_the_type_of_the_target():
    target = {"kernel": np.zeros(3, np.float32)}
    params, report = graft(target, {"kernel": np.ones(3, np.float64)})
    assert params["kernel"].dtype == np.float32
    assert "from float64" in str(report)


def test_neither_input_is_changed():
    target, source = _net(0.0), _net(1.0)
    graft(target, source)
    assert all((leaf == 0).all() for leaf in flatten(target).values())
    assert all((leaf == 1).all() for leaf in flatten(source).values())


def test_grafting_a_net_on_itself_transfers_everything():
    net = _net(1.0)
    _, report = graft(net, net)
    assert len(report.paths("transferred")) == len(report.rows) == 3
