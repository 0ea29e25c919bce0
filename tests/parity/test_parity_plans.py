"""nnU-Net's own planners and ours, on random fingerprints and on real cases."""

import contextlib
import importlib
import io
import json

import numpy as np
import pytest

from bmjax import planning

pytestmark = pytest.mark.parity

PLANNERS = {
    "default": ("default_experiment_planner", "ExperimentPlanner"),
    "resenc": ("resencUNet_planner", "ResEncUNetPlanner"),
    "resenc_m": (
        "residual_unets.residual_encoder_unet_planners",
        "nnUNetPlannerResEncM",
    ),
    "resenc_l": (
        "residual_unets.residual_encoder_unet_planners",
        "nnUNetPlannerResEncL",
    ),
    "resenc_xl": (
        "residual_unets.residual_encoder_unet_planners",
        "nnUNetPlannerResEncXL",
    ),
}
BRATS = {
    "channel_names": {"0": "T1C", "1": "T1N", "2": "T2F", "3": "T2W"},
    "labels": {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3},
    "regions_class_order": [2, 1, 3],
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "SimpleITKIO",
}
CT_PET = {
    "channel_names": {"0": "CT", "1": "PET", "2": "noNorm", "3": "rescale_to_0_1"},
    "labels": {"background": 0, "lesion": 1, "vessel": 2},
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "NibabelIOWithReorient",
}


@pytest.fixture
def their_plan(tmp_path, monkeypatch):
    """`their_plan(fingerprint, dataset, preset)`: what nnU-Net's planner writes."""
    package = "nnunetv2.experiment_planning.experiment_planners"
    module = importlib.import_module(f"{package}.default_experiment_planner")
    raw, preprocessed = tmp_path / "raw", tmp_path / "preprocessed"
    monkeypatch.setattr(module, "nnUNet_raw", str(raw))
    monkeypatch.setattr(module, "nnUNet_preprocessed", str(preprocessed))
    monkeypatch.setattr(module, "maybe_convert_to_dataset_name", lambda name: name)
    monkeypatch.setattr(
        module,
        "get_filenames_of_train_images_and_targets",
        lambda *_: {"a": {"images": ["a_0000.nii.gz"], "label": "a.nii.gz"}},
    )
    torch = importlib.import_module("torch")

    def plan(fingerprint, dataset, preset):
        name = "Dataset999_Random"
        for folder, file, content in (
            (raw, "dataset.json", dataset),
            (preprocessed, "dataset_fingerprint.json", fingerprint),
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / file).write_text(json.dumps(content))
        module_name, class_name = PLANNERS[preset]
        planner = getattr(
            importlib.import_module(f"{package}.{module_name}"), class_name
        )
        with contextlib.redirect_stdout(io.StringIO()), torch.device("meta"):
            planner(name).plan_experiment()
        (path,) = (preprocessed / name).glob("nnUNet*Plans.json")
        found = json.loads(path.read_text())
        path.unlink()
        return found

    return plan


def random_fingerprint(seed):
    """A data set of one of several kinds: isotropic, thick slices, mixed, 2-D."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 12))
    kind = ("isotropic", "thick", "mixed", "large", "slices")[seed % 5]
    base = rng.uniform(0.4, 2.0, 3)
    size = rng.integers(24, 320, 3)
    thick = int(rng.integers(3))
    if kind == "isotropic":
        base[:] = base[0]
    elif kind == "thick":
        base[thick], size[thick] = rng.uniform(3, 9), rng.integers(6, 40)
    elif kind == "large":
        size = rng.integers(200, 700, 3)
    elif kind == "slices":
        base, size = np.array([999.0, *base[1:]]), np.array([1, *size[1:]])
    spacings, shapes = [], []
    for _ in range(count):
        jitter = rng.uniform(0.8, 1.3, 3) if kind in ("mixed", "thick") else np.ones(3)
        spacings.append((base * jitter).tolist())
        grown = np.maximum(1, (size * rng.uniform(0.8, 1.2, 3)).astype(int))
        shapes.append([1, *grown[1:].tolist()] if kind == "slices" else grown.tolist())
    statistics = {
        "mean": 1.0,
        "median": 1.0,
        "std": 0.5,
        "min": 0.0,
        "max": 2.0,
        "percentile_00_5": 0.1,
        "percentile_99_5": 1.9,
    }
    return {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "median_relative_size_after_cropping": float(rng.uniform(0.3, 1.0)),
        "foreground_intensity_properties_per_channel": {
            str(i): statistics for i in range(4)
        },
    }


def require_equal(ours, theirs):
    assert json.loads(json.dumps(ours)) == theirs


@pytest.mark.parametrize("preset", ["default", "resenc_m", "resenc_l"])
@pytest.mark.parametrize("seed", range(60))
def test_plans_of_random_fingerprints_are_those_of_nnunet(their_plan, seed, preset):
    fingerprint = random_fingerprint(seed)
    dataset = (BRATS, CT_PET)[seed % 2] | {
        "numTraining": len(fingerprint["spacings"]),
        "name": "Dataset999_Random",
    }
    ours = planning.plan_from_nnunet(fingerprint, dataset, preset=preset)
    require_equal(ours, their_plan(fingerprint, dataset, preset))
