"""Patients drawn again within their data sets: Efron's bootstrap, for what has no interval of its own."""

from collections.abc import Sequence

import numpy as np

LEVEL = 0.95


def patient_weights(data_sets: Sequence[str], draws: int, seed: int) -> np.ndarray:
    """Return how often every patient is drawn, with replacement within data sets.

    Parameters
    ----------
    data_sets : sequence of str
        Of every patient.
    draws : int
    seed : int

    Returns
    -------
    ndarray, shape (draws, patients)
        In each draw the patients of a data set add up to their number.
    """
    sets, rng = np.asarray(data_sets, str), np.random.default_rng(seed)
    weights = np.zeros((draws, len(sets)))
    for name in sorted(set(sets)):
        members = np.flatnonzero(sets == name)
        drawn = rng.integers(len(members), size=(draws, len(members)))
        for line in range(len(members)):
            np.add.at(weights, (np.arange(draws), members[drawn[:, line]]), 1)
    return weights


def percentiles(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits between which 95 % of the draws lie, along the first axis; NaN is left out."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(resampled, [tail, 100 - tail], axis=0)
    return low, high
