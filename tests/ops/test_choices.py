"""An algorithm chosen for one convolution is taken for that one only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax.ops import choices, convolution
from bmjax.ops.choices import ALGORITHMS, PARTS, Call

CALL = Call((2, 8, 8, 8, 3), (3, 3, 3, 3, 5))


def operands(call, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = call.image, call.kernel, (*call.image[:-1], call.kernel[-1])
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


def parts(image, kernel, grads):
    out, gradients = jax.vjp(convolution, image, kernel)
    return dict(zip(PARTS, (out, *gradients(grads)), strict=True))


def program(call, part, chosen):
    """What is compiled for one part."""
    with choices.using(chosen):
        return jax.jit(lambda *x: parts(*x)[part]).lower(*operands(call)).as_text()


def test_a_call_is_named_by_its_shapes():
    assert CALL.name("forward") == "8x8x8 b2 3>5 3x3x3 forward"
    flat = Call((1, 16, 12, 4), (3, 3, 4, 8))
    assert flat.name("kernel gradient") == "16x12 b1 4>8 3x3 kernel gradient"


@pytest.mark.parametrize("part", PARTS)
def test_each_algorithm_is_another_program_for_its_part_alone(part):
    rule = {p: program(CALL, p, ()) for p in PARTS}
    seen = set()
    for algorithm in ALGORITHMS:
        chosen = ((CALL.name(part), algorithm),)
        seen.add(program(CALL, part, chosen))
        for other in PARTS:
            if other != part:
                assert program(CALL, other, chosen) == rule[other]
        # of another shape
        assert program(Call((1, *CALL.image[1:]), CALL.kernel), part, chosen) == (
            program(Call((1, *CALL.image[1:]), CALL.kernel), part, ())
        )
    assert len(seen) == len(ALGORITHMS)
    assert rule[part] in seen


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_has_the_same_result(algorithm):
    with jax.enable_x64(True):
        arrays = operands(CALL, jnp.float64)
        expected = jax.jit(parts)(*arrays)
        with choices.using(tuple((CALL.name(p), algorithm) for p in PARTS)):
            found = jax.jit(lambda *x: parts(*x))(*arrays)
        for part in PARTS:
            np.testing.assert_allclose(found[part], expected[part], atol=1e-10)


def test_convolutions_with_a_choice_are_noted():
    image, kernel, _ = operands(CALL)
    with choices.noting() as calls:
        convolution(image, kernel)
        convolution(image, kernel, strides=(2, 2, 2))
        convolution(image, kernel[:1, :1, :1])
    convolution(image[:1], kernel)
    assert calls == {CALL}


def test_an_unknown_algorithm_is_an_error():
    with (
        pytest.raises(ValueError, match="called fft; there are slabs, "),
        choices.using((("8x8x8 b2 3>5 3x3x3 forward", "fft"),)),
    ):
        pass
