"""The stream of batches: the same from threads and processes, and never silent."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from bmjax.data import pipeline
from bmjax.data.pipeline import Loader, PatchSource, WorkerError, batches
from bmjax.data.store import Store


@pytest.fixture
def loader(phantom_store):
    return Loader(store=str(phantom_store), patch_size=(16, 16, 16), batch_size=4)


@pytest.fixture
def ids(phantom_store):
    return Store(phantom_store).ids


def drawn(loader, ids, *, num_steps=6, **more):
    stream = batches(loader, ids, seed=3, stream="train", num_steps=num_steps, **more)
    found = list(stream)
    stream.close()
    return found


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for name in ("image", "labels", "case"):
            np.testing.assert_array_equal(a[name], b[name])


def test_a_later_start_gives_the_rest_of_the_same_stream(loader, ids):
    same(drawn(loader, ids)[4:], drawn(loader, ids, start=4))


def test_processes_that_share_a_batch_draw_its_samples(loader, ids):
    whole = drawn(loader, ids)
    parts = [drawn(loader, ids, slots=range(i, i + 2)) for i in (0, 2)]
    joined = [
        {name: np.concatenate([a[name], b[name]]) for name in a}
        for a, b in zip(*parts, strict=True)
    ]
    same(joined, whole)


def test_the_state_says_which_batch_comes_next(loader, ids):
    stream = batches(loader, ids, seed=3, stream="train", num_steps=6, start=2)
    assert stream.state == {"next_batch": 2}
    next(stream)
    assert stream.state == {"next_batch": 3}
    rest = drawn(loader, ids, start=stream.state["next_batch"])
    same([next(stream)], rest[:1])
    stream.close()


def test_what_is_prepared_ahead_is_bounded_by_what_is_said(loader, ids):
    one = drawn(loader, ids, num_steps=1)[0]
    size = one["image"].nbytes + one["labels"].nbytes
    stream = batches(loader, ids, seed=3, stream="train", num_steps=6)
    assert stream.prepared_bytes == (loader.num_ahead + 1) * size
    stream.close()


PROGRAM = """
import json, os, signal, sys
from pathlib import Path
import bmjax
from bmjax.data.pipeline import Loader, batches
from bmjax.data.store import Store

