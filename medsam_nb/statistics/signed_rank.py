"""Wilcoxon's signed-rank test, exact for ties and zeros, with the estimate and interval that belong to it.

Differences may come in strata (data sets), each of which then has the same weight, whatever its size. Within
a stratum the magnitudes are ranked (zeros are ranked, then left out: Pratt 1959); under the null hypothesis
every sign is a fair coin, so the distribution of the weighted sum of positive ranks is a convolution of
two-point distributions, one per difference. No random numbers, no approximation up to `EXACT_MOST`
differences.

The estimate is the median of the Walsh averages, (x_i + x_j) / 2 with i <= j within a stratum (Hodges and
Lehmann 1963), again with the same weight for every stratum; the interval holds the shifts that the test does
not reject. So sign, estimate, interval and p come from one statistic and cannot contradict each other.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

EXACT_MOST = 400  # differences; beyond it the normal approximation with tied ranks
GRID = 4000  # integer scores of a stratum add up to this where strata have different sizes
MOST_LISTED = 300_000  # Walsh averages; more are counted instead of listed
ROUND = 12  # decimals; differences of equal IoUs must tie, not differ by rounding errors


@dataclass(frozen=True)
class Estimate:
    """An effect with its interval and test.

    Attributes
    ----------
    value : float
        The pseudo-median; NaN without differences.
    low, high : float
        Limits of the interval; infinite where too few differences bound it, NaN where there is none.
    p : float
        Of the test that the shift is 0; NaN for fewer than two differences.
    rank_biserial : float
        Favourable minus unfavourable share of the rank sum (Kerby 2014), -1 to 1.
    exact : bool
        Whether p and the interval are exact.
    """

    value: float
    low: float
    high: float
    p: float
    rank_biserial: float
    exact: bool


def _scores(d: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Return integer scores of the differences: doubled ranks within their stratum, strata of equal weight.

    Zeros get the score 0. With one stratum, or strata of one size, scores are the doubled ranks themselves;
    otherwise every stratum's are scaled to add up to `GRID` and rounded. A test with rounded scores is
    still exact: which scores are used is free, as long as they do not depend on the signs.
    """
    names, member, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    scores = np.zeros(len(d))
    for number in range(len(names)):
        chosen = member == number
        ranks = 2 * scipy_stats.rankdata(np.abs(d[chosen]))
        if len(set(sizes)) > 1:
            ranks = ranks * GRID / (sizes[number] * (sizes[number] + 1))
        scores[chosen] = np.where(d[chosen] == 0, 0, ranks)
    return np.rint(scores).astype(int)


def _null(scores: np.ndarray) -> np.ndarray:
    """Return the distribution of the sum of positive scores: element s is the probability of sum s."""
    found = np.ones(1)
    for score in scores[scores > 0]:
        longer = np.zeros(len(found) + score)
        longer[: len(found)] += found
        longer[score:] += found
        found = longer / 2
    return found


def _tails(scores: np.ndarray, statistic: float) -> tuple[float, float, bool]:
    """Return the probabilities of a sum at most and at least as large as this, and whether they are exact."""
    used = scores[scores > 0]
    if len(used) <= EXACT_MOST:
        null, place = _null(used), int(statistic)
        return float(null[: place + 1].sum()), float(null[place:].sum()), True
    mean, sd = used.sum() / 2, np.sqrt((used.astype(float) ** 2).sum() / 4)
    return (
        float(scipy_stats.norm.cdf((statistic - mean) / sd)),
        float(scipy_stats.norm.sf((statistic - mean) / sd)),
        False,
    )


def signed_rank(
    d: np.ndarray, alternative: str = "two-sided", strata: np.ndarray | None = None
) -> tuple[float, str]:
    """Return p of the signed-rank test and how it was computed.

    Parameters
    ----------
    d : ndarray, shape (n,)
        Differences.
    alternative : {"two-sided", "greater", "less"}
    strata : ndarray, shape (n,), optional
        Of equal weight; one stratum if left out.

    Returns
    -------
    p : float
        1.0 where all differences are zero, NaN where there are fewer than two.
    method : str

    Examples
    --------
    >>> signed_rank(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    (0.03125, 'exact')
    """
    d = np.round(np.asarray(d, float), ROUND)
    if len(d) < 2:
        return float("nan"), "none"
    if not d.any():
        return 1.0, "all differences are zero"
    scores = _scores(d, np.zeros(len(d)) if strata is None else np.asarray(strata))
    below, above, exact = _tails(scores, scores[d > 0].sum())
    p = {"greater": above, "less": below, "two-sided": min(1.0, 2 * min(below, above))}[alternative]
    return p, "exact" if exact else "normal approximation"


