"""Slices as a radiologist expects them, and outlines that are exact."""

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from PIL import Image

from bmjax.report import slices


def signed_area(path):
    """Area inside an SVG path of M, h, v, z steps; holes count negative."""
    total = 0
    for ring in re.findall(r"M(-?\d+) (-?\d+)((?:[hv]-?\d+)+)z", path):
        x, y = int(ring[0]), int(ring[1])
        corners = [(x, y)]
        for name, length in re.findall(r"([hv])(-?\d+)", ring[2]):
            x, y = (x + int(length), y) if name == "h" else (x, y + int(length))
            corners.append((x, y))
        corners.append(corners[0])
        total += sum(
            x0 * y1 - x1 * y0
            for (x0, y0), (x1, y1) in zip(corners, corners[1:], strict=False)
        )
    return total / 2


@settings(deadline=None, max_examples=80)
@given(arrays(np.bool_, (6, 7)))
def test_an_outline_encloses_exactly_the_mask(mask):
    assert signed_area(slices.outline(mask)) == mask.sum()


def test_outline_of_one_voxel_by_hand():
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    assert slices.outline(mask) == "M2 1h1v1h-1z"


@pytest.mark.parametrize(
    ("plane", "corner"),
    [
        ("axial", (1, -1, -1)),  # upper left: anterior, patient's right
        ("coronal", (-1, 1, -1)),  # superior, right
        ("sagittal", (-1, -1, 1)),  # superior, anterior
    ],
)
def test_the_upper_left_corner_is_the_radiological_one(plane, corner):
    volume = np.zeros((4, 5, 6))
    volume[corner] = 1.0  # z up, y to anterior, x to the right
    shown = slices.cut(volume, plane, 1)
    assert shown[0, 0] == 1.0
    assert shown.sum() == 1.0


def test_pixels_keep_the_voxels_shape():
    assert slices.pixel_mm((6.0, 0.5, 0.4), "axial") == (0.5, 0.4)
    assert slices.pixel_mm((6.0, 0.5, 0.4), "coronal") == (6.0, 0.4)
    assert slices.pixel_mm((6.0, 0.5, 0.4), "sagittal") == (6.0, 0.5)


def test_a_voxel_has_its_place_in_millimetres():
    place = slices.place_mm(
        (1, 4, 5), "axial", size=(4, 5, 6), spacing_mm=(3.0, 2.0, 1.0)
    )
    assert place == (1.0, 0.5)  # the first pixel's centre


def test_focus_lies_in_the_largest_core():
    labels = np.zeros((8, 9, 10), np.int16)
    labels[1:7, 1:8, 1:9] = 2
    labels[2, 2, 2] = 3
    labels[4:6, 5:7, 6:8] = 3
    assert labels[slices.focus(labels, core=(1, 3))] == 3
    assert slices.focus(labels, core=(1, 3)) in np.ndindex(6, 7, 8)
    assert slices.focus(np.zeros((4, 6, 8), np.int16), core=(3,)) == (2, 3, 4)


def test_background_stays_black_and_the_picture_has_the_slices_size(rng):
    volume = rng.normal(300.0, 40.0, (6, 20, 30)).astype(np.float32)
    volume[:, :5] = 0.0
    low, high = slices.window(volume)
    shown = slices.grey(volume[3], low=low, high=high)
    assert (shown[:5] == 0).all() and (shown[5:] > 0).all()
    picture = Image.open(io.BytesIO(slices.encode_webp(shown, quality=80)))
    assert picture.size == (30, 20)


def test_a_constant_volume_has_a_window():
    low, high = slices.window(np.ones((4, 4, 4), np.float32))
    assert high > low
    assert slices.window(np.zeros((4, 4, 4), np.float32)) == (0.0, 1.0)
