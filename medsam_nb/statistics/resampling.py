"""Patients or data sets drawn again: Efron's bootstrap, for what has no interval of its own.

What is drawn is what `inference` takes as drawn: from `FEWEST_DATA_SETS` on the data sets, each with all its
patients; below, the patients within the data sets at hand.
"""

from collections.abc import Sequence

import numpy as np

from medsam_nb.statistics.inference import FEWEST_DATA_SETS

LEVEL = 0.95


def patient_weights(data_sets: Sequence[str], draws: int, seed: int) -> np.ndarray:
    """Return how often every patient is drawn, with replacement.

    Parameters
    ----------
    data_sets : sequence of str
        Of every patient. Patients who are alone in their data set are drawn among each other: within it they
        could not vary, and an interval would be too narrow.
    draws : int
    seed : int

    Returns
    -------
    ndarray, shape (draws, patients)
        In each draw the drawn data sets add up to their number, or else the patients of each data set.
    """
    sets, rng = np.asarray(data_sets, str), np.random.default_rng(seed)
    names, member, sizes = np.unique(sets, return_inverse=True, return_counts=True)
    if len(names) >= FEWEST_DATA_SETS:
        return _drawn(len(names), draws, rng)[:, member]
    weights = np.zeros((draws, len(sets)))
    alone = np.flatnonzero(sizes[member] == 1)
    strata = [np.flatnonzero(member == number) for number in np.flatnonzero(sizes > 1)]
    for members in [*strata, alone]:
        weights[:, members] = _drawn(len(members), draws, rng)
    return weights


def _drawn(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of some units is drawn in as many draws with replacement, (draws, count)."""
    if not count:
        return np.zeros((draws, 0))
    return rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)


def percentiles(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits between which 95 % of the draws lie, along the first axis; NaN is left out."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(resampled, [tail, 100 - tail], axis=0)
    return low, high
