"""Declared comparisons over a table: paired values to effects with intervals and tests, corrected by family.

`inference` says at which level; p values of one family are corrected by Holm's method. Holm's intervals are
those whose level goes with the step at which Holm's method stopped, so that an interval excludes 0 where, and
only where, the corrected p is below 0.05.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from medsam_nb.errors import InputError
from medsam_nb.statistics.inference import (
    ALPHA,
    FEWEST_UNITS,
    differences,
    infer,
    interval_at,
    mean_interval,
)
from medsam_nb.statistics.pooling import Comparison, check_table, declare, paired_values

# What `compare_pairs` returns, in this order.
EFFECTS = (
    *("n", "n_cases", "n_data_sets", "generalises_to", "n_units", "n_zero", "mean_a", "mean_b"),
    *("difference", "ci_low", "ci_high", "ci_level", "rank_biserial", "superiority"),
    *("mean_difference", "case_weighted", "largest_share", "sets_above", "sets_below"),
)


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


def holm_levels(p: np.ndarray) -> np.ndarray:
    """Return, for every p, the error that Holm's method leaves to its interval.

    The k-th smallest of m that is rejected has alpha / (m - k + 1); those that are not share what is left
    at the step where the method stopped.
    """
    p = np.asarray(p, float)
    levels, tested = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    for step, place in enumerate(order):
        left = ALPHA / (len(order) - step)
        if p[place] > left:
            levels[order[step:]] = left
            break
        levels[place] = left
    return levels


def mean_of_sets(values: pd.Series, data_sets: pd.Series) -> float:
    """Return the mean over data sets of their means: every data set has the same weight."""
    return float(values.groupby(data_sets).mean().mean()) if len(values) else float("nan")


def compare_pairs(values: pd.DataFrame, comparison: Comparison) -> dict:
    """Return effects, interval and test of one set of pairs.

    Parameters
    ----------
    values : DataFrame
        Columns `a`, `b`, `data_set`, and `n_cases` where a unit has several; one row per unit
        (`pooling.paired_values`).
    comparison : Comparison
    """
    d, sets = differences(values["a"], values["b"]), values["data_set"].astype(str).to_numpy()
    found = infer(d, sets, test=comparison.test, margin=comparison.margin, alternative=comparison.alternative)
    sided = "two-sided" if comparison.test == "difference" else "greater"
    fewest = FEWEST_UNITS[comparison.alternative if comparison.test == "difference" else sided]
    notes = []
    if not len(d):
        notes.append("no unit has both sides")
    elif len(d) == 1:
        notes.append("one unit: no test, no interval")
    elif found["n_units"] < fewest:
        notes.append(f"only {found['n_units']} units: the test cannot reach p < {ALPHA:g}")
    if len(d) > 1 and 2 * (d == 0).sum() >= len(d):
        notes.append(f"{(d == 0).sum()} of {len(d)} units have the same value on both sides")
    if found["difference"] * found["mean_difference"] < 0 and comparison.test == "difference":
        notes.append("ranks and mean disagree in direction")
    if len(d) > 1 and found["n_data_sets"] > 1 and comparison.unit == "object":
        notes.append("objects of one data set are not independent")
    cases = values["n_cases"].sum() if "n_cases" in values else len(values)
    more = {
        "n": len(d),
        "n_cases": int(cases),
        "n_zero": int((d == 0).sum()),
        "mean_a": mean_of_sets(values["a"], values["data_set"]),
        "mean_b": mean_of_sets(values["b"], values["data_set"]),
        "superiority": superiority(d),
        "note": "; ".join(notes),
    }
    return found | more


def with_holm(rows: pd.DataFrame, values: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of one family with `p_holm`, `n_tests` and the intervals that go with them.

    Parameters
    ----------
    rows : DataFrame
        With `p`, `test` ("difference", "equivalence", "not_worse").
    values : list of DataFrame
        The pairs behind every row.
    """
    p = rows["p"].to_numpy(float)
    limits = []
    for pairs, left, test in zip(values, holm_levels(p), rows["test"], strict=True):
        if np.isnan(left):
            limits.append((np.nan, np.nan))
            continue
        level = 1 - left if test == "difference" else 1 - 2 * left
        d = differences(pairs["a"], pairs["b"])
        limits.append(interval_at(d, pairs["data_set"].astype(str).to_numpy(), level))
    low, high = zip(*limits, strict=True) if limits else ((), ())
    return rows.assign(p_holm=holm(p), n_tests=int((~np.isnan(p)).sum()), holm_low=low, holm_high=high)


