"""Lesion-wise scores and panoptic quality against brats-evaluation and panoptica.

They need an older numpy than ours and live in a Python of their own, which
BMJAX_PEER_PYTHON names. Without it these tests skip; the rules are then checked by hand
and step by step in tests/metrics, and against stored numbers in test_evaluation.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from masks import REGIONS, SPACINGS, perturbed
from scipy import ndimage

from bmjax.data import nifti
from bmjax.metrics import challenge, instances, lesions
from bmjax.metrics.boxes import bounding_box

pytestmark = pytest.mark.parity

HOW = ("shifted", "eroded", "dropped", "invented")
COUNTS = {
    "all_instance_tp_et": lambda e, q: e.num_true_positive,
    "all_instance_fp_et": lambda e, q: e.num_false_positive,
    "all_instance_fn_et": lambda e, q: e.num_false_negative,
    "large_instance_tp_et": lambda e, q: e.large.num_true_positive,
    "large_instance_fn_et": lambda e, q: e.large.num_false_negative,
    "small_instance_tp_et": lambda e, q: e.small.num_true_positive,
    "small_instance_fn_et": lambda e, q: e.small.num_false_negative,
    "tp": lambda e, q: q.num_true_positive,
    "fp": lambda e, q: q.num_false_positive,
    "fn": lambda e, q: q.num_false_negative,
}
SCORES = {
    "lesionwise_dsc_mean_et": (lambda e, q: e.dice, 1e-6),
    "lesionwise_nsd_mean_et": (lambda e, q: e.nsd, 1e-6),
    "lesionwise_hd95_mean_et": (lambda e, q: e.hd95_mm, 1e-3),
    "rq": (lambda e, q: q.recognition, 1e-6),
    "pq": (lambda e, q: q.panoptic, 1e-6),
}


@pytest.fixture(scope="module")
def peer_python():
    python = os.environ.get("BMJAX_PEER_PYTHON")
    if not python:
        pytest.skip("no Python with brats-evaluation: set BMJAX_PEER_PYTHON")
    code = "import brats_evaluation, panoptica"
    if subprocess.run([python, "-c", code], capture_output=True).returncode:
        pytest.skip(f"{python} has no brats-evaluation 0.0.10")
    return python


def assert_agree(pairs, python, folder):
    content = {}
    for name, (prediction, reference, spacing_mm) in pairs.items():
        content[f"{name}|prediction"] = prediction
        content[f"{name}|reference"] = reference
        content[f"{name}|spacing_mm"] = np.array(spacing_mm)
    np.savez(folder / "pairs.npz", **content)
    script = Path(__file__).with_name("oracles.py")
    command = [python, script, folder / "pairs.npz", folder / "found.json"]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(command, check=True, env=clean, capture_output=True)
    found = json.loads((folder / "found.json").read_text())
    assert set(found) == set(pairs)
    for name, theirs in found.items():
        prediction, reference, spacing_mm = pairs[name]
        both = lesions.pair(prediction, reference, spacing_mm=spacing_mm)
        ours = challenge.brats_evaluation(both), instances.quality(both)
        for column, count in COUNTS.items():
            # their table is blank where there is no lesion of a size
            if not np.isnan(theirs[column]):
                assert count(*ours) == theirs[column], (name, column)
        for column, (score, within) in SCORES.items():
            expected = pytest.approx(theirs[column], abs=within, nan_ok=True)
            assert score(*ours) == expected, (name, column)
        if theirs["tp"]:  # theirs is 0 without a couple, ours undefined
            segmentation = ours[1].segmentation
            assert segmentation == pytest.approx(theirs["sq"], abs=1e-6), name


def test_random_masks_agree(peer_python, rng, tmp_path):
    pairs = {}
    for i in range(120):
        noise = [
            ndimage.uniform_filter(rng.random((7, 8, 9)), rng.integers(1, 4))
            for _ in range(2)
        ]
        shares = rng.choice([0.0, 0.02, 0.05, 0.15, 0.3], 2)
        a, b = (
            x < np.quantile(x, share) for x, share in zip(noise, shares, strict=True)
        )
        if i % 2:  # half of them resemble each other
            a = np.roll(b, rng.integers(-1, 2, 3), (0, 1, 2))
            a ^= rng.random(a.shape) < 0.03
        pairs[f"random-{i}"] = a, b, SPACINGS[i % 3]
    assert_agree(pairs, peer_python, tmp_path)


def test_perturbed_real_masks_agree(peer_python, real_cases, tmp_path):
    pairs = {}
    for case in ("BraTS-SSA-00081-000", "BraTS-SSA-00051-000"):
        labels = nifti.read_labels(real_cases / case / f"{case}-seg.nii.gz").array
        for how in HOW:
            wrong = perturbed(labels, how)
            for region in ("WT", "ET"):
                a, b = (np.isin(x, REGIONS[region]) for x in (wrong, labels))
                box = bounding_box(a | b)
                pairs[f"{case}-{how}-{region}"] = a[box], b[box], SPACINGS[0]
    assert_agree(pairs, peer_python, tmp_path)
