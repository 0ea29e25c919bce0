"""Manifests, plans of ours and of nnU-Net: odd tables and odd JSON."""

import copy
import json
import math
import os
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from bmjax.data.cases import sort_cases
from bmjax.data.plan_files import load_plan
from bmjax.planning import Plan
from bmjax.planning.labels import BRATS_METS
from bmjax.planning.nnunet import plan_from_nnunet
from bmjax.planning.nnunet_data import write_dataset
from tests.faults.fuzz import changed, damaged, outcome

CHANNELS = ("t1c", "t1n", "t2f", "t2w")
_COLUMNS = st.sampled_from(
    [*CHANNELS, "case", "patient", "visit", "labels", "seg", "T1CE", "flair", "", "age"]
)
_CELLS = st.one_of(
    st.sampled_from(
        [
            *("in.nii.gz", "sub/in.nii.gz", "../out.nii.gz", "sub/../../out.nii.gz"),
            *("link.nii.gz", "away/out.nii.gz", "/etc/passwd", "", ".", "..", "A-1"),
            *("a\0b", '"', "a" * 5000, "sub"),
        ]
    ),
    st.text(max_size=8),
)


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    """The bytes of a table, most often with a column for the case."""
    names = draw(st.lists(_COLUMNS, min_size=1, max_size=8))
    if draw(st.integers(0, 4)):
        names = list(dict.fromkeys(["case", "t1c", *names]))
    rows = [names]
    for number in range(draw(st.integers(0, 4))):
        row = [
            draw(_CELLS)
            if draw(st.integers(0, 3)) == 0
            else {"case": f"A-{number}"}.get(name, "in.nii.gz")
            for name in names
        ]
        rows.append(row[: draw(st.integers(0, 9)) or None])
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    name = draw(st.sampled_from(["cases.csv", "cases.tsv"]))
    mark = "\t" if name.endswith("tsv") else ","
    text = ending.join(mark.join(cells) for cells in rows)
    coding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    content = text.encode(coding, errors="replace")
    if draw(st.integers(0, 30)) == 0:  # more than a cell of the csv module may hold
        content += b"," + b"x" * 140_000
    return {"name": name, "bytes": draw(damaged(content))}


def check_manifest(content: dict[str, Any], folder: Path) -> bool:
    """No case whose files lie outside, or whose name is no file's name."""
    root = folder / "data"
    (root / "sub").mkdir(parents=True)
    for place in (root / "in.nii.gz", root / "sub/in.nii.gz", folder / "out.nii.gz"):
        place.write_bytes(b"")
    (root / "link.nii.gz").symlink_to(folder / "out.nii.gz")
    (root / "away").symlink_to(folder)
    path = root / content["name"]
    path.write_bytes(content["bytes"])
    found = outcome(
        lambda p: sort_cases(p, channels=CHANNELS, allow_missing=True), path
    )
    if found is None:
        return False
    cases, problems, _ = found
    for case in cases:
        assert case.id and "/" not in case.id and "\0" not in case.id
        assert case.id not in (".", "..") and len(os.fsencode(case.id)) < 256
        for file in (*case.images.values(), *filter(None, [case.labels])):
            assert file.resolve().is_relative_to(root.resolve()), file
    assert all(str(problem) for problem in problems)
    return bool(cases)


