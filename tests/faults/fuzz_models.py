"""Weight files and bundles: damaged zips, pickles of anything, odd manifests."""

import hashlib
import io
import json
import math
import pickle
import stat
import struct
import warnings
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import strategies as st

from bmjax import models
from bmjax.bundle import write_bundle
from bmjax.ensemble import read_ensemble
from bmjax.experiment import Experiment
from bmjax.planning import Plan
from bmjax.weights import read_weights, write_weights
from tests.faults.fuzz import changed, damaged, outcome
from tests.faults.fuzz_tables import OURS

_ARRAYS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a.bias": np.arange(3, dtype=np.float16),
    "num": np.asarray(7),
}
_FORMATS = (".pth", ".pt", ".safetensors", ".npz")


def _written(suffix: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"w{suffix}"
        beside = {"epoch": 3, "lr": 0.5, "plans": {"a": (1, None, True, "b")}}
        write_weights(path, _ARRAYS, metadata=beside if suffix == ".pth" else None)
        return path.read_bytes()


WEIGHTS = {suffix: _written(suffix) for suffix in _FORMATS}


@st.composite
def _opcodes(draw: st.DrawFn) -> bytes:
    """A pickle of opcodes in any order, with sound and unsound arguments."""
    number = st.one_of(st.integers(0, 5), st.integers(0, 255)).map(lambda n: bytes([n]))
    word = st.sampled_from(
        [
            *(b"torch._utils\n_rebuild_tensor_v2\n", b"torch\nFloatStorage\n"),
            *(b"collections\nOrderedDict\n", b"numpy\ndtype\n", b"os\nsystem\n"),
            *(b"numpy.core.multiarray\nscalar\n", b"_codecs\nencode\n"),
            *(b"numpy._core.multiarray\n_reconstruct\n", b"builtins\ngetattr\n"),
        ]
    )
    text = st.sampled_from(
        [b"storage", b"0", b"cpu", b"f4", b"<U9", b"latin1", b"\xff"]
    )
    part = st.one_of(
        st.sampled_from(
            [*b"(.012NaebdsutRQ}])olq\x81\x85\x86\x87\x88\x89\x8f\x90\x94"]
        ).map(lambda code: bytes([code])),
        number.map(lambda n: b"K" + n),
        number.map(lambda n: b"h" + n),
        number.map(lambda n: b"q" + n),
        word.map(lambda w: b"c" + w),
        text.map(lambda t: b"X" + struct.pack("<I", len(t)) + t),
        st.binary(max_size=4).map(lambda t: b"C" + bytes([len(t)]) + t),
        st.sampled_from(
            [
                *(b"I99\n", b"F1e400\n", b"L" + b"9" * 5000 + b"L\n", b"S'x'\n"),
                *(b"X\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8, b"\x8b\xff\xff\xff\x7f"),
                *(b"J\xff\xff\xff\x7f", b"G\x7f\xf0" + bytes(6), b"\x82\x01", b"P1\n"),
            ]
        ),
    )
    return b"\x80\x02" + b"".join(draw(st.lists(part, max_size=30))) + b"."


def _zipped(members: list[tuple[str, bytes]], *, packed: bool = False) -> bytes:
    stream = io.BytesIO()
    way = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", way) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


@st.composite
def weight_files(draw: st.DrawFn) -> dict[str, Any]:
    """Bytes under one of the suffixes that are read."""
    suffix = draw(st.sampled_from(_FORMATS))
    way = draw(st.integers(0, 4))
    if way == 0:
        content = WEIGHTS[draw(st.sampled_from(_FORMATS))]
    elif way == 1 or suffix not in (".pth", ".pt"):
        content = WEIGHTS[suffix]
        if suffix == ".safetensors" and draw(st.booleans()):
            content = _with_header(draw, content)
    else:
        whole = WEIGHTS[".pth"]
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            members = [(n, archive.read(n)) for n in archive.namelist()]
        name, pickled = members[0]
        if way == 2:
            pickled = draw(_opcodes())
        elif way == 3:
            pickled = draw(damaged(pickled))
        else:
            pickled = pickle.dumps(draw(changed({"a": [1.5, {"b": [1, 2]}]})), 2)
        content = _zipped([(name, pickled), *members[1:]], packed=draw(_seldom()))
    if draw(st.booleans()):
        content = draw(damaged(content))
    return {"name": f"weights{suffix}", "bytes": content}


def _seldom() -> st.SearchStrategy[bool]:
    return st.integers(0, 9).map(lambda n: n == 0)


def _with_header(draw: st.DrawFn, content: bytes) -> bytes:
    """A safetensors file whose header says something else."""
    (size,) = struct.unpack("<Q", content[:8])
    header = json.dumps(draw(changed(json.loads(content[8 : 8 + size])))).encode()
    said = draw(st.sampled_from([len(header), 0, 2**40, 2**63]))
    return struct.pack("<Q", said) + header + content[8 + size :]


def check_weights(content: dict[str, Any], folder: Path) -> bool:
    """Plain arrays that take no more room than the file."""
    path = folder / content["name"]
    path.write_bytes(content["bytes"])
    found = outcome(read_weights, path)
    assert [file.name for file in folder.iterdir()] == [path.name]
    if found is None:
        return False
    for name, array in found.tensors.items():
        assert type(name) is str and array.dtype.kind in "?iufcV"
        if path.suffix != ".npz":  # which packs
            assert array.nbytes <= len(content["bytes"])
    return True


def _members() -> dict[str, bytes]:
    """Of a bundle of one small network."""
    plan = Plan.from_dict(OURS)
    experiment = Experiment(model=models.PlainUNet(features=(4, 8))).resolve(plan)
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 3, 4, 4)).astype(np.float32)
    folds = {0: {"params": {"encoder": {"kernel": kernel}}}}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.bmjax"
        write_bundle(
            path,
            experiment=experiment.to_json(),
            plan=plan,
            folds=folds,
            steps={0: 4},
            card="A network.",
        )
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


