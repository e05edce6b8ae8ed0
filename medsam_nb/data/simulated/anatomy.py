"""Simulated anatomy: random label volumes for training, and whole simulated cases for the demo study.

`random_label_volume` draws a body with shells, a tissue tessellation and random organs, tumours, vessels,
pairs and rings, in the manner of SynthSeg (Billot et al. 2023), SynthMorph (Hoffmann et al. 2022) and
SynthFM-3D (2025): shapes are random, nothing comes from a real patient.  `simulate_case` paints a named,
torso-like arrangement (organ with lesion, paired organ, vessel, shell) in the units of one modality.

Seeds: a case is a function of its seed alone.  The three ranges below never overlap, so that a demo case
or a held-out case is never part of the training pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medsam_nb.data.simulated import appearance as rendering
from medsam_nb.data.simulated.shapes import Grid, Patch, ellipsoid, random_grid, smooth_field, smooth_polyline, tube_segments

TRAIN_SEED_BASE = 1_000_000
VALIDATION_SEED_BASE = 2_000_000
DEMO_SEED_BASE = 3_000_000
SEEDS_PER_RANGE = 1_000_000

POOL_SHAPE = (16, 256, 256)

KINDS = ("ellipsoid", "blob", "pair", "tube", "ring", "crescent", "cluster", "lesion")
KIND_WEIGHTS = (0.33, 0.17, 0.12, 0.10, 0.08, 0.06, 0.05, 0.09)


@dataclass(frozen=True)
class LabelVolume:
    """A random label volume and what counts as an object in it.

    Attributes
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        0 is background.
    objects : tuple of tuple of int
        Each object is a set of label values (an organ with its tumour is a union).
    """

    labels: np.ndarray
    objects: tuple[tuple[int, ...], ...]


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


class _Canvas:
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


def _draw_body(canvas: _Canvas, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Superelliptic body with up to three shells; returns the boolean interior."""
    shape = canvas.labels.shape
    radii = rng.uniform(0.55, 0.97, 2)
    z, y, x = (grid.axis(0)[:, None, None], grid.axis(1)[None, :, None], grid.axis(2)[None, None, :])
    gain = rng.uniform(0, 0.6)
    taper = 1 + rng.uniform(-0.25, 0.25) * z
    centre = rng.uniform(-0.1, 0.1, 2)
    exponent = rng.choice([2.0, 2.0, 2.5, 3.5])
    u = np.abs((x - centre[1] + gain * grid.warp_x) / (radii[1] * taper))
    v = np.abs((y - centre[0] + gain * grid.warp_y) / (radii[0] * taper))
    distance = (u * u + v * v) ** 0.5 if exponent == 2 else (u**exponent + v**exponent) ** (1 / exponent)
    distance = np.broadcast_to(distance, shape).astype(np.float32)
    edge = 1.0
    for _ in range(int(rng.integers(0, 4))):
        canvas.labels[distance < edge] = canvas.new()
        edge -= rng.uniform(0.025, 0.12)
    interior = distance < edge
    canvas.labels[interior] = canvas.new()
    return interior


