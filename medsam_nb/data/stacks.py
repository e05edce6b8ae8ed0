"""Slices in space to volumes: sorted by position, divided where several lie in one place, checked.

DICOM states every slice's position; the order of its files or frames, their numbers and the distance that
headers give besides are not relied on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medsam_nb.data.reading import SKEW_DEGREES
from medsam_nb.errors import InputError
from medsam_nb.protocol.volume import GRID_TOLERANCE

SAME_DIRECTION = 2e-3  # radians; headers round directions
SAME_PLACE = 0.02  # of the distance between pixels
SAME_PIXELS = 0.01  # relative difference of their distances
UNEVEN = 0.05  # of the distance between slices; scanners round positions, a missing slice is 1
LEAST_SLICES = 3  # of one of several volumes that lie beside each other
VOLUMES_NAMED = 12  # in a message


@dataclass(frozen=True, eq=False)
class Slice:
    """Where a slice lies, in the world of DICOM (left, posterior, head), mm.

    Attributes
    ----------
    key : object
        Leads to its pixels.
    position : ndarray, shape (3,)
        Centre of the first pixel.
    along_row, along_column : ndarray, shape (3,)
        Unit vectors in which the column index, and the row index, grow.
    spacing_mm : (float, float)
        Between rows, between columns.
    size : (int, int)
        Rows, columns.
    marks : mapping of str to str
        What may tell volumes in one place apart, such as the time or the echo; in the order to be tried.
    """

    key: object
    position: np.ndarray
    along_row: np.ndarray
    along_column: np.ndarray
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice."""
        return np.cross(self.along_row, self.along_column)


@dataclass(frozen=True)
class Stack:
    """The slices of one volume in the order of their positions.

    Attributes
    ----------
    slices : list of Slice
    words : str
        What tells it from others of its series.
    """

    slices: list[Slice]
    words: str


def find_stacks(slices: Sequence[Slice]) -> list[Stack]:
    """Return the volumes that slices make up: by direction, size of pixels, and what tells phases apart."""
    alike: list[list[Slice]] = []
    for one in slices:
        group = next((group for group in alike if _is_parallel(one, group[0])), None)
        if group is None:
            alike.append([one])
        else:
            group.append(one)
    return [stack for group in alike for stack in _phases(group)]


def _is_parallel(one: Slice, other: Slice) -> bool:
    apart = max(
        np.linalg.norm(one.along_row - other.along_row), np.linalg.norm(one.along_column - other.along_column)
    )
    return (
        apart <= SAME_DIRECTION
        and one.size == other.size
        and np.allclose(one.spacing_mm, other.spacing_mm, rtol=SAME_PIXELS)
    )


def _phases(group: list[Slice]) -> list[Stack]:
    """Divide parallel slices into volumes, each with one slice at a place."""
    heights = np.array([one.position @ group[0].normal for one in group])
    order = np.argsort(heights, kind="stable")
    group, heights = [group[i] for i in order], heights[order]
    steps = np.diff(heights) > SAME_PLACE * min(group[0].spacing_mm)
    places = np.concatenate([[0], np.cumsum(steps)])
    plane = _plane(group[0])
    if places[-1] == len(group) - 1 and _is_even(heights):
        return [Stack(group, f"{len(group)} {plane} slices")]
    most = int(np.bincount(places).max())
    for mark in group[0].marks:
        values = [one.marks.get(mark, "") for one in group]
        names = sorted(set(values), key=_natural)
        parts = [[i for i, value in enumerate(values) if value == name] for name in names]
        likely = len(parts) <= most or (most == 1 and min(map(len, parts)) >= LEAST_SLICES)
        if len(parts) > 1 and likely and all(_is_one_volume(places[part], heights[part]) for part in parts):
            return [
                Stack([group[i] for i in part], f"{len(part)} {plane} slices, {mark} {name or 'not given'}")
                for name, part in zip(names, parts, strict=True)
            ]
    if most > 1 and (np.bincount(places) == most).all():
        nth = np.array([int((places[:i] == places[i]).sum()) for i in range(len(group))])
        return [
            Stack([group[i] for i in np.flatnonzero(nth == n)], f"{places[-1] + 1} {plane} slices as stored")
            for n in range(most)
        ]
    return [Stack(group, f"{len(group)} {plane} slices")]  # `affine` says what is wrong with them


