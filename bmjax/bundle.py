"""One verified archive of a trained model: weights of all folds, plan, card, hashes.

MODEL.bmjax is a zip whose members are stored as they are:

    manifest.json         format, versions, steps, and the SHA-256 of every other member
    experiment.json       what was trained; names classes, holds no code
    plan.json             how images are prepared
    labels.csv            value, name and regions of each label
    README.md             the model card
    fold_0.safetensors    parameters and model statistics by path, of each fold

Nothing is ever unpacked to disk, and a member with another name is refused.
"""

import csv
import hashlib
import io
import json
import os
import platform
import re
import stat
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from bmjax import __version__
from bmjax.planning.plan import Plan
from bmjax.surgery.paths import flatten, unflatten

FORMAT = 1
SUFFIX = ".bmjax"
_MANIFEST = "manifest.json"
_TEXTS = ("experiment.json", "plan.json", "labels.csv", "README.md")
_FOLD = re.compile(r"fold_(0|[1-9][0-9]{0,2})\.safetensors")
_DAMAGED = (
    *(zipfile.BadZipFile, EOFError, struct.error, NotImplementedError),
    UnicodeDecodeError,  # of a member's name
)
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same content gives the same bytes
_PACKAGES = ("jax", "jaxlib", "flax", "numpy")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What an archive holds.

    Attributes:
      experiment: JSON text of the experiment.
      plan: how images are prepared.
      folds: parameters and model statistics by number of the fold, numpy.
      steps: the checkpoint of each fold.
      card: the model card, Markdown.
      versions: of bmjax, Python and the packages that it was made with.
      digests: SHA-256 of each member.
    """

    experiment: str
    plan: Plan
    folds: dict[int, dict[str, Any]]
    steps: dict[int, int]
    card: str
    versions: dict[str, str]
    digests: dict[str, str]


def write_bundle(
    path: Path,
    *,
    experiment: str,
    plan: Plan,
    folds: Mapping[int, Mapping[str, Any]],
    steps: Mapping[int, int],
    card: str,
) -> None:
    """Write an archive, whole or not at all.

    Args:
      path: ends in .bmjax.
      experiment: JSON text.
      plan: how images are prepared.
      folds: parameters and model statistics by number of the fold.
      steps: the checkpoint of each fold.
      card: the model card, Markdown.
    """
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: the name of a bundle ends in {SUFFIX}")
    texts = {
        "experiment.json": experiment,
        "plan.json": json.dumps(plan.to_dict(), indent=1),
        "labels.csv": _label_table(plan),
        "README.md": card,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
    digests: dict[str, str] = {}
    try:
        with zipfile.ZipFile(fresh, "w", zipfile.ZIP_STORED) as archive:

            def add(name: str, content: bytes) -> None:
                digests[name] = hashlib.sha256(content).hexdigest()
                archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), content)

            for name, text in texts.items():
                add(name, text.encode())
            for number, variables in sorted(folds.items()):
                leaves = flatten(variables)
                tensors = {k: np.ascontiguousarray(v) for k, v in leaves.items()}
                add(f"fold_{number}.safetensors", safetensors.numpy.save(tensors))
            manifest = {
                "format": FORMAT,
                "versions": _versions(),
                "steps": {str(k): v for k, v in sorted(steps.items())},
                "sha256": dict(digests),
            }
            add(_MANIFEST, json.dumps(manifest, indent=1).encode())
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def read_bundle(path: Path, *, folds: Sequence[int] | None = None) -> Bundle:
    """Read an archive after every member of it was compared with its hash.

    Args:
      path: the archive.
      folds: which to keep; None: all.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no bundle, damaged, changed, or holds what a bundle may not.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such bundle")
    try:
        with zipfile.ZipFile(path) as archive:
            names = _safe_names(path, archive)
            manifest = _manifest(path, archive.read(_MANIFEST))
            texts, tensors = _verified(path, archive, names, manifest, folds)
    except _DAMAGED as error:
        raise ValueError(
            f"{path}: not a bundle, or a damaged one ({error}); copy it again"
        ) from error
    try:
        plan = Plan.from_json(texts["plan.json"])
        steps = {int(k): int(v) for k, v in manifest["steps"].items()}
        versions = {str(k): str(v) for k, v in manifest["versions"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: its plan or manifest is unusable ({error})"
        ) from error
    return Bundle(
        experiment=texts["experiment.json"],
        plan=plan,
        folds=tensors,
        steps={number: steps.get(number, 0) for number in tensors},
        card=texts["README.md"],
        versions=versions,
        digests=dict(manifest["sha256"]),
    )


def _safe_names(path: Path, archive: zipfile.ZipFile) -> list[str]:
    """Names of the members, all of which a bundle may hold (fault 47)."""
    names = []
    for info in archive.infolist():
        name = info.filename
        reason = None
        if name not in (_MANIFEST, *_TEXTS) and not _FOLD.fullmatch(name):
            reason = "has no place in a bundle"
        elif stat.S_ISLNK(info.external_attr >> 16):
            reason = "is a link"
        elif info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            reason = "is compressed or encrypted, where a bundle stores"
        elif name in names:
            reason = "is there twice"
        if reason is not None:
            raise ValueError(
                f"{path}: its member {name!r} {reason}; nothing was unpacked. Get the "
                "bundle from its source again, and do not use this one"
            )
        names.append(name)
    absent = [name for name in (_MANIFEST, *_TEXTS) if name not in names]
    if absent:
        raise ValueError(f"{path}: not a bundle, {', '.join(absent)} missing")
    return names


def _manifest(path: Path, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
        version, digests = found["format"], found["sha256"]
        is_sound = isinstance(digests, dict) and isinstance(found["steps"], dict)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: its manifest is unusable ({error!r})") from error
    if not is_sound:
        raise ValueError(f"{path}: its manifest is unusable")
    if version != FORMAT:
        raise ValueError(
            f"{path}: a bundle of format {version}, this bmjax {__version__} reads "
            f"{FORMAT}; take the version that wrote it"
        )
    return found


def _verified(
    path: Path,
    archive: zipfile.ZipFile,
    names: list[str],
    manifest: Mapping[str, Any],
    folds: Sequence[int] | None,
) -> tuple[dict[str, str], dict[int, dict[str, Any]]]:
    """Texts and wanted tensors; every member is compared with its hash."""
    digests = manifest["sha256"]
    listed, present = set(digests), set(names) - {_MANIFEST}
    if listed != present:
        raise ValueError(
            f"{path}: its manifest lists {sorted(listed)}, it holds {sorted(present)}"
        )
    numbers = sorted(int(m[1]) for m in map(_FOLD.fullmatch, names) if m)
    wanted = set(numbers if folds is None else folds)
    if not numbers or not wanted <= set(numbers):
        raise ValueError(
            f"{path}: folds {sorted(wanted)} wanted, it holds {numbers}; name some of "
            "them (--folds)"
        )
    texts, tensors = {}, {}
    for name in sorted(present):
        content = archive.read(name)
        if hashlib.sha256(content).hexdigest() != digests[name]:
            raise ValueError(
                f"{path}: {name} is not what was bundled (its SHA-256 differs); copy "
                "it again, and do not use this one"
            )
        match = _FOLD.fullmatch(name)
        try:
            if match is None:
                texts[name] = content.decode()
            elif int(match[1]) in wanted:
                tensors[int(match[1])] = unflatten(safetensors.numpy.load(content))
        except (ValueError, safetensors.SafetensorError) as error:
            raise ValueError(f"{path}: {name} cannot be read ({error})") from error
    return texts, dict(sorted(tensors.items()))


def _label_table(plan: Plan) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("value", "label", "regions"))
    for name, value in plan.labels:
        regions = [region for region, members in plan.regions if value in members]
        writer.writerow((value, name, " ".join(regions)))
    return text.getvalue()


def _versions() -> dict[str, str]:
    found = {"bmjax": __version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in _PACKAGES}
