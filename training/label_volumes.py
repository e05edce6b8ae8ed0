"""Random label volumes, the anatomy that the miniatures were trained on.

`random_label_volume` draws a body with shells, a tissue tessellation and random organs, tumours, vessels,
pairs and rings, in the manner of SynthSeg (Billot et al. 2023), SynthMorph (Hoffmann et al. 2022) and
SynthFM-3D (2025): shapes are random, nothing comes from a real patient.

Seeds: a volume is a function of its seed alone. The ranges of training, validation and demonstration
(`anatomy.DEMO_SEED_BASE`) never overlap, so that a demo case or a held-out case is never part of the
training pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medsam_nb.data.simulated.anatomy import Canvas
from medsam_nb.data.simulated.shapes import (
    Grid,
    Patch,
    ellipsoid,
    random_grid,
    smooth_field,
    smooth_polyline,
    tube_segments,
)

TRAIN_SEED_BASE = 1_000_000
VALIDATION_SEED_BASE = 2_000_000
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


def _draw_body(canvas: Canvas, grid: Grid, rng: np.random.Generator) -> np.ndarray:
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


def _tessellate(canvas: Canvas, interior: np.ndarray, rng: np.random.Generator) -> list[int]:
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


def _draw_object(canvas: Canvas, grid: Grid, body, z_factor: float, rng: np.random.Generator):
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
    canvas = Canvas(shape)
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
