import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_tables import write

from bmjax.data import nifti
from bmjax.evaluation import evaluate
from bmjax.study.agreement import collect_forms, weighted_kappa
from bmjax.study.review import read_key, write_review
from bmjax.study.review_form import QUESTIONS

AFFINE = np.array([[-0.5, 0, 0, 40], [0, 0.5, 0, -30], [0, 0, 2, 7], [0, 0, 0, 1.0]])
CASES = ("a", "b", "c")


def _labels(seed):
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[1:3, 1:5, 2:6] = 2
    labels[1, 2:4, 3 + seed % 2 : 5] = 3
    labels[2, 3, 3] = 1
    return labels


@pytest.fixture
def workdir(tmp_path):
    """Scores and evaluations of two models on three cases, as the study leaves them."""
    study = tmp_path / "study"
    (study / "scores").mkdir(parents=True)
    reference = tmp_path / "raw"
    for case in CASES:
        for channel in ("t1c", "t1n", "t2f", "t2w"):
            image = np.arange(192, dtype=np.float32).reshape(4, 6, 8)
            path = reference / case / f"{case}-{channel}.nii.gz"
            nifti.write(path, image, affine=AFFINE)
        nifti.write(reference / case / f"{case}-seg.nii.gz", _labels(0), affine=AFFINE)
    for number, model in enumerate(("good", "bad", "worst")):
        out = study / "predict" / model
        for case in CASES:
            nifti.write(out / f"{case}.nii.gz", _labels(number), affine=AFFINE)
        evaluated = study / "evaluate" / model / "finetune" / "ensemble"
        evaluate(out, reference, out=evaluated)
        for start, loss in (("finetune", 0.0), ("scratch", 0.2)):
            values = {case: 0.9 - number / 10 - loss for case in CASES}
            write(study / "scores", f"{model}_{start}", values)
    return study


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_two_best_fine_tuned_models_are_laid_out(workdir, tmp_path):
    made = write_review(workdir, tmp_path / "review")
    assert made.methods == ("good_finetune", "bad_finetune")
    names = {path.name for path in (made.out / "cases" / "a").iterdir()}
    images = {f"{channel}.nii.gz" for channel in ("t1c", "t1n", "t2f", "t2w")}
    segmentations = {f"{m}.seg.nrrd" for m in ("truth", *made.methods)}
    assert names == images | segmentations
    rows = _rows(made.out / "form.csv")
    assert [row["case"] for row in rows] == ["a", "a", "b", "b", "c", "c"]
    assert set(QUESTIONS) <= rows[0].keys()
    page = (made.out / "form.html").read_text()
    assert page.count("<tr data-case=") == 6
    assert "good_finetune" in (made.out / "README.txt").read_text()


def test_blinded_predictions_do_not_say_whose_they_are(workdir, tmp_path):
    made = write_review(workdir, tmp_path / "review", is_blinded=True, seed=3)
    for path in made.out.rglob("*"):
        assert "good" not in path.name
        if path.is_file():
            assert b"good" not in path.read_bytes()
    key = read_key(made.out)
    assert {key[case, "A"] for case in CASES} == set(made.methods)
    assert all({key[c, "A"], key[c, "B"]} == set(made.methods) for c in CASES)


def test_a_review_is_not_written_over(workdir, tmp_path):
    write_review(workdir, tmp_path / "review")
    with pytest.raises(ValueError, match="is there already"):
        write_review(workdir, tmp_path / "review")


def test_a_label_that_is_no_segments_is_refused(workdir, tmp_path):
    odd = _labels(0)
    odd[0, 0, 0] = 7
    nifti.write(tmp_path / "raw" / "a" / "a-seg.nii.gz", odd, affine=AFFINE)
    with pytest.raises(ValueError, match=r"a-seg.nii.gz: .*7"):
        write_review(workdir, tmp_path / "review")


def _fill(review, reader, grade):
    rows = _rows(review / "form.csv")
    for i, row in enumerate(rows):
        row |= {"reader": reader, "overall": grade(i), "lesions_missed": "2"}
    path = review.parent / f"form_{reader}.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def test_filled_forms_are_merged_with_the_key_and_compared(workdir, tmp_path):
    made = write_review(workdir, tmp_path / "review", is_blinded=True)
    forms = [
        _fill(made.out, "ann", lambda i: str(i % 5 + 1)),
        _fill(made.out, "bob", lambda i: str(i % 5 + 1) if i else "2"),
    ]
    found = collect_forms(made.out, forms)
    (row,) = [r for r in found.agreement if r["question"] == "overall"]
    assert (row["first"], row["second"], row["n"]) == ("ann", "bob", 6)
    assert 0.8 < row["weighted_kappa"] < 1
    assert {r["method"] for r in found.rows} == set(made.methods)
    missed = [r for r in found.grades if r["question"] == "lesions_missed"]
    assert [r["mean"] for r in missed] == [2, 2]
    assert (tmp_path / "review.kappa.csv").is_file()
    with pytest.raises(ValueError, match="ann graded prediction A of a twice"):
        collect_forms(made.out, [forms[0], forms[0]])


@pytest.mark.parametrize(
    ("reader", "grade", "complaint"),
    [
        ("ann", "6", "line 2: overall is '6'; expected 1 to 5"),
        ("ann", "good", "line 2: overall is 'good'"),
        ("", "3", "line 2: says no reader"),
    ],
)
def test_a_form_that_does_not_fit_is_refused(
    workdir, tmp_path, reader, grade, complaint
):
    made = write_review(workdir, tmp_path / "review")
    form = _fill(made.out, reader, lambda i: grade)
    with pytest.raises(ValueError, match=complaint):
        collect_forms(made.out, [form])


def test_kappa_of_a_table_by_hand():
    # grades 1 to 3: observed squared difference 0.5; by chance 4/3
    first, second = [1, 1, 3, 3], [1, 2, 3, 2]
    assert weighted_kappa(first, second, grades=(1, 2, 3)) == pytest.approx(
        1 - 0.5 / np.mean([(a - b) ** 2 for a in first for b in second])
    )
    assert weighted_kappa([1, 3], [3, 1]) == pytest.approx(-1)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2))
def test_kappa_is_symmetric_and_one_for_equal_readers(pairs):
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = weighted_kappa(first, second), weighted_kappa(second, first)
    assert there == pytest.approx(back, nan_ok=True)
    own = weighted_kappa(first, first)
    assert own == 1 or (np.isnan(own) and len(set(first)) == 1)


def test_the_form_names_its_columns_for_the_page(workdir, tmp_path):
    made = write_review(workdir, tmp_path / "review")
    page = (made.out / "form.html").read_text()
    assert json.dumps(["case", "prediction", "reader", *QUESTIONS]) in page
