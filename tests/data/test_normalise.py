"""Tests of bmjax.data.normalise; its parity with nnU-Net is in tests/parity."""

import numpy as np
import pytest

from bmjax.data.normalise import SCHEMES, normalise
from bmjax.planning import Plan
from bmjax.planning.nnunet import plan_from_nnunet, read_plan

FOREGROUND = (400.0, 120.0, 80.0, 700.0)
CT = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


def brain_and_channel():
    channel = np.zeros((4, 4, 4), np.float32)
    channel[1:3, 1:3, 1:3] = np.arange(8).reshape(2, 2, 2)
    brain = np.zeros(channel.shape, bool)
    brain[1:3, 1:3, 1:3] = True
    return brain, channel


def test_the_outside_of_the_brain_stays_zero_only_with_a_mask():
    brain, channel = brain_and_channel()
    masked = normalise(channel, scheme="zscore", brain=brain)
    assert (masked[~brain] == 0).all() and abs(masked[brain].mean()) < 1e-6
    whole = normalise(channel, scheme="zscore")
    assert abs(whole.mean()) < 1e-6 and (whole[~brain] < 0).all()


def test_ct_is_clipped_to_the_foreground_of_the_data_set():
    channel = np.array([[[0, 80, 400, 520, 700, 3000]]], np.float32)
    got = normalise(channel, scheme="ct", foreground=FOREGROUND)
    want = np.array([-320, -320, 0, 120, 300, 300]) / 120
    np.testing.assert_allclose(got[0, 0], want, rtol=1e-6)
    with pytest.raises(ValueError, match="'ct' needs the intensities"):
        normalise(channel, scheme="ct")


def test_rescaling_goes_from_zero_to_one():
    channel = np.array([[[-5, 0, 15]]], np.float32)
    got = normalise(channel, scheme="rescale_to_0_1")
    np.testing.assert_allclose(got[0, 0], [0, 0.25, 1])
    colours = np.array([[[0, 51, 255]]], np.float32)
    got = normalise(colours, scheme="rgb_to_0_1")
    np.testing.assert_allclose(got[0, 0], [0, 0.2, 1])
    with pytest.raises(ValueError, match="-5 to 15 where colours of 0 to 255"):
        normalise(channel, scheme="rgb_to_0_1")


def test_an_unknown_scheme_names_those_there_are():
    channel = np.ones((2, 2, 2), np.float32)
    assert normalise(channel, scheme="none") is channel
    with pytest.raises(ValueError, match="'minmax' is unknown; use one of .'zscore'"):
        normalise(channel, scheme="minmax")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_fault_14_a_constant_channel_does_not_divide_by_zero(scheme):
    channel = np.full((3, 3, 3), 7, np.float32)
    for brain in (None, np.ones(channel.shape, bool)):
        got = normalise(channel, scheme=scheme, brain=brain, foreground=FOREGROUND)
        assert np.isfinite(got).all() and got.dtype == np.float32
        assert scheme != "zscore" or (got == 0).all()
    assert (channel == 7).all()  # the input is left alone


def test_fault_18_a_huge_outlier_stays_finite():
    channel = np.ones((3, 3, 3), np.float32)
    channel[0, 0, 0] = 1e30
    assert np.isfinite(normalise(channel, scheme="zscore")).all()


def test_the_foreground_that_ct_needs_comes_with_nnunets_plans():
    names = ("mean", "std", "percentile_00_5", "percentile_99_5")
    known = dict(zip(names, FOREGROUND, strict=True))
    fingerprint = {
        "spacings": [[1.0, 1.0, 1.0]] * 3,
        "shapes_after_crop": [[64, 64, 64]] * 3,
        "median_relative_size_after_cropping": 0.9,
        "foreground_intensity_properties_per_channel": {
            "0": {**known, "median": 1.0, "min": 0.0, "max": 9.0}
        },
    }
    plan = read_plan(plan_from_nnunet(fingerprint, CT), CT)
    assert plan.normalization == ("ct",) and plan.foreground == (FOREGROUND,)
    assert Plan.from_dict(plan.to_dict()) == plan
    with pytest.raises(ValueError, match='"ct" needs the foreground of each'):
        Plan.from_dict(plan.to_dict() | {"foreground": []})