def _is_one_volume(places: np.ndarray, heights: np.ndarray) -> bool:
    return len(set(places)) == len(places) and _is_even(heights)


def _is_even(heights: np.ndarray) -> bool:
    steps = np.diff(heights)
    return len(steps) < 1 or (steps.min() > 0 and np.ptp(steps) <= UNEVEN * np.median(steps))


def _natural(text: str) -> tuple:
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text


def _plane(one: Slice) -> str:
    """Return the anatomical plane nearest to a slice."""
    return ("sagittal", "coronal", "axial")[int(np.abs(one.normal).argmax())]


def listed(stacks: Sequence[Stack]) -> str:
    """Return the volumes of a series in words, with the numbers that `frame` chooses by."""
    words = "; ".join(f"{n}: {stack.words}" for n, stack in enumerate(stacks[:VOLUMES_NAMED]))
    return words + ("; ..." if len(stacks) > VOLUMES_NAMED else "")


def stack_affine(path: Path, stack: Stack, slice_mm: float) -> np.ndarray:
    """Return the affine of a stack, checked slice by slice.

    Parameters
    ----------
    path : Path
        For messages.
    stack : Stack
    slice_mm : float
        Thickness of a single slice; of several, the positions say how far they are apart.

    Returns
    -------
    ndarray, shape (4, 4)
        As `Volume.affine`.

    Raises
    ------
    InputError
        If slices are missing or doubled, lie askew (a tilted gantry), or not on a straight line.
    """
    first = stack.slices[0]
    positions = np.array([one.position for one in stack.slices])
    step = first.normal * slice_mm
    if len(positions) > 1:
        steps = np.diff(positions @ first.normal)
        if not _is_even(positions @ first.normal):
            raise InputError(
                path,
                f"neighbouring slices are {steps.min():.2f} to {steps.max():.2f} mm apart.",
                "Files are missing or doubled: copy or download the series again.",
            )
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
        _require_upright(path, first, step, len(positions))
        line = positions[0] + np.arange(len(positions))[:, None] * step
        astray = np.linalg.norm(positions - line, axis=1).max() / min(first.spacing_mm)
        if astray > max(GRID_TOLERANCE, UNEVEN * np.linalg.norm(step) / min(first.spacing_mm)):
            raise InputError(
                path,
                f"its slices lie up to {astray:.1f} pixels beside a straight line.",
                "Give one stack whose slices lie above each other.",
            )
    world = np.diag([-1.0, -1.0, 1.0])  # to right, front, head
    affine = np.eye(4)
    affine[:3, 0] = world @ step
    affine[:3, 1] = world @ first.along_column * first.spacing_mm[0]
    affine[:3, 2] = world @ first.along_row * first.spacing_mm[1]
    affine[:3, 3] = world @ first.position
    return affine


def _require_upright(path: Path, first: Slice, step: np.ndarray, count: int) -> None:
    """Raise InputError where each slice is shifted within its plane against the one before."""
    up = step @ first.normal
    aside = np.linalg.norm(step - up * first.normal)
    tilt = np.rad2deg(np.arctan2(aside, up))
    if tilt > SKEW_DEGREES:
        raise InputError(
            path,
            f"its slices are tilted by {tilt:.1f} degrees (a tilted gantry): the last of {count} lies "
            f"{aside * (count - 1):.1f} mm beside the first.",
            "Resample image and mask onto a straight grid first; nothing is resampled here.",
        )
