"""What a folder of predictions keeps when the same or another run comes back."""

import os
import threading
from dataclasses import replace

import pytest
from exams import PLAN, labels_of, network, outcomes, truncate, write_case

from bmjax.inference import SlidingWindow, predict_cases


def test_a_second_run_keeps_what_is_finished_and_tries_the_failed_again(tmp_path):
    cases = [write_case(tmp_path, name) for name in ("A-001", "B-001")]
    good = cases[1].images["t2f"].read_bytes()
    truncate(cases[1].images["t2f"])
    out = tmp_path / "out"
    predict_cases(network(), cases, PLAN, out)
    before = (out / "A-001.nii.gz").stat().st_mtime_ns
    cases[1].images["t2f"].write_bytes(good)
    first, second = predict_cases(network(), cases, PLAN, out)
    assert first.is_kept and first.volumes_ml["WT"] > 0
    assert not second.is_kept and second.error is None
    assert (out / "A-001.nii.gz").stat().st_mtime_ns == before
    assert outcomes(out) == {"A-001": "done", "B-001": "done"}


def test_other_cases_of_the_same_run_stay_on_record(tmp_path):
    cases = [write_case(tmp_path, name) for name in ("A-001", "B-001")]
    out = tmp_path / "out"
    predict_cases(network(), cases[:1], PLAN, out)
    predict_cases(network(), cases[1:], PLAN, out)
    assert outcomes(out) == {"A-001": "done", "B-001": "done"}


@pytest.mark.parametrize("loss", ["truncated", "removed", "new input"])
def test_a_lost_or_outdated_label_file_is_made_again(tmp_path, loss):
    case = write_case(tmp_path, "A-001")
    out = tmp_path / "out"
    (first,) = predict_cases(network(), [case], PLAN, out)
    want = first.path.read_bytes()
    if loss == "truncated":
        truncate(first.path)
    elif loss == "removed":
        first.path.unlink()
    else:
        os.utime(case.images["t1c"], ns=(1, 1))
    (second,) = predict_cases(network(), [case], PLAN, out)
    assert not second.is_kept
    assert second.path.read_bytes() == want


def test_predictions_of_another_network_are_not_mixed_in(tmp_path):
    cases = [write_case(tmp_path, name) for name in ("A-001", "B-001")]
    out = tmp_path / "out"
    predict_cases(network(), cases[:1], PLAN, out)
    with pytest.raises(ValueError, match="made with another model; choose another"):
        predict_cases(network(level=500.0), cases, PLAN, out)
    with pytest.raises(ValueError, match="another plan and settings"):
        predict_cases(
            network(),
            cases,
            replace(PLAN, use_mask_for_norm=True),
            out,
            settings=SlidingWindow(overlap=0.25),
        )
    results = predict_cases(network(level=500.0), cases, PLAN, out, overwrite=True)
    assert not any(r.is_kept for r in results)
    assert not labels_of(results[0].path).any()


def test_another_batch_of_windows_goes_on_where_the_run_stopped(tmp_path):
    case = write_case(tmp_path, "A-001")
    out = tmp_path / "out"
    predict_cases(network(), [case], PLAN, out)
    (result,) = predict_cases(
        network(), [case], PLAN, out, settings=SlidingWindow(batch_size=4)
    )
    assert result.is_kept


def test_files_that_are_not_ours_are_not_overwritten(tmp_path):
    case = write_case(tmp_path, "A-001")
    out = tmp_path / "out"
    out.mkdir()
    (out / "A-001.nii.gz").write_bytes(b"precious")
    with pytest.raises(ValueError, match="not from an earlier run"):
        predict_cases(network(), [case], PLAN, out)
    assert (out / "A-001.nii.gz").read_bytes() == b"precious"


def test_a_case_that_fails_leaves_no_older_prediction_behind(tmp_path):
    case = write_case(tmp_path, "A-001")
    out = tmp_path / "out"
    predict_cases(network(), [case], PLAN, out)
    truncate(case.images["t1c"])
    (result,) = predict_cases(network(), [case], PLAN, out)
    assert result.error is not None
    assert not result.path.exists()


def test_an_interrupted_run_has_recorded_what_is_done_and_what_is_not(tmp_path):
    cases = [write_case(tmp_path, name) for name in ("A-001", "B-001", "C-001")]
    out = tmp_path / "out"

    def interrupt(done, total, name):
        if name == "B-001":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_cases(network(), cases, PLAN, out, progress=interrupt)
    assert outcomes(out) == {"A-001": "done", "B-001": "pending", "C-001": "pending"}
    results = predict_cases(network(), cases, PLAN, out)
    assert [r.is_kept for r in results] == [True, False, False]
    assert threading.active_count() == 1 or not any(
        t.name.startswith("ThreadPool") for t in threading.enumerate()
    )


def test_a_foreign_record_is_refused(tmp_path):
    case = write_case(tmp_path, "A-001")
    out = tmp_path / "out"
    out.mkdir()
    (out / "predict.json").write_text('{"cases": 3}')
    with pytest.raises(ValueError, match="not the record of a prediction run"):
        predict_cases(network(), [case], PLAN, out)
