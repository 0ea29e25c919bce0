"""Overlap and surface metrics against surface-distance, MONAI and nnU-Net."""

import contextlib
import importlib
import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from masks import REGIONS, SPACINGS, perturbed

from bmjax.data import nifti
from bmjax.evaluation import evaluate
from bmjax.metrics import case, detection, surface, surfels
from bmjax.metrics.boxes import bounding_box

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def deepmind():
    return pytest.importorskip(
        "surface_distance", reason="surface-distance: pip install 'bmjax[parity]'"
    )


@pytest.fixture(scope="module")
def monai():
    return importlib.import_module("monai.metrics")


def random_masks(shape=(6, 7, 8)):
    return arrays(np.bool_, shape, elements=st.booleans(), fill=st.just(False))


def check(test):
    return settings(deadline=None, max_examples=80)(test)


@contextlib.contextmanager
def quietly():
    """Both packages use what is deprecated, and MONAI warns of empty masks."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        yield


def of_deepmind(package, prediction, reference, spacing_mm):
    with quietly():
        found = package.compute_surface_distances(reference, prediction, spacing_mm)
    return {
        "hd95_surfel": package.compute_robust_hausdorff(found, 95),
        "hd_surfel": package.compute_robust_hausdorff(found, 100),
        "nsd_surfel_1mm": package.compute_surface_dice_at_tolerance(found, 1.0),
        "mean_surfel": np.mean(package.compute_average_surface_distance(found)),
    }


def of_monai(package, prediction, reference, spacing_mm):
    torch = importlib.import_module("torch")
    pair = [torch.from_numpy(m[None, None]) for m in (prediction, reference)]
    options = {"include_background": True, "spacing": list(spacing_mm)}
    hausdorff = package.compute_hausdorff_distance
    with quietly():
        assd = package.compute_average_surface_distance(
            *pair, symmetric=True, **options
        )
        return {
            "hd_voxel": hausdorff(*pair, **options).item(),
            "hd95_monai": hausdorff(*pair, percentile=95, **options).item(),
            "assd_monai": assd.item(),
            "nsd_voxel_1mm": package.compute_surface_dice(
                *pair, [1.0], **options
            ).item(),
        }


def of_ours(prediction, reference, spacing_mm):
    box = bounding_box(prediction | reference)
    pair = prediction[box], reference[box]
    measures = case.compare(
        *(mask.astype(np.int16) for mask in pair),
        regions={"all": (1,)},
        lesion_regions=(),
        spacing_mm=spacing_mm,
    ).measures["all"]
    surfel = surface.surfel_distances(*pair, spacing_mm=spacing_mm)
    return {**measures, "mean_surfel": surface.mean_of_means(surfel)}


def assert_agree(found, expected):
    for name, value in expected.items():
        within = 1e-6 if name.startswith("nsd") else 1e-3
        assert found[name] == pytest.approx(value, abs=within), name


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_area_of_every_pattern_is_the_published_one(deepmind, spacing_mm):
    tables = importlib.import_module("surface_distance.lookup_tables")
    theirs = tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    # their bit order is ours mirrored, which changes no area
    np.testing.assert_allclose(surfels.areas_mm2(spacing_mm), theirs, atol=1e-12)


@check
@given(random_masks(), random_masks(), st.sampled_from(SPACINGS))
def test_random_masks_agree_with_surface_distance(deepmind, a, b, spacing_mm):
    if a.any() and b.any():  # it needs an older numpy where one is empty
        found, expected = (
            of_ours(a, b, spacing_mm),
            of_deepmind(deepmind, a, b, spacing_mm),
        )
        assert_agree(found, expected)


@check
@given(random_masks(), random_masks(), st.sampled_from(SPACINGS))
def test_random_masks_agree_with_monai(monai, a, b, spacing_mm):
    if a.any() and b.any():
        assert_agree(of_ours(a, b, spacing_mm), of_monai(monai, a, b, spacing_mm))


@pytest.mark.parametrize(
    ("empty", "value"),
    [("prediction", math.inf), ("reference", math.inf), ("both", math.nan)],
)
def test_an_empty_mask_is_infinitely_far_as_in_monai(monai, empty, value):
    a, b = np.zeros((2, 5, 6, 7), bool)
    a[2, 2, 2] = empty == "reference"
    b[2, 2, 2] = empty == "prediction"
    found, theirs = of_ours(a, b, SPACINGS[0]), of_monai(monai, a, b, SPACINGS[0])
    np.testing.assert_equal(theirs["hd_voxel"], value)
    for name in ("hd_voxel", "hd95_monai"):
        np.testing.assert_equal(found[name], value)
    # torch interpolates between infinities, which leaves MONAI's percentile undefined
    assert math.isnan(theirs["hd95_monai"])


@pytest.mark.parametrize("how", ["shifted", "eroded", "dropped", "invented"])
def test_perturbed_real_masks_agree(real_cases, deepmind, monai, how):
    name = "BraTS-SSA-00081-000"  # ten components
    labels = nifti.read_labels(real_cases / name / f"{name}-seg.nii.gz").array
    wrong = perturbed(labels, how)
    for values in (REGIONS["WT"], REGIONS["ET"]):
        a, b = np.isin(wrong, values), np.isin(labels, values)
        box = bounding_box(a | b)
        a, b = a[box], b[box]
        found = of_ours(a, b, SPACINGS[0])
        assert_agree(found, of_deepmind(deepmind, a, b, SPACINGS[0]))
        assert_agree(found, of_monai(monai, a, b, SPACINGS[0]))


def test_the_summary_is_the_one_that_nnunet_writes(tmp_path, rng):
    nnunet = importlib.import_module("nnunetv2.evaluation.evaluate_predictions")
    readers = importlib.import_module("nnunetv2.imageio.simpleitk_reader_writer")
    for name in ("a", "b", "c"):
        for folder in ("ref", "pred"):
            labels = rng.integers(0, 4, (5, 6, 7)).astype(np.uint8)
            if name == "c":
                labels[labels == 3] = 0  # one region is in neither
            path = tmp_path / folder / f"{name}.nii.gz"
            nifti.write(path, labels, affine=np.diag([1.0, 1.0, 2.0, 1.0]))
    expected = nnunet.compute_metrics_on_folder(
        str(tmp_path / "ref"),
        str(tmp_path / "pred"),
        str(tmp_path / "theirs.json"),
        readers.SimpleITKIO(),
        ".nii.gz",
        [(1, 2, 3), (1, 3), 3],
        num_processes=1,
    )
    assert math.isnan(expected["metric_per_case"][2]["metrics"][3]["Dice"])
    evaluate(tmp_path / "pred", tmp_path / "ref", out=tmp_path / "out")
    theirs = json.loads((tmp_path / "theirs.json").read_text())
    ours = json.loads((tmp_path / "out" / "summary_nnunet.json").read_text())
    assert _flat(ours) == pytest.approx(_flat(theirs), nan_ok=True)
    again = nnunet.load_summary_json(str(tmp_path / "out" / "summary_nnunet.json"))
    assert set(again["mean"]) == {(1, 2, 3), (1, 3), 3}


def _flat(value, path=""):
    """Numbers of a summary by their place; files by their names."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {path: len(value) if isinstance(value, str) else value}
    return {k: v for n, item in items for k, v in _flat(item, f"{path}/{n}").items()}


confidence_lists = st.lists(st.sampled_from([0.25, 0.5, 0.75]), min_size=1, max_size=8)


@check
@given(confidence_lists, confidence_lists)
def test_froc_agrees_with_monai(monai, found, false):
    # MONAI leaves out its lowest threshold: a missed lesion is that one
    found, false = np.array([*found, 0.0]), np.array(false)
    rates, sensitivities = monai.compute_froc_curve_data(
        false, found, len(found), num_images=3
    )
    curve = detection.froc(found, false, num_cases=3)
    np.testing.assert_allclose(curve.false_positives_per_case, rates[::-1])
    np.testing.assert_allclose(curve.sensitivity, sensitivities[::-1])
    score = monai.compute_froc_score(rates, sensitivities)
    assert curve.score() == pytest.approx(score)
