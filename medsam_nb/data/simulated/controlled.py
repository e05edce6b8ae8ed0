"""Simulated cases that differ in one thing only: in modality, in number of slices, or in their distance.

Two anatomies, each a function of its seed alone. `torso` is that of `simulate_case`; here its shapes do not
depend on the modality that renders it. `column` is a trunk without ends whose objects wander and change
shape at the same rate all along: any number of slices at any distance shows the same trunk, and a slice at a
given height is always the same slice, noise included.
"""

from __future__ import annotations

import numpy as np

from medsam_nb.data.simulated import appearance
from medsam_nb.data.simulated.anatomy import (
    DEMO_SEED_BASE,
    SEEDS_PER_RANGE,
    TISSUES,
    SimulatedCase,
    draw_torso,
    drawn_means,
)
from medsam_nb.data.simulated.shapes import smooth_field

ANATOMIES = ("torso", "column")
SLICE_BY_SLICE = ("ct", "pet")  # whose noise knows no neighbouring slice
SHAPES = 1_000  # parts of seeds: shapes, slices; no modality has these numbers
SLICES = 2_000
OBJECTS = ("organ", "lesion", "paired_organ", "vessel", "shell")
WAVES_MM = (90.0, 260.0)  # how far it is from one turn of a wandering object to the next but one


def simulate_controlled(
    anatomy: str, modality: str, seed: int, *, shape: tuple[int, int, int], spacing_mm: tuple
) -> SimulatedCase:
    """Return a case of a controlled comparison.

    Parameters
    ----------
    anatomy : {"torso", "column"}
    modality : {"ct", "mri", "pet", "ultrasound", "xray"}
        "xray" is a stack, each slice the mean attenuation of a slab (as tomosynthesis gives it), and
        "ultrasound" shows no sector and no shadow, so that every voxel is seen in every modality. A column
        is rendered as "ct" or "pet".
    seed : int
        0 <= seed < 1,000,000. Of the shapes; the noise depends on the modality, too.
    shape : tuple of int
        (z, y, x). A torso fills it; of a column, z slices are cut around height 0.
    spacing_mm : tuple of float
        (z, y, x).

    Raises
    ------
    ValueError
        For an unknown anatomy or modality, or a seed outside the range.
    """
    if anatomy not in ANATOMIES or modality not in appearance.STYLES:
        raise ValueError(f"unknown anatomy {anatomy!r} or modality {modality!r}")
    if anatomy == "column" and modality not in SLICE_BY_SLICE:
        raise ValueError(f"a column is rendered as {' or '.join(SLICE_BY_SLICE)}, not as {modality!r}")
    if not 0 <= seed < SEEDS_PER_RANGE:
        raise ValueError(f"seed {seed} is outside 0..{SEEDS_PER_RANGE - 1}: choose a smaller one")
    base = DEMO_SEED_BASE + seed
    shapes = np.random.default_rng([base, SHAPES])
    noise = np.random.default_rng([base, appearance.STYLES.index(modality)])
    means = drawn_means(modality, noise)
    if anatomy == "torso":
        labels = draw_torso(shapes, tuple(shape))
        image = appearance.render_units(labels, means, modality, noise, controlled=True)
    else:
        heights = heights_mm(shape[0], spacing_mm[0])
        labels = draw_column(shapes, heights, shape[1:])
        image = np.concatenate([
            appearance.render_units(one[None], means, modality, _noise_of_slice(base, modality, height))
            for one, height in zip(labels, heights, strict=True)
        ])  # fmt: skip
    names = {name: TISSUES.index(name) for name in OBJECTS}
    names = {name: value for name, value in names.items() if (labels == value).any()}
    return SimulatedCase(image, labels, tuple(float(s) for s in spacing_mm), names, modality)


def heights_mm(count: int, spacing_mm: float) -> np.ndarray:
    """Return the heights of slices around 0, mm; an odd number of them has one at 0."""
    return (np.arange(count) - (count - 1) / 2) * spacing_mm


def _noise_of_slice(base: int, modality: str, height: float) -> np.random.Generator:
    micrometres = round(1000 * height)
    sign = int(micrometres < 0)  # seeds are no negative numbers
    return np.random.default_rng([base, SLICES, appearance.STYLES.index(modality), sign, abs(micrometres)])


class _Wandering:
    """Smooth random functions of the height, each with a mean of 0 and a spread of about 1."""

    def __init__(self, rng: np.random.Generator, heights: np.ndarray) -> None:
        self._rng, self._heights = rng, heights

    def __call__(self, spread: float, centre: float = 0.0) -> np.ndarray:
        """Return another one at the heights, times `spread` and shifted, shape (z, 1, 1)."""
        length, phase = self._rng.uniform(*WAVES_MM, 3), self._rng.uniform(0, 2 * np.pi, 3)
        waves = np.sin(2 * np.pi * self._heights[:, None] / length + phase).sum(axis=1) * np.sqrt(2 / 3)
        return (centre + spread * waves)[:, None, None]


def draw_column(rng: np.random.Generator, heights: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the labels of a column at given heights (mm), uint8, shape (z, y, x); values index `TISSUES`.

    What is drawn at a height does not depend on the other heights.
    """
    wander = _Wandering(rng, heights)
    fields = [smooth_field(rng, 1, 6, (1, *size))[0] for _ in range(4)]
    turn = wander(np.pi / 2)  # the border is bent by two fields in turn, and is never the same for long
    bend_y, bend_x = (
        0.025 * (np.cos(turn) * one + np.sin(turn) * other) for one, other in (fields[:2], fields[2:])
    )
    y, x = (((np.arange(n) + 0.5) / n * 2 - 1).astype(np.float32) for n in size)
    y, x = y[None, :, None] + bend_y, x[None, None, :] + bend_x
    labels = np.zeros((len(heights), *size), np.uint8)

    def paint(name, centre, axes, angle=0.0, exponent=2.0):
        dy, dx = y - centre[0], x - centre[1]
        u = (np.cos(angle) * dx + np.sin(angle) * dy) / axes[1]
        v = (np.cos(angle) * dy - np.sin(angle) * dx) / axes[0]
        labels[np.abs(u) ** exponent + np.abs(v) ** exponent < 1] = TISSUES.index(name)

    fat = rng.uniform(0.06, 0.12)
    paint("fat", (0, 0), (0.78, 0.94), exponent=2.4)
    paint("muscle", (0, 0), (0.78 * (1 - fat), 0.94 * (1 - fat)), exponent=2.4)
    paint("fat", (-0.08, 0), (0.56, 0.74), exponent=2.4)
    paint("bone", (0.45, 0), (0.16, 0.15))
    side = rng.choice([-1, 1])
    paint(
        "organ", (wander(0.05, -0.14), wander(0.06, 0.33 * side)), (wander(0.045, 0.26), wander(0.045, 0.25)),
        wander(0.3), exponent=2.5,
    )  # fmt: skip
    shell = (wander(0.05, -0.2), wander(0.05, -0.36 * side)), (wander(0.03, 0.19), wander(0.03, 0.2))
    paint("shell", *shell)
    paint("lumen", shell[0], tuple(0.6 * axis for axis in shell[1]))
    for sign in (-1, 1):
        place = wander(0.04, 0.29), wander(0.04, 0.44 * sign)
        paint("paired_organ", place, (wander(0.02, 0.14), wander(0.02, 0.11)), wander(0.4, 0.5 * sign))
    radius = wander(0.01, 0.08)
    paint("vessel", (wander(0.06, 0.12), wander(0.07)), (radius, radius))
    return labels
