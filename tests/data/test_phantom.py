"""Phantom cohorts: same bytes, honest labels, plausible contrast, published sizes."""

import csv
import subprocess
import sys
from dataclasses import replace

import cc3d
import numpy as np
import pytest

from bmjax.data import nifti, phantom
from bmjax.data.phantom_contrast import CHANNELS
from bmjax.data.phantom_tumour import LesionMix, draw_volumes_mm3

pytest.importorskip("nilearn", reason="phantoms need the report extra")

COHORT = phantom.Cohort(
    name="T-PHM",
    num_cases=3,
    seed=5,
    spacing_mm=(3.0, 2.5, 2.5),
    orientation="RAS",
    lesions=LesionMix(
        min_volume_mm3=40.0, min_largest_mm3=2500.0, max_lesions=6, volume_scale=2.0
    ),
)


@pytest.fixture(scope="module")
def cases():
    return [phantom.make_case(COHORT, index) for index in range(3)]


def test_a_case_is_a_pure_function_of_cohort_and_index(cases):
    again = phantom.make_case(COHORT, 1)
    for channel in CHANNELS:
        np.testing.assert_array_equal(again.images[channel], cases[1].images[channel])
    np.testing.assert_array_equal(again.labels, cases[1].labels)
    assert again.lesions == cases[1].lesions
    assert again.columns == cases[1].columns


def test_other_seeds_and_other_indices_are_other_people(cases):
    other = phantom.make_case(replace(COHORT, seed=6), 0)
    assert (other.images["t1n"] != cases[0].images["t1n"]).mean() > 0.1
    assert (cases[0].images["t1n"] != cases[1].images["t1n"]).mean() > 0.1


def test_files_are_the_same_bytes_for_any_number_of_workers(tmp_path):
    told = []
    cohort = replace(COHORT, num_cases=2)
    for num_workers in (1, 3):
        phantom.write_cohort(
            cohort,
            tmp_path / str(num_workers),
            num_workers=num_workers,
            progress=lambda *facts: told.append(facts),
        )
    files = sorted(p.relative_to(tmp_path / "1") for p in (tmp_path / "1").rglob("*"))
    assert len(files) == 1 + 2 * (1 + 5)
    for name in files:
        if (tmp_path / "1" / name).is_file():
            one, three = ((tmp_path / n / name).read_bytes() for n in "13")
            assert one == three, name
    assert told[:2] == [(1, 2, "T-PHM-00001-000"), (2, 2, "T-PHM-00002-000")]


