"""The course of each lesion over all visits of a patient, and when it progressed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

from bmjax.tracking.matching import DEFAULT, Couple, Criteria, Matching, match
from bmjax.tracking.motion import Movement, movement
from bmjax.tracking.observation import Lesion, Observation

Origin = Literal["baseline", "new", "split"]


@dataclass(kw_only=True)
class Track:
    """One lesion through time.

    Attributes:
      number: its number in the patient, from 1, in order of appearance and size.
      origin: there from the first visit, new, or split from another track.
      parent: number of the track it split from, 0 if none.
      merged_into: number of the track it went into, 0 if none.
      lesions: by the number of the visit, from 0.
    """

    number: int
    origin: Origin
    parent: int = 0
    merged_into: int = 0
    lesions: dict[int, Lesion] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """The visit it was first seen at."""
        return min(self.lesions)

    @property
    def last(self) -> int:
        """The visit it was last seen at."""
        return max(self.lesions)

    def volumes_mm3(self, num_visits: int) -> list[float]:
        """Its volume at every visit from the first one on; 0 where it is not there.

        A lesion that merged into another ends there: its volume is no longer its own.
        """
        end = self.last + 1 if self.merged_into else num_visits
        return [
            self.lesions[visit].volume_mm3 if visit in self.lesions else 0.0
            for visit in range(self.first, end)
        ]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What became of a lesion between two visits.

    Attributes:
      kind: what it is.
      visits: number of the earlier and of the later visit; more than one apart where a
        gap was bridged.
      first: index of the lesion in the earlier scan, 0 if none.
      second: index of the lesion in the later scan, 0 if none.
      track: whose event it is; of a merged lesion its own, of a split one the new.
      couple: how near the two are, where there are two.
    """

    kind: Literal["matched", "reappeared", "merged", "split", "resolved", "new"]
    visits: tuple[int, int]
    first: int
    second: int
    track: int
    couple: Couple | None = None


@dataclass(frozen=True, kw_only=True)
class Course:
    """All lesions of a patient through time.

    Attributes:
      tracks: number 1 first.
      events: in the order of the visits.
      movements: of the patient before each visit but the first.
    """

    tracks: tuple[Track, ...]
    events: tuple[Event, ...]
    movements: tuple[Movement, ...]


@dataclass(frozen=True, kw_only=True)
class Progression:
    """A volume through time against its running nadir (after RANO-BM).

    Attributes:
      nadirs_mm3: smallest volume before each visit; NaN at the first one [mm3].
      is_above: whether the volume has grown enough over the nadir.
      is_onset: where that begins.
    """

    nadirs_mm3: tuple[float, ...]
    is_above: tuple[bool, ...]
    is_onset: tuple[bool, ...]


