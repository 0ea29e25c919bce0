"""One process alone, and what several must be told."""

import jax
import pytest

from bmjax import processes, sharding


@pytest.mark.parametrize(
    "told",
    [
        {"coordinator": "host:1"},
        {"coordinator": "host:1", "num_processes": 2},
        {"coordinator": "auto", "process_id": 0},
    ],
)
def test_too_little_or_too_much_is_refused_before_anything_starts(told):
    with pytest.raises(ValueError, match="--coordinator HOST:PORT needs"):
        processes.join(**told)


def test_a_process_alone_speaks_and_decides_for_itself():
    assert processes.is_first()
    assert processes.is_any(True)
    assert not processes.is_any(False)
    assert processes.all_values(3) == [3]
    processes.leave()


def test_a_failure_of_one_process_alone_is_not_blamed_on_another():
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"),
        processes.loss_explained(),
    ):
        raise jax.errors.JaxRuntimeError("INTERNAL: something")


def test_among_several_it_is_explained(monkeypatch):
    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    with (
        pytest.raises(processes.PeerLostError, match="process 0 of 2 lost another"),
        processes.loss_explained(),
    ):
        raise jax.errors.JaxRuntimeError("UNKNOWN: Connection closed by peer")


def test_each_process_takes_its_consecutive_share_of_a_batch(monkeypatch):
    assert sharding.local_slots(8) == range(8)
    monkeypatch.setattr(sharding.jax, "process_count", lambda: 4)
    monkeypatch.setattr(sharding.jax, "process_index", lambda: 2)
    assert sharding.local_slots(8) == range(4, 6)


def test_a_batch_that_does_not_divide_over_the_processes_is_refused(monkeypatch):
    monkeypatch.setattr(sharding.jax, "process_count", lambda: 3)
    with pytest.raises(ValueError, match="does not divide over 3 processes"):
        sharding.devices_for(4, None)
