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

pytestmark = [pytest.mark.parity, pytest.mark.slow]

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
    """A minute of training on two real exams at 2 mm."""
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
        patch_size=(32, 32, 32),
        batch_size=2,
        num_workers=1,
    )
    experiment = Experiment(
        model=models.PlainUNet(features=(8, 16, 32)),
        loss=losses.DiceBCE(batch_dice=False),
        data=Loader(store=str(folder / "store"), held_out=(EXAM,), p_lesion=0.8),
        optimizer=Optimizer(name="adam", peak_lr=3e-3, num_steps=120),
        fit=Fit(log_every=40, validate_every=120, num_val_batches=1),
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


@pytest.mark.parametrize("flips", ["none", "all"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of theirs
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_real_exam_is_predicted_as_by_nnunet(trained, tmp_path, flips):
    (result,) = bmjax.predict(
        trained.run,
        images=[trained.exam],
        out=tmp_path / "ours",
        window={"flips": flips},
        outputs=Outputs(maps=("probability",)),
    )
    assert result.error is None
    probs, labels = by_nnunet(trained, tmp_path / "theirs", flips=flips)
    ours = nifti.read_labels(result.path).array
    num_compared = 0
    for i, (region, members) in enumerate(trained.plan.regions):
        mine = nifti.read(result.path.with_name(f"{EXAM}_prob_{region}.nii.gz")).array
        apart = np.abs(mine - probs[i]).max()
        print(f"{flips} {region}: max |dp| {apart:.2e}")
        assert apart <= 1e-3
        a, b = np.isin(ours, members), np.isin(labels, members)
        if min(a.sum(), b.sum()) >= NUM_VOXELS:
            num_compared += 1
            dice = 2 * (a & b).sum() / (a.sum() + b.sum())
            print(f"{flips} {region}: {a.sum()} voxels, Dice {dice:.6f}")
            assert dice >= 0.999
    assert num_compared > 0
