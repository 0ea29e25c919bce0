"""Table 4 of the 2-D study: complete, beside the published one, and honest."""

import pytest

from bmjax.study import table4
from bmjax.study.overfit2d import Overfit
from bmjax.study.scores2d import SOUND


def test_the_published_table_is_complete_and_shown_beside_ours():
    scores = {"loss": 0.1, "accuracy": 0.9}
    for measure in SOUND:
        scores |= {measure: 0.5, f"legacy_{measure}": 0.25}
        scores |= {f"{measure}_ET": 0.75}
    by_seed = {
        seed: {s: {n: v + seed / 100 for n, v in scores.items()} for s in table4.SETS}
        for seed in range(3)
    }
    overfits = {"unet2d": Overfit(dice=0.95, running_dice=0.97, steps=700)}
    rows = table4.rows({"unet2d": by_seed}, classes=("ET",), overfits=overfits)
    dice = next(
        r
        for r in rows
        if (r["set"], r["measure"], r["scope"]) == ("val", "dice", "lesion")
    )
    assert dice["published"] == 0.631
    assert dice["as_published"] == pytest.approx(0.26)
    assert dice["sound"] == pytest.approx(0.51)
    assert dice["sound_sd"] == pytest.approx(0.01)
    text = table4.markdown(rows, overfits)
    assert table4.MARK not in text and "| yes | 0.950 | 0.970 | 700 |" in text
    line = next(x for x in text.splitlines() if "| validation | 0.9" in x)
    assert "| 0.260 ± 0.010 | 0.510 ± 0.010 | 0.631 |" in line
    test = next(x for x in text.splitlines() if "| test | 0.9" in x)
    assert test.count("| - ") == 7  # the paper has no test row
    published = {key[:2] for key in table4.PUBLISHED}
    assert published == {(n, s) for n in table4.NETWORKS for s in ("train", "val")}


def test_rows_of_a_network_that_did_not_overfit_are_marked():
    scores = {"loss": 0.1, "accuracy": 0.9}
    for measure in SOUND:
        scores |= {measure: 0.5, f"legacy_{measure}": 0.25}
    results = {name: {0: dict.fromkeys(table4.SETS, scores)} for name in ("fcn",)}
    overfits = {"fcn": Overfit(dice=0.899, running_dice=1.0, steps=3000)}
    rows = table4.rows(results, classes=(), overfits=overfits)
    assert not any(row["counts"] for row in rows)
    heads, lines = table4.as_published(rows, overfits)
    assert heads[0] == "Model"
    assert {line[0] for line in lines} == {f"FCN-8s {table4.MARK}"}
    text = table4.markdown(rows, overfits)
    assert f"{table4.MARK} FCN-8s: did not reach a Dice of 0.9 on 8 slices" in text
    assert "| FCN-8s | no | 0.899 | 1.000 | 3000 |" in text