def rank_biserial(d: np.ndarray, strata: np.ndarray | None = None) -> float:
    """Return the matched-pairs rank-biserial correlation (Kerby 2014), with the ranks of the test.

    0.0 where all differences are zero, NaN for no difference at all.
    """
    d = np.round(np.asarray(d, float), ROUND)
    if not len(d):
        return float("nan")
    scores = _scores(d, np.zeros(len(d)) if strata is None else np.asarray(strata))
    total = scores.sum()
    return float((scores[d > 0].sum() - scores[d < 0].sum()) / total) if total else 0.0


class _Walsh:
    """The Walsh averages within strata of equal weight, and the values at shares of their weight."""

    def __init__(self, d: np.ndarray, strata: np.ndarray) -> None:
        self._parts = [np.sort(d[strata == name]) for name in np.unique(strata)]
        self._ends = float(d.min()), float(d.max())
        self._values = None
        if sum(len(x) * (len(x) + 1) // 2 for x in self._parts) <= MOST_LISTED:
            averages, weights = [], []
            for x in self._parts:
                first, second = np.triu_indices(len(x))
                averages.append((x[first] + x[second]) / 2)
                weights.append(np.full(len(first), 1 / (len(first) * len(self._parts))))
            values, shares = np.concatenate(averages), np.concatenate(weights)
            order = np.argsort(values, kind="stable")
            self._values, self._reached = values[order], np.cumsum(shares[order])

    def _below(self, value: float) -> float:
        """Return the share of averages at most this large, without listing them."""
        shares = []
        for x in self._parts:
            n = len(x)
            counted = np.searchsorted(x, 2 * value - x, side="right") - np.arange(n)
            shares.append(np.maximum(counted, 0).sum() / (n * (n + 1) / 2))
        return float(np.mean(shares))

    def at(self, share: float, side: str = "left") -> float:
        """Return the smallest average at which this share of the weight is reached ("right": passed)."""
        if self._values is not None:
            place = np.searchsorted(self._reached, share, side=side)
            return float(self._values[min(place, len(self._values) - 1)])
        low, high = self._ends
        for _ in range(60):  # many averages lie densely: halving the range finds the value to rounding
            middle = (low + high) / 2
            reached = self._below(middle)
            low, high = (middle, high) if reached < share else (low, middle)
        return high


def _critical_share(strata: np.ndarray, level: float) -> float:
    """Return the largest share of the rank sum that a two-sided test at this level still rejects, or below 0.

    For differences without ties and zeros, as those from a shift are but for finitely many shifts.
    """
    names, member = np.unique(strata, return_inverse=True)
    d = np.concatenate([np.arange(1, (member == k).sum() + 1) for k in range(len(names))])
    scores = _scores(d.astype(float), np.repeat(names, np.bincount(member)))
    alpha = (1 - level) / 2
    if len(scores) <= EXACT_MOST:
        below = np.cumsum(_null(scores))
        rejected = int(np.searchsorted(below, alpha * (1 + 1e-9), side="right")) - 1
        return rejected / scores.sum()
    sd = np.sqrt((scores.astype(float) ** 2).sum() / 4)
    return 0.5 + scipy_stats.norm.ppf(alpha) * sd / scores.sum()


def estimate(d: np.ndarray, strata: np.ndarray | None = None, level: float = 0.95) -> Estimate:
    """Return the effect with interval and two-sided test.

    Parameters
    ----------
    d : ndarray, shape (n,)
        Differences, one per unit.
    strata : ndarray, shape (n,), optional
        Of equal weight.
    level : float
        Of the interval.

    Returns
    -------
    Estimate
    """
    d = np.round(np.asarray(d, float), ROUND)
    nan = float("nan")
    if not len(d):
        return Estimate(nan, nan, nan, nan, nan, True)
    strata = np.zeros(len(d)) if strata is None else np.asarray(strata)
    averages = _Walsh(d, strata)
    middle = (averages.at(0.5 - 1e-9) + averages.at(0.5 + 1e-9)) / 2
    p, method = signed_rank(d, strata=strata)
    if len(d) < 2:
        return Estimate(float(middle), nan, nan, p, rank_biserial(d, strata), True)
    share = _critical_share(strata, level)
    if share < 0:
        low, high = -np.inf, np.inf
    else:
        low, high = averages.at(share + 1e-9, "right"), averages.at(1 - share - 1e-9)
    return Estimate(
        float(middle), float(low), float(high), p, rank_biserial(d, strata), method != "normal approximation"
    )
