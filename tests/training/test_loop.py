import dataclasses
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
    Learner,
    NonFiniteLossError,
    Optimizer,
    Progress,
    RunLog,
    Stop,
    TrainState,
    fit,
)

SETTINGS = Fit(log_every=2, validate_every=3, checkpoint_every=4, num_val_batches=1)


COST = ("step_ms", "wait_ms", "images_per_s", "host_mib")


def state_at(step):
    return TrainState(jnp.asarray(step, jnp.int32), {}, (), jnp.ones(()))


def timeless(records):
    return [{k: v for k, v in r.items() if k not in COST} for r in records]


def rising(state):
    return {"loss": 0.5, "pseudo_dice": {"WT": int(state.step) / 10}}


def run(
    *,
    start=0,
    num_steps=8,
    losses=None,
    stop=None,
    progress=None,
    on_step=None,
    settings=SETTINGS,
    optimizer=None,
    validate=rising,
):
    """Run the loop on a state that only counts; returns what it said and saved."""
    records, saved = [], []
    losses = losses or [float(10 - i) for i in range(num_steps)]

    def train_step(state, batch):
        done = int(state.step) + 1
        if on_step:
            on_step(done)
        metrics = {"loss": losses[done - 1], "grad_norm": 1.0}
        return dataclasses.replace(state, step=jnp.asarray(done, jnp.int32)), metrics

    batches = (
        {"image": np.zeros(1), "case": np.asarray([i, i])}
        for i in range(start, num_steps)
    )
    learner = Learner(
        start=start,
        batches=batches,
        batch_size=2,
        put=lambda batch: batch,
        settings=settings,
        optimizer=optimizer or Optimizer(num_steps=num_steps, schedule="constant"),
        validate=validate,
        save=lambda state, p: saved.append((int(state.step), p.score, list(p.window))),
        emit=records.append,
        report_failure=lambda _, batch: f"the batch held case {batch['case'][0]}",
        progress=progress or Progress(),
    )
    begin = state_at(start)
    (final,) = fit(begin, [learner], train_step=train_step, stop=stop or Stop())
    return final, records, saved


def test_it_logs_validates_and_saves_when_told():
    final, records, saved = run()
    assert final.step == 8
    steps = {
        kind: [r["step"] for r in records if r["kind"] == kind]
        for kind in ("train", "val")
    }
    assert steps == {"train": [2, 4, 6, 8], "val": [3, 6, 8]}
    # a new best is saved at once
    assert [step for step, *_ in saved] == [3, 4, 6, 8]


def test_a_record_holds_the_mean_loss_since_the_last():
    _, records, _ = run()
    assert [r["loss"] for r in records if r["kind"] == "train"] == [9.5, 7.5, 5.5, 3.5]


def test_the_score_is_nnunets_running_mean():
    _, _, saved = run()
    assert saved[0][1] == pytest.approx(0.3)
    expected = 0.9 * (0.9 * 0.3 + 0.1 * 0.6) + 0.1 * 0.8
    assert saved[-1][1] == pytest.approx(expected)


def test_stopping_between_records_and_going_on_says_the_same():
    _, whole, _ = run()
    stop = Stop()

    def ask(done):
        stop.is_asked = done >= 5

    state, first, saved = run(stop=stop, on_step=ask)
    assert state.step == 5
    _, score, window = saved[-1]
    gone_on = Progress(score, window, best_score=score)
    _, second, _ = run(start=5, progress=gone_on)

    assert timeless(first + second) == timeless(whole)


def test_stopping_where_it_was_just_saved_saves_nothing_twice():
    stop = Stop()

    def ask(done):
        stop.is_asked = done >= 4

    state, _, saved = run(stop=stop, on_step=ask)
    assert state.step == 4
    assert [step for step, *_ in saved] == [3, 4]


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_asks_to_stop_and_the_old_handler_returns(number):
    before = signal.getsignal(number)
    with Stop().watch() as stop:
        os.kill(os.getpid(), number)
        assert stop.is_asked
    assert signal.getsignal(number) == before


EVERY = Fit(log_every=1, validate_every=1, checkpoint_every=100)


def looks(*values, loss=0.5):
    """A validation that says these pseudo-Dice values in turn."""
    left = iter(values)
    return lambda state: {"loss": loss, "pseudo_dice": {"WT": next(left)}}


def test_every_training_record_says_what_it_cost():
    _, records, _ = run()
    for record in records:
        if record["kind"] == "train":
            assert all(record[name] > 0 for name in ("step_ms", "images_per_s"))
            assert record["host_mib"] > 10
            assert 0 <= record["wait_ms"] <= record["step_ms"]


def test_a_plateau_lowers_all_rates_by_its_factor_but_not_below_the_floor():
    optimizer = Optimizer(
        num_steps=7,
        schedule="constant",
        peak_lr=1.0,
        plateau_patience=2,
        plateau_factor=0.1,
        plateau_min_lr=0.05,
    )
    settings = dataclasses.replace(EVERY, score_decay=0.0)
    state, records, _ = run(
        num_steps=7,
        losses=[1.0] * 7,
        settings=settings,
        optimizer=optimizer,
        validate=looks(0.5, 0.4, 0.4, 0.4, 0.4, 0.6, 0.6),
    )
    rates = [r["lr"] for r in records if r["kind"] == "train"]
    np.testing.assert_allclose(rates, [1, 1, 1, 0.1, 0.1, 0.05, 0.05], rtol=1e-6)
    assert float(state.lr_factor) == pytest.approx(0.05)


