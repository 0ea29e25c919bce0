from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from score_tables import method, scores

from bmjax.study import published
from bmjax.study.challenging import mark_cases
from bmjax.study.mixed import mix_table
from bmjax.study.paired import (
    compare,
    conclude,
    corrected,
    holm,
    rank_biserial,
    signed_rank_p,
)
from bmjax.study.statistics import make_statistics

gains = st.lists(st.integers(-6, 6), min_size=3, max_size=9).map(
    lambda values: np.array(values, np.float64)
)


def _same_length(draw_from):
    return st.integers(4, 8).flatmap(
        lambda n: st.tuples(
            *(st.lists(st.integers(0, 40), min_size=n, max_size=n),) * draw_from
        )
    )


@settings(deadline=None, max_examples=30)
@given(gains)
def test_p_is_that_of_every_way_to_sign_the_ranks(values):
    kept = values[values != 0]
    both, better = signed_rank_p(values)
    if not len(kept):
        assert (both, better) == (1, 1)
        return
    ranks = stats.rankdata(np.abs(kept))
    sums = np.array([(ranks * s).sum() for s in product((-1, 1), repeat=len(kept))])
    found = (ranks * np.sign(kept)).sum()
    assert better == pytest.approx((sums >= found - 1e-9).mean())
    smaller = min((sums >= found - 1e-9).mean(), (sums <= found + 1e-9).mean())
    assert both == pytest.approx(min(1, 2 * smaller))


@settings(deadline=None, max_examples=30)
@given(gains)
def test_rank_biserial_agrees_with_scipys_rank_sums(values):
    kept = values[values != 0]
    if not len(kept):
        assert rank_biserial(values) == 0
        return
    in_favour = stats.wilcoxon(kept, alternative="greater").statistic
    total = len(kept) * (len(kept) + 1) / 2
    assert rank_biserial(values) == pytest.approx(2 * in_favour / total - 1)


@settings(deadline=None, max_examples=25)
@given(_same_length(2))
def test_swapping_the_groups_flips_everything(pair):
    first, second = (np.array(values) / 40 for values in pair)
    there = compare(first, second, is_higher_better=True, num_resamples=199)
    back = compare(second, first, is_higher_better=True, num_resamples=199)
    assert (there.gain, there.rank_biserial) == (-back.gain, -back.rank_biserial)
    assert (there.num_better, there.num_worse) == (back.num_worse, back.num_better)
    assert there.p == back.p
    assert there.ci95_low == pytest.approx(-back.ci95_high, abs=1e-9)
    distance = compare(first, second, is_higher_better=False, num_resamples=199)
    assert distance.gain == back.gain
    assert distance.p_better == back.p_better


@given(_same_length(2))
def test_mann_whitney_of_swapped_groups_shares_out_all_pairs(pair):
    first, second = (np.array(values, np.float64) for values in pair)
    u, _ = published.mann_whitney(first, second)
    other, _ = published.mann_whitney(second, first)
    assert u + other == len(first) * len(second)
    wins = (first[:, None] > second).sum() + (first[:, None] == second).sum() / 2
    assert u == wins


@settings(deadline=None, max_examples=8)
@given(_same_length(4), st.randoms(use_true_random=False))
def test_permuting_the_rows_of_a_table_changes_nothing(values, random):
    n = len(values[0])
    names = [("a", "finetune"), ("a", "scratch"), ("b", "finetune"), ("b", "scratch")]
    plain, shuffled = [], []
    for (model, start), column in zip(names, values, strict=True):
        made = np.array(column) / 40
        plain.append(method(model, start, made))
        order = random.sample(range(n), n)
        cases = [f"case-{i:02d}" for i in order]
        shuffled.append(method(model, start, made[order], cases=cases))
    first, second = (
        make_statistics(scores(*m), num_resamples=49) for m in (plain, shuffled)
    )
    assert first.sentences == second.sentences
    assert first.tables["challenging"] == second.tables["challenging"]
    assert repr(first.tables["mixed"]) == repr(second.tables["mixed"])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_his_procedure_rejects(p_values):
    adjusted = np.array(holm(p_values))
    for alpha in (0.01, 0.05, 0.2):
        rejected = np.zeros(len(p_values), bool)
        for place, i in enumerate(np.argsort(p_values, kind="stable")):
            if (len(p_values) - place) * p_values[i] > alpha:
                break
            rejected[i] = True
        np.testing.assert_array_equal(adjusted <= alpha, rejected)


