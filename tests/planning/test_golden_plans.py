"""The published plans of two data sets, made again from their fingerprints."""

import json
from pathlib import Path

import pytest

from bmjax import planning
from bmjax.planning import nnunet, rules

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"


@pytest.fixture(scope="module")
def sbt():
    """Fingerprint in our names, and the published plans, of the Siberian data set."""
    if not GOLDEN.is_dir():
        pytest.skip("the published fingerprints and plans are not on this machine")
    published = json.loads(
        (GOLDEN / "Dataset222_SBT.dataset_fingerprint.json").read_text()
    )
    dataset = json.loads((GOLDEN / "Dataset222_SBT.dataset.json").read_text())
    plans = json.loads((GOLDEN / "Dataset222_SBT.plans.json").read_text())
    return nnunet.read_fingerprint(published, dataset), plans


@pytest.mark.parametrize("name", ["2d", "3d_fullres", "3d_lowres"])
def test_sbt_configurations_equal_the_published_ones(sbt, name):
    fingerprint, plans = sbt
    want = plans["configurations"][name]
    got = rules.configurations(fingerprint, num_outputs=4)[name]
    assert list(got.net.patch_size) == want["patch_size"]
    assert got.net.batch_size == want["batch_size"]
    assert list(got.median_size) == want["median_image_size_in_voxels"]
    assert list(got.spacing_mm) == want["spacing"]
    assert [list(s) for s in got.net.strides] == want["pool_op_kernel_sizes"]
    assert [list(k) for k in got.net.kernel_sizes] == want["conv_kernel_sizes"]
    assert max(got.net.features) == min(
        want["unet_max_num_features"], 32 * 2 ** (len(got.net.features) - 1)
    )
    assert got.batch_dice == want["batch_dice"]


def test_sbt_plan_has_the_published_decisions(sbt):
    fingerprint, plans = sbt
    plan = planning.make_plan(fingerprint)
    assert plan.patch_size == (64, 192, 160)
    assert plan.batch_size == 2
    assert plan.spacing_mm == (1.0000014305114746, 0.5, 0.5)
    assert plan.kernel_sizes[0] == (1, 3, 3)
    assert plan.strides[1] == (1, 2, 2)
    assert plan.features == (32, 64, 128, 256, 320, 320)
    assert plan.batch_dice
    assert not plan.use_mask_for_norm
    assert list(plan.transpose_forward) == plans["transpose_forward"]
    assert plan.median_size == (192, 512, 432)


@pytest.mark.parametrize(
    ("preset", "patch_size"),
    [
        ("resenc_m", (64, 160, 160)),
        ("resenc_l", (96, 256, 224)),
        ("resenc_xl", (112, 320, 256)),
    ],
)
def test_sbt_residual_presets_have_the_known_patches(sbt, preset, patch_size):
    plan = planning.make_plan(sbt[0], preset=preset)
    assert plan.patch_size == patch_size
    assert plan.batch_size == 2


def brats_mets_2024():
    """A fingerprint with the medians published for BraTS-METS 2024 (652 cases)."""
    return {
        "channels": ["t1c", "t1n", "t2f", "t2w"],
        "spacings_mm": [[1.0, 1.0, 1.0]] * 652,
        "sizes_after_crop": [[144, 181, 142]] * 652,
        "relative_size_after_crop": [0.4135] * 652,
        "intensity": {},
        "label_voxels": {},
    }


def test_brats_mets_plan_has_the_published_decisions():
    plan = planning.make_plan(brats_mets_2024())
    assert plan.patch_size == (128, 160, 112)
    assert plan.batch_size == 2
    assert plan.strides == ((1, 1, 1), *[(2, 2, 2)] * 4, (2, 2, 1))
    assert plan.kernel_sizes == ((3, 3, 3),) * 6
    assert plan.features == (32, 64, 128, 256, 320, 320)
    assert not plan.batch_dice
    assert plan.use_mask_for_norm
    assert plan.median_size == (144, 181, 142)


def test_brats_mets_2d_plan_has_the_published_decisions():
    plan = planning.make_plan(brats_mets_2024(), configuration="2d")
    assert plan.patch_size == (192, 160)
    assert plan.batch_size == 105
    assert plan.batch_dice


@pytest.mark.parametrize(
    ("preset", "patch_size", "batch_size"),
    [
        ("resenc_m", (128, 160, 112), 2),
        ("resenc_l", (160, 192, 160), 3),
        ("resenc_xl", (160, 192, 160), 5),
    ],
)
def test_brats_mets_residual_presets_are_the_known_ones(preset, patch_size, batch_size):
    plan = planning.make_plan(brats_mets_2024(), preset=preset)
    assert plan.patch_size == patch_size
    assert plan.batch_size == batch_size


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres", "3d_lowres"])
def test_the_published_file_and_ours_from_its_fingerprint_are_the_same_plan(
    sbt, configuration
):
    _, plans = sbt
    name = "Dataset222_SBT"
    dataset = json.loads((GOLDEN / f"{name}.dataset.json").read_text())
    fingerprint = json.loads((GOLDEN / f"{name}.dataset_fingerprint.json").read_text())
    ours = nnunet.plan_from_nnunet(fingerprint, dataset)
    new = nnunet.read_plan(ours, dataset, configuration=configuration)
    old = nnunet.read_plan(plans, dataset, configuration=configuration)
    assert new == old
    assert nnunet.read_architecture(ours, configuration) == nnunet.read_architecture(
        plans, configuration
    )


def test_our_file_has_the_published_values_outside_the_architecture(sbt):
    _, plans = sbt
    name = "Dataset222_SBT"
    dataset = json.loads((GOLDEN / f"{name}.dataset.json").read_text())
    fingerprint = json.loads((GOLDEN / f"{name}.dataset_fingerprint.json").read_text())
    ours = nnunet.plan_from_nnunet(fingerprint, dataset | {"name": name})
    assert json.loads(json.dumps(ours)) == ours
    for key in set(plans) - {"configurations"}:
        assert ours[key] == plans[key], key
    assert list(ours["configurations"]) == list(plans["configurations"])
    for key, configuration in plans["configurations"].items():
        for field in set(configuration) & set(ours["configurations"][key]):
            assert ours["configurations"][key][field] == configuration[field], field
