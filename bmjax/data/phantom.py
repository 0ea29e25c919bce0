"""Deterministic synthetic cohorts of brain-metastasis MRI on real anatomy.

The anatomy is the MNI152 average brain shipped with nilearn, warped anew for every
case; metastases follow published numbers and sizes. Same cohort, same bytes.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16, UInt8

from bmjax.data import nifti
from bmjax.data.parallel import Progress
from bmjax.data.phantom_anatomy import warp
from bmjax.data.phantom_contrast import Scanner, record
from bmjax.data.phantom_lesions import grow
from bmjax.data.phantom_template import Axes, Template, make_template
from bmjax.data.phantom_tumour import LesionMix
from bmjax.data.tables import write_csv

_MARGIN_MM = 8.0
_ENDS = ("LR", "PA", "IS")
_CODES = frozenset(
    "".join(letters) for pairs in permutations(_ENDS) for letters in product(*pairs)
)
# Shares of primary tumours among patients with brain metastases.
_PRIMARY = {
    "lung": 39.0,
    "breast": 24.5,
    "melanoma": 16.3,
    "renal": 4.3,
    "other": 15.8,
}
_SCANNERS = ("1.5T-A", "1.5T-B", "3T-A", "3T-B")


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """A synthetic data set.

    Attributes:
      name: how case ids begin: `BraTS-PHM` gives `BraTS-PHM-00001-000`.
      num_cases: how many.
      seed: other seeds are other people.
      spacing_mm: along inferior-superior, posterior-anterior, left-right.
      size: voxels along the same axes; None fits the brain with a margin.
      orientation: where x, y, z of the stored arrays point, e.g. `LPS`.
      scanner: contrast, noise and unevenness.
      lesions: how many metastases and how large.
    """

    name: str = "BraTS-PHM"
    num_cases: int = 24
    seed: int = 0
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    size: tuple[int, int, int] | None = None
    orientation: str = "LPS"
    scanner: Scanner = Scanner()
    lesions: LesionMix = LesionMix()

    def __post_init__(self):
        if self.orientation not in _CODES:
            raise ValueError(
                f"{self.name}: orientation {self.orientation!r} is none of the 48 "
                "codes such as RAS, LPS or PIR; give one letter of each pair LR PA IS"
            )
        if min(self.spacing_mm) <= 0:
            raise ValueError(
                f"{self.name}: spacing_mm {self.spacing_mm} must be positive"
            )
        if self.num_cases < 1:
            raise ValueError(
                f"{self.name}: num_cases {self.num_cases} must be positive"
            )

    def case_id(self, index: int) -> str:
        """The id of a case, counted from 0."""
        return f"{self.name}-{index + 1:05d}-000"


SOURCE = Cohort(
    name="BraTS-PHM",
    num_cases=24,
    seed=111,
    spacing_mm=(2.0, 2.0, 2.0),
    lesions=LesionMix(min_volume_mm3=16.0, min_largest_mm3=500.0, max_lesions=20),
)
TARGET = Cohort(
    name="SBT-PHM",
    num_cases=16,
    seed=222,
    spacing_mm=(2.5, 1.75, 1.75),
    orientation="RAS",
    scanner=Scanner(
        noise=0.045,
        bias=0.11,
        jitter=0.05,
        grey_white=0.8,
        enhancement=0.8,
        gain=2.2,
    ),
    lesions=LesionMix(
        num_scale=0.5,
        volume_scale=2.0,
        min_volume_mm3=24.0,
        min_largest_mm3=1500.0,
        max_lesions=10,
    ),
)


@dataclass(frozen=True)
class PhantomCase:
    """One case, as its files will hold it.

    Attributes:
      id: case id.
      images: channel to intensities; 0 outside the brain.
      labels: 0 none, 1 NETC, 2 SNFH, 3 ET.
      affine: from (x, y, z) index to RAS+ millimetres.
      lesions: per lesion `id`, `centre_mm` (x, y, z), `volume_mm3` of tumour, of which
        `et_mm3` and `netc_mm3`, `drawn_et_mm3` before voxels, `oedema_mm`.
      columns: free columns of the manifest.
    """

    id: str
    images: dict[str, Int16[np.ndarray, "z y x"]]
    labels: UInt8[np.ndarray, "z y x"]
    affine: Float[np.ndarray, "4 4"]
    lesions: list[dict]
    columns: dict[str, str]


def make_case(cohort: Cohort, index: int) -> PhantomCase:
    """Draw one case; a pure function of its arguments."""
    if not 0 <= index < cohort.num_cases:
        raise ValueError(
            f"{cohort.name}: case {index} of {cohort.num_cases}; count from 0"
        )
    person, disease, scan, paper = (
        np.random.default_rng((cohort.seed, index, part)) for part in range(4)
    )
    spacing_mm = cohort.spacing_mm
    template = _template_blurred(spacing_mm)
    axes = _axes(cohort)
    anatomy = warp(person, template, axes, fine=_template(), spacing_mm=spacing_mm)
    lesions = grow(disease, anatomy, axes, mix=cohort.lesions, spacing_mm=spacing_mm)
    images = record(scan, anatomy, lesions, axes=axes, scanner=cohort.scanner)
    affine = np.diag([*spacing_mm[::-1], 1.0])
    affine[:3, 3] = [axis[0] for axis in axes[::-1]]
    turn, affine = _turn(cohort.orientation, affine, lesions.labels.shape)
    shares = np.array(list(_PRIMARY.values()))
    return PhantomCase(
        id=cohort.case_id(index),
        images={name: turn(image) for name, image in images.items()},
        labels=turn(lesions.labels),
        affine=affine,
        lesions=lesions.listed,
        columns={
            "primary": str(paper.choice(list(_PRIMARY), p=shares / shares.sum())),
            "scanner": str(paper.choice(_SCANNERS)),
        },
    )


def write_cohort(
    cohort: Cohort,
    folder: str | Path,
    *,
    progress: Progress | None = None,
    num_workers: int = 1,
) -> None:
    """Write all cases as BraTS folders, and `manifest.csv` beside them.

    Args:
      cohort: what to draw.
      folder: made if absent; `CASE/CASE-t1c.nii.gz` ... `CASE/CASE-seg.nii.gz`.
      progress: told after each case: done, in all, case id.
      num_workers: threads; the bytes do not depend on them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _template_blurred(cohort.spacing_mm)

    def write(index: int) -> dict[str, str]:
        case = make_case(cohort, index)
        home = folder / case.id
        home.mkdir(exist_ok=True)
        row = {"case": case.id, "patient": case.id.rpartition("-")[0], "visit": "000"}
        for name, array in {**case.images, "seg": case.labels}.items():
            path = home / f"{case.id}-{name}.nii.gz"
            nifti.write(path, array, affine=case.affine)
            row["labels" if name == "seg" else name] = f"{case.id}/{path.name}"
        return {**row, **case.columns}

    rows = []
    with ThreadPoolExecutor(max_workers=max(1, num_workers)) as pool:
        for row in pool.map(write, range(cohort.num_cases)):
            rows.append(row)
            if progress is not None:
                progress(len(rows), cohort.num_cases, row["case"])
    write_csv(folder / "manifest.csv", rows)


