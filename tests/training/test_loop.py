import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax.training import (
    DeviceMemoryError,
    Fit,
    NonFiniteLossError,
    RunLog,
    Stop,
    TrainState,
    fit,
)
from bmjax.training.loop import Progress

SETTINGS = Fit(log_every=2, validate_every=3, checkpoint_every=4, num_val_batches=1)


def state_at(step):
    return TrainState(jnp.asarray(step, jnp.int32), {}, ())


def run(*, start=0, num_steps=8, losses=None, stop=None, progress=None, on_step=None):
    """Run the loop on a state that only counts; returns what it said and saved."""
    records, saved = [], []
    losses = losses or [float(10 - i) for i in range(num_steps)]

    def train_step(state, batch):
        done = int(state.step) + 1
        if on_step:
            on_step(done)
        metrics = {"loss": losses[done - 1], "grad_norm": 1.0}
        return state_at(done), metrics

    batches = (
        {"image": np.zeros(1), "case": np.asarray([i, i])}
        for i in range(start, num_steps)
    )
    final = fit(
        state_at(start),
        batches,
        settings=SETTINGS,
        num_steps=num_steps,
        train_step=train_step,
        validate=lambda state: {
            "loss": 0.5,
            "pseudo_dice": {"WT": int(state.step) / 10},
        },
        learning_rate=lambda count: 0.1,
        put=lambda batch: batch,
        save=lambda state, p: saved.append((int(state.step), p.score, list(p.window))),
        emit=records.append,
        name_cases=lambda cases: f"case {cases[0]}",
        stop=stop or Stop(),
        progress=progress or Progress(),
    )
    return final, records, saved


def test_it_logs_validates_and_saves_when_told():
    final, records, saved = run()
    assert final.step == 8
    steps = {
        kind: [r["step"] for r in records if r["kind"] == kind]
        for kind in ("train", "val")
    }
    assert steps == {"train": [2, 4, 6, 8], "val": [3, 6, 8]}
    assert [step for step, *_ in saved] == [4, 8]


def test_a_record_holds_the_mean_loss_since_the_last():
    _, records, _ = run()
    assert [r["loss"] for r in records if r["kind"] == "train"] == [9.5, 7.5, 5.5, 3.5]


def test_the_score_is_nnunets_running_mean():
    _, _, saved = run()
    assert saved[0][1] == pytest.approx(0.3)
    expected = 0.9 * (0.9 * 0.3 + 0.1 * 0.6) + 0.1 * 0.8
    assert saved[1][1] == pytest.approx(expected)


def test_stopping_between_records_and_going_on_says_the_same():
    _, whole, _ = run()
    stop = Stop()

    def ask(done):
        stop.is_asked = done >= 5

    state, first, saved = run(stop=stop, on_step=ask)
    assert state.step == 5
    _, score, window = saved[-1]
    _, second, _ = run(start=5, progress=Progress(score, window))

    def timeless(records):
        return [{k: v for k, v in r.items() if "_ms" not in k} for r in records]

    assert timeless(first + second) == timeless(whole)


def test_stopping_where_it_was_just_saved_saves_nothing_twice():
    stop = Stop()

    def ask(done):
        stop.is_asked = done >= 4

    state, _, saved = run(stop=stop, on_step=ask)
    assert state.step == 4
    assert [step for step, *_ in saved] == [4]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_cases(value):
    losses = [1.0] * 5 + [value] + [1.0] * 2
    with pytest.raises(NonFiniteLossError, match="at step 6; the batch held case 5"):
        run(losses=losses)


@pytest.mark.parametrize(
    "said",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes",
        "UNKNOWN: Failed to determine best cudnn convolution algorithm",
    ],
)
def test_a_device_without_memory_is_explained(said):
    def fail(done):
        raise jax.errors.JaxRuntimeError(said)

    with pytest.raises(DeviceMemoryError, match="lower --data.batch-size"):
        run(on_step=fail)


def test_another_fault_of_the_device_is_passed_on():
    def fail(done):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run(on_step=fail)


def test_sigterm_asks_to_stop_and_the_old_handler_returns():
    before = signal.getsignal(signal.SIGTERM)
    with Stop().watch() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_asked
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_log_is_cut_back_to_the_step_that_is_gone_on_from(tmp_path):
    with RunLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write({"kind": "train", "step": step, "loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # killed while writing
    with RunLog(tmp_path, start=2) as log:
        log.write({"kind": "train", "step": 3, "loss": 0.25})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    assert json.loads(lines[-1])["loss"] == 0.25
