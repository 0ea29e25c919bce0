"""Whole pages: self-contained, escaped, and honest about what is missing."""

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from bmjax import report
from bmjax.data import nifti
from bmjax.data.cases import Case
from bmjax.evaluation import evaluate
from bmjax.report import CaseSources, Cohort, curves, overlays, tables, terminal
from bmjax.report.page import Cell, Facts, Page, Section, Table, Text

AFFINE = np.diag([1.0, 1.0, 2.5, 1.0])
CASES = ("a<b-0001-000", "a<b-0002-000", "a<b-0003-000")
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "link", "img", "source", "br", "input"}


class Checker(HTMLParser):
    """Collects addresses, ids and unclosed elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.ids, self.open, self.scripts = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script" and ("type", "application/json") not in attrs
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attrs):
        for name, value in attrs:
            if name == "href":
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_page(path):
    """The page is one well-formed document that fetches nothing."""
    text = path.read_text()
    checker = Checker(text)
    assert checker.open == []
    assert checker.scripts == 1
    assert all(a.startswith(("data:", "#")) for a in checker.addresses)
    assert "http://" not in text and "https://" not in text
    assert "url(" not in text and "@import" not in text
    for address in checker.addresses:
        if address.startswith("#"):
            assert address[1:] in checker.ids
    return text


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three small cases with images, predictions of two methods, and a run folder."""
    root = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    for seed, case in enumerate(CASES):
        labels = np.zeros((12, 24, 28), np.uint8)
        labels[3:8, 5:14, 6:15] = 2
        labels[4:6, 7 : 10 + seed, 8:12] = 3
        labels[5, 8, 9] = 1
        labels[10, 20, 22] = 3
        for channel in ("t1c", "t2f"):
            image = rng.normal(200, 20, labels.shape).astype(np.float32) + 90 * labels
            image[:, :2] = 0
            path = root / "raw" / case / f"{case}-{channel}.nii.gz"
            nifti.write(path, image, affine=AFFINE)
        nifti.write(root / "raw" / case / f"{case}-seg.nii.gz", labels, affine=AFFINE)
        for name, shift in (("tuned", 1), ("scratch", 2)):
            moved = np.roll(labels, shift, axis=2)
            nifti.write(root / name / f"{case}.nii.gz", moved, affine=AFFINE)
    (root / "tuned" / f"{CASES[2]}.nii.gz").write_bytes(b"damaged")
    run = root / "run"
    for name in ("tuned", "scratch"):
        evaluate(root / name, root / "raw", out=root / f"eval_{name}")
    evaluate(root / "tuned", root / "raw", out=run / "validation")
    records = [
        *(
            {
                "kind": "train",
                "step": s,
                "loss": 1 / s,
                "lr": 0.01,
                "step_ms": 9.0,
                "wait_ms": 0.5,
            }
            for s in range(1, 60)
        ),
        {
            "kind": "val",
            "step": 50,
            "loss": 0.5,
            "pseudo_dice": {"WT": 0.7, "TC": 0.5, "ET": 0.4},
        },
    ]
    lines = [json.dumps(record) for record in records]
    (run / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind": "tr')
    (run / "split.json").write_text(json.dumps({"train": ["x"], "val": list(CASES)}))
    (run / "experiment.json").write_text(
        json.dumps({"type": "Experiment", "model": {"type": EVIL}, "seed": 3})
    )
    return root


def sources(study, case, **rest):
    folder = study / "raw" / case
    images = {c: folder / f"{case}-{c}.nii.gz" for c in ("t1c", "t2f")}
    return CaseSources(case=case, images=images, **rest)


def test_run_page_shows_curves_scores_cases_and_what_is_missing(study, tmp_path):
    page = report.write_run_report(study / "run", tmp_path / "report.html")
    text = check_page(page)
    assert "plan.json: how images were prepared" in text
    assert "1 of 3 cases could not be evaluated" in text
    assert text.count('class="chart"') >= 6
    # of two cases three planes: two sequences of the largest lesion, one of the missed
    assert text.count('class="panel"><svg') == 2 * 9
    assert "Dice WT" in text


def test_text_from_files_is_escaped(study, tmp_path):
    text = check_page(report.write_run_report(study / "run", tmp_path / "p.html"))
    assert EVIL not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "a&lt;b-0001-000" in text and "a<b-0001-000" not in text


def test_a_case_called_script_is_escaped_in_every_block(study):
    blocks = (
        Text(text=EVIL),
        Facts(items=((EVIL, EVIL),), title=EVIL),
        Table(columns=(EVIL,), rows=((Cell(text=EVIL),),), caption=EVIL),
        overlays.case_view(
            sources(study, CASES[0], facts=((EVIL, EVIL),), scores={EVIL: {EVIL: 0.5}})
        ),
        overlays.case_view(CaseSources(case=EVIL, images={})),
    )
    page = Page(
        title=EVIL, subtitle=EVIL, sections=(Section(title=EVIL, blocks=blocks),)
    )
    assert EVIL not in page.to_html()


def test_run_page_of_an_empty_folder_lists_what_is_missing(tmp_path):
    (tmp_path / "new").mkdir()
    page = report.write_run_report(tmp_path / "new", tmp_path / "p.html")
    text = check_page(page)
    for name in ("experiment.json", "split.json", "metrics.jsonl", "validation/"):
        assert f"Not in this folder: {name}" in text


def test_run_page_finds_images_through_the_store(study, tmp_path):
    case, run, store = CASES[0], tmp_path / "run", tmp_path / "store"
    evaluate(
        study / "tuned",
        [
            Case(
                id=case,
                patient="a",
                images={},
                labels=study / "raw" / case / f"{case}-seg.nii.gz",
            )
        ],
        out=run / "validation",
    )
    path = study / "raw" / case / f"{case}-t1c.nii.gz"
    (store / "cases" / case).mkdir(parents=True)
    (store / "cases" / case / "case.json").write_text(
        json.dumps({"sources": {"t1c": {"path": str(path)}}})
    )
    (run / "experiment.json").write_text(json.dumps({"data": {"store": str(store)}}))
    text = check_page(report.write_run_report(run, tmp_path / "p.html"))
    assert text.count('class="panel"><svg') == 3 + 3
    assert "FLAIR: no image found" in text


def test_run_page_needs_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        report.write_run_report(tmp_path / "nowhere", tmp_path / "p.html")


def test_evaluation_page_shows_tables_and_hardest_case_first(study, tmp_path):
    page = report.write_evaluation_report(study / "eval_scratch", tmp_path / "p.html")
    text = check_page(page)
    assert "3 of 3 cases evaluated" in text
    order = re.findall(r"<h3>a&lt;b-(\d+)-000</h3>", text)
    assert sorted(order) == ["0001", "0002", "0003"]
    assert "What the numbers mean" in text


def test_evaluation_page_where_every_case_failed(study, tmp_path):
    (tmp_path / "none").mkdir()
    evaluate(tmp_path / "none", study / "raw", out=tmp_path / "eval")
    page = report.write_evaluation_report(tmp_path / "eval", tmp_path / "p.html")
    assert "3 of 3 cases could not be evaluated" in check_page(page)


def test_evaluation_page_needs_an_evaluation(tmp_path):
    with pytest.raises(FileNotFoundError, match="bmjax evaluate"):
        report.write_evaluation_report(tmp_path, tmp_path / "p.html")


def test_comparison_page_joins_cohorts_runs_and_methods(study, tmp_path):
    case = CASES[0]
    shown = sources(
        study,
        case,
        reference=study / "raw" / case / f"{case}-seg.nii.gz",
        predictions={
            name: study / name / f"{case}.nii.gz" for name in ("tuned", "scratch")
        },
    )
    page = report.write_comparison_report(
        tmp_path / "p.html",
        title="Study",
        facts=(("seed", "0"),),
        cohorts=(Cohort(name="Source", facts=(("cases", "3"),), examples=(shown,)),),
        runs={"tuned": study / "run", "absent": study / "nowhere"},
        evaluations={n: study / f"eval_{n}" for n in ("tuned", "scratch")},
        baselines={"threshold": {c: {"WT": 0.4} for c in CASES}},
        cases=(shown,),
    )
    text = check_page(page)
    assert "absent: no training log found" in text
    assert "Dice WT, threshold" in text
    assert "tuned: 1 of 3 cases could not be evaluated" in text
    # 2 sequences x 3 planes x 2 methods, and one axial slice of each sequence
    assert text.count('class="panel"><svg') == 12 + 2
    wt = json.loads((study / "eval_tuned" / "summary.json").read_text())["regions"][
        "WT"
    ]
    assert f"{wt['dice']['mean']:.3f}" in text


def test_comparison_page_of_nothing_is_a_page(tmp_path):
    check_page(report.write_comparison_report(tmp_path / "p.html", title="Nothing"))


def test_a_case_without_reference_shows_outlines_only(study):
    case = CASES[0]
    view = overlays.case_view(
        sources(study, case, predictions={"net": study / "tuned" / f"{case}.nii.gz"})
    )
    text = view.to_html()
    assert 'class="outline label-ET"' in text
    assert 'class="reference' not in text
    assert 'data-hide="reference"' not in text


def test_unreadable_and_missing_files_become_notes(study):
    case = CASES[2]
    view = overlays.case_view(
        CaseSources(
            case=case,
            images={"t1c": study / "raw" / case / f"{case}-t1c.nii.gz"},
            predictions={"net": study / "tuned" / f"{case}.nii.gz"},
        )
    )
    assert len(view.panels) == 3
    assert any("FLAIR: no image found" in note for note in view.notes)
    assert any("not a NIfTI file" in note for note in view.notes)


def test_a_label_file_of_another_size_is_not_shown(study, tmp_path):
    nifti.write(tmp_path / "p.nii.gz", np.ones((3, 4, 5), np.uint8), affine=AFFINE)
    view = overlays.case_view(
        sources(study, CASES[0], predictions={"net": tmp_path / "p.nii.gz"})
    )
    assert any("(3, 4, 5) voxels where" in note for note in view.notes)
    assert "outline" not in "".join(panel.svg for panel in view.panels)


def test_panels_are_in_millimetres(study):
    view = overlays.case_view(sources(study, CASES[0]))
    coronal = next(p for p in view.panels if p.title == "T1c coronal")
    assert 'transform="scale(1 2.5)"' in coronal.svg


def test_a_chart_has_the_size_it_says():
    figure = curves.chart(
        lambda axes, theme: axes.plot([0, 1]), name="line", alt="a line"
    )
    for picture in (figure.light, figure.dark):
        assert Image.open(io.BytesIO(picture)).size == figure.size == (940, 590)


def test_training_charts_of_one_and_of_several_runs():
    records = [
        {"kind": "train", "step": s, "loss": 1.0, "lr": 0.1, "wait_ms": 1.0}
        for s in range(3)
    ]
    records.append({"kind": "val", "step": 2, "loss": 1.0, "pseudo_dice": {"WT": 0.1}})
    records.append({"kind": "val", "step": 3, "loss": float("nan")})
    assert len(curves.training_charts({"one": records})) == 4
    assert len(curves.training_charts({"one": records, "two": records[:2]})) == 4
    assert curves.training_charts({"none": []}) == ()


def test_comparison_table_sets_the_best_in_bold_and_leaves_out_empty_columns():
    rows = {
        "a": [{"case": "x", "dice_WT": 0.9, "dice_ET": float("nan")}],
        "b": [{"case": "x", "dice_WT": 0.5, "dice_ET": 0.4}],
    }
    table = tables.comparison_table(rows, regions=("WT", "ET"))
    assert table.columns == ("case", "a", "b", "b")
    ((_, best, other, alone),) = table.rows
    assert (best.text, best.kind) == ("0.900", "best")
    assert (other.kind, alone.kind) == ("plain", "plain")
    assert [cell.text for cell in table.footer[0]] == [
        "mean",
        "0.900",
        "0.500",
        "0.400",
    ]


def test_terminal_table_shows_cases_and_means(study):
    evaluation = evaluate(study / "tuned", study / "raw").to_dict()
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(terminal.evaluation_table(evaluation))
    text = console.export_text()
    assert "a<b-0001-000" in text
    assert "Mean over 2 cases; 1 failed" in text
    assert "spec." in text
    assert "HD95 surfel" in text and "ICC" in text


def test_undefined_numbers_are_dashes():
    assert tables.number(None) == tables.number(float("nan")) == tables.DASH
    assert tables.number(-0.5, digits=1) == "\N{MINUS SIGN}0.5"


def test_terminal_tables_do_not_need_matplotlib():
    code = (
        "import sys, bmjax.report.terminal; "
        "sys.exit(bool({'matplotlib', 'PIL', 'jax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_page_without_matplotlib_says_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from bmjax import report; report.write_run_report"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert "pip install 'bmjax[report]'" in done.stderr
