"""The numbers of the paper, from the score tables that its authors published."""

from pathlib import Path

import pytest

from bmjax.study import published
from bmjax.study.challenging import mark_cases
from bmjax.study.scores import read_scores
from bmjax.study.statistics import make_statistics, write_statistics

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "scores"


@pytest.fixture(scope="module")
def scores():
    if not GOLDEN.is_dir():
        pytest.skip("the published score tables are not on this machine")
    return read_scores(GOLDEN)


def _at(rows, **wanted):
    (row,) = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    return row


def _short(marks):
    return {int(c.split("-")[2][-6:]): n for c, n in marks.items() if n}


@pytest.mark.parametrize(
    ("method", "dice", "distance"),
    [
        ("default_finetune", (0.9052, 0.9365, 0.9140), (2.762, 1.866, 3.361)),
        ("default_scratch", (0.8993, 0.9237, 0.9028), (2.782, 5.923, 4.828)),
        ("tverskybce_finetune", (0.9033, 0.9534, 0.9400), (2.306, 1.221, 9.083)),
        ("tverskybce_scratch", (0.9018, 0.9420, 0.9350), (4.285, 3.589, 2.644)),
    ],
)
def test_means_are_those_of_the_published_tables(scores, method, dice, distance):
    rows = published.describe(scores)
    for region, wanted, mm in zip(("et", "tc", "wt"), dice, distance, strict=True):
        found = _at(rows, method=method, column=f"DICE_{region}")
        assert found["mean"] == pytest.approx(wanted, abs=6e-5)
        found = _at(rows, method=method, column=f"Hausdorff_{region}")
        assert found["mean"] == pytest.approx(mm, abs=6e-4)


def test_spread_and_interval_as_published_have_n_in_the_denominator(scores):
    found = _at(published.describe(scores), method="default_finetune", column="DICE_et")
    assert found["sd"] == pytest.approx(0.060529, abs=1e-6)
    assert (found["ci95_low"], found["ci95_high"]) == pytest.approx(
        (0.859549, 0.950833), abs=1e-6
    )
    assert found["shapiro_p"] == pytest.approx(0.2976, abs=1e-4)
    assert found["is_normal"]


@pytest.mark.parametrize(
    ("column", "p"),
    [
        ("DICE_wt", 0.0429),
        ("Sensitivity_et", 0.0096),
        ("Sensitivity_tc", 0.0096),
        ("Sensitivity_wt", 0.0009),
    ],
)
def test_tverskybce_over_default_as_published(scores, column, p):
    rows = published.compare_models(scores)
    found = _at(rows, first="tverskybce", second="default", column=column)
    assert found["p_greater"] == pytest.approx(p, abs=5e-5)


@pytest.mark.parametrize(
    ("region", "u", "p"),
    [("et", 207, 0.430), ("tc", 242, 0.131), ("wt", 218, 0.318)],
)
def test_fine_tuned_over_scratch_pooled_as_published(scores, region, u, p):
    found = _at(published.compare_starts(scores), column=f"DICE_{region}")
    assert (found["u"], found["n_first"], found["n_second"]) == (u, 20, 20)
    assert found["p_greater"] == pytest.approx(p, abs=5e-4)


def test_distances_were_tested_in_the_wrong_direction(scores):
    found = _at(published.compare_starts(scores), column="Hausdorff_tc")
    assert found["p_greater"] == pytest.approx(0.9989, abs=5e-5)
    assert 1 - found["p_greater"] == pytest.approx(0.0011, abs=5e-5)
    # scipy's correction for continuity counts from the other side
    assert found["p_direction"] == pytest.approx(0.0013, abs=5e-5)


def test_challenging_cases_joined_on_the_sample(scores):
    assert _short(mark_cases(scores)) == {
        **{733: 15, 726: 8, 731: 7, 729: 5, 728: 4, 739: 4, 734: 2},
        **{727: 1, 730: 1, 732: 1},
    }


def test_challenging_cases_by_row_as_published(scores):
    assert _short(published.challenging_cases(scores)) == {
        **{733: 15, 731: 7, 728: 7, 726: 6, 739: 4, 730: 3, 729: 2, 734: 2},
        **{727: 1, 732: 1},
    }


@pytest.mark.parametrize(
    ("model", "column", "p"),
    [
        ("default", "DICE_et", 0.024),
        ("default", "DICE_tc", 0.007),
        ("default", "DICE_wt", 0.024),
        ("tverskybce", "DICE_tc", 0.032),
        ("tverskybce", "Sensitivity_wt", 0.001),
    ],
)
def test_paired_by_case_fine_tuning_helps_where_pooling_hid_it(
    scores, model, column, p
):
    rows = make_statistics(scores, num_resamples=99).tables["starts"]
    found = _at(rows, first=f"{model}_finetune", column=column)
    assert found["p_better"] == pytest.approx(p, abs=5e-4)
    assert found["num_tests"] == 24


def test_all_tables_figures_and_the_page_are_written(scores, tmp_path):
    found = write_statistics(GOLDEN, tmp_path, seed=1)
    names = {path.name for path in tmp_path.iterdir()}
    assert {f"{name}.csv" for name in found.tables} <= names
    assert {f"{name}.tex" for name in found.tables} <= names
    figures = ("dice_by_region", "hausdorff_by_region")
    assert {f"{f}.{k}" for f in figures for k in ("png", "pdf")} <= names
    page = (tmp_path / "statistics.html").read_text()
    assert found.sentences[0] in page
    assert "SBT-MET-B000733-20181114" in page
