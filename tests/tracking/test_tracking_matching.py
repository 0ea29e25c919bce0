"""Couples of lesions: symmetric, independent of order, and each criterion fires."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bmjax.tracking import Criteria, match
from bmjax.tracking.motion import Movement, movement
from bmjax.tracking.observation import Lesion, Observation, observe

AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
SIZE = (14, 16, 18)


def scan(*boxes, affine=AFFINE, size=SIZE, **rest):
    """A scan with a lesion for each box, given as (z, y, x) of two corners."""
    mask = np.zeros(size, bool)
    for low, high in boxes:
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return observe(mask, affine, **rest)


@st.composite
def several_boxes(draw):
    """Up to six random boxes, which may touch and then are one lesion."""
    boxes = []
    for _ in range(draw(st.integers(0, 6))):
        low = [draw(st.integers(0, n - 2)) for n in SIZE]
        boxes.append((low, [a + draw(st.integers(1, 5)) for a in low]))
    return boxes


def pairs(couples):
    return {(couple.first, couple.second) for couple in couples}


def renumbered(observation, order):
    """The same lesions, by other numbers."""
    number_of = np.zeros(len(order) + 1, np.int32)
    number_of[1:] = np.array(order) + 1
    lesions = [None] * len(order)
    for lesion in observation.lesions:
        index = int(number_of[lesion.index])
        lesions[index - 1] = dataclasses.replace(lesion, index=index)
    return dataclasses.replace(
        observation, numbers=number_of[observation.numbers], lesions=tuple(lesions)
    ), number_of


@settings(deadline=None, max_examples=150)
@given(several_boxes(), several_boxes())
def test_time_reversed_the_same_lesions_are_matched(first, second):
    first, second = scan(*first), scan(*second)
    forth, back = match(first, second), match(second, first)
    assert pairs(forth.matched) == {(b, a) for a, b in pairs(back.matched)}
    assert pairs(forth.merged) == {(b, a) for a, b in pairs(back.split)}
    assert forth.new == back.resolved and forth.resolved == back.new


@settings(deadline=None, max_examples=150)
@given(several_boxes(), several_boxes(), st.randoms(use_true_random=False))
def test_the_numbering_of_lesions_does_not_matter(first, second, random):
    first, second = scan(*first), scan(*second)
    order = list(range(len(first.lesions)))
    random.shuffle(order)
    other, number_of = renumbered(first, order)
    expected, got = match(first, second), match(other, second)
    for name in ("matched", "merged", "split"):
        before = pairs(getattr(expected, name))
        assert pairs(getattr(got, name)) == {(number_of[a], b) for a, b in before}


@settings(deadline=None, max_examples=100)
@given(several_boxes(), several_boxes())
def test_every_lesion_is_told_of_exactly_once(first, second):
    first, second = scan(*first), scan(*second)
    found = match(first, second)
    both = [*found.matched, *found.merged, *found.split]
    of_first = [c.first for c in (*found.matched, *found.merged)]
    of_second = [c.second for c in (*found.matched, *found.split)]
    assert sorted([*of_first, *found.resolved]) == [x.index for x in first.lesions]
    assert sorted([*of_second, *found.new]) == [x.index for x in second.lesions]
    for couple in both:
        assert (
            couple.overlap_mm3 > 0 or couple.centre_mm <= 10 or (couple.surface_mm <= 5)
        )


@settings(deadline=None, max_examples=60)
@given(several_boxes())
def test_a_scan_matches_itself(own):
    own = scan(*own)
    found = match(own, own)
    assert pairs(found.matched) == {(x.index, x.index) for x in own.lesions}
    assert all(c.dice == pytest.approx(1) for c in found.matched)


def test_a_near_surface_makes_a_couple_where_centres_are_far_and_nothing_overlaps():
    # the criterion that never fires in the script this follows
    first = scan(((2, 2, 0), (4, 4, 14)))
    second = scan(((2, 6, 0), (4, 8, 3)))
    only = Criteria(max_centre_mm=5.0)
    (couple,) = match(first, second, criteria=only).matched
    assert couple.overlap_mm3 == 0 and couple.centre_mm > 5
    assert couple.surface_mm == pytest.approx(3 * 1.5)
    strict = Criteria(max_centre_mm=5.0, max_surface_mm=4.4)
    assert match(first, second, criteria=strict).matched == ()


def test_an_overlap_outweighs_any_number_of_near_couples():
    # joined by distance alone, both earlier lesions would find a partner
    first = scan(((2, 2, 2), (5, 5, 5)), ((2, 2, 8), (4, 4, 10)))
    second = scan(((2, 3, 3), (5, 5, 6)), ((2, 10, 2), (3, 11, 4)))
    found = match(first, second, criteria=Criteria(max_centre_mm=30))
    assert (1, 1) in pairs(found.matched)


def test_lesions_far_apart_are_not_joined():
    found = match(scan(((0, 0, 0), (2, 2, 2))), scan(((10, 12, 14), (12, 14, 16))))
    assert (found.matched, found.resolved, found.new) == ((), (1,), (1,))


def test_a_couple_is_measured_in_millimetres():
    first, second = scan(((2, 2, 2), (4, 6, 6))), scan(((2, 2, 3), (4, 6, 7)))
    (couple,) = match(first, second).matched
    assert couple.overlap_mm3 == 2 * 4 * 3 * 3.0
    assert couple.dice == 0.75
    assert couple.centre_mm == pytest.approx(1.0)


def test_scans_on_other_grids_are_compared_in_the_world():
    shifted = AFFINE.copy()
    shifted[:3, 3] = (-4, -6, -8)
    first = scan(((2, 2, 2), (6, 6, 6)), ((9, 10, 12), (12, 14, 16)))
    second = scan(
        ((6, 6, 6), (10, 10, 10)),
        ((13, 14, 16), (16, 18, 20)),
        affine=shifted,
        size=(18, 20, 22),
    )
    found = match(first, second)
    assert len(found.matched) == 2
    assert all(c.dice == pytest.approx(1) for c in found.matched)


def test_two_lesions_that_become_one_have_merged_and_the_reverse_is_a_split():
    apart = scan(((4, 4, 2), (8, 8, 7)), ((4, 4, 10), (8, 8, 13)))
    one = scan(((4, 4, 2), (8, 8, 13)))
    found = match(apart, one)
    assert pairs(found.matched) == {(1, 1)} and pairs(found.merged) == {(2, 1)}
    back = match(one, apart)
    assert pairs(back.matched) == {(1, 1)} and pairs(back.split) == {(1, 2)}
    assert found.resolved == back.new == ()


def test_a_lesion_that_only_touches_another_has_not_merged_with_it():
    first = scan(((4, 4, 2), (8, 8, 6)), ((4, 4, 8), (8, 8, 14)))
    second = scan(((4, 4, 2), (8, 8, 9)))
    strict = Criteria(max_centre_mm=0, max_surface_mm=0)
    found = match(first, second, criteria=strict)
    assert found.merged == () and found.resolved == (1,)


def test_small_components_are_left_out_and_the_others_numbered_by_size():
    seen = scan(
        ((0, 0, 0), (1, 1, 1)),
        ((4, 4, 4), (6, 6, 6)),
        ((9, 9, 9), (12, 12, 12)),
        min_volume_mm3=5.0,
    )
    assert [lesion.num_voxels for lesion in seen.lesions] == [27, 8]
    assert seen.num_small == 1
    assert seen.numbers[0, 0, 0] == 0 and seen.numbers[10, 10, 10] == 1


def test_the_movement_of_a_patient_is_found_from_the_lesions():
    boxes = [((2, 2, 2), (4, 4, 4)), ((6, 9, 3), (8, 11, 6)), ((3, 4, 12), (5, 7, 14))]
    first = scan(*boxes)
    step = np.array([2, 3, 3])
    second = scan(*((np.add(a, step), np.add(b, step)) for a, b in boxes))
    moved = movement(first, second, limit_mm=20)
    assert moved.shift_mm == pytest.approx((3.0, 4.5, 4.0))
    back = movement(second, first, limit_mm=20)
    assert back.shift_mm == pytest.approx((-3, -4.5, -4))
    assert movement(first, second, limit_mm=0).is_still
    assert len(match(first, second, moved=moved).matched) == 3


ANGLES_DEG = st.floats(-15, 15)
PLACES_MM = st.floats(-60, 60)
TURNS = st.builds(
    lambda angles, shift, centre: Movement(
        rotation=tuple(
            tuple(row)
            for row in Rotation.from_euler("xyz", angles, degrees=True)
            .as_matrix()
            .tolist()
        ),
        shift_mm=shift,
        centre_mm=centre,
    ),
    st.tuples(ANGLES_DEG, ANGLES_DEG, ANGLES_DEG),
    st.tuples(*[st.floats(-8, 8)] * 3),
    st.tuples(*[st.floats(-20, 20)] * 3),
)


@settings(deadline=None, max_examples=100)
@given(TURNS, TURNS, st.lists(st.tuples(*[PLACES_MM] * 3), min_size=1, max_size=4))
def test_movements_are_undone_and_follow_each_other(one, other, places):
    places = np.array(places)
    np.testing.assert_allclose(one.inverse()(one(places)), places, atol=1e-9)
    np.testing.assert_allclose(one.then(other)(places), other(one(places)), atol=1e-9)
    assert one.inverse().angle_deg == pytest.approx(one.angle_deg, abs=1e-9)


def at_places(places):
    """A scan with a lesion of one voxel at each place, for what asks no voxel."""
    lesions = tuple(
        Lesion(index=i, points_mm=np.array([place]), volume_mm3=1.0)
        for i, place in enumerate(places, start=1)
    )
    empty = np.zeros((1, 1, 1), np.int32)
    return Observation(numbers=empty, affine=np.eye(4), lesions=lesions)


@settings(deadline=None, max_examples=60)
@given(
    TURNS,
    st.lists(st.tuples(*[PLACES_MM] * 3), min_size=4, max_size=7),
    st.randoms(use_true_random=False),
)
def test_any_rotation_is_found_in_any_order_of_the_lesions(turn, places, random):
    places = np.array(places)
    sides = np.linalg.norm(places[:, None] - places, axis=-1)[
        np.triu_indices(len(places), 1)
    ]
    # lesions that can be told apart: no two near, no two distances alike
    assume(sides.min() > 12 and np.diff(np.sort(sides)).min() > 1)
    assume(np.linalg.svd(places - places.mean(0))[1][1] > 15)
    moved = turn(places)
    assume(np.linalg.norm((moved - places).mean(0)) < 40)
    order = list(range(len(places)))
    random.shuffle(order)
    found = movement(
        at_places(places), at_places(moved[order]), limit_mm=40, limit_deg=45
    )
    np.testing.assert_allclose(found(places), moved, atol=1e-6)
    assert found.angle_deg == pytest.approx(turn.angle_deg, abs=1e-5)


def test_a_rotation_beyond_the_limit_is_not_taken():
    places = np.array([(0, 0, 0), (50, 0, 0), (0, 30, 0), (0, 0, 20.0)])
    turn = Movement(rotation=((0, -1, 0), (1, 0, 0), (0, 0, 1)))  # by 90 degrees
    scans = at_places(places), at_places(turn(places))
    assert movement(*scans, limit_mm=80, limit_deg=91).angle_deg == pytest.approx(90)
    assert movement(*scans, limit_mm=80, limit_deg=89).angle_deg < 89


@pytest.mark.parametrize(
    "wrong", [{"max_centre_mm": -1.0}, {"max_surface_mm": -1.0}, {"min_share": 0.0}]
)
def test_criteria_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Criteria(**wrong)
