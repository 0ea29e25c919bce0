"""Weight files: what is read, and that nothing in them is ever run."""

import collections
import io
import os
import pickle
import pickletools
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.opcodes import Inert, read_pickle
from bmjax.weights import read_weights, write_weights

STATE = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a.bias": np.asarray([1.5, -2.5]),
    "count": np.asarray(7),
    "half": np.asarray([1, 2], np.float16),
    "brain": np.asarray(jnp.asarray([0.5, 3], jnp.bfloat16)),
    "bytes": np.asarray([1, 255], np.uint8),
    "is_on": np.asarray([True, False]),
    "none": np.zeros((0, 3), np.float32),
}


def same(a, b):
    return list(a) == list(b) and all(
        (x.shape, x.dtype, x.tobytes()) == (b[k].shape, b[k].dtype, b[k].tobytes())
        for k, x in a.items()
    )


def zip_of(path, description, storages=(), compression=zipfile.ZIP_STORED, extra=()):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", description)
        for place, data in enumerate(storages):
            archive.writestr(f"archive/data/{place}", data)
        for name, data in extra:
            archive.writestr(name, data)
    return path


class _Global:
    """Pickles as a global name or a call of one, without having it here."""

    def __init__(self, name, *args):
        self.name, self.args = name, args


class _TorchPickler(pickle._Pickler):
    """Writes torch's protocol: globals by name, storages by persistent id."""

    def persistent_id(self, obj):
        return obj.args if isinstance(obj, _Global) and obj.name == "pid" else None

    def save(self, obj, save_persistent_id=True):
        if not isinstance(obj, _Global) or obj.name == "pid":
            return super().save(obj, save_persistent_id)
        module, _, attribute = obj.name.rpartition(".")
        self.write(f"c{module}\n{attribute}\n".encode())
        if obj.args:
            super().save(obj.args[0])
            self.write(b"R")
        return None


def described(value):
    stream = io.BytesIO()
    _TorchPickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def tensor(key, num, shape, strides, *, offset=0, kind="FloatStorage"):
    pid = _Global("pid", "storage", _Global(f"torch.{kind}"), key, "cuda:0", num)
    args = (pid, offset, shape, strides, False, collections.OrderedDict())
    return _Global("torch._utils._rebuild_tensor_v2", args)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".pt"])
def test_tensors_come_back_bit_for_bit(tmp_path, suffix):
    state = {k: v for k, v in STATE.items() if suffix != ".npz" or k != "brain"}
    write_weights(tmp_path / f"w{suffix}", state)
    found = read_weights(tmp_path / f"w{suffix}")
    assert same({k: found.tensors[k] for k in state}, state)
    assert os.listdir(tmp_path) == [f"w{suffix}"]


def test_names_of_one_array_share_its_bytes_in_the_file(tmp_path):
    array = np.zeros(100_000, np.float32)
    write_weights(tmp_path / "w.pth", {"a": array, "b": array, "c": array})
    assert (tmp_path / "w.pth").stat().st_size < 500_000
    assert list(read_weights(tmp_path / "w.pth").tensors) == ["a", "b", "c"]


def test_a_checkpoint_of_nnunet_gives_its_network_and_its_metadata(tmp_path):
    values = np.arange(6, dtype=np.float32)
    state = collections.OrderedDict(w=tensor("0", 6, (2, 3), (3, 1)))
    checkpoint = {
        "network_weights": state,
        "optimizer_state": {"state": {0: {"m": tensor("0", 6, (6,), (1,))}}},
        "_best_ema": np.float64(0.75),
        "logging": {"losses": [np.float32(0.5), 1.0], "table": np.eye(2)},
        "init_args": {"plans": {"patch": (1, 2), "n": 3}, "fold": 0},
        "device": _Global("torch.device", ("cuda", 0)),
        "trainer_name": "nnUNetTrainer",
        "axes": {1, 2},
    }
    path = zip_of(tmp_path / "c.pth", described(checkpoint), [values.tobytes()])
    found = read_weights(path)
    assert same(found.tensors, {"w": values.reshape(2, 3)})
    assert found.metadata["_best_ema"] == 0.75
    assert found.metadata["logging"]["losses"] == [0.5, 1.0]
    np.testing.assert_array_equal(found.metadata["logging"]["table"], np.eye(2))
    assert found.metadata["init_args"]["plans"]["patch"] == (1, 2)
    device = found.metadata["device"]
    assert isinstance(device, Inert) and device.name == "torch.device"
    assert device.args == ("cuda", 0)


