"""What a page reads beside the tables, and what it writes beside itself."""

import http.client
import json
import re
import shutil
import threading

import matplotlib.text
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bmjax import cli, report
from bmjax.data import nifti
from bmjax.evaluation import evaluate
from bmjax.report import course_charts, curves, score_charts, sections
from bmjax.report.predictions import predicted_cases
from bmjax.report.sources import maps_beside, read_evaluation
from bmjax.report.watch import version_of

AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])
CASE = "BraTS-PHM-00001-000"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A case with probabilities, maps beside the prediction, and its evaluation."""
    root = tmp_path_factory.mktemp("files")
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[2:5, 2:5, 2:6] = 3
    labels[7, 8:10, 9] = 3
    probs = np.where(labels == 3, 0.9, 0.05).astype(np.float32)
    probs[7, 8:10, 9] = 0.3
    probs[8, 2, 2] = 0.6
    home = root / "raw" / CASE
    image = 50 + 30 * labels.astype(np.float32)
    nifti.write(home / f"{CASE}-t1c.nii.gz", image, affine=AFFINE)
    nifti.write(home / f"{CASE}-seg.nii.gz", labels, affine=AFFINE)
    predicted = np.where(probs > 0.5, 3, 0).astype(np.uint8)
    nifti.write(root / "out" / f"{CASE}.nii.gz", predicted, affine=AFFINE)
    for name in ("prob_ET", "prob_TC", "prob_WT", "entropy", "explain_t1c"):
        nifti.write(root / "out" / f"{CASE}_{name}.nii.gz", probs, affine=AFFINE)
    evaluate(root / "out", root / "raw", cases=[CASE], out=root / "eval")
    return root


def run_cli(*argv):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(a) for a in argv])
    return ended.value.code


def test_charts_are_written_as_png_and_pdf(folders, tmp_path):
    code = run_cli(
        *("report", folders / "eval", "--out", tmp_path / "page.html"),
        *("--figures", tmp_path / "figures"),
    )
    assert code == 0
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    expected = {"dice_by_case", "hd95_surfel_by_case", "froc_ET", "lesions_ET"}
    expected |= {"sensitivity_ET", "volume_WT"}
    for name in expected:
        assert {f"{name}.png", f"{name}.pdf"} <= written
        content = (tmp_path / "figures" / f"{name}.pdf").read_bytes()
        assert content.startswith(b"%PDF") and b"CreationDate" not in content
        with Image.open(tmp_path / "figures" / f"{name}.png") as picture:
            assert picture.width >= 600  # 200 to the inch


def test_no_text_of_a_chart_is_too_small_in_a_column(folders, monkeypatch):
    # at a column's 89 mm, 8 points on 119 mm become six
    sizes = []
    drawn = Figure.savefig

    def measured(figure, *args, **kwargs):
        shown = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text()]
        width_mm = figure.get_figwidth() * 25.4
        sizes.extend(t.get_fontsize() * min(1, 89 / width_mm) for t in shown)
        return drawn(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", measured)
    found = read_evaluation(folders / "eval")
    score_charts.strip({"": found.rows}, regions=found.regions)
    score_charts.detection_bars({"": found.summary}, region="ET")
    score_charts.lesion_scatter({"": found.lesions}, region="ET")
    score_charts.froc_chart(found.froc, region="ET")
    curves.training_charts({"a": [{"kind": "train", "step": 1, "loss": 1.0}]})
    row = {"visit": "1", "volume_mm3": 5.0, "is_progression": 0, "is_present": 1}
    visits = [{**row, "date": ""}]
    course_charts.lesion_chart("t", [{**row, "nadir_mm3": np.nan}], visits, ratio=1.4)
    course_charts.patient_chart("p", {"p_T1": [row]}, visits)
    assert len(sizes) > 50
    assert min(sizes) >= 5.9


def test_the_curve_of_probabilities_is_on_the_page(folders):
    found = read_evaluation(folders / "eval")
    figures = [
        block
        for part in sections.lesions_section(found).blocks
        for block in getattr(part, "blocks", ())
        if "Free-response" in getattr(block, "alt", "")
    ]
    assert [figure.name for figure in figures] == ["froc_WT", "froc_TC", "froc_ET"]


def test_accuracy_dice_and_iou_are_drawn_where_they_are_logged():
    records = [
        {"kind": kind, "step": step, "loss": 1.0, "accuracy": 0.9, "iou": 0.5}
        for step in (1, 2)
        for kind in ("train", "val")
    ]
    names = [figure.name for figure in curves.training_charts({"run": records})]
    assert "accuracy" in names and "iou" in names and "dice" not in names


def test_maps_beside_a_prediction_are_found_and_are_no_cases(folders):
    found = maps_beside(folders / "out" / f"{CASE}.nii.gz", CASE)
    assert list(found) == ["entropy", "explain_t1c"]
    assert predicted_cases(folders / "out") == [CASE]


def test_a_case_of_a_name_that_is_a_pattern_finds_only_its_own_maps(tmp_path):
    for name in ("a[1]", "a1"):
        (tmp_path / f"{name}_entropy.nii.gz").write_bytes(b"")
    assert list(maps_beside(tmp_path / "x", "a[1]").values()) == [
        tmp_path / "a[1]_entropy.nii.gz"
    ]


def test_the_misses_of_a_case_come_before_its_finds(folders):
    found = read_evaluation(folders / "eval")
    spots = sections.spots(found, CASE)
    assert [spot.kind for spot in spots] == ["missed", "invented", "found"]
    np.testing.assert_allclose(spots[0].centre_mm, (9, 8.5, 7))


def test_predictions_alone_get_a_page_through_the_command(folders, tmp_path):
    code = run_cli(
        *("report", folders / "out", "--images", folders / "raw"),
        *("--out", tmp_path / "page.html"),
    )
    text = (tmp_path / "page.html").read_text()
    assert code == 0
    assert "No reference" in text and "FLAIR: no image found" in text
    assert "<dt>ET lesions</dt><dd>2" in text
    assert 'class="reference' not in text and 'data-hide="reference"' not in text


def test_predictions_without_images_say_how_to_name_them(folders, tmp_path):
    page = report.write_predictions_report(folders / "out", tmp_path / "page.html")
    assert "name their folder with --images" in page.read_text()


def record_images(folder, images):
    record = {"cases": [{"case": CASE, "status": "done", "images": images}]}
    (folder / "predict.json").write_text(json.dumps(record))


def test_predictions_are_shown_on_the_images_that_their_record_names(folders, tmp_path):
    shutil.copytree(folders / "out", tmp_path / "out")
    image = folders / "raw" / CASE / f"{CASE}-t1c.nii.gz"
    record_images(tmp_path / "out", {"t1c": str(image)})
    page = report.write_predictions_report(tmp_path / "out", tmp_path / "page.html")
    told = page.read_text()
    assert "--images" not in told and "T1c: no image found" not in told
    asked = report.write_predictions_report(
        tmp_path / "out", tmp_path / "asked.html", images=folders / "raw"
    )
    pictures = re.compile(r'data:image/[^"]+')
    assert pictures.findall(told) == pictures.findall(asked.read_text()) != []
    record_images(tmp_path / "out", {"t1c": str(tmp_path / "gone.nii.gz")})
    page = report.write_predictions_report(tmp_path / "out", tmp_path / "page.html")
    assert "predict.json names none that is there" in page.read_text()


def test_evaluations_of_the_same_cases_are_compared_on_one_page(folders, tmp_path):
    for name, source in (("2d", folders / "out"), ("3d", folders / "raw")):
        evaluate(source, folders / "raw", cases=[CASE], out=tmp_path / name)
    code = run_cli(
        *("report", tmp_path / "2d", "--against", tmp_path / "3d"),
        *("--figures", tmp_path / "figures"),
    )
    assert code == 0
    text = (tmp_path / "2d" / "against.html").read_text()
    assert "<h1>2d against 3d" in text
    assert "Dice WT, 2d" in text and "Dice WT, 3d" in text
    assert "against it" in text and CASE in text
    assert (tmp_path / "figures" / "dice_by_case.pdf").is_file()


def test_evaluations_of_other_cases_are_not_compared(folders, tmp_path, capsys):
    evaluate(folders / "out", folders / "raw", cases=[CASE], out=tmp_path / "b")
    cases = tmp_path / "b" / "cases.csv"
    cases.write_text(cases.read_text().replace(CASE, "other"))
    command = ("report", folders / "eval", "--against", tmp_path / "b")
    assert run_cli(*command, "--out", tmp_path / "page.html") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "hold other cases" in said and "--cases" in said
    assert not (tmp_path / "page.html").exists()
    with pytest.raises(ValueError, match="named twice"):
        report.write_against_report([folders / "eval"] * 2, tmp_path / "page.html")


def test_a_folder_that_holds_nothing_of_ours_is_refused(tmp_path, capsys):
    assert run_cli("report", tmp_path) == 1
    assert "make them with `bmjax predict`" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "report.html").exists()


def test_only_runs_can_be_watched(folders, capsys):
    assert run_cli("report", folders / "eval", "--watch") == 1
    assert "only runs can be watched" in capsys.readouterr().err


def test_the_page_says_what_it_weighs(folders, tmp_path):
    page = report.write_evaluation_report(folders / "eval", tmp_path / "page.html")
    text, weight_mib = page.read_text(), page.stat().st_size / 2**20
    assert f"This page weighs {weight_mib:.1f} MiB" in text
    assert f"may weigh {sections.MAX_SLICES_MIB} MiB" in text
    for part in ("Versions", "SHA-256", "What the numbers mean"):
        assert part in text


def test_slices_beyond_the_bound_are_left_out_and_that_is_said(folders, monkeypatch):
    monkeypatch.setattr(sections, "MAX_SLICES_MIB", 0)
    cases = sections.hardest_first(read_evaluation(folders / "eval"), name="net")
    view = sections.cases_section(cases).blocks[-1]
    text = view.to_html()
    assert 'class="viewer"' not in text and "slices left out" in text


def test_a_watched_page_is_for_this_machine_only(tmp_path):
    with report.server(tmp_path) as server:
        assert server.server_address[0] == "127.0.0.1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        answers = {}
        try:
            for host, path in (
                (f"127.0.0.1:{server.server_port}", "/version"),
                ("evil.example:80", "/"),
                (f"localhost:{server.server_port}", "/../secret"),
            ):
                link = http.client.HTTPConnection("127.0.0.1", server.server_port)
                link.request("GET", path, headers={"Host": host})
                reply = link.getresponse()
                answers[path] = reply.status, reply.read()
                link.close()
        finally:
            server.shutdown()
            thread.join()
    assert answers["/version"] == (200, b"empty")
    assert answers["/"][0] == 403
    assert answers["/../secret"][0] == 404


def test_the_version_of_a_run_changes_with_its_log(tmp_path):
    empty = version_of(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    begun = version_of(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
    assert len({empty, begun, version_of(tmp_path)}) == 3
