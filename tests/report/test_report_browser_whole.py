"""The pages that the commands leave, in a real browser: of the demo and of its runs."""

import pytest
from browser import browsing, find_browser, opened, place, turn_first_slider

from bmjax import cli

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_browser() is None,
        reason="no Chromium: apt-get install chromium-headless-shell",
    ),
]


def run_cli(*argv):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(a) for a in argv])
    assert ended.value.code == 0


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What `bmjax demo --quick` leaves, with a page of a run and of predictions."""
    folder = tmp_path_factory.mktemp("demo")
    run_cli("demo", "--quick", "--workdir", folder)
    run = folder / "runs" / "finetuned"
    run_cli("report", run)
    # a folder of predictions alone: label files and the record of their making
    out = folder / "out"
    out.mkdir()
    for path in (run / "validation").iterdir():
        if path.name.endswith(".nii.gz") or path.name == "predict.json":
            (out / path.name).write_bytes(path.read_bytes())
    run_cli("report", out)
    return {
        "demo": folder / "report.html",
        "run": run / "report.html",
        "predictions": out / "report.html",
    }


@pytest.mark.parametrize("name", ["demo", "run", "predictions"])
def test_a_page_turns_its_slices_hides_a_label_and_fits(demo, name):
    with browsing() as browser:
        opened(browser, demo[name])
        before = place(browser)
        turn_first_slider(browser, to=before[0] - 2)
        assert place(browser) == [before[0] - 2, *before[1:]]
        switch = "document.querySelector('[data-hide=label-SNFH]')"
        # a switch is that of its own case
        line = f"{switch}.closest('.case').querySelector('path.label-SNFH')"
        hidden, click = f"getComputedStyle({line}).display", f"{switch}.click()"
        assert browser.run(hidden) != "none"
        browser.run(click)
        assert browser.run(hidden) == "none"
        browser.run(click)
        assert browser.run(hidden) != "none"
        for width in (1280, 390):
            opened(browser, demo[name], width=width)
            assert browser.run("document.documentElement.scrollWidth") <= width
        text = browser.run("document.body.innerText")
        assert ("No reference" in text) == (name == "predictions")
        # predictions find their images by themselves
        assert "--images" not in text
        assert browser.errors == []


@pytest.mark.parametrize("name", ["demo", "run"])
def test_the_link_of_a_lesion_goes_to_it(demo, name):
    with browsing() as browser:
        opened(browser, demo[name])
        before = place(browser)
        turn_first_slider(browser, to=0)
        gone = place(browser)
        browser.run("document.querySelector('.spots button').click()")
        after = place(browser)
        assert gone[0] == 0 and after != gone and before != gone
        said = browser.run("document.querySelector('.place').textContent")
        assert "mm (RAS+)" in said and "reference: " in said
        assert browser.errors == []
