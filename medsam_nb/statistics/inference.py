"""The level of an inference: from patients within data sets, or from data sets to others like them.

Patients of one data set share scanner, annotators and selection; an effect differs from data set to data set.
With at least `FEWEST_DATA_SETS` data sets the data set is the unit: one value each, the mean over its
patients, and what is found holds for data sets like these. With fewer it is the patient, data sets with equal
weight, and what is found holds within these data sets only. One signed-rank statistic gives effect, interval
and p in both (`signed_rank`). Equal weight keeps one huge data set from deciding; the estimate over all
patients alike stands beside it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from medsam_nb.statistics.signed_rank import ROUND, estimate, signed_rank

ALPHA = 0.05
FEWEST_DATA_SETS = 6  # from here on a two-sided signed-rank test of data sets can reach p < 0.05
FEWEST_UNITS = {"two-sided": 6, "greater": 5, "less": 5}  # 2 ** -(n - 1) or 2 ** -n below 0.05
OTHERS, THESE, NONE = "data sets like these", "these data sets", "these cases"


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a - b without rounding noise."""
    return np.round(np.asarray(a, float) - np.asarray(b, float), ROUND)


@dataclass(frozen=True)
class Units:
    """The values of a test and what they are.

    Attributes
    ----------
    values : ndarray, shape (n,)
        Differences, one per unit.
    strata : ndarray, shape (n,)
        Data sets where patients are the units; all alike where data sets are.
    level : str
        What is generalised to: `OTHERS`, `THESE`, or `NONE` where there are too few units for any test.
    """

    values: np.ndarray
    strata: np.ndarray
    level: str


def units_of(d: np.ndarray, data_sets: np.ndarray) -> Units:
    """Return the units of a test from one difference per patient.

    Parameters
    ----------
    d : ndarray, shape (n,)
    data_sets : ndarray, shape (n,)
    """
    data_sets = np.asarray(data_sets, str)
    means = pd.Series(d).groupby(data_sets).mean().round(ROUND)
    if len(means) >= FEWEST_DATA_SETS:
        return Units(means.to_numpy(float), np.zeros(len(means)), OTHERS)
    level = THESE if len(d) >= FEWEST_UNITS["greater"] else NONE
    return Units(np.asarray(d, float), data_sets, level)


def infer(
    d: np.ndarray,
    data_sets: np.ndarray,
    *,
    test: str = "difference",
    margin: float = 0.05,
    alternative: str = "two-sided",
    level: float | None = None,
) -> dict:
    """Return effect, interval and p of differences, at the level that the data allow.

    Parameters
    ----------
    d : ndarray, shape (n,)
        One difference per patient.
    data_sets : ndarray, shape (n,)
    test : {"difference", "equivalence", "not_worse"}
        Signed-rank test against 0; two one-sided tests against +-margin; one against -margin.
    margin : float
    alternative : {"two-sided", "greater", "less"}
        For "difference".
    level : float, optional
        Of the interval; 0.95, and 0.90 for "equivalence", the one that answers to two one-sided tests.

    Returns
    -------
    dict
        `difference`, `ci_low`, `ci_high`, `ci_level`, `p`, `rank_biserial`, `generalises_to`, `n_units`,
        `method`, and beside them `mean_difference` (data sets of equal weight), `case_weighted` (the effect
        with all patients alike), `n_data_sets`, `largest_share`, `sets_above`, `sets_below`.
    """
    d, data_sets = np.asarray(d, float), np.asarray(data_sets, str)
    units = units_of(d, data_sets)
    level = level or (1 - 2 * ALPHA if test == "equivalence" else 1 - ALPHA)
    found = estimate(units.values, units.strata, level)
    if test == "equivalence":
        lower, method = signed_rank(units.values + margin, "greater", units.strata)
        upper, _ = signed_rank(units.values - margin, "less", units.strata)
        p, method = max(lower, upper), f"two one-sided signed-rank tests, margin {margin:g}, {method}"
    elif test == "not_worse":
        p, method = signed_rank(units.values + margin, "greater", units.strata)
        method = f"one-sided signed-rank test against -{margin:g}, {method}"
    else:
        p, method = signed_rank(units.values, alternative, units.strata)
        method = f"signed-rank test, {alternative}, {method}"
    means = pd.Series(d).groupby(data_sets).agg(["mean", "size"])
    unit = "data sets" if units.level == OTHERS else "patients"
    return {
        "generalises_to": units.level,
        "n_units": len(units.values),
        "n_data_sets": len(means),
        "difference": found.value,
        "ci_low": found.low if np.isfinite(found.low) else float("nan"),
        "ci_high": found.high if np.isfinite(found.high) else float("nan"),
        "ci_level": level,
        "rank_biserial": found.rank_biserial,
        "mean_difference": float(means["mean"].mean()) if len(means) else float("nan"),
        "case_weighted": estimate(d).value,
        "largest_share": float(means["size"].max() / len(d)) if len(d) else float("nan"),
        "sets_above": int((means["mean"] > 0).sum()),
        "sets_below": int((means["mean"] < 0).sum()),
        "p": p if len(units.values) > 1 else float("nan"),
        "method": f"{method}, on {unit}" if len(units.values) > 1 else "none",
    }


def interval_at(d: np.ndarray, data_sets: np.ndarray, level: float) -> tuple[float, float]:
    """Return the interval of another level, on the same units; NaN where it has no limit."""
    units = units_of(np.asarray(d, float), data_sets)
    found = estimate(units.values, units.strata, level)
    return tuple(limit if np.isfinite(limit) else float("nan") for limit in (found.low, found.high))


def mean_interval(values: np.ndarray, data_sets: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of data sets of equal weight and its 95 % t interval.

    From `FEWEST_DATA_SETS` data sets on, their means are the values; with fewer, the variance is that of
    patients within data sets (a data set of one patient lends its variance from the others), and the
    interval is about these data sets.

    Parameters
    ----------
    values : ndarray, shape (n,)
        One per patient.
    data_sets : ndarray, shape (n,)

    Returns
    -------
    mean, low, high : float
        Limits are NaN where nothing can be said of the spread.
    """
    groups = pd.Series(np.asarray(values, float)).groupby(np.asarray(data_sets, str))
    means, sizes = groups.mean(), groups.size()
    count, nan = len(means), float("nan")
    if not count:
        return nan, nan, nan
    if count >= FEWEST_DATA_SETS:
        error, freedom = means.std(ddof=1) / np.sqrt(count), count - 1
    else:
        freedom = int(sizes.sum()) - count
        if freedom < 1:
            return float(means.mean()), nan, nan
        squares = groups.apply(lambda x: ((x - x.mean()) ** 2).sum())
        error = np.sqrt((squares.sum() / freedom / sizes).sum()) / count
    reach = scipy_stats.t.ppf(1 - ALPHA / 2, freedom) * error
    return float(means.mean()), float(means.mean() - reach), float(means.mean() + reach)
