"""Simulated anatomy: whole cases with named objects, for the demonstration, for tests and for experiments.

`simulate_case` paints a torso-like arrangement (organ with lesion, paired organ, vessel, shell) in the units
of one modality. Shapes are random, nothing comes from a real patient. A case is a function of its seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medsam_nb.data.simulated import appearance
from medsam_nb.data.simulated.shapes import (
    Patch,
    ellipsoid,
    random_grid,
    smooth_polyline,
    tube_segments,
)

DEMO_SEED_BASE = 3_000_000
SEEDS_PER_RANGE = 1_000_000


@dataclass(frozen=True)
class SimulatedCase:
    """A simulated image with its reference labels.

    Attributes
    ----------
    image : ndarray of float32, shape (z, y, x)
        HU for "ct", SUV for "pet", arbitrary units otherwise.
    labels : ndarray of uint8, shape (z, y, x)
        0 is background; every value in `objects` is one binary object, the others are unnamed tissue.
    spacing_mm : tuple of float
        (z, y, x).
    objects : dict
        Name to label value.
    modality : str
    """

    image: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]
    objects: dict[str, int]
    modality: str


class Canvas:
    """Label volume under construction: paints patches in order and hands out label values."""

    def __init__(self, shape):
        self.labels = np.zeros(shape, np.uint8)
        self.next = 1

    def new(self) -> int:
        value = self.next
        self.next += 1
        return value

    def paint(self, patch: Patch | None, value: int, *, level=1.0, above=None, within=None) -> bool:
        """Write `value` where the patch is below `level` (and not below `above`, and inside `within`)."""
        if patch is None:
            return False
        mask = patch.radius < level
        if above is not None:
            mask &= patch.radius >= above
        if within is not None:
            mask &= within[patch.box]
        if not mask.any():
            return False
        self.labels[patch.box][mask] = value
        return True


# One mean per tissue and modality: air, fat, muscle, bone, organ, lesion, paired organ, vessel, shell, lumen.
TISSUES = ("air", "fat", "muscle", "bone", "organ", "lesion", "paired_organ", "vessel", "shell", "lumen")
_MEANS = {
    "ct": (-1000, -95, 50, 420, 105, 45, 160, 210, 75, 5),
    "mri": (0.0, 0.85, 0.25, 0.10, 0.45, 0.72, 0.58, 0.05, 0.35, 0.92),
    "pet": (0.0, 0.3, 0.7, 0.6, 2.2, 7.5, 3.6, 1.5, 4.6, 1.3),
    "ultrasound": (0.01, 0.26, 0.42, 0.95, 0.72, 0.16, 0.10, 0.01, 0.90, 0.01),
    "xray": (0.0, 0.16, 0.20, 0.75, 0.34, 0.78, 0.02, 0.50, 0.48, 0.24),
}
_SPREAD = {"ct": 8.0, "mri": 0.03, "pet": 0.15, "ultrasound": 0.02, "xray": 0.02}


def simulate_case(
    modality: str, seed: int, *, shape=(24, 192, 192), spacing_mm=(3.0, 1.0, 1.0)
) -> SimulatedCase:
    """One simulated case: a torso-like arrangement with named objects.

    Every named object begins and ends inside the volume (the organ lies in roughly the middle two thirds),
    the lesion is nested in the organ, the paired organ has two components under one label.

    Parameters
    ----------
    modality : {"mri", "ct", "pet", "ultrasound", "xray"}
    seed : int
        Added to `DEMO_SEED_BASE`, so that no training case is repeated; 0 <= seed < 1,000,000.
    shape : tuple of int
        (z, y, x); the projection of "xray" has z = 1.
    spacing_mm : tuple of float
        (z, y, x); the sizes of the objects follow the shape, so few thick slices show the same body.

    Returns
    -------
    SimulatedCase

    Raises
    ------
    ValueError
        For an unknown modality, a seed outside the range or fewer than 6 slices.
    """
    if modality not in _MEANS:
        raise ValueError(f"unknown modality {modality!r}: use one of {', '.join(_MEANS)}")
    if not 0 <= seed < SEEDS_PER_RANGE:
        raise ValueError(f"seed {seed} is outside 0..{SEEDS_PER_RANGE - 1}: choose a smaller one")
    if shape[0] < 6:
        raise ValueError(
            f"shape {tuple(shape)} has fewer than 6 slices: objects could not begin and end inside"
        )
    rng = np.random.default_rng([DEMO_SEED_BASE + seed, appearance.STYLES.index(modality)])
    labels = draw_torso(rng, tuple(shape))
    image = appearance.render_units(labels, drawn_means(modality, rng), modality, rng)
    names = {name: TISSUES.index(name) for name in ("organ", "lesion", "paired_organ", "vessel", "shell")}
    if modality == "xray":
        labels = _project(labels, names)
    names = {name: value for name, value in names.items() if (labels == value).any()}
    return SimulatedCase(image, labels, tuple(float(s) for s in spacing_mm), names, modality)


def drawn_means(modality: str, rng: np.random.Generator) -> np.ndarray:
    """Return the mean value of every tissue of a case, in the units of its modality, shape (n_tissues,)."""
    spread = _SPREAD[modality] * rng.standard_normal(len(TISSUES))
    spread[0] = 0
    return np.array(_MEANS[modality]) + spread


def draw_torso(rng: np.random.Generator, shape) -> np.ndarray:
    """Label volume of the torso-like arrangement; values index `TISSUES`."""
    canvas, grid = Canvas(shape), random_grid(rng, shape, strength=(0.02, 0.05))
    tissue = {name: value for value, name in enumerate(TISSUES)}
    side = rng.choice([-1, 1])
    angle = rng.uniform(-0.25, 0.25)
    body = ellipsoid(grid, (0, 0, 0), (30.0, 0.78, 0.94), exponent=2.4, warp_gain=0.3)
    canvas.paint(body, tissue["fat"])
    fat = rng.uniform(0.06, 0.12)
    canvas.paint(body, tissue["muscle"], level=1 - fat)
    inner = np.zeros(shape, bool)
    inner[body.box] = body.radius < 1 - fat - 0.05
    cavity = ellipsoid(grid, (0, -0.08, 0), (30.0, 0.55, 0.74), exponent=2.4, warp_gain=0.3)
    canvas.paint(cavity, tissue["fat"], within=inner)
    spine = ellipsoid(grid, (0, 0.45, 0), (30.0, 0.16, 0.15), warp_gain=0.2)
    canvas.paint(spine, tissue["bone"])

    organ_centre = np.array([rng.uniform(-0.1, 0.1), rng.uniform(-0.2, -0.05), 0.36 * side])
    organ_axes = np.array([rng.uniform(0.55, 0.72), rng.uniform(0.3, 0.38), rng.uniform(0.28, 0.36)])
    organ = ellipsoid(grid, organ_centre, organ_axes, angle=angle, exponent=2.5, warp_gain=1.0)
    canvas.paint(organ, tissue["organ"], within=inner)
    host = canvas.labels == tissue["organ"]

    z_kidney = rng.uniform(-0.15, 0.25)
    for sign in (-1, 1):
        centre = (
            z_kidney + rng.uniform(-0.08, 0.08),
            rng.uniform(0.30, 0.36),
            sign * rng.uniform(0.42, 0.48),
        )
        size = (rng.uniform(0.45, 0.6), rng.uniform(0.13, 0.17), rng.uniform(0.10, 0.14))
        kidney = ellipsoid(grid, centre, size, angle=sign * 0.5, warp_gain=0.6)
        canvas.paint(kidney, tissue["paired_organ"], within=inner)

    shell_centre = np.array([rng.uniform(-0.25, 0.1), rng.uniform(-0.25, -0.1), -0.38 * side])
    shell_axes = np.array([rng.uniform(0.4, 0.55), rng.uniform(0.2, 0.27), rng.uniform(0.2, 0.28)])
    shell = ellipsoid(grid, shell_centre, shell_axes, angle=rng.uniform(0, np.pi), warp_gain=0.8)
    canvas.paint(shell, tissue["shell"], within=inner)
    canvas.paint(shell, tissue["lumen"], level=rng.uniform(0.5, 0.65), within=inner)

    z = np.linspace(-0.8, 0.8, 4)
    walk = np.stack([z, 0.2 + rng.normal(0, 0.03, 4), 0.06 * side + rng.normal(0, 0.04, 4)], axis=1)
    radii = np.full(10, rng.uniform(0.07, 0.095))
    for segment in tube_segments(grid, smooth_polyline(walk, 10), radii, z_scale=1.0, warp_gain=0.2):
        canvas.paint(segment, tissue["vessel"])

    spot = organ_centre + rng.uniform(-0.35, 0.35, 3) * organ_axes
    size = np.array([rng.uniform(0.28, 0.4), rng.uniform(0.09, 0.14), rng.uniform(0.09, 0.14)])
    lesion = ellipsoid(grid, spot, size, angle=rng.uniform(0, np.pi), warp_gain=1.2)
    canvas.paint(lesion, tissue["lesion"], within=host)
    return canvas.labels


def _project(labels: np.ndarray, names: dict[str, int]) -> np.ndarray:
    """Labels of a projection along z, shape (1, y, x): smaller structures in front of larger ones."""
    flat = np.zeros((1, *labels.shape[1:]), np.uint8)
    for name in ("organ", "shell", "paired_organ", "vessel", "lesion"):
        flat[0][(labels == names[name]).any(axis=0)] = names[name]
    return flat
