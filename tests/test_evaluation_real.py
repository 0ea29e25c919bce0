"""Scores of real cases, against those that were published or found by others."""

import json
from pathlib import Path

import numpy as np
import pytest

from bmjax.evaluation import evaluate

SHARED = Path(__file__).resolve().parents[2] / "shared"


def test_the_real_pair_scores_as_published(tmp_path):
    folder = SHARED / "data" / "brats_met" / "BraTS-MET-01352-000"
    if not folder.is_dir():
        pytest.skip("the real pair BraTS-MET-01352-000 is not on this machine")
    name = "BraTS-MET-01352-000"
    (tmp_path / f"{name}.nii.gz").symlink_to(folder / "prediction.nii.gz")
    (tmp_path / "ref").mkdir()
    (tmp_path / "ref" / f"{name}.nii.gz").symlink_to(folder / f"{name}-seg.nii.gz")
    (row,) = evaluate(tmp_path, tmp_path / "ref").rows
    dices = [row[f"dice_{region}"] for region in ("ET", "TC", "WT")]
    assert dices == pytest.approx([0.884403, 0.943704, 0.934672], abs=1e-6)
    assert row["reference_lesions_ET"] == 21
    assert row["found_lesions_ET"] == 13
    golden = json.loads((SHARED / "golden" / "met01352_oracles.json").read_text())
    by_case = {(entry["peer"], entry["case"]): entry["values"] for entry in golden}
    for region in ("WT", "TC", "ET"):
        deepmind = by_case["surface-distance", f"HD95 {region}"]
        assert row[f"hd95_surfel_{region}"] == pytest.approx(deepmind["HD95"], abs=1e-3)
        assert row[f"hd_surfel_{region}"] == pytest.approx(deepmind["HD100"], abs=1e-3)
        nsd = deepmind["NSD_1mm"]
        assert row[f"nsd_surfel_1mm_{region}"] == pytest.approx(nsd, abs=1e-6)
        panoptica = by_case["panoptica", f"default {region}"]["ungrouped"]
        for name in ("rq", "sq", "pq"):
            assert row[f"{name}_{region}"] == pytest.approx(panoptica[name], abs=1e-6)
        assert row[f"iou_{region}"] == pytest.approx(
            panoptica["global_bin_iou"], abs=1e-6
        )
    # not the row made from paths, whose spacing is in the wrong order
    package = by_case["brats-evaluation", "mets ET TC WT RC, nibabel images"]
    report = package["mets_report"]
    for region in ("WT", "TC", "ET"):
        low = region.lower()
        for ours, theirs in (
            ("tp", "all_instance_tp"),
            ("fp", "all_instance_fp"),
            ("fn", "all_instance_fn"),
            ("large_found", "large_instance_tp"),
            ("large_missed", "large_instance_fn"),
            ("small_found", "small_instance_tp"),
            ("small_missed", "small_instance_fn"),
        ):
            assert row[f"{ours}_bratseval_{region}"] == report[f"{theirs}_{low}"]
        for ours, theirs, within in (
            ("dice", "dsc", 1e-6),
            ("hd95", "hd95", 1e-3),
            ("nsd", "nsd", 1e-6),
        ):
            value = row[f"lesionwise_{ours}_bratseval_{region}"]
            published = report[f"lesionwise_{theirs}_mean_{low}"]
            assert value == pytest.approx(published, abs=within)


def test_a_raw_folder_of_real_cases_is_a_reference(real_cases, tmp_path):
    case = "BraTS-SSA-00110-000"
    source = real_cases / case / f"{case}-seg.nii.gz"
    (tmp_path / f"{case}.nii.gz").symlink_to(source)
    (row,) = evaluate(tmp_path, real_cases, cases=[case]).rows
    assert row["dice_WT"] == 1
    assert np.isnan(row["dice_NETC"])  # this patient has no necrosis
