"""A network trained here, run by nnU-Net on a real exam, from file to file."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import bmjax
from bmjax import losses, models
from bmjax.data import nifti
from bmjax.data.cases import Case, find_cases
from bmjax.data.pipeline import Loader
from bmjax.experiment import Experiment
from bmjax.inference import Outputs
from bmjax.planning import Plan
from bmjax.runs import read_run
from bmjax.training import Fit, Optimizer
from bmjax.transplant import write_torch

pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    # of nnU-Net's readers and networks
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SHARED = Path(__file__).resolve().parents[3] / "shared"
EXAM = "BraTS-SSA-00007-000"
TRAINED_ON = ("BraTS-SSA-00002-000", "BraTS-SSA-00012-000")
NUM_VOXELS = 1000  # of a region, for its Dice to be compared


@dataclass(frozen=True)
class Trained:
    """A run, its model for nnU-Net, and an exam that it has not seen."""

    run: Path
    model: Path
    exam: Case
    plan: Plan


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Half a minute of training on two real exams at 2 mm."""
    raw = SHARED / "data" / "brats_africa"
    if not raw.is_dir():
        pytest.skip("the twelve BraTS-Africa cases are not on this machine")
    folder = tmp_path_factory.mktemp("trained")
    for name in (EXAM, *TRAINED_ON):
        shutil.copytree(raw / name, folder / "raw" / name)
    plan = bmjax.prepare(
        folder / "raw",
        folder / "store",
        spacing_mm=(2.0, 2.0, 2.0),
        patch_size=(48, 48, 48),
        batch_size=2,
        num_workers=1,
    )
    experiment = Experiment(
        model=models.PlainUNet(features=(8, 16, 32)),
        loss=losses.DiceBCE(batch_dice=False),
        data=Loader(store=str(folder / "store"), held_out=(EXAM,), p_lesion=0.8),
        optimizer=Optimizer(name="adam", peak_lr=3e-3, num_steps=60),
        fit=Fit(log_every=20, validate_every=60, num_val_batches=1),
    )
    bmjax.train(experiment, workdir=folder / "run", num_devices=1)
    write_torch(folder / "model", read_run(folder / "run"))
    (exam,) = find_cases(folder / "raw", ids=[EXAM])
    return Trained(folder / "run", folder / "model", exam, plan)


def by_nnunet(trained, out, *, flips):
    """Probabilities k z y x and labels z y x, turned as nnU-Net reads them."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=flips == "all", device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(trained.model), (0,))
    out.mkdir()
    files = [str(trained.exam.images[channel]) for channel in trained.plan.channels]
    predictor.predict_from_files_sequential(
        [files], [str(out / EXAM)], save_probabilities=True
    )
    with np.load(out / f"{EXAM}.npz") as content:
        probs = content["probabilities"].astype(np.float32)
    return probs, nifti.read_labels(out / f"{EXAM}.nii.gz").array


def both(trained, folder, *, flips):
    """Ours and nnU-Net's probabilities and labels, by region."""
    (result,) = bmjax.predict(
        trained.run,
        images=[trained.exam],
        out=folder / "ours",
        window={"flips": flips},
        outputs=Outputs(maps=("probability",)),
    )
    assert result.error is None
    probs, labels = by_nnunet(trained, folder / "theirs", flips=flips)
    ours = nifti.read_labels(result.path).array
    for i, (region, members) in enumerate(trained.plan.regions):
        path = result.path.with_name(f"{EXAM}_prob_{region}.nii.gz")
        apart = np.abs(nifti.read(path).array - probs[i])
        masks = np.isin(ours, members), np.isin(labels, members)
        yield region, apart, masks


def dice(masks):
    one, other = masks
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def is_large(masks):
    return min(mask.sum() for mask in masks) >= NUM_VOXELS


@pytest.mark.usefixtures("in_float32")
def test_a_real_exam_with_flips_is_predicted_as_by_nnunet(trained, tmp_path):
    found = list(both(trained, tmp_path, flips="all"))
    for region, apart, masks in found:
        print(f"{region}: max |dp| {apart.max():.2e}, {masks[0].sum()} voxels")
        assert apart.max() <= 1e-3, region
    large = [dice(masks) for _, _, masks in found if is_large(masks)]
    assert large and min(large) >= 0.999


def test_a_real_exam_differs_from_nnunets_by_the_rounding_of_its_sums(
    trained, tmp_path
):
    # as float16 the weights far from a window's centre have few bits or none, which
    # shows at the ends of the volume, where no other window is
    found = list(both(trained, tmp_path, flips="none"))
    for region, apart, _ in found:
        share = np.mean(apart > 1e-3)
        print(f"{region}: max |dp| {apart.max():.2e}, above 1e-3 in {share:.3%}")
        assert share < 0.01, region
    large = [dice(masks) for _, _, masks in found if is_large(masks)]
    assert large and min(large) >= 0.999
