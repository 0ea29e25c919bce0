"""Whole courses with gaps: for any lesions that come and go, the tracks are theirs."""

from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bmjax.tracking import Criteria
from bmjax.tracking.course import follow
from bmjax.tracking.observation import observe

SITES = [(z, y, x) for z in (1, 9) for y in (1, 9) for x in (1, 9, 17)]
NEAR = Criteria(max_centre_mm=4.0, max_surface_mm=3.0)  # no site is so near another


@st.composite
def courses(draw):
    """Side of each lesion at each visit [vox], 0 where it is not there."""
    num_visits = draw(st.integers(1, 6))
    sides = st.lists(st.integers(0, 4), min_size=num_visits, max_size=num_visits)
    return draw(st.lists(sides, min_size=1, max_size=len(SITES)))


def scans_of(course):
    """A scan of each visit; every lesion grows from a corner of its own site."""
    scans = []
    for visit in range(len(course[0])):
        mask = np.zeros((16, 16, 24), bool)
        for site, sides in zip(SITES, course, strict=False):
            mask[tuple(slice(a, a + sides[visit]) for a in site)] = True
        scans.append(observe(mask, np.eye(4)))
    return scans


def site_of(lesion):
    """Which site a lesion lies at."""
    low_xyz = lesion.points_mm.min(axis=0)
    return SITES.index(tuple(int(v) for v in reversed(low_xyz)))


def true_tracks(course, max_gap):
    """The visits of each lesion, parted where it was missing for too long."""
    tracks = set()
    for site, sides in enumerate(course):
        seen = [visit for visit, side in enumerate(sides) if side]
        starts = [0] + [
            i
            for i, (before, after) in enumerate(pairwise(seen), start=1)
            if after - before - 1 > max_gap
        ]
        for start, stop in pairwise([*starts, len(seen)]):
            if stop > start:
                tracks.add((site, tuple(seen[start:stop])))
    return tracks


@settings(deadline=None, max_examples=30)
@given(courses(), st.integers(0, 3))
@example([[2, 0, 0, 2], [2, 2, 0, 2], [0, 3, 0, 3]], 1)
def test_the_tracks_are_the_lesions_with_gaps_bridged_up_to_the_limit(course, max_gap):
    found = follow(scans_of(course), criteria=NEAR, max_gap=max_gap)
    tracks = {
        (site_of(next(iter(track.lesions.values()))), tuple(sorted(track.lesions)))
        for track in found.tracks
    }
    assert tracks == true_tracks(course, max_gap)
    for track in found.tracks:
        assert len({site_of(lesion) for lesion in track.lesions.values()}) == 1
        volumes = track.volumes_mm3(len(course[0]))
        sides = course[site_of(track.lesions[track.first])]
        expected = [
            sides[v] ** 3 if v in track.lesions else 0
            for v in range(track.first, len(sides))
        ]
        assert volumes == expected


@settings(deadline=None, max_examples=30)
@given(courses(), st.integers(0, 3))
def test_every_step_of_every_lesion_is_told_once(course, max_gap):
    found = follow(scans_of(course), criteria=NEAR, max_gap=max_gap)
    told = sorted((event.kind, event.visits, event.track) for event in found.events)
    expected = []
    for track in found.tracks:
        seen = sorted(track.lesions)
        if seen[0] > 0:
            expected.append(("new", (seen[0] - 1, seen[0]), track.number))
        for before, after in pairwise(seen):
            is_next = after == before + 1
            kind = "matched" if is_next else "reappeared"
            expected.append((kind, (before, after), track.number))
        for visit in seen:
            if visit + 1 < len(course[0]) and visit + 1 not in seen:
                expected.append(("resolved", (visit, visit + 1), track.number))
    assert told == sorted(expected)


@settings(deadline=None, max_examples=15)
@given(courses(), st.integers(0, 3))
def test_a_course_told_backwards_has_the_same_tracks(course, max_gap):
    forth = follow(scans_of(course), criteria=NEAR, max_gap=max_gap)
    back = follow(scans_of(course)[::-1], criteria=NEAR, max_gap=max_gap)
    last = len(course[0]) - 1

    def lesions(track, visits):
        return tuple(sorted((visits(v), site_of(x)) for v, x in track.lesions.items()))

    assert sorted(lesions(t, lambda v: v) for t in forth.tracks) == sorted(
        lesions(t, lambda v: last - v) for t in back.tracks
    )
