"""A plan moved onto another data set: what goes with it, and what is said of it."""

import copy
from dataclasses import replace

import pytest

from bmjax.planning import make_plan
from bmjax.planning.labels import LESION
from bmjax.planning.reasons import explain
from bmjax.planning.transfer import move_nnunet_plans, move_plan


def fingerprint(*, spacing_mm, size, relative, channels=("t1c", "t1n"), count=20):
    known = {"mean": 1.0, "std": 2.0, "p0_5": 3.0, "p99_5": 4.0}
    return {
        "channels": list(channels),
        "spacings_mm": [list(spacing_mm)] * count,
        "sizes_after_crop": [list(size)] * count,
        "relative_size_after_crop": [relative] * count,
        "intensity": {channel: known for channel in channels},
        "label_voxels": {},
    }


BRAINS = fingerprint(spacing_mm=(1, 1, 1), size=(144, 181, 142), relative=0.41)
HEADS = fingerprint(spacing_mm=(1, 0.5, 0.5), size=(192, 512, 432), relative=0.99)


def test_everything_is_carried_over_and_the_trap_is_named():
    """BraTS by the plan of a data set that is not cropped to brains (Luu et al.)."""
    heads, brains = make_plan(HEADS), make_plan(BRAINS)
    moved = move_plan(heads, brains)
    assert moved.plan == heads and not moved.plan.use_mask_for_norm
    (warning,) = moved.warnings
    assert "use_mask_for_norm false is carried over" in warning
    assert "zeros around the brain enter mean and spread" in warning
    assert "--keep-source-normalization keeps its own" in warning
    lines = {line.decision: str(line) for line in moved.carried}
    assert "carried over; its own is (128, 160, 112)" in lines["patch_size"]
    assert "carried over, as its own would be" in lines["normalization"]


def test_the_normalisation_of_the_source_is_kept_when_asked_for():
    heads, brains = make_plan(HEADS), make_plan(BRAINS)
    moved = move_plan(heads, brains, keep_source_normalization=True)
    assert moved.plan == replace(heads, use_mask_for_norm=True)
    assert moved.warnings == ()
    lines = {line.decision: str(line) for line in moved.carried}
    assert lines["use_mask_for_norm"].endswith("kept, as this data set's own")


def test_channels_are_matched_by_name_and_missing_ones_refused():
    ours = fingerprint(
        spacing_mm=(1, 1, 1), size=(90, 90, 90), relative=1, channels=("ct", "t1c")
    )
    wanted = fingerprint(
        spacing_mm=(2, 2, 2), size=(80, 80, 80), relative=1, channels=("t1c", "ct")
    )
    own = make_plan(ours)
    moved = move_plan(make_plan(wanted), own, keep_source_normalization=True)
    assert moved.plan.channels == ("t1c", "ct")
    assert moved.plan.normalization == ("zscore", "ct")
    assert moved.plan.foreground == own.foreground[::-1]
    with pytest.raises(ValueError, match="t1n missing"):
        move_plan(make_plan(BRAINS), own)


def test_labels_stay_those_of_the_data_set():
    moved = move_plan(make_plan(HEADS), make_plan(BRAINS, scheme=LESION))
    assert moved.plan.regions == LESION.regions
    assert "the regions stay this data set's own (lesion)" in moved.warnings[-1]


def test_nnunet_plans_are_renamed_and_left_alone_otherwise():
    plans = {
        "dataset_name": "Dataset222_SBT",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "configurations": {
            "2d": {"data_identifier": "nnUNetPlans_2d", "patch_size": [1, 2]},
            "3d_fullres": {"data_identifier": "other"},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres"},
        },
    }
    before = copy.deepcopy(plans)
    moved = move_nnunet_plans(
        plans,
        dataset_name="Dataset111_Meta",
        plans_name="FromSBT",
        image_reader_writer="NibabelIO",
    )
    assert plans == before
    assert moved["configurations"]["2d"]["data_identifier"] == "FromSBT_2d"
    assert moved["configurations"]["2d"]["patch_size"] == [1, 2]
    assert moved["configurations"]["3d_fullres"]["data_identifier"] == "FromSBT_other"
    assert (
        moved["dataset_name"],
        moved["plans_name"],
        moved["image_reader_writer"],
    ) == (
        "Dataset111_Meta",
        "FromSBT",
        "NibabelIO",
    )


def reason(plan, facts, decision, **options):
    (found,) = [r for r in explain(plan, facts, **options) if r.decision == decision]
    return found


def test_every_decision_has_a_reason_with_its_numbers():
    plan = make_plan(HEADS)
    found = explain(plan, HEADS)
    assert len({r.decision for r in found}) == len(found) == 12
    assert "keeps 99% of a case" in reason(plan, HEADS, "use_mask_for_norm").why
    assert "median of 20 cases" in reason(plan, HEADS, "spacing_mm").why
    assert "less than 25%" in reason(plan, HEADS, "batch_dice").why
    assert "of 560 million" in reason(plan, HEADS, "patch_size").why


def test_what_was_given_is_said_to_be_given():
    plan = make_plan(BRAINS, spacing_mm=(2.0, 2.0, 2.0), patch_size=(32, 32, 32))
    plan = replace(plan, use_mask_for_norm=False, batch_dice=True)
    for decision in ("spacing_mm", "patch_size", "use_mask_for_norm", "batch_dice"):
        assert reason(plan, BRAINS, decision).why.startswith("given; ")


def test_thick_slices_low_resolution_and_slices_are_explained():
    thick = fingerprint(spacing_mm=(6, 0.5, 0.5), size=(24, 400, 400), relative=1)
    thick["spacings_mm"] = [[z, 0.5, 0.5] for z in (4.0, 5.0, 6.0, 7.0, 8.0)] * 4
    assert "tenth percentile" in reason(make_plan(thick), thick, "spacing_mm").why
    low = make_plan(HEADS, configuration="3d_lowres")
    assert low.spacing_mm > (1.0, 0.5, 0.5)
    assert "in steps of 1.03" in reason(low, HEADS, "spacing_mm").why
    flat = make_plan(HEADS, configuration="2d")
    assert "within the slices" in reason(flat, HEADS, "spacing_mm").why
    assert "always for slices" in reason(flat, HEADS, "batch_dice").why


def test_more_memory_gives_a_larger_patch_and_is_said():
    small, large = make_plan(HEADS), make_plan(HEADS, memory_gb=24)
    assert large.patch_size > small.patch_size
    why = reason(large, HEADS, "patch_size", memory_gb=24).why
    assert "of 1680 million" in why and "on 24 GB (default)" in why
    with pytest.raises(ValueError, match="no patch is small enough for 0.0001 GB"):
        make_plan(HEADS, memory_gb=0.0001)


def test_the_cascade_and_a_needless_low_resolution_are_refused():
    with pytest.raises(ValueError, match="the cascade, .* cannot be trained here"):
        make_plan(HEADS, configuration="3d_cascade_fullres")
    with pytest.raises(ValueError, match="there is no 3d_lowres configuration"):
        make_plan(BRAINS, configuration="3d_lowres")


def test_ct_needs_the_intensities_of_the_foreground():
    facts = fingerprint(spacing_mm=(1, 1, 1), size=(90, 90, 90), relative=1)
    plan = make_plan(facts, normalization=("ct", "zscore"))
    assert plan.foreground == ((1.0, 2.0, 3.0, 4.0),) * 2
    with pytest.raises(ValueError, match="no foreground intensities of t1c, t1n"):
        make_plan(facts | {"intensity": {}}, normalization=("ct", "zscore"))