if __name__ == "__main__":
    store, num_workers, folder = sys.argv[1:]
    loader = Loader(
        store=store, patch_size=(16, 16, 16), batch_size=4, num_workers=int(num_workers)
    )
    ids = Store(Path(store)).ids
    stream = batches(loader, ids, seed=3, stream="train", num_steps=200)
    for i in range(6):
        batch = next(stream)
        print(json.dumps([batch["case"].tolist(), float(batch["image"].sum())]))
    sys.stdout.flush()
    if folder != "none":
        import multiprocessing
        victim = multiprocessing.active_children()[0]
        os.kill(victim.pid, signal.SIGKILL)
        for batch in stream:
            pass
    stream.close()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A user's script, since a worker process imports its parent's."""
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM)
    return path


def printed(program, store, num_workers, folder="none"):
    argv = [sys.executable, str(program), str(store), str(num_workers), str(folder)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_one_process_draws_the_batches_that_threads_draw(program, phantom_store):
    threads, process = (printed(program, phantom_store, n) for n in (0, 2))
    assert process.returncode == 0, process.stderr
    assert len(process.stdout.splitlines()) == 6
    for ours, theirs in zip(
        process.stdout.splitlines(), threads.stdout.splitlines(), strict=True
    ):
        assert json.loads(ours) == json.loads(theirs)


def test_fault_50_a_killed_worker_is_an_error_with_its_exit_code(
    program, phantom_store
):
    begin = time.monotonic()
    done = printed(program, phantom_store, 1, "kill")
    assert done.returncode == 1
    assert f"ended with exit code -{int(signal.SIGKILL)} before batch" in done.stderr
    assert "memory runs out" in done.stderr
    assert time.monotonic() - begin < 60  # the start of all processes included


def test_workers_that_bring_nothing_are_waited_for_no_longer_than_said():
    never = threading.Event()

    def stuck():
        never.wait()
        yield {}

    stream = pipeline.Batches(stuck(), start=7, prepared_bytes=0, timeout_s=0.01)
    with pytest.raises(pipeline.WorkerError, match="no batch 7 for 0.01 s"):
        next(stream)
    never.set()


def test_errors_and_the_end_come_through_the_wait(loader, ids):
    two = iter([{"case": np.zeros(1)}, {"case": np.ones(1)}])
    stream = pipeline.Batches(two, start=0, prepared_bytes=0, timeout_s=60)
    assert [batch["case"].item() for batch in stream] == [0, 1]

    def broken():
        raise FileNotFoundError("image.npy")
        yield {}

    stream = pipeline.Batches(broken(), start=0, prepared_bytes=0, timeout_s=60)
    with pytest.raises(FileNotFoundError, match="image.npy"):
        next(stream)


def test_fault_50_a_worker_that_fails_says_what_and_where(loader, ids, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(loader.store, store)
    for case in ids:
        os.unlink(store / "cases" / case / "image.npy")
    broken = Loader(store=str(store), patch_size=(16, 16, 16), batch_size=4)
    stream = batches(broken, ids, seed=3, stream="train", num_steps=2)
    with pytest.raises(FileNotFoundError, match=r"image\.npy"):
        next(stream)
    stream.close()


def test_fault_50_too_little_shared_memory_is_said_before_anything_starts(
    loader, ids, monkeypatch
):
    free = shutil._ntuple_diskusage(1 << 20, 1 << 20, 1 << 10)
    monkeypatch.setattr(pipeline.shutil, "disk_usage", lambda path: free)
    many = Loader(**{**loader.__dict__, "num_workers": 3})
    if not pipeline._SHARED_MEMORY.is_dir():
        pytest.skip("this system has no /dev/shm")
    with pytest.raises(ValueError, match="shm-size"):
        batches(many, ids, seed=3, stream="train", num_steps=2)


WORKER = """
import sys
from bmjax.data.pipeline import PatchSource
from bmjax.data.store import Store
import bmjax
import grain

class Telling(PatchSource):
    def __getitem__(self, index):
        from jax._src import xla_bridge
        heavy = {"flax", "optax", "orbax", "matplotlib", "tyro"}
        names = {n.partition(".")[0] for n, m in sys.modules.items() if m is not None}
        raise LookupError(
            f"loaded {sorted(heavy & names)}, "
            f"backend {xla_bridge.backends_are_initialized()}"
        )

if __name__ == "__main__":
    import bmjax.data.pipeline as pipeline
    pipeline.PatchSource = Telling
    loader = pipeline.Loader(
        store=sys.argv[1], patch_size=(16, 16, 16), batch_size=1, num_workers=1
    )
    ids = Store(sys.argv[1]).ids
    next(pipeline.batches(loader, ids, seed=0, stream="train", num_steps=2))
"""


def test_a_worker_imports_no_network_library_and_starts_no_device(
    phantom_store, tmp_path
):
    program = tmp_path / "program.py"
    program.write_text(WORKER)
    argv = [sys.executable, str(program), str(phantom_store)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "loaded [], backend False" in done.stderr, done.stderr


def test_another_error_of_the_stream_is_passed_on():
    def fail(number):
        raise RuntimeError("something else")

    graph = pipeline.grain.MapDataset.source([1]).map(fail).to_iter_dataset()
    stream = pipeline.Batches(graph, start=0, prepared_bytes=0)
    with pytest.raises(RuntimeError, match="something else") as found:
        next(stream)
    assert not isinstance(found.value, WorkerError)


def test_the_source_needs_what_the_plan_fills(ids):
    with pytest.raises(ValueError, match="data.patch_size"):
        PatchSource(Loader(), ids, seed=0, stream=0, num_steps=1)