def test_metadata_makes_a_checkpoint(tmp_path):
    beside = {
        "trainer_name": "x",
        "axes": (0, -1, 2**40),
        "lr": 0.5,
        "on": [True, None],
    }
    write_weights(tmp_path / "w.pth", STATE, metadata=beside)
    found = read_weights(tmp_path / "w.pth")
    assert same(found.tensors, STATE) and found.metadata == beside


def test_views_of_a_storage_are_read_by_their_strides(tmp_path):
    values = np.arange(12, dtype=np.float32)
    state = {
        "transposed": tensor("0", 12, (4, 3), (1, 4)),
        "part": tensor("0", 12, (2, 2), (4, 1), offset=5),
    }
    path = zip_of(tmp_path / "v.pth", described(state), [values.tobytes()])
    found = read_weights(path).tensors
    np.testing.assert_array_equal(found["transposed"], values.reshape(3, 4).T)
    np.testing.assert_array_equal(found["part"], [[5, 6], [9, 10]])


class _Reduced:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def _built(canary):
    """A global made by NEWOBJ, then filled by BUILD, of a class with a setter."""
    text = f"touch {canary}".encode()
    made = b"csubprocess\nPopen\n(X" + struct.pack("<I", len(text)) + text
    return b"\x80\x02}(X\x01\x00\x00\x00w" + made + b"t\x81}(U\x04argsK\x01ubu."


def _instanced(canary):
    return f"(S'touch {canary}'\nios\nsystem\n.".encode()


def _chained(canary):
    """getattr(__import__('os'), 'system')(...)"""
    return (
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR"
        + f"(S'touch {canary}'\ntR.".encode()
    )


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("payload", ["reduce", "build", "instance", "chain"])
def test_a_malicious_pickle_is_never_run(tmp_path, payload, protocol):
    canary = tmp_path / "canary"
    description = {
        "reduce": lambda: pickle.dumps({"w": _Reduced(canary)}, protocol),
        "build": lambda: _built(canary),
        "instance": lambda: _instanced(canary),
        "chain": lambda: _chained(canary),
    }[payload]()
    path = zip_of(tmp_path / "evil.pth", description)
    with pytest.raises(ValueError, match="holds"):
        read_weights(path)
    assert not canary.exists()


def test_the_canary_would_sing_under_pickle(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(_Reduced(canary)))
    assert canary.exists()


def test_objects_beside_the_tensors_stay_inert(tmp_path):
    canary = tmp_path / "canary"
    inner = pickle.dumps(_Reduced(canary), 2)
    found = read_pickle(inner, builders={}, resolve=lambda key: key)
    assert found.name.endswith(".system") and found.args == (f"touch {canary}",)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((2, 3), (4, 1), 0),
        ((6,), (1,), 1),
        ((1000, 1000), (0, 0), 0),
        ((6,), (-1,), 5),
        ((6,), (1, 1), 0),
        ((2.0,), (1,), 0),
    ],
)
def test_a_tensor_outside_of_its_storage_is_refused(tmp_path, shape, strides, offset):
    state = {"w": tensor("0", 6, shape, strides, offset=offset)}
    path = zip_of(tmp_path / "w.pth", described(state), [bytes(24)])
    with pytest.raises(ValueError, match=r"w\.pth: damaged pickle"):
        read_weights(path)


@pytest.mark.parametrize("size", [0, 20, 28])
def test_a_storage_of_another_size_is_refused(tmp_path, size):
    state = {"w": tensor("0", 6, (6,), (1,))}
    path = zip_of(tmp_path / "w.pth", described(state), [bytes(size)])
    with pytest.raises(ValueError, match="storage 0 has not the 6 values"):
        read_weights(path)


