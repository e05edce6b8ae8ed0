"""From paired values to an effect, its interval, and a test: declared comparisons over a table.

Effects come first: the median paired difference with a bootstrap interval and the rank-biserial
correlation. Zero differences are ranked and then left out of the sums (Pratt). P values of one
family are corrected by Holm's method.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from medsam_nb.errors import InputError
from medsam_nb.protocol.seeds import generator
from medsam_nb.statistics.pooling import Comparison, check_table, declare, paired_values

ALPHA = 0.05
RESAMPLES = 4000
FIGURE_RESAMPLES = 1000  # of each of the many intervals in a figure
FEWEST_DATA_SETS = 5  # data sets themselves are resampled from this number on
FEWEST_FOR_TEST = 6  # below it no two-sided signed-rank test can reach p < 0.05
ROUND = 12  # decimals; differences of equal IoUs must tie, not differ by rounding errors


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a - b without rounding noise."""
    return np.round(np.asarray(a, float) - np.asarray(b, float), ROUND)


def signed_rank(d: np.ndarray, alternative: str = "two-sided", seed: int = 0) -> tuple[float, str]:
    """Return p of Wilcoxon's signed-rank test and how it was computed.

    Up to 50 differences without ties or zeros: exact. Otherwise up to 13: exact over all changes
    of sign; up to 50: 9,999 random ones; more: the normal approximation. Zeros by Pratt's method.

    Parameters
    ----------
    d : ndarray, shape (n,)
        Differences.
    alternative : {"two-sided", "greater", "less"}
    seed : int
        Of the random changes of sign.

    Returns
    -------
    p : float
        1.0 where all differences are zero, NaN where there are fewer than two.
    method : str
    """
    d = np.asarray(d, float)
    if len(d) < 2:
        return float("nan"), "none"
    if not d.any():
        return 1.0, "all differences are zero"
    magnitudes = np.abs(d)
    tied = len(np.unique(magnitudes)) < len(d) or not magnitudes.all()
    if len(d) > 50:
        method, name = "asymptotic", "normal approximation"
    elif not tied:
        method, name = "exact", "exact"
    else:
        method = scipy_stats.PermutationMethod(n_resamples=9999, rng=generator("signs", seed))
        name = "all sign changes" if 2 ** len(d) <= 9999 else "9999 sign changes"
    result = scipy_stats.wilcoxon(d, zero_method="pratt", alternative=alternative, method=method)
    return float(result.pvalue), name


def rank_biserial(d: np.ndarray) -> float:
    """Return the matched-pairs rank-biserial correlation (Kerby 2014), -1 to 1.

    The favourable minus the unfavourable share of the rank sum, with the same ranks as the test
    (zeros ranked, then left out). 0.0 where all differences are zero, NaN for no difference at all.
    """
    d = np.asarray(d, float)
    if not len(d):
        return float("nan")
    ranks = scipy_stats.rankdata(np.abs(d))
    total = ranks[d != 0].sum()
    return float((ranks[d > 0].sum() - ranks[d < 0].sum()) / total) if total else 0.0


def superiority(d: np.ndarray) -> float:
    """Return the share of pairs in which the first side is greater, ties counting half."""
    d = np.asarray(d, float)
    return float(((d > 0) + 0.5 * (d == 0)).mean()) if len(d) else float("nan")


