import subprocess
import sys

import pytest
from score_tables import write

from bmjax.study.scores import read_scores
from bmjax.study.statistics import write_statistics

CASES = {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.8}


def test_tables_of_another_name_are_methods_without_a_start(tmp_path):
    write(tmp_path, "ours", CASES)
    write(tmp_path, "theirs", CASES)
    found = read_scores(tmp_path)
    assert [method.name for method in found.methods] == ["ours", "theirs"]
    assert [column.is_higher_better for column in found.columns] == [True, False]


def test_the_endings_that_are_compared_can_be_others(tmp_path):
    write(tmp_path, "net_big", {case: v + 0.1 for case, v in CASES.items()})
    write(tmp_path, "net_small", CASES)
    found = write_statistics(tmp_path, tmp_path / "out", starts=("big", "small"))
    assert [row["num_better"] for row in found.tables["starts"]] == [4, 4]


def test_tables_of_an_evaluation_are_read_by_their_own_names(tmp_path):
    for name in ("net_finetune", "net_scratch"):
        (tmp_path / f"{name}.csv").write_text(
            "case,primary,dice_WT,hd95_surfel_WT,reference_ml_WT,iou_WT\n"
            "a,lung,0.5,1,3,.4\nb,breast,0.6,,3,.4\nc,lung,0.7,inf,2,.4\n"
        )
    found = read_scores(tmp_path)
    assert [column.name for column in found.columns] == ["dice_WT", "hd95_surfel_WT"]
    assert found.methods[0].facts == {"primary": ("lung", "breast", "lung")}
    made = write_statistics(tmp_path, tmp_path / "out", by="primary")
    groups = {row["group"]: row["n"] for row in made.tables["groups"]}
    assert groups == {"breast": 0, "lung": 1} | {"breast": 0}
    with pytest.raises(ValueError, match="no column 'age' of text.*primary"):
        write_statistics(tmp_path, tmp_path / "out", by="age")


def test_a_missing_case_is_refused_and_named(tmp_path):
    write(tmp_path, "net_finetune", CASES)
    write(tmp_path, "net_scratch", {c: v for c, v in CASES.items() if c != "b"})
    with pytest.raises(ValueError, match="net_scratch lacks b.*--allow-missing"):
        read_scores(tmp_path)
    assert read_scores(tmp_path, allow_missing=True).cases == ("a", "c", "d")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sample,DICE_wt\na,0.5\na,0.6\n", "a occurs more than once"),
        ("sample,DICE_wt\na,good\n", "DICE_wt of a is 'good'; expected a number"),
        ("sample,age\na,5\n", "no column is in every table"),
        ("sample,DICE_wt\n", "has no case"),
        ("DICE_wt\n0.5\n", "no column sample or case"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, text, complaint):
    (tmp_path / "scores_net.csv").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_scores(tmp_path)


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no score table"):
        read_scores(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_scores(tmp_path / "none")


def test_misses_are_counted_by_size(tmp_path):
    from bmjax.study.lesions import missed_by_all, read_missed

    head = "case,region,kind,size_bin,is_found,centre_x_mm,centre_y_mm,centre_z_mm\n"
    for name, found in (("net_finetune", 1), ("net_scratch", 0)):
        write(tmp_path, name, CASES)
        (tmp_path / f"lesions_{name}.csv").write_text(
            f"{head}a,TC,reference,<3 mm,0,1,2,3\n"
            f"a,TC,reference,<3 mm,{found},4,5,6\n"
            "a,TC,false positive,<3 mm,0,7,8,9\n"
        )
    scores = read_scores(tmp_path)
    assert read_missed(tmp_path, scores) == {
        "TC": {
            "net fine-tuned": {"<3 mm": (1, 2)},
            "net from scratch": {"<3 mm": (2, 2)},
        }
    }
    (lost,) = missed_by_all(tmp_path, scores)
    assert lost["centre_x_mm"] == "1"


def test_the_command_prints_what_is_shown(tmp_path):
    write(tmp_path, "net_finetune", {case: v + 0.1 for case, v in CASES.items()})
    write(tmp_path, "net_scratch", CASES)
    command = [sys.executable, "-m", "bmjax", "study", "statistics", str(tmp_path)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--as-published"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "finetune > scratch, DICE_wt: U 11, p" in done.stdout
