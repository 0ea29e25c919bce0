import io

from rich.console import Console

from bmjax.study.sampling import Found, read_found, summary


def test_small_lesions_are_counted_from_the_tables_of_a_run(tmp_path):
    (tmp_path / "cases.csv").write_text("case\na\nb\n")
    (tmp_path / "lesions.csv").write_text(
        "case,region,kind,volume_mm3,is_found\n"
        "a,TC,reference,99.0,True\n"
        "a,TC,reference,50.0,False\n"
        "a,TC,reference,100.0,True\n"
        "b,TC,false positive,8.0,False\n"
        "b,WT,reference,8.0,True\n"
    )
    found = read_found(tmp_path)
    assert found == Found(small=2, found=1, false_positives=1, num_cases=2)
    assert found.sensitivity == 0.5


def test_the_summary_shows_mean_spread_and_each_seed():
    runs = [Found(4, n, n, 2) for n in (1, 2, 3)]
    printed = io.StringIO()
    Console(file=printed, width=120).print(summary({"lesion": runs}))
    text = printed.getvalue()
    assert "0.500 (sd 0.250; 0.250 0.500 0.750)" in text
    assert "1.000 (sd 0.500; 0.500 1.000 1.500)" in text
