"""The README's table for those who come from nnU-Net, command by command."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from bmjax.cli import main
from bmjax.data.cases import find_cases

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = {"t1c": "0000", "t1n": "0001", "t2f": "0002", "t2w": "0003"}
DATASET = {
    "channel_names": {"0": "T1ce", "1": "T1", "2": "FLAIR", "3": "T2"},
    "labels": {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3},
    "regions_class_order": [2, 1, 3],
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
SMALL = {
    "prepare": "--patch-size 16 16 16 --batch-size 2 --num-workers 1",
    "train": "--optimizer.num-epochs 2 --optimizer.epoch-steps 1 "
    "--model.features 4 8 8 --data.num-folds 2 --fit.num-val-batches 1 "
    "--fit.validate-every 1 --num-devices 1",
    "evaluate": "--num-workers 1",
}


def table():
    """nnU-Net's command and ours, of each row that has one."""
    text = (ROOT / "README.md").read_text()
    section = text.partition("## Coming from nnU-Net")[2].partition("\n## ")[0]
    rows = [
        line.strip("| ").split(" | ") for line in section.splitlines() if "| `" in line
    ]
    return [
        (row[0].strip("`"), shlex.split(command))
        for row in rows
        for command in re.findall(r"`(bmjax [^`]+)`", row[1])
    ]


@pytest.fixture(scope="module")
def raw(phantom_raw, tmp_path_factory):
    """Three training cases and a test case as nnU-Net keeps them."""
    folder = tmp_path_factory.mktemp("nnunet") / "Dataset001_Mets"
    *train, test = find_cases(phantom_raw, need_labels=True)
    for part, cases in (("Tr", train), ("Ts", [test])):
        (folder / f"images{part}").mkdir(parents=True)
        (folder / f"labels{part}").mkdir()
        for case in cases:
            for channel, path in case.images.items():
                name = f"{case.id}_{NUMBERS[channel]}.nii.gz"
                shutil.copy(path, folder / f"images{part}" / name)
            shutil.copy(case.labels, folder / f"labels{part}" / f"{case.id}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    return folder


def test_the_table_names_every_step_of_nnunet():
    """Also those that nnU-Net does in one command."""
    theirs = " ".join(command for command, _ in table())
    for name in (
        *("extract_fingerprint", "plan_experiment", "preprocess", "train", "predict"),
        *("evaluate_folder", "export_model_to_zip"),
        "install_pretrained_model_from_zip",
    ):
        assert f"nnUNetv2_{name}" in theirs


@pytest.mark.slow
def test_the_table_can_be_walked_on_a_raw_data_set(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "RAW").symlink_to(raw)
    rows = table()
    # files from nnU-Net are made by the row that writes them
    rows.sort(key=lambda row: "--from-torch" in row[1])
    for _, (_, verb, *words) in rows:
        with pytest.raises(SystemExit) as end:
            main([verb, *words, *shlex.split(SMALL.get(verb, ""))])
        assert end.value.code == 0, (verb, words)
    plans = json.loads((tmp_path / "PLANS" / "nnUNetPlans.json").read_text())
    assert "3d_fullres" in plans["configurations"]
    (predicted,) = (tmp_path / "OUT").glob("*.nii.gz")
    assert (raw / "labelsTs" / predicted.name).is_file()
    scores = json.loads((tmp_path / "EVAL" / "summary_nnunet.json").read_text())
    assert "Dice" in scores["foreground_mean"]
    assert (tmp_path / "MODEL.bmjax").is_file()
    assert (tmp_path / "RUN" / "experiment.json").is_file()
    grafted = (tmp_path / "TUNED" / "graft.txt").read_text()
    assert "checkpoint_final.pth" in grafted
