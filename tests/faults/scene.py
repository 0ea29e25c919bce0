"""A small data set, a network, and the command line, for one fault at a time."""

import gzip
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import nibabel as nib
import numpy as np

from bmjax import models
from bmjax.augment import AugmentPolicy
from bmjax.cli import FAILED, OK, main
from bmjax.data import nifti
from bmjax.experiment import Experiment
from bmjax.planning import BRATS_METS, Plan
from bmjax.runs import Run, write_run

CHANNELS = ("t1c", "t1n", "t2f", "t2w")
SIZE = (16, 18, 20)  # z y x
BROKEN, SOUND = "A-001", "C-001"
PLAN = Plan(
    channels=CHANNELS,
    labels=BRATS_METS.labels,
    regions=BRATS_METS.regions,
    paint=BRATS_METS.paint,
    spacing_mm=(1.0, 1.0, 1.0),
    normalization=("zscore",) * 4,
    use_mask_for_norm=True,
    patch_size=(16, 16, 16),
    batch_size=2,
    features=(4, 8),
    strides=((1, 1, 1), (2, 2, 2)),
    kernel_sizes=((3, 3, 3),) * 2,
    batch_dice=False,
    median_size=SIZE,
)
FLAT = replace(  # for a 2-D network
    PLAN,
    spacing_mm=(1.0, 1.0),
    patch_size=(16, 16),
    strides=((1, 1), (2, 2)),
    kernel_sizes=((3, 3),) * 2,
    median_size=(18, 20),
)


def brain(size=SIZE):
    """Where a phantom is not 0: an ellipsoid."""
    edges = (np.linspace(-1.05, 1.05, n) if n > 1 else np.zeros(1) for n in size)
    axes = np.meshgrid(*edges, indexing="ij")
    return sum(axis**2 for axis in axes) <= 1


def image(case, channel, size=SIZE):
    """Noise in the brain, another one for each case and channel."""
    rng = np.random.default_rng([*case.encode(), *channel.encode()])
    return np.where(brain(size), rng.integers(100, 900, size), 0).astype(np.int16)


def labels(size=SIZE):
    """Three lesions, one of each label."""
    found = np.zeros(size, np.uint8)
    z, y, x = (n // 2 for n in size)
    for i, value in enumerate((1, 2, 3)):
        found[z - 2 + 2 * i, y - 2 : y + 2, x - 2 : x + 2] = value
    return found


def write_exam(
    raw, case, *, size=SIZE, affine=None, channels=CHANNELS, labelled=True, seg=None
):
    """Files of one case, in BraTS's layout."""
    affine = np.eye(4) if affine is None else affine
    for channel in channels:
        path = raw / case / f"{case}-{channel}.nii.gz"
        nifti.write(path, image(case, channel, size), affine=affine)
    if labelled:
        seg = labels(size) if seg is None else seg
        nifti.write(raw / case / f"{case}-seg.nii.gz", seg, affine=affine)


def write_model(folder, plan, *, p_drop_channel=0.0, features=(4, 8), seed=0):
    """A run whose network was never trained; its labels look like noise."""
    experiment = Experiment(
        model=models.PlainUNet(features=features),
        augment=AugmentPolicy(p_drop_channel=p_drop_channel),
    ).resolve(plan)
    sample = jax.ShapeDtypeStruct((1, *plan.patch_size, len(plan.channels)), np.float32)
    shapes = jax.eval_shape(experiment.model.init, jax.random.key(0), sample)
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(
        lambda x: rng.normal(size=x.shape, scale=0.3).astype(np.float32), shapes
    )
    write_run(folder, Run(experiment, plan, 0, variables))
    return folder


@dataclass(frozen=True)
class Done:
    """How a command ended, and all it said, on one line."""

    code: int
    said: str


class Scene:
    """Two cases with labels, of which a test breaks the first one.

    Args:
      folder: for everything that the test makes.
      model: run folder.
      capsys: pytest's.
    """

    def __init__(self, folder, model, capsys):
        self.folder, self.model, self._capsys = folder, model, capsys
        self.raw, self.out = folder / "raw", folder / "out"
        self.store = folder / "store"
        for case in (BROKEN, SOUND):
            write_exam(self.raw, case)

    def path(self, channel, case=BROKEN):
        return self.raw / case / f"{case}-{channel}.nii.gz"

    def run(self, *argv):
        """Run one command of `bmjax` in this process."""
        self._capsys.readouterr()
        code = OK
        try:
            main([str(part) for part in argv])
        except SystemExit as stopped:
            code = stopped.code
        captured = self._capsys.readouterr()
        return Done(code, re.sub(r"\s+", " ", captured.out + captured.err))

    def check(self, *flags, raw=None):
        return self.run("check", raw or self.raw, "--num-workers", 1, *flags)

    def prepare(self, *flags, raw=None):
        return self.run(
            "prepare", raw or self.raw, self.store, "--num-workers", 1, *flags
        )

    def predict(self, *flags, raw=None, out=None, model=None):
        where = ("--images", raw or self.raw, "--out", out or self.out)
        return self.run("predict", model or self.model, *where, *flags)

    def labels(self, case=BROKEN, out=None):
        """The predicted labels, as they lie in the file."""
        return np.asarray(nib.load((out or self.out) / f"{case}.nii.gz").dataobj)

    def outcomes(self):
        record = json.loads((self.out / "predict.json").read_text())
        return {entry["case"]: entry["status"] for entry in record["cases"]}

    def fails_alone(self, *said, name=None):
        """The broken case is named with its fault by all verbs; the other is done.

        Args:
          said: what the messages of `check` and of `predict` hold.
          name: of the file that they name.
        """
        words = (BROKEN, *said, *([name] if name else []))
        done = self.check()
        assert done.code == FAILED, done
        assert_said(done, *words)
        done = self.predict()
        assert done.code == FAILED, done
        assert_said(done, *words, "1 cases predicted, 1 failed")
        assert self.outcomes() == {BROKEN: "failed", SOUND: "done"}
        assert self.labels(SOUND).shape == SIZE[::-1]
        self.left_nothing(self.out)
        assert not (self.out / f"{BROKEN}.nii.gz").exists()

    def is_predicted(self, *said, flags=()):
        """Every case is predicted, and what was odd is said."""
        done = self.predict(*flags)
        assert done.code == OK, done
        assert_said(done, *said)
        self.left_nothing(self.out)
        return done

    def cannot_be_prepared(self, *said, flags=()):
        """No store appears; the message says why."""
        done = self.prepare(*flags)
        assert done.code == FAILED, done
        assert_said(done, *said)
        assert not (self.store / "store.json").exists()

    @staticmethod
    def left_nothing(folder):
        """No temporary file and no lock is left below a folder."""
        left = [
            str(path)
            for path in Path(folder).rglob("*")
            if path.name.startswith(".") or "tmp" in path.name
        ]
        assert left == []


def assert_said(done, *words):
    for word in words:
        assert str(word) in done.said, f"{word!r} is not in: {done.said}"


def rewrite(path, change):
    """Change the unpacked bytes of a volume."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    content = bytearray(content)
    change(content)
    path.write_bytes(gzip.compress(bytes(content), compresslevel=1))


def truncate(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
