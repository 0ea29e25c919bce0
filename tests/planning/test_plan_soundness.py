"""A plan that a file describes is refused where nothing could be done by it."""

import dataclasses
import math

import pytest

from bmjax.planning import Plan
from bmjax.planning.soundness import require_sound

BAD = {
    "channels": [(), "t1c", ("",), (1,)],
    "labels": [(), (("ET", 0),), (("ET", 128),), (("ET", True),), (("ET",),)],
    "regions": [(), (("WT", ()),), (("WT", (1.0,)),), (("", (1,)),)],
    "paint": [(1, 2, 300)],
    "orientation": ["LPS", None, []],
    "transpose_forward": [(0, 1, "2"), 5],
    "spacing_mm": [(0.0, 1.0, 1.0), (math.nan,) * 3, (math.inf,) * 3, ("1",) * 3, 1],
    "normalization": [("zscore", "other", "zscore", "zscore"), (["zscore"],) * 4],
    "foreground": [((1.0, 2.0),), ((math.nan,) * 4,)],
    "use_mask_for_norm": [1, None],
    "patch_size": [(32,), (32, 32, 0), (32.0,) * 3, (2**31,) * 3, "32"],
    "batch_size": [0, 2.0, True],
    "features": [(8, 16, -1), ()],
    "strides": [((0, 1, 1),) * 3, ((1,),) * 3, 5],
    "kernel_sizes": [((3, 3, 3), (3, 3), (3, 3, 3)), ()],
    "batch_dice": ["yes"],
    "median_size": [(40, 40, 0)],
}
PAIRS = [(name, value) for name, values in BAD.items() for value in values]


@pytest.mark.parametrize(("name", "value"), PAIRS)
def test_a_value_that_is_none_of_a_plan_is_named(brats_plan, name, value):
    with pytest.raises(ValueError, match=f"plan: (strides and )?{name}"):
        require_sound(vars(brats_plan) | {name: value})


def test_no_plan_is_made_of_such_values(brats_plan):
    with pytest.raises(ValueError, match="plan: spacing_mm is"):
        dataclasses.replace(brats_plan, spacing_mm=(1.0, -1.0, 1.0))


def test_every_field_of_a_plan_has_a_rule(brats_plan):
    assert set(BAD) == set(brats_plan.to_dict())


@pytest.mark.parametrize("text", ["", "[]", "1", "null", '{"a": 1}', "[" * 100_000])
def test_text_that_is_no_plan_is_refused(text):
    with pytest.raises(ValueError):
        Plan.from_json(text)