def test_a_run_ends_early_when_nothing_gets_better_and_stays_ended():
    settings = dataclasses.replace(EVERY, score_decay=0.0, stop_patience=2)
    progress = Progress()
    values = looks(0.5, 0.6, 0.6, 0.6, 0.9)
    state, _, saved = run(settings=settings, validate=values, progress=progress)
    assert state.step == 4
    assert progress.stopping.is_out(2)
    assert saved[-1][0] == 4
    again, records, _ = run(start=4, settings=settings, progress=progress)
    assert again.step == 4
    assert records == []
    patient = dataclasses.replace(settings, stop_patience=20)
    assert run(start=4, settings=patient, progress=progress)[0].step == 8


def test_the_loss_can_be_what_is_waited_for():
    settings = dataclasses.replace(EVERY, stop_patience=1, monitor="loss")
    state, _, _ = run(settings=settings, validate=looks(0.1, 0.2, 0.3, 0.4))
    assert state.step == 2  # the Dice rises, the loss does not fall


class Listed:
    """A seating whose state of all is a list."""

    def join(self, batches):
        return list(batches)

    def part(self, state, index):
        return state[index]

    def with_part(self, state, index, one):
        return [one if i == index else other for i, other in enumerate(state)]


def learner_of(start, num_steps, records, saved, validate):
    return Learner(
        start=start,
        batches=({"image": np.full(1, i), "case": i} for i in range(start, num_steps)),
        batch_size=2,
        put=lambda batch: batch,
        settings=SETTINGS,
        optimizer=Optimizer(num_steps=8, schedule="constant", plateau_patience=1),
        save=lambda state, _: saved.append((int(state.step), float(state.lr_factor))),
        emit=records.append,
        report_failure=lambda _, batch: f"the batch held case {batch['case']}",
        progress=Progress(),
        validate=validate,
    )


def fit_listed(
    starts, *, loss=lambda index, done: 10.0 - done, stop=None, validates=None
):
    """Several learners side by side, on states that only count."""
    records, saved = [[] for _ in starts], [[] for _ in starts]

    def train_step(states, batches):
        after = []
        for state, batch in zip(states, batches, strict=True):
            assert batch["image"].shape == (1,)
            done = jnp.asarray(int(state.step) + 1, jnp.int32)
            after.append(dataclasses.replace(state, step=done))
        values = [loss(i, int(state.step)) for i, state in enumerate(after)]
        return after, {"loss": np.array(values), "grad_norm": np.ones(len(values))}

    learners = [
        learner_of(start, 8, told, kept, validate)
        for start, told, kept, validate in zip(
            starts, records, saved, validates or [rising] * len(starts), strict=True
        )
    ]
    states = [state_at(start) for start in starts]
    error = None
    try:
        fit(
            states,
            learners,
            train_step=train_step,
            stop=stop or Stop(),
            seating=Listed(),
        )
    except NonFiniteLossError as raised:
        error = raised
    return records, saved, error


def test_learners_side_by_side_say_and_save_what_each_does_alone():
    together = fit_listed([0, 5, 8])
    for index, start in enumerate((0, 5, 8)):
        (records,), (saved,), _ = fit_listed([start])
        assert timeless(together[0][index]) == timeless(records)
        assert together[1][index] == saved
    # the one that was over from the start says nothing
    assert (together[0][2], together[1][2]) == ([], [])


def test_a_plateau_of_one_learner_does_not_touch_the_others():
    def flat(state):
        return {"loss": 0.5, "pseudo_dice": {"WT": 0.5}}

    _, saved, _ = fit_listed([0, 0], validates=[rising, flat])
    assert {rate for _, rate in saved[0]} == {1.0}
    # the looks at 3, 6 and 8: twice no better
    assert saved[1] == [(3, 1.0), (4, 1.0), (8, pytest.approx(1e-2))]


def test_a_failing_learner_lets_the_others_come_to_their_end():
    def loss(index, done):
        return float("nan") if (index, done) == (1, 5) else 10.0 - done

    records, saved, error = fit_listed([0, 0], loss=loss)
    assert "at step 5; the batch held case 4" in str(error)
    assert [r["step"] for r in records[0] if r["kind"] == "train"] == [2, 4, 6, 8]
    assert saved[0][-1][0] == 8
    assert [r["step"] for r in records[1] if r["kind"] == "train"] == [2, 4]
    assert saved[1][-1][0] == 4


def test_all_learners_are_saved_where_they_are_asked_to_stop():
    stop = Stop()

    def loss(index, done):
        stop.is_asked = index == 0 and done == 5 or stop.is_asked
        return 1.0

    _, saved, _ = fit_listed([0, 2], loss=loss, stop=stop)
    assert [kept[-1][0] for kept in saved] == [5, 7]


def test_progress_survives_json():
    progress = Progress(score=0.25, window=[1.0], lr_factor=0.1, best_score=0.5)
    progress.plateau.look(0.5)
    progress.stopping.look(0.25)
    text = json.dumps(dataclasses.asdict(progress))
    assert Progress.from_dict(json.loads(text)) == progress


def test_a_run_counted_in_epochs_says_the_epoch():
    optimizer = Optimizer(num_epochs=4, epoch_steps=2, schedule="constant")
    _, records, _ = run(optimizer=optimizer, settings=EVERY)
    assert [r["epoch"] for r in records if r["kind"] == "val"][-1] == 4


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