MEMBERS = _members()
_NAMES = st.sampled_from(
    [
        *(
            "../out.txt",
            "/tmp/out.txt",
            "a/b",
            "fold_1.safetensors",
            "fold_x",
            "plan.json",
        ),
        *("C:\\x", "..\\x", "fold_0.safetensors/", "README.md\0", "é", "manifest.json"),
    ]
)


@st.composite
def bundles(draw: st.DrawFn) -> bytes:
    """An archive with changed members, most often with hashes that fit them."""
    members = dict(MEMBERS)
    manifest = json.loads(members.pop("manifest.json"))
    for name in draw(st.lists(st.sampled_from([*members]), max_size=2, unique=True)):
        if name.endswith(".json") and draw(st.booleans()):
            members[name] = json.dumps(
                draw(changed(json.loads(members[name])))
            ).encode()
        elif name.endswith(".safetensors") and draw(st.booleans()):
            members[name] = _with_header(draw, members[name])
        else:
            members[name] = draw(damaged(members[name]))
    if draw(_seldom()):
        members.pop(draw(st.sampled_from([*members])))
    if draw(_seldom()):
        members[draw(_NAMES)] = draw(st.binary(max_size=9))
    hashes = {name: hashlib.sha256(c).hexdigest() for name, c in members.items()}
    manifest["sha256"] = hashes
    if draw(st.booleans()):
        manifest = draw(changed(manifest))
    listed = [*members.items(), ("manifest.json", json.dumps(manifest).encode())]
    if draw(_seldom()):
        listed.append(draw(st.sampled_from(listed)))
    stream = io.BytesIO()
    packed = zipfile.ZIP_DEFLATED if draw(_seldom()) else zipfile.ZIP_STORED
    link = draw(_seldom())
    with zipfile.ZipFile(stream, "w", packed) as archive:
        for name, content in listed:
            info = zipfile.ZipInfo(name)
            info.compress_type = packed
            if link and name == listed[0][0]:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            with warnings.catch_warnings(action="ignore"):  # two of one name
                archive.writestr(info, content)
    content = stream.getvalue()
    return draw(damaged(content)) if draw(_seldom()) else content


def check_bundle(content: bytes, folder: Path) -> bool:
    """What a bundle may hold, or nothing; and nothing is ever unpacked."""
    home = folder / "in"
    home.mkdir()
    path = home / "model.bmjax"
    path.write_bytes(content)
    found = outcome(read_ensemble, path)
    assert [file.name for file in home.iterdir()] == [path.name]
    assert [file.name for file in folder.iterdir()] == ["in"]
    if found is None:
        return False
    assert isinstance(found.experiment, Experiment) and isinstance(found.plan, Plan)
    assert all(type(n) is int and math.isfinite(found.steps[n]) for n in found.folds)
    return True