def _expanded(table: pd.DataFrame, comparison: Comparison) -> list[tuple[str, Comparison]]:
    if not comparison.each:
        return [("", comparison)]
    # `each` splits only over values which both sides can have
    rows = table
    for column, wanted in comparison.where.items():
        rows = rows[rows[column].isin(wanted if isinstance(wanted, list) else [wanted])]
    levels = sorted(rows[comparison.each].dropna().unique())
    return [
        (str(level), replace(comparison, where={**comparison.where, comparison.each: level}))
        for level in levels
    ]


COMPARISON_COLUMNS = [
    *("comparison", "level", "family", "n_tests", "unit", "test", "margin"),
    *EFFECTS,
    *(
        "p",
        "p_holm",
        "holm_low",
        "holm_high",
        "method",
        "n_unpaired",
        "failed_a",
        "failed_b",
        "designs",
        "note",
    ),
]


def compare(table: pd.DataFrame, comparisons: list[Mapping | Comparison]) -> pd.DataFrame:
    """Make the declared comparisons, corrected by Holm within each family.

    Parameters
    ----------
    table : DataFrame
        The tidy table (`table.COLUMNS`), of this workbook or any other.
    comparisons : list of mapping
        See `pooling.declare`. All of them are made, and all are reported.

    Returns
    -------
    DataFrame
        One row per comparison, columns `COMPARISON_COLUMNS`. `n` counts units (patients, unless declared
        otherwise) with both sides, `difference` is the pseudo-median of a - b with data sets of equal weight,
        `generalises_to` what the test speaks of. A comparison for which the table has no pairs has `n` 0 and
        a note; it does not count as a test.
    """
    checked = check_table(table)
    declared = [declare(item) for item in comparisons]
    names = [comparison.name for comparison in declared]
    if len(set(names)) < len(names):
        raise InputError("comparisons", "two of them have the same name.", "Give each its own.")
    rows, values = [], []
    for comparison in declared:
        for level, one in _expanded(checked, comparison) or [("", comparison)]:
            pairs = paired_values(checked, one)
            values.append(pairs.values)
            rows.append(
                {
                    "comparison": comparison.name,
                    "level": level,
                    "family": comparison.family,
                    "unit": pairs.unit,
                    "test": comparison.test,
                    "margin": comparison.margin if comparison.test != "difference" else float("nan"),
                    "n_unpaired": pairs.unpaired,
                    "failed_a": pairs.failed_a,
                    "failed_b": pairs.failed_b,
                    "designs": pairs.designs,
                    **compare_pairs(pairs.values, one),
                }
            )
    result = pd.DataFrame(rows, columns=COMPARISON_COLUMNS)
    families = [
        with_holm(family, [values[place] for place in family.index])
        for _, family in result.groupby("family", sort=False)
    ]
    result = pd.concat(families).sort_index() if families else result
    return result.astype({"p_holm": float, "n_tests": "Int64"})


def summarise(cases: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the mean with its 95 % interval, data sets of equal weight, and the counts of every cell.

    Parameters
    ----------
    cases : DataFrame
        One row per patient (or case) and cell: `data_set`, `value` and the columns of `by`.

    Returns
    -------
    DataFrame
        Columns of `by`, `mean`, `ci_low`, `ci_high` (missing where the spread is unknown), `n_cases`,
        `n_patients`, `n_data_sets`; see `inference.mean_interval`.
    """
    found = []
    for key, cell in cases.groupby(by, dropna=False, sort=False):
        who = ["data_set", "patient_id"] if "patient_id" in cell else None
        units = cell.groupby(who)["value"].mean().reset_index() if who else cell
        mean, low, high = mean_interval(units["value"].to_numpy(float), units["data_set"].to_numpy(str))
        found.append(
            {
                **dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)),
                "mean": mean,
                "ci_low": low,
                "ci_high": high,
                "n_cases": len(cell),
                "n_patients": len(units),
                "n_data_sets": cell["data_set"].nunique(),
            }
        )
    return pd.DataFrame(
        found, columns=[*by, "mean", "ci_low", "ci_high", "n_cases", "n_patients", "n_data_sets"]
    )