def test_files_hold_the_case_and_the_manifest_names_them(tmp_path, cases):
    phantom.write_cohort(replace(COHORT, num_cases=1), tmp_path)
    with (tmp_path / "manifest.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["case"] == "T-PHM-00001-000"
    assert row["patient"] == "T-PHM-00001"
    assert row["primary"] in ("lung", "breast", "melanoma", "renal", "other")
    assert row["scanner"]
    for channel in CHANNELS:
        scan = nifti.read(tmp_path / row[channel], orientation="stored", dtype=np.int16)
        np.testing.assert_array_equal(scan.array, cases[0].images[channel])
        np.testing.assert_allclose(scan.affine, cases[0].affine, atol=1e-5)
        assert scan.spacing_mm == pytest.approx(COHORT.spacing_mm)
    labels = nifti.read(tmp_path / row["labels"], orientation="stored", dtype=np.uint8)
    np.testing.assert_array_equal(labels.array, cases[0].labels)


def test_labels_and_signal_lie_inside_the_brain(cases):
    for case in cases:
        brain = case.images["t1n"] > 0
        assert 0.9e6 < brain.sum() * np.prod(COHORT.spacing_mm) < 2.8e6
        assert cc3d.connected_components(brain, connectivity=26).max() == 1
        for channel in CHANNELS:
            assert case.images[channel].dtype == np.int16
            np.testing.assert_array_equal(case.images[channel] > 0, brain)
        assert not case.labels[~brain].any()
        assert set(np.unique(case.labels)) <= {0, 1, 2, 3}


def test_each_listed_lesion_is_one_piece_of_the_reported_volume(cases):
    for case in cases:
        parts = cc3d.connected_components(np.isin(case.labels, (1, 3)), connectivity=26)
        assert parts.max() == len(case.lesions) >= 1
        to_index = np.linalg.inv(case.affine)
        seen = set()
        for lesion in case.lesions:
            x, y, z = (to_index @ [*lesion["centre_mm"], 1.0])[:3]
            around = tuple(slice(max(round(i) - 1, 0), round(i) + 2) for i in (z, y, x))
            (part,) = set(parts[around][parts[around] > 0].tolist())
            seen.add(part)
            here = parts == part
            for name, label in (("et_mm3", 3), ("netc_mm3", 1)):
                count = np.count_nonzero(case.labels[here] == label)
                assert lesion[name] == pytest.approx(count * np.prod(COHORT.spacing_mm))
            assert lesion["volume_mm3"] == pytest.approx(
                lesion["et_mm3"] + lesion["netc_mm3"]
            )
            assert lesion["et_mm3"] > 0
        assert len(seen) == len(case.lesions)


def test_large_lesions_keep_the_volume_that_was_drawn(cases):
    drawn = [
        (lesion["drawn_et_mm3"], lesion["et_mm3"])
        for case in cases
        for lesion in case.lesions
        if lesion["drawn_et_mm3"] > 2000 and not lesion["netc_mm3"]
    ]
    for want, got in drawn:
        assert got == pytest.approx(want, rel=0.25)


def test_contrasts_are_those_of_the_four_sequences(cases):
    found = {label: {name: [] for name in CHANNELS} for label in (1, 2, 3)}
    for case in cases:
        healthy = (case.images["t1n"] > 0) & (case.labels == 0)
        for label, name in ((k, name) for k in found for name in CHANNELS):
            values = case.images[name][case.labels == label]
            normal = np.median(case.images[name][healthy])
            found[label][name].extend(values / normal)
    necrosis, oedema, rim = (
        {name: np.median(values) for name, values in found[label].items()}
        for label in (1, 2, 3)
    )
    assert rim["t1c"] > 1.3 and rim["t1c"] > rim["t1n"] + 0.4
    assert oedema["t2f"] > 1.15 and oedema["t2w"] > 1.15 and oedema["t1n"] < 1.0
    assert necrosis["t1c"] < rim["t1c"] - 0.5 and necrosis["t2w"] > 1.3


def test_every_orientation_shows_the_same_world(cases, tmp_path):
    for orientation in ("LPS", "PIR", "SLA"):
        cohort = replace(COHORT, orientation=orientation)
        case = phantom.make_case(cohort, 0)
        assert case.labels.shape != () and case.lesions == cases[0].lesions
        path = tmp_path / f"{orientation}.nii.gz"
        nifti.write(path, case.images["t1c"], affine=case.affine)
        assert nifti.read_header(path).axes == orientation
        turned = nifti.read(path, orientation="RAS", dtype=np.int16)
        np.testing.assert_array_equal(turned.array, cases[0].images["t1c"])
        np.testing.assert_allclose(turned.affine, cases[0].affine, atol=1e-4)


def test_the_same_person_keeps_the_anatomy_at_another_spacing(cases):
    coarse = phantom.make_case(replace(COHORT, spacing_mm=(6.0, 5.0, 5.0)), 0)
    volumes = [
        np.count_nonzero(case.images["t1n"]) * abs(np.linalg.det(case.affine[:3, :3]))
        for case in (cases[0], coarse)
    ]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.03)


def test_a_size_that_is_asked_for_is_kept():
    cohort = replace(COHORT, spacing_mm=(4.0, 4.0, 4.0), size=(40, 60, 52))
    case = phantom.make_case(cohort, 0)
    assert case.labels.shape == (40, 60, 52)
    tight = phantom.make_case(replace(cohort, size=(12, 24, 20)), 0)
    assert tight.images["t2f"].shape == (12, 24, 20)
    assert tight.images["t2f"].all()


def test_sizes_and_numbers_follow_the_published_lesions():
    rng = np.random.default_rng(0)
    drawn = [draw_volumes_mm3(rng, LesionMix()) for _ in range(3000)]
    volumes = np.concatenate(drawn)
    assert 28 < np.median(volumes) < 50  # published 39.7
    assert 1700 < np.percentile(volumes, 95) < 3700  # published 2678
    assert 3 <= np.median([len(case) for case in drawn]) <= 5  # published 4
    assert 1000 < np.median([case.sum() for case in drawn]) < 1900  # published 1397


def test_a_mix_bounds_what_is_drawn():
    rng = np.random.default_rng(0)
    mix = LesionMix(
        num_scale=0.5, min_volume_mm3=50.0, min_largest_mm3=900.0, max_lesions=4
    )
    for _ in range(300):
        volumes = draw_volumes_mm3(rng, mix)
        assert 1 <= len(volumes) <= 4
        assert volumes[0] >= 899 and volumes[-1] >= 49.9
        assert (np.diff(volumes) <= 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"orientation": "LLS"}, "none of the 48 codes"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "must be positive"),
        ({"num_cases": 0}, "num_cases 0"),
    ],
)
def test_impossible_cohorts_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(COHORT, **change)


def test_a_case_beyond_the_cohort_is_refused():
    with pytest.raises(ValueError, match="case 3 of 3"):
        phantom.make_case(COHORT, 3)


def test_without_nilearn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    phantom._template.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'bmjax\[report\]'"):
        phantom._template()


def test_importing_the_phantom_loads_neither_jax_models_nor_nilearn():
    code = (
        "import sys, bmjax.data.phantom; heavy = ('flax', 'optax', 'nilearn');"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