@lru_cache(maxsize=1)
def _template() -> Template:
    """The MNI152 maps at 1 mm, from inside the nilearn package."""
    try:
        from nilearn import datasets
    except ImportError as error:
        raise ImportError(
            "phantom cohorts are made of the MNI152 maps that nilearn ships; "
            "run `pip install 'bmjax[report]'`"
        ) from error
    t1 = datasets.load_mni152_template(resolution=1)
    maps = [
        np.ascontiguousarray(np.asarray(image.dataobj, dtype=np.float32).T)
        for image in (
            t1,
            datasets.load_mni152_gm_template(resolution=1),
            datasets.load_mni152_wm_template(resolution=1),
        )
    ]
    x, y, z = (float(v) for v in t1.affine[:3, 3])
    return make_template(maps[0], maps[1], maps[2], origin_mm=(z, y, x))


@lru_cache(maxsize=4)
def _template_blurred(spacing_mm: tuple[float, float, float]) -> Template:
    return _template().blurred(spacing_mm)


def _axes(cohort: Cohort) -> Axes:
    """Coordinates of the grid's voxels, centred on the brain [mm]."""
    template = _template()
    size = cohort.size or tuple(
        int(np.ceil((1.06 * extent + 2 * _MARGIN_MM) / spacing / 8) * 8)
        for extent, spacing in zip(template.size, cohort.spacing_mm, strict=True)
    )
    z, y, x = (
        origin + (extent - 1) / 2 + (np.arange(num) - (num - 1) / 2) * spacing
        for origin, extent, num, spacing in zip(
            template.origin_mm, template.size, size, cohort.spacing_mm, strict=True
        )
    )
    return z, y, x


def _turn(
    orientation: str, affine: Float[np.ndarray, "4 4"], size: tuple[int, ...]
) -> tuple[Callable[[np.ndarray], np.ndarray], Float[np.ndarray, "4 4"]]:
    """How to store a RAS array in another orientation, and the affine it gets."""
    world = [next(i for i, p in enumerate(_ENDS) if c in p) for c in orientation]
    is_flipped = [c in "LPI" for c in orientation]
    num = size[::-1]  # x y z
    turned = np.eye(4)
    turned[:3, :3] = 0
    for axis, (source, flip) in enumerate(zip(world, is_flipped, strict=True)):
        turned[source, axis] = -1 if flip else 1
        turned[source, 3] = num[source] - 1 if flip else 0

    def turn(array: np.ndarray) -> np.ndarray:
        stored = array.T.transpose(world)
        flips = tuple(slice(None, None, -1 if flip else 1) for flip in is_flipped)
        return np.ascontiguousarray(stored[flips].T)

    return turn, affine @ turned
