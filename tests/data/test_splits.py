"""Tests of bmjax.data.splits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.data.splits import Split, require_no_leak, split_cases


def one_each(count):
    return {f"c{i:03d}": f"c{i:03d}" for i in range(count)}


def test_folds_are_those_of_scikit_learn():
    # sklearn.model_selection.KFold(5, shuffle=True, random_state=12345), 26 cases
    expected = [[3, 8, 13, 16, 20, 22], [10, 12, 15, 18, 19]]
    for fold, numbers in enumerate(expected):
        got = split_cases(one_each(26), num_folds=5, fold=fold).val
        assert got == tuple(f"c{i:03d}" for i in numbers)


@given(
    visits=st.lists(st.integers(1, 4), min_size=5, max_size=30), seed=st.integers(0, 99)
)
@settings(max_examples=50, deadline=None)
def test_folds_partition_the_cases_and_no_patient_straddles(visits, seed):
    patients = {f"p{p}-{v}": f"p{p}" for p, n in enumerate(visits) for v in range(n)}
    seen = []
    for fold in range(5):
        parts = split_cases(patients, num_folds=5, fold=fold, seed=seed)
        assert sorted(parts.train + parts.val) == sorted(patients)
        require_no_leak(parts, patients)
        seen += parts.val
    assert sorted(seen) == sorted(patients)


def test_held_out_cases_are_named():
    parts = split_cases(one_each(4), held_out=("c002",))
    assert parts == Split(train=("c000", "c001", "c003"), val=("c002",))
    with pytest.raises(ValueError, match="held-out cases c9 are not in the data"):
        split_cases(one_each(4), held_out=("c9",))
    with pytest.raises(ValueError, match="every case is held out"):
        split_cases(one_each(1), held_out=("c000",))


def test_fault_41_a_patient_on_both_sides_is_an_error():
    patients = {"p1-000": "p1", "p1-001": "p1", "p2-000": "p2"}
    with pytest.raises(ValueError, match=r"share patients: p1 \(p1-000, p1-001\)"):
        split_cases(patients, held_out=("p1-001",))


def test_fault_42_fewer_patients_than_folds_is_an_error():
    with pytest.raises(
        ValueError, match="3 patients cannot be split into 5 folds; use"
    ):
        split_cases(one_each(3), num_folds=5)
    with pytest.raises(ValueError, match="fold 5 of 5 does not exist"):
        split_cases(one_each(9), num_folds=5, fold=5)
