"""Pages in a real browser: sliders turn, links jump, switches hide, maps appear."""

import base64
import io
import json
import threading

import numpy as np
import pytest
from browser import browsing, find_browser, opened, place, turn_first_slider
from PIL import Image

from bmjax import report
from bmjax.data import nifti
from bmjax.evaluation import evaluate
from bmjax.report import watch

pytestmark = pytest.mark.skipif(
    find_browser() is None,
    reason="no Chromium: apt-get install chromium-headless-shell",
)
CASE = "BraTS-PHM-00001-000"
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = (-30, -40, -20)
MISSED_VOX = (15, 30, 8)  # z y x


@pytest.fixture(scope="module")
def browser():
    with browsing() as page:
        yield page


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One case, a prediction that misses a lesion and invents one, its scores."""
    root = tmp_path_factory.mktemp("browser")
    labels = np.zeros((20, 40, 30), np.uint8)
    labels[5:12, 8:20, 9:20] = 2
    labels[7:10, 10:16, 11:17] = 3
    labels[8, 12, 13] = 1
    predicted = labels.copy()
    z, y, x = MISSED_VOX
    labels[z, y, x] = 3
    predicted[3, 33, 20:22] = 3
    image = np.full(labels.shape, 100, np.float32) + 40 * labels
    home = root / "raw" / CASE
    for channel in ("t1c", "t2f"):
        nifti.write(home / f"{CASE}-{channel}.nii.gz", image, affine=AFFINE)
    nifti.write(home / f"{CASE}-seg.nii.gz", labels, affine=AFFINE)
    nifti.write(root / "out" / f"{CASE}.nii.gz", predicted, affine=AFFINE)
    entropy = np.zeros(labels.shape, np.float32)
    entropy[8:12, 20:30, 5:25] = 0.7
    nifti.write(root / "out" / f"{CASE}_entropy.nii.gz", entropy, affine=AFFINE)
    evaluate(root / "out", root / "raw", cases=[CASE], out=root / "eval")
    return root


@pytest.fixture(scope="module")
def page(folders):
    return report.write_evaluation_report(folders / "eval", folders / "page.html")


def picture(browser):
    """The axial canvas as an array."""
    address = browser.run("document.querySelector('.cut canvas').toDataURL()")
    content = base64.b64decode(address.partition(",")[2])
    return np.array(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_a_slider_turns_the_slices(browser, page):
    opened(browser, page)
    before, shown = place(browser), picture(browser)
    turn_first_slider(browser, to=2)
    assert place(browser) == [2, *before[1:]]
    assert np.abs(picture(browser) - shown).max() > 30
    assert browser.errors == []


def test_keys_turn_the_slices_of_the_focused_plane(browser, page):
    opened(browser, page)
    before = place(browser)
    browser.run("document.querySelector('.cut[data-axis=\"1\"] canvas').focus()")
    browser.key("ArrowUp")
    browser.key("ArrowUp")
    browser.key("ArrowDown")
    assert place(browser) == [before[0], before[1] + 1, before[2]]
    browser.key("End")
    assert place(browser)[1] == 39


def test_a_click_moves_the_other_planes_there(browser, page):
    opened(browser, page)
    browser.run("document.querySelector('.cuts').scrollIntoView({block: 'center'})")
    box = browser.run(
        "(({x, y, width, height}) => [x, y, width, height])"
        "(document.querySelector('.cut canvas').getBoundingClientRect())"
    )
    before = place(browser)
    browser.click(box[0] + 0.3 * box[2], box[1] + 0.4 * box[3])
    # 86 mm are shown, of which the volume has 60 along x and 80 along y, in the middle;
    # both axes are reversed
    expected = [29 - int((0.3 * 86 - 13) // 2), 39 - int((0.4 * 86 - 3) // 2)]
    z, y, x = place(browser)
    assert z == before[0]
    assert abs(x - expected[0]) <= 1 and abs(y - expected[1]) <= 1


def test_the_link_of_a_missed_lesion_jumps_to_it(browser, page):
    opened(browser, page)
    browser.run("document.querySelectorAll('details').forEach((d) => d.open = true)")
    where = browser.run(
        "(() => { const row = [...document.querySelectorAll('tr')].find((r) =>"
        "r.cells[1]?.textContent === 'missed'); const link = row.querySelector("
        "'a[data-jump]'); link.click(); return link.textContent; })()"
    )
    assert place(browser) == list(MISSED_VOX)
    z, y, x = MISSED_VOX
    expected = (AFFINE @ [x, y, z, 1])[:3]
    assert where == ", ".join(
        f"{v:.1f}".replace("-", "\N{MINUS SIGN}") for v in expected
    )
    said = browser.run("document.querySelector('.place').textContent")
    assert where in said and "reference: ET" in said and "prediction: none" in said
    assert browser.run(
        "(() => { const b = document.querySelector('.cuts').getBoundingClientRect();"
        "return b.top < innerHeight && b.bottom > 0; })()"
    )


def test_the_button_of_a_false_positive_jumps_to_it(browser, page):
    opened(browser, page)
    browser.run(
        "[...document.querySelectorAll('.spots button')].find((b) =>"
        "b.textContent.startsWith('false positive')).click()"
    )
    z, y, x = place(browser)
    assert (z, y) == (3, 33) and x in (20, 21)


def test_the_legend_hides_a_label_everywhere(browser, page):
    opened(browser, page)
    click = "document.querySelector('button[data-hide=\"label-ET\"]').click()"
    whole = picture(browser)
    browser.run(click)
    hidden = picture(browser)
    assert (whole != hidden).any()
    display = "getComputedStyle(document.querySelector('path.label-ET')).display"
    assert browser.run(display) == "none"
    browser.run(click)
    np.testing.assert_array_equal(picture(browser), whole)
    assert browser.run(display) != "none"


def test_a_map_can_be_laid_over_the_slices(browser, page):
    opened(browser, page)
    plain = picture(browser)
    browser.run(
        "(() => { const s = document.querySelector('select[data-choice=\"map\"]');"
        "s.value = 'entropy'; s.dispatchEvent(new Event('change')); })()"
    )
    browser.until("document.querySelector('.scale').textContent.includes('0.700')")
    browser.until("true")
    coloured = picture(browser)
    changed = np.abs(coloured - plain).sum(axis=-1) > 40
    assert changed.any()
    # what was grey is coloured: red above blue in the upper half of the scale
    assert (coloured[changed][:, 0] > coloured[changed][:, 2]).mean() > 0.9


def test_the_page_fits_a_telephone_and_fetches_nothing(browser, page):
    opened(browser, page, width=390)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert (
        browser.run(
            "performance.getEntriesByType('resource').filter((e) => "
            "!e.name.startsWith('data:')).length"
        )
        == 0
    )


def test_predictions_without_reference_have_slices_and_no_scores(browser, folders):
    page = report.write_predictions_report(
        folders / "out", folders / "predicted.html", images=folders / "raw"
    )
    opened(browser, page)
    text = browser.run("document.body.innerText")
    assert "No reference" in text and "Dice" not in text
    assert CASE in text and f"{CASE}_entropy" not in text
    browser.run("document.querySelector('.spots button').click()")
    assert place(browser)[0] in range(7, 10)
    assert browser.errors == []


def test_a_watched_run_comes_anew_when_it_goes_on(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "ASK_AGAIN_MS", 100)
    run = tmp_path / "run"
    run.mkdir()
    record = {"kind": "train", "step": 1, "loss": 1.0, "lr": 0.1}
    (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    with report.server(run) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            browser.open(f"http://127.0.0.1:{server.server_port}/")
            assert "steps done\n1" in browser.run("document.body.innerText")
            more = json.dumps({**record, "step": 2})
            with (run / "metrics.jsonl").open("a") as file:
                file.write(more + "\n")
            browser.until_loaded()
            assert "steps done\n2" in browser.run("document.body.innerText")
        finally:
            server.shutdown()
            thread.join()
