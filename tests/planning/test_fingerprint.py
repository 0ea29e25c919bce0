"""The facts of cases and their summary."""

import json

import numpy as np
import pytest

from bmjax.planning import make_plan, summarise
from bmjax.planning.fingerprint import measure_case


def case(rng, *, channels=("t1c", "t2f"), labelled=True, size=(6, 5, 4)):
    labels = np.zeros(size, np.int8)
    labels[1:3, 1:3, 1] = 3
    labels[4, 4, 3] = 1
    return measure_case(
        rng.normal(100, 10, (*size, len(channels))).astype(np.float32),
        labels if labelled else None,
        channels=channels,
        spacing_mm=(1.0, 0.5, 0.5),
        size=(12, 10, 4),
        num_samples=50,
    )


def test_a_fingerprint_holds_each_case_and_survives_json(rng):
    found = summarise([case(rng), case(rng)])
    assert found["channels"] == ["t1c", "t2f"]
    assert found["spacings_mm"] == [[1.0, 0.5, 0.5]] * 2
    assert found["sizes_after_crop"] == [[6, 5, 4]] * 2
    assert found["relative_size_after_crop"] == [0.25, 0.25]
    assert found["label_voxels"] == {"1": 2, "3": 8}
    assert json.loads(json.dumps(found)) == found


def test_intensities_are_those_of_the_foreground_pooled_over_cases():
    facts = []
    for value in (10.0, 30.0):
        labels = np.zeros((2, 2, 2), np.int8)
        labels[0] = 2
        image = np.where(labels > 0, value, -1000).astype(np.float32)[..., None]
        facts.append(
            measure_case(
                image,
                labels,
                channels=("t1c",),
                spacing_mm=(1.0, 1.0, 1.0),
                size=(2, 2, 2),
                num_samples=100,
            )
        )
    intensity = summarise(facts)["intensity"]["t1c"]
    assert intensity["mean"] == 20
    assert intensity["std"] == 10
    assert (intensity["min"], intensity["median"], intensity["max"]) == (10, 20, 30)
    assert (intensity["p0_5"], intensity["p99_5"]) == (10, 30)


def test_the_same_case_gives_the_same_facts(rng):
    image = rng.normal(size=(4, 4, 4, 1)).astype(np.float32)
    labels = np.ones((4, 4, 4), np.int8)
    kwargs = {"channels": ("t1c",), "spacing_mm": (1.0,) * 3, "size": (4, 4, 4)}
    first, second = (measure_case(image, labels, **kwargs) for _ in range(2))
    np.testing.assert_array_equal(first["samples"]["t1c"], second["samples"]["t1c"])


def test_unlabelled_and_healthy_cases_count_without_intensities(rng):
    found = summarise([case(rng, labelled=False)])
    assert found["intensity"] == {}
    assert found["label_voxels"] == {}
    assert make_plan(found).channels == ("t1c", "t2f")


def test_cases_with_other_channels_are_refused(rng):
    with pytest.raises(ValueError, match=r"case 1 has channels \('t1c',\)"):
        summarise([case(rng), case(rng, channels=("t1c",))])


def test_no_case_is_refused():
    with pytest.raises(ValueError, match="no case to summarise"):
        summarise([])
