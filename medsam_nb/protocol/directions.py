"""A volume seen along its other two axes, and one mask of the three that are found along all of them.

As a viewer shows sagittal and coronal planes: pictures are resampled between slices to square pixels. What is
found there is read back on the slices themselves.
"""

from dataclasses import dataclass

import numpy as np

from medsam_nb.errors import InputError

AXES = {1: "y", 2: "x"}  # those that a volume is turned to


@dataclass(frozen=True, eq=False)
class TurnedVolume:
    """A volume whose slices follow each other along another axis.

    Attributes
    ----------
    slices : ndarray of uint8, shape (a, r, b) or, in colour, (a, r, b, 3)
        `a` along the axis, rows `r` along the former z, `b` along the remaining axis.
    truth : ndarray of bool, shape (a, r, b)
    rows : tuple of int
        The row where each former slice lies.
    axis : {1, 2}
        Along which the slices follow each other: y or x.
    """

    slices: np.ndarray
    truth: np.ndarray
    rows: tuple[int, ...]
    axis: int

    def back(self, masks: np.ndarray) -> np.ndarray:
        """Return masks of these slices, bool (a, r, b), as masks of the former ones, (z, y, x)."""
        return np.moveaxis(masks[:, list(self.rows)], 0, self.axis)


def turned(slices: np.ndarray, truth: np.ndarray, axis: int, step_mm: float, pixel_mm: float) -> TurnedVolume:
    """Return a volume along another axis.

    Parameters
    ----------
    slices : ndarray of uint8, shape (z, y, x) or (z, y, x, 3)
    truth : ndarray of bool, shape (z, y, x)
    axis : {1, 2}
        Along which the new slices follow each other: y or x.
    step_mm : float
        Between the slices.
    pixel_mm : float
        Of the axis that becomes the pictures' columns. Rows are as far apart; there are at least as many as
        slices. Grey values between slices are mixed from both, the truth is that of the nearer slice.

    Raises
    ------
    InputError
        If a distance is unknown: without it the pictures have no shape.
    """
    if not (np.isfinite([step_mm, pixel_mm]).all() and min(step_mm, pixel_mm) > 0):
        raise InputError(
            "spacing", f"is {step_mm} x {pixel_mm} mm.", "Planes along other axes need the distances in mm."
        )
    count = len(slices)
    n_rows = max(count, round((count - 1) * step_mm / pixel_mm) + 1)
    at = np.linspace(0, count - 1, n_rows)
    below = np.minimum(at.astype(int), max(count - 2, 0))
    part = (at - below).astype(np.float32).reshape(-1, *[1] * (slices.ndim - 1))
    above = np.minimum(below + 1, count - 1)
    grey = np.rint((1 - part) * slices[below] + part * slices[above]).astype(np.uint8)
    nearest = np.floor(at + 0.5).astype(int)
    rows = tuple(int(np.abs(at - z).argmin()) for z in range(count))
    return TurnedVolume(np.moveaxis(grey, axis, 0), np.moveaxis(truth[nearest], axis, 0), rows, axis)


def majority(masks: list[np.ndarray]) -> np.ndarray:
    """Return where more than half of several masks are set.

    Examples
    --------
    >>> majority([np.array(mask, bool) for mask in ([1, 1, 0], [1, 0, 0], [0, 1, 1])]).tolist()
    [True, True, False]
    """
    return 2 * np.sum(masks, axis=0, dtype=int) > len(masks)
