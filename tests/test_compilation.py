import subprocess
import sys
import types

import jax
import pytest

from bmjax import compilation
from bmjax.compilation import cache_folder, use_cache

PROGRAM = """
import sys, time
from pathlib import Path
import jax, jax.numpy as jnp
from bmjax import compilation
compilation.MIN_COMPILE_S = 0.0
compilation.use_cache(Path(sys.argv[1]))
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x))(jnp.ones((7, 7))).block_until_ready()
print(sum("cache_hits" in name for name in hits))
"""


def hits(folder):
    run = [sys.executable, "-c", PROGRAM, str(folder)]
    return int(subprocess.run(run, check=True, capture_output=True).stdout)


@pytest.fixture
def restored_config():
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_a_second_process_compiles_nothing_again(tmp_path):
    assert hits(tmp_path / "cache") == 0
    assert hits(tmp_path / "cache") > 0


def test_the_folder_is_private(tmp_path, restored_config):
    folder = use_cache(tmp_path / "cache")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_to_is_refused(tmp_path, restored_config):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ValueError, match="expected user .* and mode 700"):
        use_cache(shared)


def test_the_folder_can_be_moved_with_the_usual_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().is_relative_to(tmp_path / "bmjax")


def test_memory_is_returned_after_each_compilation(monkeypatch):
    trimmed = []
    libc = types.SimpleNamespace(malloc_trim=trimmed.append)
    monkeypatch.setattr(compilation.ctypes, "CDLL", lambda name: libc)
    listeners = []
    monkeypatch.setattr(
        jax.monitoring,
        "register_event_duration_secs_listener",
        lambda listener: listeners.append(listener),
    )
    compilation.return_memory()
    (listener,) = listeners
    listener("/jax/core/compile/backend_compile_duration", 3.0, fun_name="step")
    assert trimmed == [0]
    listener("/jax/core/compile/backend_compile_duration", 0.1, fun_name="tiny")
    listener("/jax/core/compile/jaxpr_trace_duration", 3.0)
    assert trimmed == [0]


def test_jax_tells_of_each_compilation_by_the_name_that_is_listened_for():
    heard = []

    def hear(event, duration_s, **_):
        heard.append(event)

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        jax.jit(lambda x: x + 0.123)(1.0)
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert compilation._COMPILED in heard
