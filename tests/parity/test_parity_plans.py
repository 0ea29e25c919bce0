"""nnU-Net's own planners and ours, on random fingerprints and on real cases."""

import contextlib
import importlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from bmjax import planning
from bmjax.data.cases import find_cases
from bmjax.data.measure import measure_cases
from bmjax.planning import nnunet, nnunet_data, transfer

pytestmark = pytest.mark.parity

SHARED = Path(__file__).resolve().parents[3] / "shared"

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

    def plan(fingerprint, dataset, preset, **options):
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
            planner(name, **options).plan_experiment()
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


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_a_memory_target_scales_plans_as_nnunet_does(their_plan, seed):
    fingerprint = random_fingerprint(seed)
    dataset = BRATS | {
        "numTraining": len(fingerprint["spacings"]),
        "name": "Dataset999_Random",
    }
    ours = planning.plan_from_nnunet(fingerprint, dataset, memory_gb=16)
    require_equal(
        ours, their_plan(fingerprint, dataset, "default", gpu_memory_target_in_gb=16)
    )


@pytest.fixture(scope="module")
def africa():
    """Fingerprint and description of the real cases, as we measure and write them."""
    folder = SHARED / "data" / "brats_africa"
    if not folder.is_dir():
        pytest.skip("the twelve BraTS-Africa cases are not on this machine")
    cases = find_cases(folder)
    facts = measure_cases(cases, orientation="stored")
    fingerprint = planning.summarise(facts)
    dataset = nnunet_data.write_dataset(
        fingerprint["channels"],
        ("zscore",) * 4,
        planning.BRATS_METS,
        num_cases=len(cases),
        name="Dataset999_Random",
    )
    return (
        cases,
        fingerprint,
        dataset | {"overwrite_image_reader_writer": "SimpleITKIO"},
    )


@pytest.mark.parametrize("preset", ["default", "resenc_m", "resenc_l"])
def test_plans_of_real_cases_are_those_of_nnunet(their_plan, africa, preset):
    _, fingerprint, dataset = africa
    written = nnunet_data.write_fingerprint(fingerprint)
    ours = planning.plan_from_nnunet(written, dataset, preset=preset)
    require_equal(ours, their_plan(written, dataset, preset))
    plan = nnunet.read_plan(ours, dataset)
    made = planning.make_plan(fingerprint, preset=preset)
    assert plan == planning.Plan.from_dict(made.to_dict() | {"orientation": "stored"})


def test_the_fingerprint_of_real_cases_is_that_of_nnunet(africa):
    """Sizes and spacings exactly; sampled intensities to 3 % of a spread."""
    cases, fingerprint, _ = africa
    extractor = importlib.import_module(
        "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor"
    ).DatasetFingerprintExtractor
    reader = importlib.import_module(
        "nnunetv2.imageio.simpleitk_reader_writer"
    ).SimpleITKIO
    ours = nnunet_data.write_fingerprint(fingerprint)
    known = ours["foreground_intensity_properties_per_channel"]
    pooled = []
    for i, case in enumerate(cases[:3]):
        size, spacing, drawn, _, relative = extractor.analyze_case(
            [str(path) for path in case.images.values()],
            str(case.labels),
            reader,
            num_samples=100_000,
        )
        assert list(size) == ours["shapes_after_crop"][i]
        np.testing.assert_allclose(spacing, ours["spacings"][i], rtol=1e-6)
        assert relative == pytest.approx(fingerprint["relative_size_after_crop"][i])
        pooled.append(np.array(drawn))
    facts = planning.summarise(measure_cases(cases[:3], orientation="stored"))
    theirs = np.concatenate(pooled, axis=1)
    for values, name in zip(theirs, fingerprint["channels"], strict=True):
        found = facts["intensity"][name]
        assert found["mean"] == pytest.approx(
            float(values.mean()), abs=0.03 * float(values.std())
        )
        assert found["std"] == pytest.approx(float(values.std()), rel=0.03)
    assert set(known) == {"0", "1", "2", "3"}


@pytest.mark.parametrize("preset", ["default", "resenc_m"])
def test_nnunet_builds_the_network_of_our_plans(preset):
    fingerprint = random_fingerprint(0)
    dataset = BRATS | {"numTraining": len(fingerprint["spacings"])}
    ours = planning.plan_from_nnunet(fingerprint, dataset, preset=preset)
    handler = importlib.import_module("nnunetv2.utilities.plans_handling.plans_handler")
    networks = importlib.import_module("nnunetv2.utilities.get_network_from_plans")
    manager = handler.PlansManager(json.loads(json.dumps(ours)))
    for name in ("2d", "3d_fullres"):
        found = manager.get_configuration(name)
        assert found.patch_size == ours["configurations"][name]["patch_size"]
        assert callable(found.resampling_fn_data)
        with importlib.import_module("torch").device("meta"):
            network = networks.get_network_from_plans(
                found.network_arch_class_name,
                found.network_arch_init_kwargs,
                found.network_arch_init_kwargs_req_import,
                4,
                4,
                allow_init=False,
            )
        assert type(network).__name__ == nnunet.read_architecture(ours, name).name


def test_plans_are_moved_as_nnunet_moves_them(tmp_path, monkeypatch):
    module = importlib.import_module(
        "nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets"
    )
    raw, preprocessed = tmp_path / "raw", tmp_path / "preprocessed"
    monkeypatch.setattr(module, "nnUNet_raw", str(raw))
    monkeypatch.setattr(module, "nnUNet_preprocessed", str(preprocessed))
    monkeypatch.setattr(module, "maybe_convert_to_dataset_name", lambda name: name)
    monkeypatch.setattr(
        module,
        "get_filenames_of_train_images_and_targets",
        lambda *_: {"a": {"images": ["a_0000.nii.gz"], "label": "a.nii.gz"}},
    )
    source, target = "Dataset222_SBT", "Dataset111_Meta"
    for folder in (raw / target, preprocessed / source, preprocessed / target):
        folder.mkdir(parents=True)
    (raw / target / "dataset.json").write_text(json.dumps(CT_PET))
    fingerprint = random_fingerprint(3)
    plans = planning.plan_from_nnunet(
        fingerprint, BRATS | {"name": source, "numTraining": 9}, preset="resenc_m"
    )
    file = preprocessed / source / "nnUNetResEncUNetMPlans.json"
    file.write_text(json.dumps(plans))
    module.move_plans_between_datasets(source, target, file.stem, "Moved")
    theirs = json.loads((preprocessed / target / "Moved.json").read_text())
    ours = transfer.move_nnunet_plans(
        plans,
        dataset_name=target,
        plans_name="Moved",
        image_reader_writer="NibabelIOWithReorient",
    )
    require_equal(ours, theirs)
