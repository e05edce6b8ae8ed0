"""Holm's correction of a family of tests, and the intervals that answer to it."""

import numpy as np

from medsam_nb.statistics.inference import ALPHA


def holm(p: np.ndarray) -> np.ndarray:
    """Return p values corrected by Holm's method; NaN stays NaN and is not counted as a test."""
    p = np.asarray(p, float)
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]  # NaN is sorted last
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def holm_divisors(p: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """Return by what Holm's method divides the level of each test; NaN where p is.

    Holm goes from the smallest p on and compares it with `alpha` over the number of tests that are
    left; the first that fails, and all after it, are not significant. So the divisor of a significant
    test is the number that was left at its turn, and that of all others the number left at the first
    failure. An interval at the level 1 - alpha / divisor then leaves 0 exactly where the corrected p is
    below alpha.

    Examples
    --------
    >>> holm_divisors(np.array([0.03, 0.001, 0.04]))
    array([2., 3., 2.])
    """
    p = np.asarray(p, float)
    divisors = np.full(len(p), np.nan)
    order = [place for place in np.argsort(p, kind="stable") if np.isfinite(p[place])]
    left, failed = len(order), False
    for place in order:
        failed = failed or not p[place] < alpha / left
        divisors[place] = left
        left -= 0 if failed else 1
    return divisors