def follow(
    visits: Sequence[Observation],
    *,
    criteria: Criteria = DEFAULT,
    max_gap: int = 0,
    motion_mm: float = 0.0,
    motion_deg: float = 0.0,
) -> Course:
    """Follow the lesions of one patient from visit to visit.

    Args:
      visits: scans in the order of time.
      criteria: when two lesions may be the same.
      max_gap: visits in a row at which a lesion may be missing and still be the same.
      motion_mm: longest movement of the patient between two scans that is looked for.
      motion_deg: widest rotation that is looked for with it.
    """
    tracks: list[Track] = []
    events: list[Event] = []
    movements: list[Movement] = []
    here: dict[int, Track] = {}  # by index in the present scan

    def begin(visit: int, index: int, origin: Origin, parent: int = 0) -> Track:
        track = Track(number=len(tracks) + 1, origin=origin, parent=parent)
        tracks.append(track)
        join(track, visit, index)
        return track

    def join(track: Track, visit: int, index: int) -> None:
        track.lesions[visit] = visits[visit].lesions[index - 1]

    for index in range(1, len(visits[0].lesions) + 1) if visits else ():
        here[index] = begin(0, index, "baseline")
    for now in range(1, len(visits)):
        before = now - 1
        pair = visits[before], visits[now]
        moved = movement(*pair, limit_mm=motion_mm, limit_deg=motion_deg)
        movements.append(moved)
        found = match(*pair, criteria=criteria, moved=moved)
        later: dict[int, Track] = {}
        for couple in found.matched:
            later[couple.second] = track = here[couple.first]
            join(track, now, couple.second)
            events.append(_event("matched", (before, now), couple, track))
        for couple in found.merged:
            track = here[couple.first]
            track.merged_into = later[couple.second].number
            events.append(_event("merged", (before, now), couple, track))
        for couple in found.split:
            parent = here[couple.first].number
            later[couple.second] = track = begin(now, couple.second, "split", parent)
            events.append(_event("split", (before, now), couple, track))
        events += [
            Event(
                kind="resolved",
                visits=(before, now),
                first=index,
                second=0,
                track=here[index].number,
            )
            for index in found.resolved
        ]
        left = set(found.new)
        for earlier in range(before - 1, max(before - 1 - max_gap, -1), -1):
            returned = _returned(
                visits, tracks, earlier, now, left, criteria, movements
            )
            for couple in returned.matched:
                track = _seen_at(tracks, earlier)[couple.first]
                later[couple.second] = track
                join(track, now, couple.second)
                left.discard(couple.second)
                events.append(_event("reappeared", (earlier, now), couple, track))
        for index in sorted(left):
            later[index] = track = begin(now, index, "new")
            events.append(
                Event(
                    kind="new",
                    visits=(before, now),
                    first=0,
                    second=index,
                    track=track.number,
                )
            )
        here = later
    return Course(
        tracks=tuple(tracks), events=tuple(events), movements=tuple(movements)
    )


def progression(
    volumes_mm3: Sequence[float], *, ratio: float = 1.4, min_increase_mm3: float = 0.0
) -> Progression:
    """Where a volume reaches a multiple of its running nadir.

    RANO-BM counts growth from the smallest size so far, not from the first visit. What
    had vanished (nadir 0) and is back has progressed.

    Args:
      volumes_mm3: at each visit, 0 where nothing is left [mm3].
      ratio: growth that counts; 1.4 is that of BrainMetaSeg's script.
      min_increase_mm3: growth below this does not count [mm3].
    """
    nadirs, is_above, is_onset = [], [], []
    nadir, was_above = math.nan, False
    for volume in volumes_mm3:
        grown = volume - nadir
        above = volume > 0 and volume >= ratio * nadir and grown >= min_increase_mm3
        nadirs.append(nadir)
        is_above.append(above)
        is_onset.append(above and not was_above)
        was_above = above
        nadir = volume if math.isnan(nadir) else min(nadir, volume)
    return Progression(
        nadirs_mm3=tuple(nadirs), is_above=tuple(is_above), is_onset=tuple(is_onset)
    )


def _event(
    kind: Literal["matched", "reappeared", "merged", "split"],
    visits: tuple[int, int],
    couple: Couple,
    track: Track,
) -> Event:
    return Event(
        kind=kind,
        visits=visits,
        first=couple.first,
        second=couple.second,
        track=track.number,
        couple=couple,
    )


def _seen_at(tracks: Sequence[Track], visit: int) -> dict[int, Track]:
    """Tracks last seen at a visit and not merged, by the index of their lesion."""
    return {
        track.lesions[visit].index: track
        for track in tracks
        if track.last == visit and not track.merged_into
    }


def _returned(
    visits: Sequence[Observation],
    tracks: Sequence[Track],
    earlier: int,
    now: int,
    left: set[int],
    criteria: Criteria,
    movements: Sequence[Movement],
) -> Matching:
    """Matches of the lesions last seen at an earlier visit with those still unknown."""
    return match(
        visits[earlier],
        visits[now],
        criteria=criteria,
        moved=reduce(Movement.then, movements[earlier:now]),
        among=(_seen_at(tracks, earlier).keys(), left),
    )
