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
    places : tuple of int
        Where these slices lie on the axis.
    rows : tuple of int
        The row where each former slice lies.
    axis : {1, 2}
        Along which the slices follow each other: y or x.
    length : int
        Of the axis, in pixels.
    """

    slices: np.ndarray
    truth: np.ndarray
    places: tuple[int, ...]
    rows: tuple[int, ...]
    axis: int
    length: int

    def back(self, logits: np.ndarray) -> np.ndarray:
        """Return logits of these slices, (a, r, b), as masks of the former ones, bool (z, y, x).

        Between slices the logits are mixed from both; beyond the first and the last they stay.
        """
        at = np.interp(np.arange(self.length), self.places, np.arange(len(self.places)))
        lower, upper, part = _between(at, len(self.places))
        of_slices = logits[:, list(self.rows)].astype(np.float32)
        part = part.reshape(-1, 1, 1)
        return np.moveaxis((1 - part) * of_slices[lower] + part * of_slices[upper] > 0, 0, self.axis)


def _between(at: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for places among `count` slices those below and above, and how far each is from the lower."""
    lower = np.minimum(at.astype(int), max(count - 2, 0))
    return lower, np.minimum(lower + 1, count - 1), (at - lower).astype(np.float32)


def turned(
    slices: np.ndarray, truth: np.ndarray, axis: int, step_mm: float, pixel_mm: float, every: int = 1
) -> TurnedVolume:
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
    every : int
        Of the slices along the axis, every how many are taken.

    Raises
    ------
    InputError
        If a distance is unknown: without it the pictures have no shape.
    """
    if not (np.isfinite([step_mm, pixel_mm]).all() and min(step_mm, pixel_mm) > 0):
        raise InputError(
            "spacing", f"is {step_mm} x {pixel_mm} mm.", "Planes along other axes need the distances in mm."
        )
    count, length = len(slices), truth.shape[axis]
    at = np.linspace(0, count - 1, max(count, round((count - 1) * step_mm / pixel_mm) + 1))
    rows = tuple(int(np.abs(at - z).argmin()) for z in range(count))
    kept = range(0, length, every)
    slices, truth = (np.take(array, kept, axis) for array in (slices, truth))
    lower, upper, part = _between(at, count)
    part = part.reshape(-1, *[1] * (slices.ndim - 1))
    grey = np.rint((1 - part) * slices[lower] + part * slices[upper]).astype(np.uint8)
    truth = truth[np.floor(at + 0.5).astype(int)]
    views = np.moveaxis(grey, axis, 0), np.moveaxis(truth, axis, 0)
    return TurnedVolume(*views, tuple(kept), rows, axis, length)


def majority(masks: list[np.ndarray]) -> np.ndarray:
    """Return where more than half of several masks are set.

    Examples
    --------
    >>> majority([np.array(mask, bool) for mask in ([1, 1, 0], [1, 0, 0], [0, 1, 1])]).tolist()
    [True, True, False]
    """
    return 2 * np.sum(masks, axis=0, dtype=int) > len(masks)
