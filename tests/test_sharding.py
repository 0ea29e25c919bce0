"""Which devices share a batch, and how a CPU becomes two of them."""

import os
import subprocess
import sys

import jax
import pytest

from bmjax import sharding

COUNT = "from bmjax import sharding; sharding.split_cpu(); print(len(jax.devices()))"


def num_devices(before="import jax", **environment):
    """Devices of a fresh process that splits its CPU."""
    clean = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    code = f"{before}; {COUNT}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_a_cpu_becomes_two_devices():
    assert num_devices() == 2


def test_a_number_chosen_before_is_kept():
    flag = "--xla_force_host_platform_device_count=3"
    assert num_devices(XLA_FLAGS=flag) == 3
    chosen = "import jax; jax.config.update('jax_num_cpu_devices', 4)"
    assert num_devices(chosen) == 4


def test_once_jax_has_started_its_devices_stay():
    assert num_devices("import jax; jax.devices()") == 1


@pytest.mark.parametrize("batch_size, expected", [(8, 8), (6, 2), (3, 1), (16, 8)])
def test_as_many_parts_of_a_cpu_as_divide_the_batch(batch_size, expected):
    assert len(sharding.devices_for(batch_size, None)) == expected


def test_a_number_asked_for_is_taken_or_refused():
    assert sharding.devices_for(2, 3) == jax.devices()[:3]
    for wrong in (0, 9):
        with pytest.raises(ValueError, match=f"{wrong} devices asked for, .* found 8"):
            sharding.devices_for(8, wrong)
