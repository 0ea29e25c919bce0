import math

import pytest

from bmjax.data.tables import write_csv
from bmjax.study.tables import escape, show, write_latex


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (0.0001234, "0.00012"),
        (0.9999712, "0.99997"),
        (1.0, "1.000"),
        (-12.0, "-12.000"),
        (math.nan, "--"),
        (math.inf, "inf"),
        (7, "7"),
        (True, "yes"),
        (None, ""),
    ],
)
def test_a_value_is_shown_with_as_many_digits_as_it_needs(value, text):
    assert show(value) == text


def test_undefined_numbers_are_blank_in_the_csv(tmp_path):
    path = write_csv(tmp_path / "t.csv", [{"a": math.nan, "b": math.inf, "c": True}])
    assert path.read_text() == "a,b,c\n,inf,1\n"


def test_the_latex_table_shows_its_columns_escaped(tmp_path):
    rows = [{"name": "net_a", "dice": 0.5}, {"name": "net_b", "dice": math.nan}]
    path = write_latex(
        tmp_path / "t.tex",
        rows,
        columns={"name": "Method", "dice": "Dice, 95 % CI"},
        caption="Mean & spread",
    )
    lines = path.read_text().splitlines()
    assert r"\caption{Mean \& spread}" in lines
    assert r"\begin{tabular}{lr}" in lines
    assert r"Method & Dice, 95 \% CI \\" in lines
    assert r"net\_a & 0.500 \\" in lines
    assert r"net\_b & -- \\" in lines


def test_no_letter_of_latex_passes_unescaped():
    assert escape("a_b{c}\\") == r"a\_b\{c\}\textbackslash{}"
