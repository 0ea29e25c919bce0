"""The plan as a value: what it refuses, how it is stored, what can be overridden."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.planning import BRATS_METS, Plan, make_plan, rules


def fingerprint(*, spacings_mm=((1.0, 1.0, 1.0),), sizes=((140, 180, 140),)):
    return {
        "channels": ["t1c", "t1n", "t2f", "t2w"],
        "spacings_mm": [list(s) for s in spacings_mm],
        "sizes_after_crop": [list(s) for s in sizes],
        "relative_size_after_crop": [0.4] * len(sizes),
        "intensity": {},
        "label_voxels": {},
    }


def test_a_plan_survives_json():
    plan = make_plan(fingerprint())
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_plan_of_the_brats_labels_has_their_regions_and_paint():
    plan = make_plan(fingerprint())
    assert plan.labels == (("NETC", 1), ("SNFH", 2), ("ET", 3))
    assert plan.regions == (("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,)))
    assert plan.paint == (2, 1, 3)
    assert plan.num_classes == 3
    assert plan.normalization == ("zscore",) * 4


def test_painting_the_regions_of_each_label_in_order_gives_the_label_back():
    for value in (0, 1, 2, 3):
        painted = 0
        for (_, members), paint in zip(
            BRATS_METS.regions, BRATS_METS.paint, strict=True
        ):
            painted = paint if value in members else painted
        assert painted == value


def test_the_digest_changes_with_any_decision_and_only_then():
    plan = make_plan(fingerprint())
    assert plan.digest() == make_plan(fingerprint()).digest()
    assert plan.digest() != replace(plan, batch_size=9).digest()
    assert plan.digest() != replace(plan, spacing_mm=(1.0, 1.0, 1.0001)).digest()
    assert len(plan.digest()) == 12


def test_unknown_and_missing_fields_are_named():
    values = make_plan(fingerprint()).to_dict()
    values["patchsize"] = values.pop("patch_size")
    with pytest.raises(ValueError, match=r"unknown fields \['patchsize'\], missing"):
        Plan.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": (32, 64)}, "same number of stages"),
        ({"paint": (1, 2)}, "3 regions need as many paint labels"),
        ({"normalization": ("zscore",)}, "one normalization each"),
        ({"transpose_forward": (0, 0, 1)}, "must order the axes"),
        ({"spacing_mm": (1.0, 1.0)}, "same number of axes"),
        ({"patch_size": (100, 160, 112)}, "nearest legal patch is"),
    ],
)
def test_a_contradictory_plan_is_refused(change, message):
    plan = make_plan(fingerprint())
    with pytest.raises(ValueError, match=message):
        replace(plan, **change)


def test_a_given_spacing_patch_and_batch_are_kept():
    plan = make_plan(
        fingerprint(), spacing_mm=(2.0, 2.0, 2.0), patch_size=(64, 64, 64), batch_size=4
    )
    assert plan.spacing_mm == (2.0, 2.0, 2.0)
    assert plan.patch_size == (64, 64, 64)
    assert plan.batch_size == 4
    assert plan.strides == ((1, 1, 1), *[(2, 2, 2)] * 4)
    assert plan.median_size == (70, 90, 70)


@pytest.mark.parametrize(
    ("wanted", "legal"),
    [((60, 64, 64), "(64, 64, 64)"), ((68, 64, 64), "(64, 64, 64)")],
)
def test_a_given_patch_that_does_not_pool_names_the_nearest_legal_one(wanted, legal):
    with pytest.raises(ValueError) as error:
        make_plan(fingerprint(), patch_size=wanted)
    assert f"nearest legal patch is {legal}" in str(error.value)


def test_a_patch_with_too_few_axes_is_refused():
    with pytest.raises(ValueError, match="needs 3 axes"):
        make_plan(fingerprint(), patch_size=(64, 64))


def test_a_2d_plan_has_two_axes():
    plan = make_plan(fingerprint(), configuration="2d", patch_size=(96, 96))
    assert plan.patch_size == (96, 96)
    assert plan.spacing_mm == (1.0, 1.0)
    assert plan.batch_dice


def test_single_slices_have_no_3d_plan():
    with pytest.raises(ValueError, match='use configuration="2d"'):
        make_plan(fingerprint(sizes=((1, 100, 100),)))


def test_no_case_no_plan():
    with pytest.raises(ValueError, match="it holds no case"):
        make_plan(fingerprint(spacings_mm=(), sizes=()))


def test_lists_of_other_lengths_are_refused():
    broken = fingerprint() | {"relative_size_after_crop": []}
    with pytest.raises(ValueError, match="one entry per case expected"):
        make_plan(broken)


def test_the_coarsest_axis_comes_first():
    plan = make_plan(
        fingerprint(spacings_mm=((0.7, 0.7, 3.0),), sizes=((256, 200, 50),))
    )
    assert plan.transpose_forward == (2, 0, 1)
    assert plan.spacing_mm == (3.0, 0.7, 0.7)
    assert plan.median_size == (50, 256, 200)


def test_thick_short_axes_take_the_tenth_percentile_of_the_spacing():
    spacings = [(z, 1.0, 1.0) for z in np.linspace(4, 8, 41)]
    found = rules.target_spacing(
        fingerprint(spacings_mm=spacings, sizes=((20, 200, 200),) * 41)
    )
    np.testing.assert_allclose(found, (4.4, 1.0, 1.0))


def test_thick_but_long_axes_keep_the_median_spacing():
    spacings = [(z, 1.0, 1.0) for z in np.linspace(4, 8, 41)]
    found = rules.target_spacing(
        fingerprint(spacings_mm=spacings, sizes=((100, 200, 200),) * 41)
    )
    np.testing.assert_allclose(found, (6.0, 1.0, 1.0))


def test_the_thick_axis_never_gets_finer_than_the_others():
    spacings = [(0.5, 1.0, 1.0)] * 10 + [(6.0, 1.0, 1.0)] * 30
    found = rules.target_spacing(
        fingerprint(spacings_mm=spacings, sizes=((20, 200, 200),) * 40)
    )
    np.testing.assert_allclose(found, (1.00001, 1.0, 1.0), rtol=0, atol=1e-12)


def test_normalisation_looks_inside_the_brain_if_cropping_removes_a_quarter():
    base = fingerprint(spacings_mm=((1.0,) * 3,) * 3, sizes=((100,) * 3,) * 3)
    for relative, inside in (([0.74] * 3, True), ([0.75] * 3, False)):
        plan = make_plan(base | {"relative_size_after_crop": relative})
        assert plan.use_mask_for_norm is inside


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.tuples(*[st.floats(0.4, 5.0)] * 3),
            st.tuples(*[st.integers(16, 300)] * 3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_data_set_gets_a_sound_plan(cases):
    spacings, sizes = zip(*cases, strict=True)
    plan = make_plan(fingerprint(spacings_mm=spacings, sizes=sizes))
    assert plan.batch_size >= 2
    assert plan.spacing_mm[0] == max(plan.spacing_mm)
    assert Plan.from_dict(plan.to_dict()) == plan


def test_planning_does_not_import_jax():
    code = (
        "import sys, bmjax.planning\n"
        "assert not {'jax', 'flax', 'nibabel'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
