"""Choosing the best of many designs and testing it on the same cases, without fooling oneself.

The best of many equal designs looks better than their mean, and cases that choose for one another are not
independent. So neither of the two tests here takes the chosen design as if it had been given: both compare
their statistic with its distribution where no design is better than it is said to be.
"""

from dataclasses import dataclass

import numpy as np

from medsam_nb.protocol.seeds import generator
from medsam_nb.statistics.inference import FEWEST_DATA_SETS

DRAWS = 1999  # permutations; p cannot be below 1 / 1,000
AT_ONCE = 4_000_000  # values that are permuted together, so that memory stays small


@dataclass(frozen=True, eq=False)
class Selected:
    """An estimate and what it would have been by chance.

    Attributes
    ----------
    estimate : float
    draws : ndarray, shape (m,)
        The statistic where the null hypothesis holds.
    bounded_above : bool
        Whether the interval has an upper limit: chance says nothing of how high a greatest mean may lie.
    """

    estimate: float
    draws: np.ndarray
    bounded_above: bool = True

    @property
    def p(self) -> float:
        """P that the estimate is above chance, doubled as in a two-sided test; it is itself one draw."""
        above = (self.draws >= self.estimate - 1e-12).sum()
        return float(min(1.0, 2 * (1 + above) / (1 + len(self.draws))))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the estimate less the quantiles of chance: above 0 where p is below 1 - level."""
        alpha, m = (1 - level) / 2, len(self.draws)
        ordered = np.sort(self.draws)
        # the k-th largest draw is the critical value: p < alpha needs fewer than alpha (m + 1) - 1 above it
        k = int(np.ceil(alpha * (m + 1) - 1e-9)) - 1
        if k < 1:
            return float("nan"), float("nan")
        high = self.estimate - ordered[k - 1] if self.bounded_above else float("nan")
        return float(self.estimate - ordered[m - k]), float(high)


def rows_and_weights(values: np.ndarray, data_sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what is drawn by chance, one row each, and its weight: means of data sets, or patients.

    The level is that of `inference`: from `FEWEST_DATA_SETS` data sets on their means, below the patients,
    so weighted that data sets weigh alike.

    Parameters
    ----------
    values : ndarray, shape (patients, designs)
    data_sets : ndarray of str, shape (patients,)
    """
    names, member = np.unique(np.asarray(data_sets, str), return_inverse=True)
    sizes = np.bincount(member)
    if len(names) < FEWEST_DATA_SETS:
        return values, 1 / (sizes[member] * len(names))
    means = np.stack([values[member == place].mean(axis=0) for place in range(len(names))])
    return means, np.full(len(names), 1 / len(names))


def best_of_others(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return, for every row, its value of the design that is best on the other rows.

    Parameters
    ----------
    values : ndarray, shape (..., rows, designs)
    weights : ndarray, shape (rows,)

    Returns
    -------
    ndarray, shape (..., rows)
    """
    weighted = values * weights[:, None]
    others = weighted.sum(axis=-2, keepdims=True) - weighted
    chosen = others.argmax(axis=-1)[..., None]
    return np.take_along_axis(values, chosen, axis=-1)[..., 0]


def best_against_mean(
    values: np.ndarray, data_sets: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> tuple[Selected, np.ndarray]:
    """Test whether the best design is better than the mean of the designs.

    The statistic is the mean, data sets weighing alike, of the value of the design that is best on the other
    rows less the mean of all designs. Where designs are exchangeable, permuting them within each row does not
    change its distribution; a row is a data set where data sets are the unit, and otherwise a patient.

    Parameters
    ----------
    values : ndarray, shape (patients, designs)
        Without missing values; two or more of each.
    data_sets : ndarray of str, shape (patients,)
    draws, seed : int
        Number and seed of the permutations.

    Returns
    -------
    selected : Selected
    best : ndarray, shape (patients,)
        Every patient's value of the design that was chosen for it.
    """
    rows, weights = rows_and_weights(values, data_sets)

    def statistic(arranged: np.ndarray) -> np.ndarray:
        return (best_of_others(arranged, weights) - arranged.mean(axis=-1)) @ weights

    rng, found = generator("designs within rows", seed), []
    step = max(1, AT_ONCE // rows.size)
    for first in range(0, draws, step):
        count = min(step, draws - first)
        found.append(statistic(rng.permuted(np.broadcast_to(rows, (count, *rows.shape)), axis=-1)))
    selected = Selected(float(statistic(rows)), np.concatenate(found))
    if len(rows) == len(values):
        return selected, best_of_others(values, weights)
    names, member = np.unique(np.asarray(data_sets, str), return_inverse=True)
    others = rows.sum(axis=0) - rows
    return selected, values[np.arange(len(values)), others.argmax(axis=1)[member]]


def best_above(values: np.ndarray, bar: float, draws: int = DRAWS, seed: int = 0) -> tuple[Selected, int]:
    """Test whether the best of several designs has a mean above a bar.

    The statistic is the greatest of the designs' means. Where none is above the bar, a patient's deviations
    from it are as likely all of the other sign; they change sign together, so that designs which fail on the
    same patients are not counted as independent. The distribution of the greatest mean under these changes
    takes the choice into account. All changes are made where there are no more than `draws`.

    Parameters
    ----------
    values : ndarray, shape (patients, designs)
        Of one object in one data set.
    bar : float
    draws, seed : int

    Returns
    -------
    selected : Selected
        Its estimate is the best mean less the bar.
    best : int
        The design's place.
    """
    deviations = values - bar
    means = deviations.mean(axis=0)
    n = len(values)
    if 2**n - 1 <= draws:
        signs = 1 - 2 * ((np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1)  # all but the observed signs
    else:
        signs = generator("signs of patients", seed).choice([-1, 1], size=(draws, n))
    chance = (signs @ deviations / n).max(axis=1)
    return Selected(float(means.max()), chance, bounded_above=False), int(means.argmax())