def _tessellate(canvas: _Canvas, interior: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Fill the interior with the argmax of smooth fields: soft-edged tissues without gaps."""
    count = int(rng.integers(2, 9))
    nodes, nodes_z = int(rng.choice([3, 4, 5, 7, 10])), int(rng.choice([2, 3, 5, 8]))
    fields = np.stack(
        [smooth_field(rng, nodes_z, nodes, interior.shape) + rng.uniform(-0.5, 0.5) for _ in range(count)]
    )
    winner = fields.argmax(axis=0).astype(np.uint8)
    first = canvas.next
    canvas.next += count
    canvas.labels[interior] = winner[interior] + first
    return list(range(first, first + count))


def _draw_object(canvas: _Canvas, grid: Grid, body, z_factor: float, rng: np.random.Generator):
    """One random object with optional nested parts; returns the label tuples that are objects."""
    kind = str(rng.choice(KINDS, p=KIND_WEIGHTS))
    centre = np.array([rng.uniform(-0.9, 0.9), *rng.uniform(-0.75, 0.75, 2)])
    base = float(np.exp(rng.uniform(np.log(0.05), np.log(0.42))) * rng.uniform(0.7, 1.3))
    if kind == "lesion":
        base = max(0.035, base * 0.4)
    axes = np.array([base * z_factor * 1.5 * rng.uniform(0.6, 1.6), *(base * rng.uniform(0.6, 1.5, 2))])
    look = dict(
        angle=rng.uniform(0, np.pi),
        exponent=float(rng.choice([2, 2, 2, 3, 4])),
        shear=tuple(rng.uniform(-0.25, 0.25, 2) / max(z_factor, 0.5)),
        warp_gain=rng.uniform(0.3, 1.6),
    )
    within = body if rng.random() < 0.85 else None
    value = canvas.new()
    if kind == "tube":
        corners = np.cumsum(rng.normal(0, 1, (int(rng.integers(3, 6)), 3)) * [0.5, 0.22, 0.22], axis=0)
        points = smooth_polyline(corners - corners.mean(0) + centre, 12)
        radius = np.exp(rng.uniform(np.log(0.02), np.log(0.1)))
        radii = radius * np.linspace(1, rng.uniform(0.5, 1.0), 12)
        painted = False
        for patch in tube_segments(grid, points, radii, z_scale=max(1.0, z_factor), warp_gain=0.3):
            painted |= canvas.paint(patch, value, within=within)
        return [(value,)] if painted else []
    if kind == "cluster":
        painted = False
        for _ in range(int(rng.integers(2, 7))):
            spot = centre + rng.normal(0, 1, 3) * [0.25, base * 0.9, base * 0.9]
            patch = ellipsoid(grid, spot, axes * rng.uniform(0.25, 0.5), **look)
            painted |= canvas.paint(patch, value, within=within)
        return [(value,)] if painted else []
    patch = ellipsoid(grid, centre, axes, **look)
    if patch is None:
        return []
    if kind == "pair":
        mirrored = ellipsoid(
            grid,
            centre * [1, 1, -1],
            axes * rng.uniform(0.9, 1.1),
            **{**look, "angle": np.pi - look["angle"]},
        )
        one_label = rng.random() < 0.6
        other = value if one_label else canvas.new()
        canvas.paint(patch, value, within=within)
        canvas.paint(mirrored, other, within=within)
        return [(value,)] if one_label else [(value,), (other,), (value, other)]
    if kind == "ring":
        wall = rng.uniform(0.2, 0.42)
        if not canvas.paint(patch, value, within=within):
            return []
        if rng.random() < 0.6:
            lumen = canvas.new()
            canvas.paint(patch, lumen, level=1 - wall, within=within)
            return [(value, lumen), (lumen,)]
        return [(value,)]
    if kind == "crescent":
        shift = np.array([0.0, *(rng.uniform(-0.6, 0.6, 2) * axes[1:])])
        bite = ellipsoid(grid, centre + shift, axes * rng.uniform(0.6, 0.85), **look)
        mask = patch.radius < 1
        if bite is not None:
            full = np.zeros(canvas.labels.shape, bool)
            full[bite.box] = bite.radius < 1
            mask &= ~full[patch.box]
        crescent = Patch(patch.box, np.where(mask, np.float32(0.5), np.float32(2)))
        return [(value,)] if canvas.paint(crescent, value, within=within) else []
    if kind == "blob":
        field = smooth_field(rng, 3, int(rng.choice([8, 14, 24])), canvas.labels.shape)
        patch = Patch(patch.box, patch.radius + np.float32(rng.uniform(0.1, 0.3)) * field[patch.box])
    if not canvas.paint(patch, value, within=within):
        return []
    return [(value,)] + _draw_parts(canvas, grid, patch, value, centre, axes, look, body, rng)


def _draw_parts(canvas, grid, patch, value, centre, axes, look, body, rng):
    """Nested parts (a tumour in an organ) of the larger objects, and the union with its organ."""
    if max(axes[1:]) < 0.12 or rng.random() > 0.45:
        return []
    host = np.zeros(canvas.labels.shape, bool)
    host[patch.box] = (patch.radius < 0.95) & (canvas.labels[patch.box] == value)
    parts = []
    for _ in range(int(rng.integers(1, 4))):
        size = axes * rng.uniform(0.15, 0.45)
        spot = centre + rng.uniform(-0.5, 0.5, 3) * axes
        part = canvas.new()
        tumour = ellipsoid(grid, spot, size, angle=rng.uniform(0, np.pi), warp_gain=look["warp_gain"])
        if canvas.paint(tumour, part, within=host):
            parts.append(part)
    return [(part,) for part in parts] + ([(value, *parts)] if parts else [])


def random_label_volume(seed: int, shape=POOL_SHAPE) -> LabelVolume:
    """Random label volume of one seed (about 0.1 to 0.3 s at 16 x 256 x 256).

    Parameters
    ----------
    seed : int
        The volume is a function of the seed alone.
    shape : tuple of int
        (z, y, x).

    Returns
    -------
    LabelVolume
    """
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, shape)
    canvas = _Canvas(shape)
    z_factor = float(rng.choice([0.5, 0.8, 1.2, 2, 3]))
    kind = rng.random()
    objects: list[tuple[int, ...]] = []
    body = np.ones(shape, bool)
    if kind < 0.75:
        body = _draw_body(canvas, grid, rng)
        inner = canvas.next - 1
        if rng.random() < 0.6:
            objects.append((-1,))
    if kind > 0.6 or rng.random() < 0.35:
        tissues = _tessellate(canvas, body, rng)
        objects += [(t,) for t in tissues if rng.random() < 0.5]
    count = int(rng.integers(1, 8)) if kind >= 0.75 else int(rng.integers(3, 14))
    for _ in range(count):
        objects += _draw_object(canvas, grid, body, z_factor, rng)
    if objects and objects[0] == (-1,):
        # The whole interior of the body is an object too (a brain inside its skull).
        objects[0] = tuple(range(inner, canvas.next))
    return LabelVolume(canvas.labels, tuple(objects))


# One mean per tissue and modality: air, fat, muscle, bone, organ, lesion, paired organ, vessel, shell, lumen.
_TISSUES = ("air", "fat", "muscle", "bone", "organ", "lesion", "paired_organ", "vessel", "shell", "lumen")
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
    rng = np.random.default_rng([DEMO_SEED_BASE + seed, rendering.STYLES.index(modality)])
    labels = _draw_torso(rng, tuple(shape))
    spread = _SPREAD[modality] * rng.standard_normal(len(_TISSUES))
    spread[0] = 0
    means = np.array(_MEANS[modality]) + spread
    image = rendering.render_units(labels, means, modality, rng)
    names = {name: _TISSUES.index(name) for name in ("organ", "lesion", "paired_organ", "vessel", "shell")}
    if modality == "xray":
        labels = _project(labels, names)
    names = {name: value for name, value in names.items() if (labels == value).any()}
    return SimulatedCase(image, labels, tuple(float(s) for s in spacing_mm), names, modality)


def _draw_torso(rng: np.random.Generator, shape) -> np.ndarray:
    """Label volume of the torso-like arrangement; values index `_TISSUES`."""
    canvas, grid = _Canvas(shape), random_grid(rng, shape, strength=(0.02, 0.05))
    tissue = {name: value for value, name in enumerate(_TISSUES)}
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
