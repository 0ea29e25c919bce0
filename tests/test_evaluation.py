"""Folders against folders: nothing is ignored, and every number has its definition."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bmjax.cli import main
from bmjax.data import nifti
from bmjax.data.cases import Case
from bmjax.evaluation import evaluate
from bmjax.planning.labels import LabelScheme

SHARED = Path(__file__).resolve().parents[2] / "shared"


AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])


CASES = ("a-0001-000", "a-0002-000", "a-0003-000")


def labels_of(seed):
    labels = np.zeros((6, 12, 14), np.uint8)
    labels[1:4, 2:7, 3:8] = 2
    labels[2, 3 : 5 + seed % 2, 4:7] = 3
    labels[2, 4, 5] = 1
    return labels


@pytest.fixture
def folders(tmp_path):
    """Predictions and references, equal but for one voxel of the second case."""
    for seed, name in enumerate(CASES):
        labels = labels_of(seed)
        nifti.write(tmp_path / "ref" / f"{name}.nii.gz", labels, affine=AFFINE)
        if seed == 1:
            labels[5, 11, 13] = 3
        nifti.write(tmp_path / "pred" / f"{name}.nii.gz", labels, affine=AFFINE)
    return tmp_path / "pred", tmp_path / "ref"


def test_rows_hold_every_region_and_label(folders):
    evaluation = evaluate(*folders)
    assert evaluation.ok
    assert [row["case"] for row in evaluation.rows] == list(CASES)
    assert evaluation.regions == ("WT", "TC", "ET", "NETC", "SNFH")
    first, second, _ = evaluation.rows
    assert all(first[f"dice_{r}"] == 1 for r in evaluation.regions)
    assert second["dice_WT"] == pytest.approx(2 * 75 / (2 * 75 + 1))
    assert second["reference_ml_WT"] == pytest.approx(75 * 3 / 1000)
    assert second["false_positive_lesions_ET"] == 1


def test_summary_counts_cases_and_lesions(folders):
    whole = evaluate(*folders).summary["regions"]["WT"]
    assert whole["dice"]["n"] == 3
    assert whole["detection"]["all"] == {
        "num_lesions": 3,
        "num_found": 3,
        "sensitivity": 1.0,
    }
    assert whole["detection"]["false_positives_per_case"] == pytest.approx(1 / 3)


def test_lesion_rows_are_in_world_millimetres(folders):
    rows = evaluate(*folders).lesions
    invented = next(row for row in rows if row["kind"] == "false positive")
    place = [invented[f"centre_{axis}_mm"] for axis in "xyz"]
    assert place == [13.0, 11.0, 15.0]


def test_the_order_of_cases_does_not_matter(folders):
    forward = evaluate(*folders, cases=CASES)
    backward = evaluate(*folders, cases=CASES[::-1], num_workers=1)
    assert forward.to_dict() == backward.to_dict()


def test_a_missing_prediction_fails_and_the_rest_is_evaluated(folders):
    (folders[0] / f"{CASES[1]}.nii.gz").unlink()
    evaluation = evaluate(*folders)
    assert not evaluation.ok
    assert len(evaluation.rows) == 2
    (failure,) = evaluation.failures
    assert failure["case"] == CASES[1]
    assert "no prediction" in failure["message"]
    assert evaluation.summary["failed"] == [failure]
    assert evaluation.summary["num_expected"] == 3


def test_an_uncompressed_prediction_is_read_and_two_of_a_case_fail(folders):
    for c in CASES[:2]:
        path = folders[0] / f"{c}.nii.gz"
        nifti.write(folders[0] / f"{c}.nii", nifti.read(path).array, affine=AFFINE)
    (folders[0] / f"{CASES[0]}.nii.gz").unlink()
    evaluation = evaluate(*folders)
    assert [row["case"] for row in evaluation.rows] == [CASES[0], CASES[2]]
    assert "remove one" in evaluation.failures[0]["message"]


def test_a_damaged_prediction_fails(folders):
    path = folders[0] / f"{CASES[0]}.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    (failure,) = evaluate(*folders).failures
    assert "truncated" in failure["message"]


def test_another_shape_fails_with_both_sizes(folders):
    path = folders[0] / f"{CASES[0]}.nii.gz"
    nifti.write(path, np.zeros((6, 12, 13), np.uint8), affine=AFFINE)
    (failure,) = evaluate(*folders).failures
    assert "(6, 12, 13)" in failure["message"]
    assert "(6, 12, 14)" in failure["message"]


@pytest.mark.parametrize(("shift_mm", "is_ok"), [(1e-5, True), (0.3, False)])
def test_an_affine_may_differ_by_a_tenth_of_a_voxel(folders, shift_mm, is_ok):
    path = folders[0] / f"{CASES[0]}.nii.gz"
    moved = AFFINE.copy()
    moved[0, 3] += shift_mm
    nifti.write(path, labels_of(0), affine=moved)
    evaluation = evaluate(*folders)
    assert evaluation.ok == is_ok
    if not is_ok:
        assert "0.30 voxels apart" in evaluation.failures[0]["message"]


def test_an_unknown_label_fails_with_its_count(folders):
    path = folders[0] / f"{CASES[0]}.nii.gz"
    labels = labels_of(0)
    labels[0, 0, :2] = 4
    nifti.write(path, labels, affine=AFFINE)
    (failure,) = evaluate(*folders).failures
    assert "4 (2 voxels)" in failure["message"]


def test_a_prediction_in_another_orientation_is_turned(folders):
    path = folders[0] / f"{CASES[0]}.nii.gz"
    flipped = np.diag([-1.0, 1.0, 3.0, 1.0])
    flipped[0, 3] = 13.0
    nifti.write(path, labels_of(0)[:, :, ::-1].copy(), affine=flipped)
    evaluation = evaluate(*folders)
    assert evaluation.ok
    assert evaluation.rows[0]["dice_WT"] == 1


def test_cases_named_in_the_prediction_record_are_expected(folders):
    record = {"cases": [{"case": CASES[0]}, {"case": "a-0009-000"}]}
    (folders[0] / "predict.json").write_text(json.dumps(record))
    evaluation = evaluate(*folders)
    assert [row["case"] for row in evaluation.rows] == [CASES[0]]
    (failure,) = evaluation.failures
    assert "a-0009-000: no reference labels" in failure["message"]
    assert evaluation.summary["not_evaluated"] == list(CASES[1:])


def test_an_empty_prediction_is_valid_and_flagged(folders):
    path = folders[0] / f"{CASES[0]}.nii.gz"
    nifti.write(path, np.zeros((6, 12, 14), np.uint8), affine=AFFINE)
    evaluation = evaluate(*folders)
    assert evaluation.ok
    assert evaluation.rows[0]["dice_WT"] == 0
    assert evaluation.summary["empty_predictions"] == [CASES[0]]


@pytest.mark.parametrize(("convention", "num"), [("exclude", 2), ("one", 3)])
def test_two_empty_masks_follow_the_named_convention(folders, convention, num):
    for folder in folders:
        path = folder / f"{CASES[0]}.nii.gz"
        nifti.write(path, np.zeros((6, 12, 14), np.uint8), affine=AFFINE)
    evaluation = evaluate(*folders, both_empty=convention)
    assert evaluation.summary["regions"]["WT"]["dice"]["n"] == num
    assert "both empty" in evaluation.conventions["both_empty"]


def test_another_label_scheme_is_evaluated(folders):
    scheme = LabelScheme(
        labels=(("core", 1), ("oedema", 2), ("rim", 3)),
        regions=(("all", (1, 2, 3)),),
        paint=(2,),
    )
    evaluation = evaluate(*folders, scheme=scheme)
    assert evaluation.regions == ("all", "core", "oedema", "rim")
    assert "reference_lesions_rim" not in evaluation.rows[0]


def test_files_hold_what_was_returned(folders, tmp_path):
    out = tmp_path / "eval"
    evaluation = evaluate(*folders, out=out)
    assert sorted(path.name for path in out.iterdir()) == [
        "cases.csv",
        "conventions.json",
        "files.json",
        "lesions.csv",
        "summary.json",
        "summary_nnunet.json",
    ]
    with (out / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == list(CASES)
    assert float(rows[1]["dice_WT"]) == pytest.approx(
        evaluation.rows[1]["dice_WT"], rel=1e-5
    )
    assert json.loads((out / "summary.json").read_text())["num_evaluated"] == 3
    conventions = json.loads((out / "conventions.json").read_text())
    columns = {name for name in rows[0] if name not in ("case", "patient", "visit")}
    assert {name.removesuffix("_WT") for name in columns if "_WT" in name} <= set(
        conventions
    )
    assert "is_prediction_empty" in conventions


def test_undefined_numbers_are_null_in_json_and_blank_in_csv(folders, tmp_path):
    for folder in folders:
        path = folder / f"{CASES[0]}.nii.gz"
        nifti.write(path, np.zeros((6, 12, 14), np.uint8), affine=AFFINE)
    evaluation = evaluate(*folders, out=tmp_path / "eval")
    assert json.loads(json.dumps(evaluation.to_dict()))["cases"][0]["dice_WT"] is None
    with (tmp_path / "eval" / "cases.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["dice_WT"] == ""


def test_an_infinite_distance_is_written_as_such_and_counted(folders, tmp_path):
    path = folders[0] / f"{CASES[0]}.nii.gz"
    nifti.write(path, np.zeros((6, 12, 14), np.uint8), affine=AFFINE)
    evaluation = evaluate(*folders, out=tmp_path / "eval")
    with (tmp_path / "eval" / "cases.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["hd95_surfel_WT"] == "inf"
    described = evaluation.summary["regions"]["WT"]["hd95_surfel"]
    assert (described["n"], described["n_infinite"]) == (2, 1)


def manifest_of(folder):
    lines = ["case,patient,visit,labels,primary"]
    lines += [
        f"{c},{c[:6]},000,ref/{c}.nii.gz,{primary}"
        for c, primary in zip(CASES, ("lung", "lung", "skin"), strict=True)
    ]
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def test_columns_of_a_manifest_travel_into_the_rows(folders, tmp_path):
    evaluation = evaluate(folders[0], manifest_of(tmp_path))
    assert [row["primary"] for row in evaluation.rows] == ["lung", "lung", "skin"]
    assert evaluation.rows[0]["patient"] == "a-0001"


def test_summaries_by_a_column_hold_its_cases_only(folders, tmp_path):
    evaluation = evaluate(folders[0], manifest_of(tmp_path), by=("primary",))
    groups = evaluation.summary["groups"]["primary"]
    assert {value: g["num_evaluated"] for value, g in groups.items()} == {
        "lung": 2,
        "skin": 1,
    }
    lung = groups["lung"]["regions"]["WT"]
    assert lung["detection"]["false_positives_per_case"] == 0.5
    assert groups["skin"]["regions"]["WT"]["dice"]["mean"] == 1


def test_an_unknown_column_is_refused_with_those_that_are_there(folders, tmp_path):
    with pytest.raises(ValueError, match="no column site .* patient, primary, visit"):
        evaluate(folders[0], manifest_of(tmp_path), by=("site",))


def test_volumes_of_prediction_and_reference_are_compared(folders):
    agreement = evaluate(*folders).summary["regions"]["WT"]["agreement"]
    assert agreement["n"] == 3
    assert agreement["bias"] == pytest.approx(0.003 / 3)  # one voxel of 3 mm3 in three


def test_progress_is_told_case_by_case(folders):
    told = []
    evaluate(*folders, progress=lambda *now: told.append(now))
    assert told == [(i, 3, c) for i, c in enumerate(CASES, start=1)]


def test_two_readers_may_both_be_folders_of_cases(folders, tmp_path):
    for reader, shift in (("A", 0), ("B", 1)):
        for c in CASES:
            labels = np.roll(labels_of(0), shift, axis=2)
            path = tmp_path / reader / c / f"{c}-seg.nii.gz"
            nifti.write(path, labels, affine=AFFINE)
    forth = evaluate(tmp_path / "B", tmp_path / "A")
    back = evaluate(tmp_path / "A", tmp_path / "B")
    assert forth.ok and back.ok
    for metric in ("dice", "hd95_surfel", "nsd_surfel_1mm", "assd_monai", "pq"):
        column = f"{metric}_WT"
        assert forth.rows[0][column] == pytest.approx(back.rows[0][column])
    assert forth.rows[0]["dice_WT"] == pytest.approx(0.8)
    assert forth.rows[0]["hd_voxel_WT"] == pytest.approx(1.0)


def test_a_second_reader_without_a_case_fails_for_it(folders, tmp_path):
    for c in CASES[:2]:
        path = tmp_path / "B" / c / f"{c}-seg.nii.gz"
        nifti.write(path, labels_of(0), affine=AFFINE)
    evaluation = evaluate(tmp_path / "B", folders[1])
    assert len(evaluation.rows) == 2
    assert evaluation.failures[0]["case"] == CASES[2]


def test_workers_do_not_change_the_result(folders):
    results = [evaluate(*folders, num_workers=n).to_dict() for n in (1, 3)]
    assert results[0] == results[1]


def test_cases_already_found_are_a_reference(folders):
    found = [
        Case(
            id=c,
            patient=c[:6],
            images={},
            labels=folders[1] / f"{c}.nii.gz",
            columns={},
        )
        for c in CASES
    ]
    assert evaluate(folders[0], found).to_dict()["cases"][0]["patient"] == "a-0001"
    found[2] = replace(found[2], labels=None)
    (failure,) = evaluate(folders[0], found).failures
    assert failure["case"] == CASES[2]


def test_images_beside_the_reference_are_remembered(folders, tmp_path):
    raw = tmp_path / "raw"
    for c in CASES[:2]:
        for name in ("seg", "t1c", "flair"):
            nifti.write(raw / c / f"{c}-{name}.nii.gz", labels_of(0), affine=AFFINE)
    evaluation = evaluate(folders[0], raw)
    assert evaluation.ok
    images = evaluation.files[CASES[1]]["images"]
    assert set(images) == {"t1c", "t2f"}


def test_the_command_groups_and_takes_tolerances(folders, tmp_path, capsys):
    options = ["--by", "primary", "--tolerances-mm", "0.5", "2"]
    paths = [str(folders[0]), str(manifest_of(tmp_path)), "--out", str(tmp_path / "e")]
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *paths, *options])
    assert stopped.value.code == 0
    assert "primary skin: mean over 1 cases" in capsys.readouterr().out
    with (tmp_path / "e" / "cases.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["nsd_surfel_0.5mm_ET"] == row["nsd_voxel_2mm_WT"] == "1"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder of predictions"):
        evaluate(tmp_path / "nowhere", tmp_path)
    with pytest.raises(ValueError, match="no reference label file"):
        evaluate(tmp_path, tmp_path)


def test_evaluating_does_not_import_jax():
    code = "import sys, bmjax.evaluation; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
