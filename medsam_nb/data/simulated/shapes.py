"""Shapes for simulated anatomy: signed-distance-like functions on a normalised (z, y, x) grid.

Every shape returns a `Patch`: the index box in which it lives and an array that is below 1 inside the
shape (a normalised radius).  Coordinates run from -1 to 1 along each axis of the volume, so the same
shape can be drawn into a volume of any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Patch:
    """A shape inside its index box.

    Attributes
    ----------
    box : tuple of slice
        (z, y, x) index box in the volume.
    radius : ndarray of float32
        Normalised radius in that box: below 1 inside the shape, 0 at its centre.
    """

    box: tuple[slice, slice, slice]
    radius: np.ndarray

    def inside(self, level: float = 1.0) -> np.ndarray:
        """Boolean array of the box: where the normalised radius is below `level`."""
        return self.radius < level


@dataclass(frozen=True)
class Grid:
    """Normalised coordinates of a volume and one shared warp (in-plane displacements).

    Attributes
    ----------
    shape : tuple of int
        (z, y, x) voxels.
    warp_y, warp_x : ndarray of float32, shape (z, y, x)
        Displacements in normalised units; shapes scale them with their own gain.
    """

    shape: tuple[int, int, int]
    warp_y: np.ndarray
    warp_x: np.ndarray

    def axis(self, index: int) -> np.ndarray:
        n = self.shape[index]
        return ((np.arange(n, dtype=np.float32) + 0.5) / n) * 2 - 1

    def offsets(self, centre, reach, warp_gain=1.0):
        """Index box around `centre` that holds `reach`, and the warped offsets from the centre.

        Parameters
        ----------
        centre, reach : sequence of three float
            (z, y, x), normalised units.
        warp_gain : float

        Returns
        -------
        box : tuple of slice
        (z, y, x) : ndarrays that broadcast to the box, or None when the box is empty
        """
        box = []
        for i in range(3):
            n = self.shape[i]
            margin = reach[i] + (0.0 if i == 0 else 0.35 * warp_gain)
            low = int(np.floor((centre[i] - margin + 1) / 2 * n))
            high = int(np.ceil((centre[i] + margin + 1) / 2 * n)) + 1
            low, high = max(0, low), min(n, high)
            if high <= low:
                return None, None
            box.append(slice(low, high))
        box = tuple(box)
        z = self.axis(0)[box[0], None, None] - np.float32(centre[0])
        y = self.axis(1)[None, box[1], None] - np.float32(centre[1])
        x = self.axis(2)[None, None, box[2]] - np.float32(centre[2])
        if warp_gain:
            y = y + np.float32(warp_gain) * self.warp_y[box]
            x = x + np.float32(warp_gain) * self.warp_x[box]
        return box, (z, y, x)


def smooth_field(rng: np.random.Generator, nodes_z: int, nodes: int, shape) -> np.ndarray:
    """Smooth Gaussian random field of unit node variance.

    Parameters
    ----------
    rng : numpy.random.Generator
    nodes_z, nodes : int
        Number of random nodes along z and along each in-plane axis.
    shape : tuple of int
        (z, y, x) of the result.

    Returns
    -------
    ndarray of float32, shape `shape`
        Cubic interpolation in-plane, linear along z.
    """
    depth, height, width = shape
    grid = rng.standard_normal((nodes_z, nodes, nodes)).astype(np.float32)
    planes = np.stack([cv2.resize(g, (width, height), interpolation=cv2.INTER_CUBIC) for g in grid])
    position = np.linspace(0, nodes_z - 1, depth) if depth > 1 else np.array([0.0])
    low = np.minimum(position.astype(int), max(0, nodes_z - 2))
    high = np.minimum(low + 1, nodes_z - 1)
    weight = (position - low).astype(np.float32)[:, None, None]
    return planes[low] * (1 - weight) + planes[high] * weight


def random_grid(rng: np.random.Generator, shape, strength=(0.02, 0.13)) -> Grid:
    """Grid with a random smooth warp, coarse warps being stronger than fine ones."""
    nodes_z, nodes = int(rng.choice([2, 3, 5])), int(rng.choice([3, 4, 6, 9, 14]))
    amplitude = rng.uniform(*strength) * min(1.0, 6 / nodes)
    warp = [(smooth_field(rng, nodes_z, nodes, shape) * amplitude).astype(np.float32) for _ in range(2)]
    return Grid(tuple(shape), warp[0], warp[1])


def ellipsoid(grid: Grid, centre, axes, *, angle=0.0, exponent=2.0, shear=(0.0, 0.0), warp_gain=1.0):
    """Superellipsoid (exponent in-plane, 2 through-plane), turned in-plane and sheared along z.

    Parameters
    ----------
    grid : Grid
    centre, axes : sequence of three float
        (z, y, x) in normalised units; `axes` are semi-axes.
    angle : float
        In-plane rotation, radians.
    exponent : float
        2 is an ellipse, larger is squarer.
    shear : tuple of float
        (y, x) shift per unit of z.
    warp_gain : float
        Factor on the grid's warp.

    Returns
    -------
    Patch or None
        None when the shape lies outside the volume.
    """
    widest = max(axes[1], axes[2])
    reach = (axes[0], widest + abs(shear[0]) * axes[0], widest + abs(shear[1]) * axes[0])
    box, offsets = grid.offsets(centre, reach, warp_gain)
    if box is None:
        return None
    z, y, x = offsets
    y, x = y - np.float32(shear[0]) * z, x - np.float32(shear[1]) * z
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = (cos * x + sin * y) * np.float32(1 / axes[2])
    v = (cos * y - sin * x) * np.float32(1 / axes[1])
    w = z * np.float32(1 / axes[0])
    if exponent == 2:
        in_plane = u * u + v * v
    else:
        in_plane = (np.abs(u) ** exponent + np.abs(v) ** exponent) ** np.float32(2 / exponent)
    return Patch(box, np.sqrt(in_plane + w * w).astype(np.float32))


def tube_segments(grid: Grid, points, radii, *, z_scale=1.0, warp_gain=0.5):
    """Tube along a polyline: one `Patch` per segment (their union is the tube).

    Parameters
    ----------
    grid : Grid
    points : ndarray, shape (n, 3)
        (z, y, x) in normalised units.
    radii : ndarray, shape (n,)
        Radius at each point, in-plane normalised units.
    z_scale : float
        The through-plane radius is `radius * z_scale`.
    warp_gain : float

    Yields
    ------
    Patch
    """
    for start, end, r0, r1 in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        centre, half, radius = (start + end) / 2, np.abs(end - start) / 2, max(r0, r1)
        reach = half + np.array([radius * z_scale, radius, radius])
        box, offsets = grid.offsets(centre, reach, warp_gain)
        if box is None:
            continue
        scale = np.array([1 / z_scale, 1, 1], dtype=np.float32)
        direction = ((end - start) * scale).astype(np.float32)
        z, y, x = offsets
        z = z * scale[0]
        length = float(direction @ direction) + 1e-9
        along = (z * direction[0] + y * direction[1] + x * direction[2]) / length
        along = np.clip(along, -0.5, 0.5)
        dz, dy, dx = z - along * direction[0], y - along * direction[1], x - along * direction[2]
        local = r0 + (along + 0.5) * (r1 - r0)
        yield Patch(box, (np.sqrt(dz * dz + dy * dy + dx * dx) / local).astype(np.float32))


def smooth_polyline(points: np.ndarray, n: int) -> np.ndarray:
    """Resample a polyline to `n` points along a Catmull-Rom-like smooth curve (quadratic filter)."""
    t = np.linspace(0, len(points) - 1, n)
    dense = np.stack([np.interp(t, np.arange(len(points)), points[:, i]) for i in range(points.shape[1])], 1)
    padded = np.concatenate([dense[:1], dense, dense[-1:]])
    return (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