@pytest.mark.parametrize("key", ["../../data.pkl", "1", "/etc/hostname"])
def test_a_storage_is_a_member_of_the_zip_or_nothing(tmp_path, key):
    state = {"w": tensor(key, 6, (6,), (1,))}
    path = zip_of(tmp_path / "w.pth", described(state), [bytes(24)])
    with pytest.raises(ValueError, match="has not the 6 values"):
        read_weights(path)


def test_views_of_one_storage_cannot_take_memory_without_end(tmp_path):
    state = {f"w{i}": tensor("0", 10_000, (100, 100), (1, 100)) for i in range(100)}
    path = zip_of(tmp_path / "w.pth", described(state), [bytes(40_000)])
    with pytest.raises(ValueError, match=r"w\.pth: .* 4000000 bytes, since many share"):
        read_weights(path)


def test_compressed_members_are_refused(tmp_path):
    path = zip_of(
        tmp_path / "bomb.pth", described({}), [bytes(10**6)], zipfile.ZIP_DEFLATED
    )
    with pytest.raises(ValueError, match="compressed or repeated"):
        read_weights(path)


def test_big_endian_files_are_refused(tmp_path):
    extra = [("archive/byteorder", "big")]
    path = zip_of(tmp_path / "w.pth", described({}), extra=extra)
    with pytest.raises(ValueError, match="big-endian"):
        read_weights(path)


def test_torchscript_is_refused(tmp_path):
    extra = [("archive/constants.pkl", b"")]
    path = zip_of(tmp_path / "w.pth", described({}), extra=extra)
    with pytest.raises(ValueError, match="TorchScript"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_a_file_of_something_else_is_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"not weights at all, but text")
    with pytest.raises(ValueError, match=f"w{suffix}: is no"):
        read_weights(path)


def test_npz_with_objects_is_refused(tmp_path):
    canary = tmp_path / "canary"
    objects = np.empty(1, object)
    objects[0] = _Reduced(canary)
    np.savez(tmp_path / "w.npz", w=objects)
    with pytest.raises(ValueError, match="arrays of objects are never read"):
        read_weights(tmp_path / "w.npz")
    assert not canary.exists()


def test_other_suffixes_and_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="weight files end in"):
        read_weights(tmp_path / "w.pkl")
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        read_weights(tmp_path / "w.pth")


def test_what_torch_has_no_words_for_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="cannot be given a object"):
        write_weights(tmp_path / "w.pth", {}, metadata={"x": object()})
    with pytest.raises(ValueError, match="no tensors of type complex64"):
        write_weights(tmp_path / "w.pth", {"w": np.zeros(2, np.complex64)})
    with pytest.raises(ValueError, match="cannot hold metadata"):
        write_weights(tmp_path / "w.npz", {}, metadata={})
    assert not os.listdir(tmp_path)


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(value=_plain, protocol=st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    data = pickle.dumps(value, protocol)
    assert read_pickle(data, builders={}, resolve=lambda key: key) == value


@given(data=st.binary(max_size=60), start=st.integers(0, 40))
@settings(deadline=None, max_examples=100)
def test_any_bytes_give_a_value_or_a_value_error(data, start):
    whole = pickle.dumps({"a": [1, (2.0, "x")], "b": b"123"}, 2)
    for attempt in (data, whole[:start] + data):
        try:
            read_pickle(attempt, builders={}, resolve=lambda key: key)
        except ValueError:
            pass


def test_deep_nesting_does_not_overflow_the_stack():
    nested = b"\x80\x02" + b")" + b"\x85" * 200_000
    for end in (b".", b"}(" + b"h\x00" + b"K\x01u."):
        try:
            read_pickle(nested + end, builders={}, resolve=lambda key: key)
        except ValueError:
            pass


def test_every_opcode_is_known_or_refused():
    assert {op.name for op in pickletools.opcodes} >= {"REDUCE", "BUILD", "INST"}
    with pytest.raises(ValueError, match="EXT1 is not used by torch"):
        read_pickle(b"\x80\x02\x82\x01.", builders={}, resolve=lambda key: key)
