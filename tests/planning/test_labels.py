"""Label schemes, their tables and maps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmjax.planning.labels import (
    BRATS_METS,
    PRESETS,
    LabelScheme,
    describe_label_map,
    parse_label_map,
)


@pytest.mark.parametrize("name", PRESETS)
def test_the_labels_of_every_preset_come_back_from_their_regions(name):
    scheme = PRESETS[name]
    assert scheme.lost() == ()
    labels = np.array([0, *(value for _, value in scheme.labels)])
    painted = np.zeros_like(labels)
    for (_, members), paint in zip(scheme.regions, scheme.paint, strict=True):
        painted[np.isin(labels, members)] = paint
    assert painted.tolist() == labels.tolist()


@given(st.permutations(range(1, 6)), st.integers(1, 5))
def test_nested_regions_give_every_label_back(order, depth):
    """The largest region first, each painted by the label that the next leaves out."""
    order = order[:depth]
    nested = [tuple(order[i:]) for i in range(depth)]
    scheme = LabelScheme(
        labels=tuple((f"l{v}", v) for v in order),
        regions=tuple((f"r{i}", members) for i, members in enumerate(nested)),
        paint=tuple(order),
    )
    assert scheme.lost() == ()


def test_labels_that_no_region_tells_apart_are_named():
    scheme = LabelScheme(
        labels=(("a", 1), ("b", 2)), regions=(("all", (1, 2)),), paint=(1,)
    )
    assert scheme.lost() == ("b",)


def test_the_table_shows_which_label_is_in_which_region():
    lines = BRATS_METS.table().splitlines()
    assert lines[0].split() == "value label WT TC ET comes back as".split()
    assert lines[2].split() == ["2", "SNFH", "x", "-", "-", "2"]


def test_a_label_map_is_read_and_said():
    """The four labels of a data set with necrosis and non-enhancing parts apart."""
    found = parse_label_map(("1=2", "2=1", "4=1"))
    assert found == {1: 2, 2: 1, 4: 1}
    lines = describe_label_map(found, BRATS_METS).splitlines()
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "0 0 background as it is",
        "1 2 SNFH",
        "2 1 NETC",
        "3 3 ET as it is",
        "4 1 NETC",
    ]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (("4",), "expected FILE=USED"),
        (("a=b",), "expected FILE=USED"),
        (("4=3", "4=0"), "4 is mapped to 3 and to 0"),
    ],
)
def test_a_label_map_that_is_none_is_refused(entries, message):
    with pytest.raises(ValueError, match=message):
        parse_label_map(entries)


def test_a_label_map_to_an_unknown_label_is_refused():
    with pytest.raises(ValueError, match="7 is no label here; map to 0 background"):
        describe_label_map({4: 7}, BRATS_METS)
