"""Synthetic follow-ups: label maps of patients whose every lesion has a known course.

Each patient has one lesion of each kind in COURSES, far from the others, of the shapes
that phantom cohorts draw. The truth written beside them comes from the script of
the lesions, not from looking at the voxels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from bmjax.data import nifti
from bmjax.data.phantom_template import largest_piece, smooth_field
from bmjax.data.tables import write_csv

ET = 3
Radii = tuple[float, float, float, float]

# radius at each of four visits [mm]; 0: not there
COURSES: Mapping[str, Radii] = {
    "stable": (5.0, 5.0, 5.0, 5.0),
    "grown": (4.0, 5.0, 6.5, 8.0),
    "shrunk": (8.0, 6.5, 5.0, 4.0),
    "vanished": (5.0, 4.0, 0.0, 0.0),
    "new": (0.0, 0.0, 4.0, 5.0),
    "hidden": (4.5, 4.5, 0.0, 4.5),  # missed once: a gap
}
MERGED_FROM, SPLIT_FROM = 2, 2  # the visits at which it is seen
_PAIR_MM, _BRIDGE_MM = 20.0, 2.5
_LUMPS = (0.7, 1.4)  # of the radius; so far apart, no two lesions can touch
_LATTICE_MM = 36.0
_DAYS = 84


@dataclass(frozen=True, kw_only=True)
class FollowUps:
    """A set of patients with four scans each.

    Attributes:
      name: how ids begin: `BraTS-FUP` gives patient `BraTS-FUP-00001`.
      num_patients: how many.
      seed: other seeds are other people.
      spacing_mm: voxels, z y x [mm].
      moved_mm: by how much the patient lies elsewhere at every second scan although the
        header does not say so, x y z [mm].
      turned_deg: by how much the patient is turned there about the x, then the y, then
        the z axis through the middle, before being shifted [degree].
      regridded: whether every second scan has another grid, of which the header knows.
    """

    name: str = "BraTS-FUP"
    num_patients: int = 2
    seed: int = 0
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 1.5)
    moved_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turned_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    regridded: bool = False


@dataclass
class Visit:
    """One scan and the truth about it.

    Attributes:
      labels: 0 none, 3 ET.
      affine: from the (x, y, z) index to RAS+ millimetres.
      centres_mm: centre of the tumour of each lesion that is there, x y z [mm].
    """

    labels: UInt8[np.ndarray, "z y x"]
    affine: Float[np.ndarray, "4 4"]
    centres_mm: dict[str, tuple[float, float, float]] = field(default_factory=dict)


def events() -> list[tuple[int, int, str, str, str]]:
    """What becomes of each lesion: visits, kind, name before, name after.

    Without bridging of gaps: `hidden` resolves and comes as a new one.
    """
    rows = []
    for before, after in pairwise(range(4)):
        for name, radii in COURSES.items():
            there = radii[before] > 0, radii[after] > 0
            if there == (True, True):
                rows.append((before, after, "matched", name, name))
            elif there == (True, False):
                rows.append((before, after, "resolved", name, ""))
            elif there == (False, True):
                rows.append((before, after, "new", "", name))
        rows.append((before, after, "matched", "joined", "joined"))
        if after < MERGED_FROM:
            rows.append((before, after, "matched", "joining", "joining"))
        elif after == MERGED_FROM:
            rows.append((before, after, "merged", "joining", "joined"))
        rows.append((before, after, "matched", "parting", "parting"))
        if after == SPLIT_FROM:
            rows.append((before, after, "split", "parting", "parted"))
        elif after > SPLIT_FROM:
            rows.append((before, after, "matched", "parted", "parted"))
    return rows


def make_patient(followups: FollowUps, index: int) -> list[Visit]:
    """Draw the four scans of a patient; a pure function of its arguments."""
    rng = np.random.default_rng((followups.seed, index))
    places = _places(rng)
    seeds = {name: int(rng.integers(2**31)) for name in [*places, "joining", "parted"]}
    return [_draw(followups, visit, places, seeds) for visit in range(4)]


def write_followups(followups: FollowUps, folder: str | Path) -> None:
    """Write `PATIENT-VISIT-seg.nii.gz`, manifest.csv and the truth.

    truth.csv has one row for each event of `events` (patient, from_visit, to_visit,
    kind, from_lesion, to_lesion by name); truth_lesions.csv the place of each lesion.

    Args:
      followups: what to draw.
      folder: made if absent.
    """
    folder = Path(folder)
    cases, truth, places = [], [], []
    for index in range(followups.num_patients):
        patient = f"{followups.name}-{index + 1:05d}"
        for number, visit in enumerate(make_patient(followups, index)):
            case = f"{patient}-{number:03d}"
            path = folder / f"{case}-seg.nii.gz"
            nifti.write(path, visit.labels, affine=visit.affine)
            day = date(2020, 1, 15) + timedelta(days=_DAYS * number)
            cases.append(
                {
                    "case": case,
                    "patient": patient,
                    "visit": f"{number:03d}",
                    "date": day.isoformat(),
                    "labels": path.name,
                }
            )
            for name, centre in visit.centres_mm.items():
                place = {f"{a}_mm": f"{centre[i]:.3f}" for i, a in enumerate("xyz")}
                row = {"patient": patient, "visit": f"{number:03d}", "lesion": name}
                places.append({**row, **place})
        for before, after, kind, first, second in events():
            truth.append(
                {
                    "patient": patient,
                    "from_visit": f"{before:03d}",
                    "to_visit": f"{after:03d}",
                    "kind": kind,
                    "from_lesion": first,
                    "to_lesion": second,
                }
            )
    for name, rows in (
        ("manifest", cases),
        ("truth", truth),
        ("truth_lesions", places),
    ):
        write_csv(folder / f"{name}.csv", rows)


def _places(rng: np.random.Generator) -> dict[str, tuple[float, float, float]]:
    """Where each lesion lies, x y z [mm]: on a lattice, each a little beside it."""
    lattice = [
        (x * _LATTICE_MM, y * _LATTICE_MM, z * _LATTICE_MM)
        for x in (-0.5, 0.5)
        for y in (-1, 0, 1)
        for z in (-0.5, 0.5)
    ]
    order = rng.permutation(len(lattice))
    names = [*COURSES, "joined", "parting"]
    places = {}
    for name, at in zip(names, order, strict=False):
        x, y, z = (float(v) for v in lattice[at] + rng.uniform(-2, 2, 3))
        places[name] = (x, y, z)
    return places


def _draw(
    followups: FollowUps,
    visit: int,
    places: Mapping[str, tuple[float, float, float]],
    seeds: Mapping[str, int],
) -> Visit:
    is_second = visit % 2 == 1
    spacing_mm = followups.spacing_mm
    if followups.regridded and is_second:
        spacing_mm = tuple(0.8 * s for s in spacing_mm)
    is_turned = is_second and any(followups.turned_deg)
    # a turned patient is drawn in place, then turned and shifted at once
    shift = np.array(followups.moved_mm) * (is_second and not is_turned)
    canvas = _Canvas(spacing_mm, extra_mm=4.3 if followups.regridded * is_second else 0)
    for name, radii in COURSES.items():
        if radii[visit]:
            at = np.add(places[name], shift)
            canvas.add(name, [(at, radii[visit])], seeds[name])
    aside = np.array([_PAIR_MM, 0, 0])
    joined, parting = np.add(places["joined"], shift), np.add(places["parting"], shift)
    # outwards, where the lattice has ended
    joining = joined + np.sign(joined[0]) * aside
    parted = parting + np.sign(parting[0]) * aside
    if visit < MERGED_FROM:
        canvas.add("joined", [(joined, 6.0)], seeds["joined"])
        canvas.add("joining", [(joining, 4.5)], seeds["joining"])
    else:
        canvas.add("joined", [(joined, 7.0), (joining, 5.0)], seeds["joined"])
    if visit < SPLIT_FROM:
        canvas.add("parting", [(parting, 7.0), (parted, 5.0)], seeds["parting"])
    else:
        canvas.add("parting", [(parting, 6.0)], seeds["parting"])
        canvas.add("parted", [(parted, 4.0)], seeds["parted"])
    if is_turned:
        canvas.turn(followups.turned_deg, followups.moved_mm)
    labels = np.where(canvas.numbers > 0, ET, 0).astype(np.uint8)
    return Visit(labels, canvas.affine, canvas.centres_mm())


def _lumpy_ball(
    rng: np.random.Generator,
    radius_mm: float,
    *,
    spacing_mm: tuple[float, float, float],
) -> Bool[np.ndarray, "z y x"]:
    """A ball with lumps, in one piece; the same lumps at every radius and spacing."""
    reach_mm = _LUMPS[1] * radius_mm
    axes = tuple(
        np.arange(-np.ceil(reach_mm / s), np.ceil(reach_mm / s) + 1) * s
        for s in spacing_mm
    )
    z, y, x = np.meshgrid(*axes, indexing="ij")
    box_mm = ((-2 * radius_mm, 2 * radius_mm),) * 3
    lumps = smooth_field(rng, axes, scale_mm=1.1 * radius_mm, box_mm=box_mm)
    edge_mm = radius_mm * np.clip(1 + 0.2 * lumps, *_LUMPS)
    return largest_piece(np.sqrt(z**2 + y**2 + x**2) <= edge_mm)


class _Canvas:
    """A label map to draw lesions into, by their place in the world."""

    def __init__(self, spacing_mm: tuple[float, ...], *, extra_mm: float) -> None:
        z, y, x = spacing_mm
        self.spacing_mm = (z, y, x)
        half_mm = np.array([64.0, 68.0, 46.0]) + extra_mm  # x y z
        size = np.ceil(2 * half_mm / np.array([x, y, z])).astype(int)
        self.affine = np.diag([x, y, z, 1.0])
        self.affine[:3, 3] = -half_mm + extra_mm / 3
        self.numbers = np.zeros(size[::-1], np.uint8)
        self._names: list[str] = []  # of the lesions numbered 1, 2, ...

    def add(
        self, name: str, balls: Sequence[tuple[np.ndarray, float]], seed: int
    ) -> None:
        """Draw one lesion made of lumpy balls with a bridge between them."""
        self._names.append(name)
        mask = np.zeros(self.numbers.shape, bool)
        for number, (at, radius_mm) in enumerate(balls):
            rng = np.random.default_rng((seed, number))
            solid = _lumpy_ball(rng, radius_mm, spacing_mm=self.spacing_mm)
            low = self._voxel(at) - np.array(solid.shape) // 2
            box = tuple(slice(a, a + n) for a, n in zip(low, solid.shape, strict=True))
            mask[box] |= solid
        for (start, _), (stop, _) in pairwise(balls):
            for share in np.linspace(0, 1, 60):
                low, high = (
                    self._voxel(start + share * (stop - start) + side * _BRIDGE_MM / 2)
                    for side in (-1, 1)
                )
                box = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
                mask[box] = True
        self.numbers[mask] = len(self._names)

    def turn(self, turned_deg: tuple[float, ...], moved_mm: tuple[float, ...]) -> None:
        """Turn everything about the middle of the world, then shift it."""
        there = np.eye(4)
        there[:3, :3] = Rotation.from_euler("xyz", turned_deg, degrees=True).as_matrix()
        there[:3, 3] = moved_mm
        back = np.linalg.inv(self.affine) @ np.linalg.inv(there) @ self.affine  # x y z
        order = [2, 1, 0, 3]
        self.numbers = affine_transform(self.numbers, back[order][:, order], order=0)

    def centres_mm(self) -> dict[str, tuple[float, float, float]]:
        """Centre of mass of each lesion, x y z [mm]."""
        found = {}
        for number, name in enumerate(self._names, start=1):
            z, y, x = np.argwhere(self.numbers == number).mean(axis=0)
            x, y, z = (float(v) for v in (self.affine @ [x, y, z, 1.0])[:3])
            found[name] = (x, y, z)
        return found

    def _voxel(self, at_mm: np.ndarray) -> np.ndarray:
        x, y, z = np.rint((at_mm - self.affine[:3, 3]) / np.diag(self.affine)[:3])
        return np.array([z, y, x]).astype(int)
