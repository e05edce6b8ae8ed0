"""Tests by changes of sign, exact: no Monte Carlo and no seed.

Where neither side is better, a difference is as likely positive as negative, and a fair coin decides the
sign of every score. The sum of the scores with a positive sign then has the distribution of a convolution
of two-point distributions, which is computed as it stands. With ranks as scores this is Wilcoxon's
signed-rank test, with the differences themselves the sign-change test of a mean (Fisher 1935, Pitman 1937).
"""

import numpy as np
from scipy import optimize, special
from scipy import stats as scipy_stats

EXACT_UP_TO = 300  # pairs of a signed-rank test
EXACT_MEANS_UP_TO = 100  # of a test of means, whose interval needs dozens of tails
LARGEST = 60  # scores that are convolved where there are more; the others are taken together
GRID = 2**15  # steps of the whole range to which the scores of a mean are rounded, or 64 for each score
ROUND = 12  # decimals; differences of equal IoUs must tie, not differ by rounding errors
ALTERNATIVES = ("two-sided", "greater", "less")


def upper_tail(scores: np.ndarray, observed: int, exact_up_to: int = EXACT_UP_TO) -> float:
    """Return the probability that the scores whose coins show heads add up to `observed` or more.

    Parameters
    ----------
    scores : ndarray of int, shape (n,)
        Not negative.
    observed : int
    exact_up_to : int
        Number of scores up to which the distribution is computed exactly. Of more scores the `LARGEST` are
        convolved, and the sum of all others, each of which is a small part of it, is taken as normal with
        a correction for its kurtosis (after Edgeworth); p is then off by less than a hundredth of itself
        (`tests/statistics/test_signs.py`).
    """
    scores = np.sort(scores[scores > 0]).astype(np.int64)
    if observed <= 0:
        return 1.0
    if observed > scores.sum():
        return 0.0
    if observed == scores.sum():
        return float(0.5 ** len(scores))
    divisor = int(np.gcd.reduce(scores))
    scores, observed = scores // divisor, -(-observed // divisor)
    if len(scores) <= exact_up_to:
        return float(_density(scores)[observed:].sum())
    density = _density(scores[-LARGEST:])
    missing = observed - np.arange(len(density)) - 0.5  # half a step for what comes in steps
    return float(density @ _normal_tail(scores[:-LARGEST].astype(float), missing))


def _density(scores: np.ndarray) -> np.ndarray:
    """Return the probability of every sum of the scores whose coins show heads."""
    density, total = np.zeros(int(scores.sum()) + 1), 0
    density[0] = 1.0
    for score in scores.tolist():
        tails = 0.5 * density[: total + 1]
        density[: total + 1] = tails
        density[score : score + total + 1] += tails
        total += score
    return density