def holm(p: np.ndarray) -> np.ndarray:
    """Return p values corrected by Holm's method; NaN stays NaN and is not counted as a test."""
    p = np.asarray(p, float)
    corrected = np.full(len(p), np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        corrected[tested] = multipletests(p[tested], method="holm")[1]
    return corrected


def equivalence(d: np.ndarray, margin: float, seed: int = 0) -> tuple[float, float, str]:
    """Return p of the two one-sided tests that the difference lies within +-margin.

    Parameters
    ----------
    d : ndarray, shape (n,)
    margin : float
        Positive, in the unit of `d`.

    Returns
    -------
    p : float
        The greater of two one-sided signed-rank tests.
    p_t : float
        The same with t tests (statsmodels `ttost_paired`), as a check; NaN without variation.
    method : str
    """
    lower, method = signed_rank(np.round(d + margin, ROUND), "greater", seed)
    upper, _ = signed_rank(np.round(d - margin, ROUND), "less", seed)
    varied = len(d) > 1 and np.ptp(d) > 0
    p_t = float(ttost_paired(d, np.zeros(len(d)), -margin, margin)[0]) if varied else float("nan")
    return max(lower, upper), p_t, method


def bootstrap_draws(
    values: np.ndarray,
    groups: np.ndarray,
    statistic: Callable = np.nanmedian,
    resamples: int = RESAMPLES,
    seed: int = 0,
    outer: bool | None = None,
) -> np.ndarray:
    """Return the statistic of cluster-bootstrap samples: data sets drawn, then cases within them.

    Parameters
    ----------
    values : ndarray, shape (n,)
        One value per case.
    groups : ndarray, shape (n,)
        The data set of every case.
    statistic : callable
        ``statistic(sample, axis=1)``; must pass over NaN.
    resamples, seed : int
    outer : bool, optional
        Whether data sets are drawn too; by default from `FEWEST_DATA_SETS` on. Otherwise the data
        sets are taken as given and only cases are drawn.

    Returns
    -------
    ndarray, shape (resamples,)
    """
    values = np.asarray(values, float)
    names, member = np.unique(np.asarray(groups, str), return_inverse=True)
    order = np.argsort(member, kind="stable")
    sizes = np.bincount(member)
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    outer = len(names) >= FEWEST_DATA_SETS if outer is None else outer
    rng = generator("bootstrap", seed)
    found = []
    step = max(1, 4_000_000 // (len(names) * int(sizes.max())))
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        if outer:
            drawn = rng.integers(len(names), size=(count, len(names)))
        else:
            drawn = np.broadcast_to(np.arange(len(names)), (count, len(names)))
        place = rng.random((count, len(names), int(sizes.max())))
        index = starts[drawn][..., None] + (place * sizes[drawn][..., None]).astype(int)
        sample = values[order][np.minimum(index, len(values) - 1)]
        sample[np.arange(int(sizes.max())) >= sizes[drawn][..., None]] = np.nan
        found.append(statistic(sample.reshape(count, -1), axis=1))
    return np.concatenate(found)


def interval(
    values: np.ndarray, groups: np.ndarray, level: float = 1 - ALPHA, **options
) -> tuple[float, float, str]:
    """Return the percentile bootstrap interval of the median and what was resampled.

    `options` are those of `bootstrap_draws`. NaN limits for fewer than two cases.
    """
    outer = options.get("outer")
    outer = len(set(groups)) >= FEWEST_DATA_SETS if outer is None else outer
    label = "data sets, then cases" if outer else "cases within data sets"
    if len(values) < 2:
        return float("nan"), float("nan"), "none"
    draws = bootstrap_draws(values, groups, **options)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), label


def compare_pairs(
    values: pd.DataFrame, comparison: Comparison, resamples: int = RESAMPLES, seed: int = 0
) -> dict:
    """Return effects, interval and test of one set of pairs.

    Parameters
    ----------
    values : DataFrame
        Columns `a`, `b`, `data_set`; one row per unit (`pooling.paired_values`).
    comparison : Comparison
    """
    d = differences(values["a"], values["b"])
    notes = []
    p_t = float("nan")
    if comparison.test == "equivalence":
        p, p_t, method = equivalence(d, comparison.margin, seed)
        method = f"two one-sided signed-rank tests, margin {comparison.margin:g}, {method}"
    elif comparison.test == "not_worse":
        p, method = signed_rank(np.round(d + comparison.margin, ROUND), "greater", seed)
        method = f"one-sided signed-rank test against -{comparison.margin:g}, {method}"
    else:
        p, method = signed_rank(d, comparison.alternative, seed)
        method = f"signed-rank test, {comparison.alternative}, {method}"
    if not len(d):
        notes.append("no unit has both sides")
    elif len(d) == 1:
        notes.append("one unit: no test, no interval")
    elif len(d) < FEWEST_FOR_TEST:
        notes.append(f"only {len(d)} units: a two-sided test cannot reach p < 0.05")
    if len(d) > 1 and 2 * (d == 0).sum() >= len(d):
        notes.append(f"{(d == 0).sum()} of {len(d)} units have the same value on both sides")
    groups = values["data_set"].astype(str).to_numpy()
    # two one-sided tests at alpha answer to an interval of 1 - 2 alpha
    level = 1 - 2 * ALPHA if comparison.test == "equivalence" else 1 - ALPHA
    low, high, drawn = interval(d, groups, level, resamples=resamples, seed=seed)
    if len(d) > 1 and len(set(groups)) > 1 and comparison.unit == "object":
        notes.append("objects of one data set are not independent")
    return {
        "n": len(d),
        "n_data_sets": len(set(groups)),
        "n_zero": int((d == 0).sum()),
        "mean_a": float(values["a"].mean()),
        "mean_b": float(values["b"].mean()),
        "median_difference": float(np.median(d)) if len(d) else float("nan"),
        "ci_low": low,
        "ci_high": high,
        "ci_level": level,
        "rank_biserial": rank_biserial(d),
        "superiority": superiority(d),
        "mean_difference": float(d.mean()) if len(d) else float("nan"),
        "p": p if len(d) > 1 else float("nan"),
        "p_tost_t": p_t,
        "method": method if len(d) > 1 else "none",
        "interval": drawn,
        "note": "; ".join(notes),
    }


def _expanded(table: pd.DataFrame, comparison: Comparison) -> list[tuple[str, Comparison]]:
    if not comparison.each:
        return [("", comparison)]
    # `each` splits only over values which both sides can have
    rows = table
    for column, wanted in comparison.where.items():
        rows = rows[rows[column].isin(wanted if isinstance(wanted, list) else [wanted])]
    levels = sorted(rows[comparison.each].dropna().unique())
    return [
        (
            str(level),
            Comparison(
                **{
                    **{name: getattr(comparison, name) for name in comparison.__dataclass_fields__},
                    "where": {**comparison.where, comparison.each: level},
                }
            ),
        )
        for level in levels
    ]


COMPARISON_COLUMNS = (
    ["comparison", "level", "family", "n_tests", "unit", "test", "margin", "n", "n_data_sets", "n_zero"]
    + ["n_unpaired", "failed_a", "failed_b", "designs", "mean_a", "mean_b"]
    + [
        "median_difference",
        "ci_low",
        "ci_high",
        "ci_level",
        "rank_biserial",
        "superiority",
        "mean_difference",
    ]
    + ["p", "p_holm", "p_tost_t", "method", "interval", "note"]
)


def compare(
    table: pd.DataFrame,
    comparisons: list[Mapping | Comparison],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Make the declared comparisons, corrected by Holm within each family.

    Parameters
    ----------
    table : DataFrame
        The tidy table (`store.COLUMNS`), of this workbook or any other.
    comparisons : list of mapping
        See `pooling.declare`. All of them are made, and all are reported.
    resamples, seed : int
        Of the bootstrap and the random changes of sign.

    Returns
    -------
    DataFrame
        One row per comparison, columns `COMPARISON_COLUMNS`. A comparison for which the table has
        no pairs has `n` 0 and a note; it does not count as a test.
    """
    checked = check_table(table)
    declared = [declare(item) for item in comparisons]
    names = [comparison.name for comparison in declared]
    if len(set(names)) < len(names):
        raise InputError("comparisons", "two of them have the same name.", "Give each its own.")
    rows = []
    for comparison in declared:
        for level, one in _expanded(checked, comparison) or [("", comparison)]:
            pairs = paired_values(checked, one)
            rows.append(
                {
                    "comparison": comparison.name,
                    "level": level,
                    "family": comparison.family,
                    "unit": comparison.unit,
                    "test": comparison.test,
                    "margin": comparison.margin if comparison.test != "difference" else float("nan"),
                    "n_unpaired": pairs.unpaired,
                    "failed_a": pairs.failed_a,
                    "failed_b": pairs.failed_b,
                    "designs": pairs.designs,
                    **compare_pairs(pairs.values, one, resamples, seed),
                }
            )
    result = pd.DataFrame(rows, columns=COMPARISON_COLUMNS)
    for _, family in result.groupby("family", sort=False):
        result.loc[family.index, "p_holm"] = holm(family["p"].to_numpy(float))
        result.loc[family.index, "n_tests"] = int(family["p"].notna().sum())
    return result.astype({"p_holm": float, "n_tests": "Int64"})


def summarise(cases: pd.DataFrame, by: list[str], resamples: int = FIGURE_RESAMPLES) -> pd.DataFrame:
    """Return mean over cases, 95 % cluster-bootstrap interval and number of cases of every cell.

    Parameters
    ----------
    cases : DataFrame
        One row per case and cell: `data_set`, `value` and the columns of `by`.

    Returns
    -------
    DataFrame
        Columns of `by`, `mean`, `ci_low`, `ci_high` (missing for one case), `n_cases`, `n_data_sets`.
    """
    found = []
    for key, cell in cases.groupby(by, dropna=False, sort=False):
        values = cell["value"].to_numpy(float)
        low = high = float("nan")
        if len(values) > 1:
            draws = bootstrap_draws(values, cell["data_set"].to_numpy(str), np.nanmean, resamples)
            low, high = np.quantile(draws, [0.025, 0.975])
        found.append(
            {
                **dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)),
                "mean": values.mean(),
                "ci_low": low,
                "ci_high": high,
                "n_cases": len(values),
                "n_data_sets": cell["data_set"].nunique(),
            }
        )
    return pd.DataFrame(found, columns=[*by, "mean", "ci_low", "ci_high", "n_cases", "n_data_sets"])
