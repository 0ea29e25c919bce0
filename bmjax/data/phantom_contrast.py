"""Turns anatomy and lesions into four MRI channels, as a scanner would record them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16
from scipy import ndimage as ndi

from bmjax.data.phantom_anatomy import Anatomy
from bmjax.data.phantom_lesions import Lesions
from bmjax.data.phantom_template import Axes, Grid, bounding_box, smooth_field

CHANNELS = ("t1c", "t1n", "t2f", "t2w")

# Signal relative to white matter on T1: white, grey, fluid, oedema, enhancing tumour,
# necrosis, healthy blood, healthy bright spot; then how much of the template's own
# T1 texture shows.
_SIGNAL = {
    "t1n": (1.00, 0.79, 0.34, 0.67, 0.76, 0.56, 0.84, 0.86, 1.0),
    "t1c": (1.00, 0.84, 0.36, 0.70, 1.75, 0.62, 1.75, 0.87, 0.9),
    "t2w": (0.78, 1.00, 2.10, 1.55, 1.15, 1.75, 0.55, 1.25, -0.9),
    "t2f": (0.80, 1.00, 0.22, 1.45, 1.15, 0.95, 0.80, 1.45, 0.0),
}
_BLUR_VOX = 0.35
_GAIN = {"t1n": 420.0, "t1c": 460.0, "t2w": 520.0, "t2f": 480.0}


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """How a cohort was recorded.

    Attributes:
      noise: standard deviation of the noise, white matter on T1 = 1.
      bias: standard deviation of the logarithm of the field's unevenness.
      jitter: spread of tissue contrast from case to case, a fraction.
      grey_white: scales the difference of grey and white matter.
      enhancement: scales what contrast agent adds.
      gain: scales the intensities of all channels.
    """

    noise: float = 0.03
    bias: float = 0.09
    jitter: float = 0.05
    grey_white: float = 1.0
    enhancement: float = 1.0
    gain: float = 1.0


def record(
    rng: np.random.Generator,
    anatomy: Anatomy,
    lesions: Lesions,
    *,
    axes: Axes,
    scanner: Scanner,
) -> dict[str, Int16[np.ndarray, "z y x"]]:
    """The four channels; 0 outside the brain and at least 1 inside."""
    brain = anatomy.brain
    box = bounding_box(brain)
    near = (axes[0][box[0]], axes[1][box[1]], axes[2][box[2]])
    inside = brain[box]
    grain = smooth_field(rng, near, scale_mm=4.0)
    coil = smooth_field(rng, near, scale_mm=95.0)
    # dividing by what the blur keeps of the brain lets no background in
    weight = ndi.gaussian_filter(inside.astype(np.float32), _BLUR_VOX, truncate=3.0)
    weight[weight == 0] = 1
    images = {}
    for channel in CHANNELS:
        draw = np.random.default_rng(rng.integers(2**63))
        signal = _signal(
            draw, channel, anatomy, lesions, box=box, near=near, scanner=scanner
        )
        signal *= 1 + 0.012 * grain
        unevenness = 0.8 * coil + 0.6 * smooth_field(draw, near, scale_mm=60.0)
        signal *= np.exp(scanner.bias * unevenness)
        signal = ndi.gaussian_filter(signal * inside, _BLUR_VOX, truncate=3.0) / weight
        real = signal + scanner.noise * _noise(draw, signal.shape)
        imaginary = draw.standard_normal(signal.shape, dtype=np.float32)
        imaginary *= scanner.noise
        gain = scanner.gain * _GAIN[channel] * draw.lognormal(0, 0.25)
        magnitude = np.rint(gain * np.hypot(real, imaginary))
        image = np.zeros(brain.shape, np.int16)
        image[box] = np.where(inside, np.clip(magnitude, 1, 32767), 0)
        images[channel] = image
    return images


def _signal(
    rng: np.random.Generator,
    channel: str,
    anatomy: Anatomy,
    lesions: Lesions,
    *,
    box: tuple[slice, ...],
    near: Axes,
    scanner: Scanner,
) -> Grid:
    """Noise-free signal of one channel inside a box."""
    values = np.array(_SIGNAL[channel])
    values[:8] *= np.exp(
        rng.normal(0, scanner.jitter, 8) * (0.6, 0.6, 1, 1, 1, 1, 1, 1)
    )
    white, grey, fluid, swollen, rim, dead, blood, aged, texture = map(
        np.float32, values
    )
    middle = (white + grey) / 2
    white = middle + np.float32(scanner.grey_white) * (white - middle)
    grey = middle + np.float32(scanner.grey_white) * (grey - middle)
    rich = np.float32(scanner.enhancement)
    signal = (
        white * anatomy.white[box]
        + grey * anatomy.grey[box]
        + fluid * anatomy.fluid[box]
        + texture * anatomy.texture[box]
    )
    patchy = smooth_field(rng, near, scale_mm=7.0)
    if channel == "t2f":
        signal += _flair_extras(rng, anatomy, box=box, near=near)

    def mix(share: Grid, value: Grid | np.float32) -> None:
        signal[...] += share * (value - signal)

    mix(anatomy.spots[box], aged)
    level = lesions.oedema_level[box]
    level = level * (1 + 0.1 * patchy)
    swollen = middle + level * (swollen - middle) + 0.4 * (signal - middle)
    mix(0.95 * lesions.oedema[box], swollen)
    if channel == "t1c":
        blood, rim = (middle + rich * (value - middle) for value in (blood, rim))
        mix(anatomy.vessels[box], blood)
        rim = middle + lesions.enhancement[box] * (1 + 0.12 * patchy) * (rim - middle)
    else:
        mix(0.5 * anatomy.vessels[box], blood)
    mix(lesions.tumour[box], rim)
    if channel == "t2f":
        dead = dead * lesions.core_level[box]
    mix(lesions.core[box], dead)
    return signal


def _flair_extras(
    rng: np.random.Generator, anatomy: Anatomy, *, box: tuple[slice, ...], near: Axes
) -> Grid:
    """What only FLAIR shows: fluid that flows shines, and cortex is uneven."""
    flow = np.clip(smooth_field(rng, near, scale_mm=28.0) - 0.5, 0, 1)
    flow *= rng.uniform(0.2, 1.5)
    cortex = smooth_field(rng, near, scale_mm=35.0)
    return flow * anatomy.fluid[box] + 0.07 * cortex * anatomy.grey[box]


def _noise(rng: np.random.Generator, size: tuple[int, ...]) -> Grid:
    """Unit noise whose neighbours agree a little, as after interpolation."""
    white = rng.standard_normal(size, dtype=np.float32)
    return 1.25 * ndi.gaussian_filter(white, 0.4, truncate=3.0)