def _normal_tail(scores: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return about P(sum >= observed), of the scores whose coins show heads."""
    variance = (scores**2).sum()  # times four
    x = (2 * observed - scores.sum()) / np.sqrt(variance)
    log_tail = special.log_ndtr(-x)
    density = np.exp(-(x**2) / 2 - log_tail) / np.sqrt(2 * np.pi)  # over the tail; about x far out
    kurtosis = -2 * (scores**4).sum() / variance**2
    return np.exp(log_tail + np.minimum(kurtosis / 24 * (x**3 - 3 * x) * density, 0.5))


def _p(scores: np.ndarray, positive: np.ndarray, alternative: str, exact_up_to: int) -> float:
    """Return p of the observed signs, given integer scores."""
    total, observed = int(scores.sum()), int(scores[positive].sum())
    if not total:
        return 1.0
    greater = upper_tail(scores, observed, exact_up_to) if alternative != "less" else 1.0
    less = upper_tail(scores, total - observed, exact_up_to) if alternative != "greater" else 1.0
    return min(1.0, 2 * min(greater, less)) if alternative == "two-sided" else min(greater, less)


def signed_rank(d: np.ndarray, alternative: str = "two-sided") -> tuple[float, str]:
    """Return p of Wilcoxon's signed-rank test, and how it was computed.

    Zero differences are ranked and then left out of the sums (Pratt 1959); ties share their mean rank.
    Doubled ranks are whole numbers, so the null distribution is exact whatever ties and zeros there are.

    Parameters
    ----------
    d : ndarray, shape (n,)
        Differences.
    alternative : {"two-sided", "greater", "less"}

    Returns
    -------
    p : float
        1.0 where all differences are zero, NaN where there are fewer than two.
    method : {"exact", "nearly exact", "all differences are zero", "none"}
    """
    d = np.asarray(d, float)
    if len(d) < 2:
        return float("nan"), "none"
    if not d.any():
        return 1.0, "all differences are zero"
    doubled = np.rint(2 * scipy_stats.rankdata(np.abs(d))).astype(np.int64)
    p = _p(doubled[d != 0], d[d != 0] > 0, alternative, EXACT_UP_TO)
    return p, "exact" if len(d) <= EXACT_UP_TO else "nearly exact"


def rank_biserial(d: np.ndarray) -> float:
    """Return the matched-pairs rank-biserial correlation (Kerby 2014), -1 to 1.

    The favourable minus the unfavourable share of the rank sum, with the ranks of `signed_rank`. 0.0
    where all differences are zero, NaN for no difference at all.
    """
    d = np.asarray(d, float)
    if not len(d):
        return float("nan")
    ranks = scipy_stats.rankdata(np.abs(d))
    total = ranks[d != 0].sum()
    return float((ranks[d > 0].sum() - ranks[d < 0].sum()) / total) if total else 0.0


def mean_sign_change(
    d: np.ndarray, weights: np.ndarray, null: float = 0.0, alternative: str = "two-sided"
) -> float:
    """Return p of the sign-change test that the weighted mean of `d` is `null`.

    Every deviation from `null` changes sign by a fair coin. Deviations are rounded to 1 / `GRID` of their
    total, which moves the statistic by less than a hundredth of its standard error and leaves the
    test exact: rounding does not depend on the signs.

    Parameters
    ----------
    d, weights : ndarray, shape (n,)
        Weights are positive.
    null : float
    alternative : {"two-sided", "greater", "less"}
    """
    parts = np.round(np.asarray(d, float) - null, ROUND) * weights
    total = np.abs(parts).sum()
    if not total:
        return 1.0
    scores = np.rint(np.abs(parts) / total * max(GRID, 64 * len(parts))).astype(np.int64)
    scores[parts != 0] = np.maximum(scores[parts != 0], 1)  # however small, it has a sign
    return _p(scores, parts > 0, alternative, EXACT_MEANS_UP_TO)


def mean_interval(d: np.ndarray, weights: np.ndarray, level: float) -> tuple[float, float]:
    """Return the null values that the two-sided `mean_sign_change` at 1 - `level` does not reject.

    NaN limits where there are too few differences for any value to be rejected at that level.
    """
    d, weights = np.asarray(d, float), np.asarray(weights, float) / np.sum(weights)
    alpha = (1 - level) / 2
    if not len(d) or 0.5 ** len(d) >= alpha:
        return float("nan"), float("nan")
    if np.ptp(d) == 0:
        return float(d[0]), float(d[0])

    def lower(values: np.ndarray) -> float:
        # p grows with the null value, from 2^-n below the smallest value to about 1/2 at the mean
        def excess(null: float) -> float:
            return np.log(max(mean_sign_change(values, weights, null, "greater"), 1e-300) / alpha)

        smallest, mean = values.min() - 1e-9, float(values @ weights)
        reach = float(scipy_stats.norm.isf(alpha) * np.sqrt(weights**2 @ (values - mean) ** 2))
        start, end = (
            max(smallest, mean - 1.3 * reach),
            min(mean, mean - 0.7 * reach),
        )  # a guess, and then wider
        start = start if excess(start) < 0 else smallest
        end = end if excess(end) > 0 else mean
        return optimize.brentq(excess, start, end, xtol=1e-7, rtol=1e-10) if excess(end) > 0 else end

    return round(lower(d), 6), round(-lower(-d), 6)