OURS = Plan(
    channels=CHANNELS,
    labels=BRATS_METS.labels,
    regions=BRATS_METS.regions,
    paint=BRATS_METS.paint,
    spacing_mm=(1.0, 1.0, 1.0),
    normalization=("zscore",) * 4,
    use_mask_for_norm=True,
    patch_size=(32, 32, 32),
    batch_size=2,
    features=(8, 16, 32),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernel_sizes=((3, 3, 3),) * 3,
    batch_dice=True,
    median_size=(40, 40, 40),
).to_dict()
DATASET = write_dataset(CHANNELS, ("zscore",) * 4, BRATS_METS, num_cases=9)
_FACTS = {"mean": 1.0, "std": 1.0, "percentile_00_5": 0.0, "percentile_99_5": 2.0}
_FINGERPRINT = {
    "spacings": [[1.0, 1.0, 1.0]] * 9,
    "shapes_after_crop": [[60, 80, 70]] * 9,
    "foreground_intensity_properties_per_channel": {str(i): _FACTS for i in range(4)},
    "median_relative_size_after_cropping": 1.0,
}
THEIRS = plan_from_nnunet(_FINGERPRINT, DATASET)
OLD = copy.deepcopy(THEIRS)  # as nnU-Net wrote them up to 2.2
_NEW = OLD["configurations"]["3d_fullres"].pop("architecture")["arch_kwargs"]
OLD["configurations"]["3d_fullres"] |= {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 32,
    "unet_max_num_features": 320,
    "pool_op_kernel_sizes": _NEW["strides"],
    "conv_kernel_sizes": _NEW["kernel_sizes"],
    "n_conv_per_stage_encoder": _NEW["n_conv_per_stage"],
    "n_conv_per_stage_decoder": _NEW["n_conv_per_stage_decoder"],
}


@st.composite
def plans(draw: st.DrawFn) -> dict[str, bytes]:
    """A plan's files by name."""
    which = draw(st.sampled_from(["ours", "new", "old"]))
    if which == "ours":
        values, dataset = draw(changed(OURS)), None
    else:
        theirs = THEIRS if which == "new" else OLD
        # what is read of them, so that changes hit it
        small = {**theirs, "configurations": {}}
        full = theirs["configurations"]["3d_fullres"]
        small["configurations"]["3d_fullres"] = draw(changed(full))
        values = draw(changed(small)) if draw(st.booleans()) else small
        dataset = draw(changed(DATASET)) if draw(st.booleans()) else DATASET
    text = json.dumps(values).encode()
    if draw(st.integers(0, 9)) == 0:
        text = b"[" * draw(st.sampled_from([10, 100_000])) + text
    files = {"plan.json": draw(damaged(text)) if draw(st.booleans()) else text}
    if dataset is not None and draw(st.integers(0, 9)):
        files["dataset.json"] = json.dumps(dataset).encode()
    return files


def check_plan(content: dict[str, bytes], folder: Path) -> bool:
    """A plan that is read is one that cases can be prepared by."""
    for name, text in content.items():
        (folder / name).write_bytes(text)

    def read(path: Path) -> Plan:
        try:
            return load_plan(path)
        except ValueError as error:
            if "dataset.json" in str(error):  # which is at fault, too
                raise ValueError(f"{path.name}: {error}") from error
            raise

    plan = outcome(read, folder / "plan.json")
    if plan is None:
        return False
    require_sound(plan)
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert len(plan.digest()) == 12
    return True


def require_sound(plan: Plan) -> None:
    """Types and ranges without which preparing or training would fail later."""
    rank = len(plan.patch_size)
    assert rank in (2, 3) and len(plan.spacing_mm) == rank
    for spacing in plan.spacing_mm:
        assert type(spacing) in (int, float) and math.isfinite(spacing) and spacing > 0
    rows = (*plan.strides, *plan.kernel_sizes)
    assert all(len(row) == rank for row in rows)
    counts = [*plan.patch_size, *plan.features, plan.batch_size, *sum(rows, ())]
    assert all(type(count) is int and 0 < count < 2**31 for count in counts), counts
    assert plan.channels and all(type(name) is str for name in plan.channels)
    assert len({*plan.channels}) == len(plan.channels)
    assert plan.regions and plan.labels
    for name, value in plan.labels:
        assert type(name) is str and type(value) is int and 0 < value < 128
    for name, members in plan.regions:
        assert type(name) is str and members
        assert all(type(value) is int and 0 < value < 128 for value in members)
    assert all(type(value) is int and 0 < value < 128 for value in plan.paint)
    assert plan.orientation in ("RAS", "stored")
    assert all(type(name) is str for name in plan.normalization)
    assert type(plan.use_mask_for_norm) is type(plan.batch_dice) is bool