def test_holm_leaves_out_tests_that_were_not_made():
    assert holm([0.01, np.nan, 0.04])[0] == 0.02
    assert np.isnan(holm([0.01, np.nan, 0.04])[1])


def test_an_infinite_distance_has_the_largest_rank_and_no_mean():
    first = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    second = np.array([1.5, 2.6, np.inf, 4.8, 5.9])
    found = compare(first, second, is_higher_better=False)
    assert found.num_infinite == 1
    assert found.num_better == 5
    assert found.p == pytest.approx(2 / 2**5)
    assert found.gain == pytest.approx(np.mean([0.5, 0.6, 0.8, 0.9]))


def test_two_infinite_distances_are_equal():
    values = np.array([1.0, 2.0, 3.0, np.inf])
    found = compare(values, values, is_higher_better=False)
    assert (found.num_better, found.num_worse, found.p) == (0, 0, 1.0)


def test_nothing_is_said_of_too_few_defined_scores():
    first = np.array([0.5, 0.6, np.nan, np.nan])
    text = conclude(compare(first, first - 0.1, is_higher_better=True))
    assert text == "Nothing can be said: the scores are defined in 2 cases."


def test_undefined_scores_lower_n():
    first = np.array([0.5, np.nan, 0.7, 0.8, 0.9])
    found = compare(first, first - 0.1, is_higher_better=True)
    assert found.n == 4


def test_the_sentence_says_that_so_few_cases_cannot_pass():
    first = np.array([0.5, 0.6, 0.7, 0.8])
    (found,) = corrected([compare(first, first - 0.1, is_higher_better=True)])
    text = conclude(found)
    assert "No difference is shown, and equality is not shown either" in text
    assert "With 4 cases p cannot be below .125" in text


def test_the_sentence_says_better_where_the_correction_is_passed():
    first = np.linspace(0.5, 0.9, 12)
    found = compare(first, first - np.linspace(0.1, 0.2, 12), is_higher_better=True)
    assert conclude(corrected([found])[0]).startswith("The first is better, also after")
    many = corrected([found] * 2 + [compare(first, first, is_higher_better=True)] * 200)
    assert conclude(many[0]).startswith("Hardly shown: the first would be better")


def test_the_interval_holds_the_true_gain_as_often_as_it_says():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        gain = rng.normal(0.1, 0.2, 25)
        found = compare(gain, 0 * gain, is_higher_better=True, num_resamples=299)
        held += found.ci95_low <= 0.1 <= found.ci95_high
    assert 180 <= held <= 199


def test_all_models_together_are_as_many_cases_not_more():
    rng = np.random.default_rng(0)
    case = rng.normal(0, 1, 10)
    gain = rng.normal(0.2, 0.1, 10)
    table = np.stack([np.stack([case + gain, case])] * 3)  # three equal models
    one = stats.ttest_1samp(gain, 0)
    found = mix_table(table, is_higher_better=True)
    assert found.p == pytest.approx(one.pvalue)
    assert found.gain == pytest.approx(gain.mean())


def test_the_share_of_the_case_is_found_again():
    rng = np.random.default_rng(1)
    n = 20000
    noise = rng.normal(0, 1, (2, 2, n))
    found = mix_table(noise + rng.normal(0, 2, n), is_higher_better=True)
    assert found.sd_case == pytest.approx(2, rel=0.03)
    assert found.sd_rest == pytest.approx(1, rel=0.03)
    assert found.case_share == pytest.approx(0.8, rel=0.03)


def test_every_case_with_the_worst_score_is_marked():
    found = mark_cases(scores(method("a", "finetune", [0.5, 0.2, 0.2, 0.9])))
    assert found == {"case-01": 2, "case-02": 2, "case-00": 0, "case-03": 0}
