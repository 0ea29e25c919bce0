"""Prepared arrays and exported labels beside nnU-Net's preprocessor and exporter."""

import importlib

import numpy as np
import pytest
from scipy import ndimage

from bmjax.data import nifti
from bmjax.data.cases import Case
from bmjax.data.geometry import restore_axes, uncrop
from bmjax.data.normalise import normalise
from bmjax.data.preprocess import preprocess
from bmjax.inference.export import cropped_labels
from bmjax.planning.nnunet import NORMALIZATIONS, plan_from_nnunet, read_plan

pytestmark = [
    pytest.mark.parity,
    # nnU-Net misses its folders, and scipy's zoom has rounded otherwise since 0.13
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

CHANNELS = ("t1c", "t1n", "t2f", "t2w")
CASES = ("BraTS-SSA-00051-000", "BraTS-SSA-00081-000", "BraTS-SSA-00110-000")
SPACINGS_MM = ((1.0, 1.0, 1.0), (1.0, 0.5, 0.5), (4.0, 1.2, 1.2))
DATASET = {
    "channel_names": dict(zip("0123", CHANNELS, strict=True)),
    "labels": {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3},
    "regions_class_order": [2, 1, 3],
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
FOREGROUND = {
    "mean": 400.0,
    "median": 390.0,
    "std": 120.0,
    "min": 3.0,
    "max": 900.0,
    "percentile_00_5": 80.0,
    "percentile_99_5": 700.0,
}
FINGERPRINT = {
    "spacings": [[1.0, 1.0, 1.0]] * 3,
    "shapes_after_crop": [[140, 170, 130]] * 3,
    "median_relative_size_after_cropping": 0.4,
    "foreground_intensity_properties_per_channel": dict.fromkeys("0123", FOREGROUND),
}


def plans(spacing_mm, **changes):
    """nnU-Net's plans at another spacing."""
    made = plan_from_nnunet(FINGERPRINT, DATASET)
    made["configurations"]["3d_fullres"] |= {"spacing": list(spacing_mm), **changes}
    return made


def theirs(made):
    handler = importlib.import_module(
        "nnunetv2.utilities.plans_handling.plans_handler"
    ).PlansManager(made)
    return handler, handler.get_configuration("3d_fullres")


def prepared_by_nnunet(case, made):
    module = "nnunetv2.preprocessing.preprocessors.default_preprocessor"
    manager, configuration = theirs(made)
    image, labels, facts = (
        importlib.import_module(module)
        .DefaultPreprocessor(verbose=False)
        .run_case(
            [str(path) for path in case.images.values()],
            str(case.labels),
            manager,
            configuration,
            DATASET,
        )
    )
    return np.moveaxis(image, 0, -1), np.maximum(labels[0], 0), facts


def labelled_part(folder, source, *, margin=8):
    """A case cut to a box around its largest lesion and some surrounding."""
    whole = nifti.read_labels(
        source / f"{source.name}-seg.nii.gz", orientation="stored"
    )
    pieces, _ = ndimage.label(whole.array)
    largest = np.bincount(pieces.ravel())[1:].argmax()
    box = tuple(
        slice(max(part.start - margin, 0), part.stop + margin)
        for part in ndimage.find_objects(pieces)[largest]
    )
    files = {}
    for role in (*CHANNELS, "seg"):
        files[role] = folder / f"{source.name}-{role}.nii.gz"
        read = nifti.read if role in CHANNELS else nifti.read_labels
        scan = read(source / files[role].name, orientation="stored")
        nifti.write(files[role], scan.array[box], affine=scan.affine)
    labels = files.pop("seg")
    return Case(id=source.name, patient=source.name, images=files, labels=labels)


def whole_case(source):
    files = {c: source / f"{source.name}-{c}.nii.gz" for c in CHANNELS}
    labels = source / f"{source.name}-seg.nii.gz"
    return Case(id=source.name, patient=source.name, images=files, labels=labels)


def dice(first, second):
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / total if total else 1.0


def require_equal(case, spacing_mm):
    made = plans(spacing_mm)
    image, labels, _ = prepared_by_nnunet(case, made)
    ours = preprocess(case, read_plan(made, DATASET))
    assert ours.image.shape == image.shape and ours.labels is not None
    np.testing.assert_allclose(ours.image, image, atol=1e-3)
    if spacing_mm[1] > 1:  # 1 mm onto 1.2 mm: many weights are a half, and may tie
        assert np.mean(ours.labels != labels) < 1e-3
        return
    for value in range(4):
        assert dice(ours.labels == value, labels == value) >= 0.9995, value


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("name", CASES)
def test_a_real_part_is_prepared_as_nnunet_does(
    tmp_path, real_cases, monkeypatch, name, spacing_mm
):
    if spacing_mm[0] > 1:  # nnU-Net loses small lesions on so coarse a grid
        monkeypatch.setattr("bmjax.data.preprocess.keep_lesions", lambda *_: [])
    require_equal(labelled_part(tmp_path, real_cases / name), spacing_mm)


@pytest.mark.slow
@pytest.mark.parametrize("spacing_mm", SPACINGS_MM[:2])
@pytest.mark.parametrize("name", CASES)
def test_a_whole_real_case_is_prepared_as_nnunet_does(real_cases, name, spacing_mm):
    require_equal(whole_case(real_cases / name), spacing_mm)


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_logits_are_exported_as_nnunet_does(tmp_path, real_cases, rng, spacing_mm):
    case = labelled_part(tmp_path, real_cases / CASES[0])
    made = plans(spacing_mm)
    plan = read_plan(made, DATASET)
    ours = preprocess(case, plan)
    noise = rng.normal(size=(*ours.image.shape[:3], 3)).astype(np.float32)
    logits = ndimage.gaussian_filter(noise, (2, 2, 2, 0))
    _, _, facts = prepared_by_nnunet(case, made)
    manager, configuration = theirs(made)
    want = importlib.import_module(
        "nnunetv2.inference.export_prediction"
    ).convert_predicted_logits_to_segmentation_with_correct_shape(
        importlib.import_module("torch").from_numpy(np.moveaxis(logits, -1, 0).copy()),
        manager,
        configuration,
        manager.get_label_manager(DATASET),
        facts,
        num_threads_torch=1,
    )
    labels = cropped_labels(logits[None], ours.geometry, plan)
    got = uncrop(restore_axes(labels, ours.geometry), ours.geometry)
    for value in range(4):
        assert dice(got == value, want == value) >= 0.9999, value


@pytest.mark.parametrize("scheme", NORMALIZATIONS)
@pytest.mark.parametrize("is_masked", [False, True])
def test_each_scheme_is_nnunets(rng, scheme, is_masked):
    module = "nnunetv2.preprocessing.normalization.default_normalization_schemes"
    channel = rng.integers(0, 256, (9, 10, 11)).astype(np.float32)
    brain = np.zeros(channel.shape, bool)
    brain[2:7, 1:9, 3:10] = True
    channel[~brain] = 0
    scheme_of_theirs = getattr(importlib.import_module(module), NORMALIZATIONS[scheme])
    want = scheme_of_theirs(is_masked, FOREGROUND).run(
        channel.copy(), np.where(brain, 0, -1)
    )
    names = ("mean", "std", "percentile_00_5", "percentile_99_5")
    got = normalise(
        channel,
        scheme=scheme,
        brain=brain if is_masked else None,
        foreground=tuple(FOREGROUND[name] for name in names),
    )
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-5)
