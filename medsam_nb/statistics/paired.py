"""From paired values to an effect, its interval, a test and a finding: declared comparisons over a table.

Effects come first: the mean difference in which every data set weighs the same, with the interval and the
p value of one and the same test (`inference`). Beside it stand the mean over units, the median, the ranks and
how many data sets lie on either side. P values of one family are corrected by Holm's method, and so are the
intervals from which a finding follows (`correction`, `findings`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from medsam_nb.errors import InputError
from medsam_nb.statistics.declarations import Comparison, declare
from medsam_nb.statistics.findings import finding
from medsam_nb.statistics.inference import ALPHA, FEWEST_UNITS, Sample
from medsam_nb.statistics.multiple_testing import holm, holm_divisors
from medsam_nb.statistics.pairing import paired_values
from medsam_nb.statistics.pooling import OVERLAPS, check_table, patient_means
from medsam_nb.statistics.signs import ROUND, rank_biserial, signed_rank

Interval = Callable[[float], tuple[float, float]]  # of a level


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a - b without rounding noise."""
    return np.round(np.asarray(a, float) - np.asarray(b, float), ROUND)


def superiority(d: np.ndarray) -> float:
    """Return the share of pairs in which the first side is greater, ties counting half."""
    d = np.asarray(d, float)
    return float(((d > 0) + 0.5 * (d == 0)).mean()) if len(d) else float("nan")


def _tested(sample: Sample, comparison: Comparison, null: float) -> tuple[float, float, str, str]:
    """Return p, the level of the interval that answers to it, the side of the test, and what it asks."""
    margin = comparison.margin
    if comparison.test == "equivalence":
        # two one-sided tests at alpha answer to an interval of 1 - 2 alpha
        p = max(sample.p("greater", -margin), sample.p("less", margin))
        return p, 1 - 2 * ALPHA, "greater", f"two one-sided tests against -{margin:g} and {margin:g}"
    if comparison.test == "not_worse":
        return sample.p("greater", -margin), 1 - 2 * ALPHA, "greater", f"one-sided against -{margin:g}"
    side = comparison.alternative
    level = 1 - ALPHA if side == "two-sided" else 1 - 2 * ALPHA
    asked = "two-sided" if side == "two-sided" else f"one-sided ({side})"
    return sample.p(side, null), level, side, asked + (f" against {null:g}" if null else "")


def _ranked(units: np.ndarray, comparison: Comparison, null: float) -> float:
    """Return p of the same question asked of ranks: the exact signed-rank test."""

    def p(null: float, alternative: str) -> float:
        return signed_rank(np.round(units - null, ROUND), alternative)[0]

    if comparison.test == "equivalence":
        return max(p(-comparison.margin, "greater"), p(comparison.margin, "less"))
    if comparison.test == "not_worse":
        return p(-comparison.margin, "greater")
    return p(null, comparison.alternative)


def _notes(sample: Sample, side: str, d: np.ndarray, noun: str) -> list[str]:
    """Return what a reader of the numbers has to know."""
    n, notes = len(d), []
    if not n:
        return [f"no {noun} has both sides"]
    if n == 1:
        return [f"one {noun}: no test, no interval"]
    if n < FEWEST_UNITS[side]:
        kind = "two-sided" if side == "two-sided" else "one-sided"
        notes.append(f"only {n} {noun}s: a {kind} test cannot reach p < {ALPHA:g}")
    if 2 * (d == 0).sum() >= n:
        notes.append(f"{(d == 0).sum()} of {n} {noun}s have the same value on both sides")
    return notes


def assess(
    values: pd.DataFrame, comparison: Comparison, noun: str = "case", null: float = 0.0
) -> tuple[dict, Interval]:
    """Return effects, interval and test of one set of pairs, and the function that gives its intervals.

    Parameters
    ----------
    values : DataFrame
        Columns `data_set`, `a`, `b`, and `n_cases` where a unit has several; one row per unit
        (`pairing.paired_values`).
    comparison : Comparison
        Its test, alternative and margin count.
    noun : str
        What a unit is called.
    null : float
        Against what a test of a difference is made.
    """
    d = differences(values["a"], values["b"])
    names = values["data_set"].astype(str).to_numpy()
    sample = Sample(d, names)
    p, level, side, asked = _tested(sample, comparison, null)
    low, high = sample.interval(level)
    a, b = (Sample(values[key].to_numpy(float), names).estimate for key in ("a", "b"))
    cases = int(values["n_cases"].sum()) if "n_cases" in values else len(d)
    generalises_to = sample.generalises_to.replace("these alone", f"these {noun}s alone")
    row = {
        "n": len(d),
        "n_cases": cases,
        "n_data_sets": sample.n_data_sets,
        "n_units": len(sample.units),
        "n_zero": int((d == 0).sum()),
        "mean_a": a,
        "mean_b": b,
        "difference": sample.estimate,
        "ci_low": low,
        "ci_high": high,
        "ci_level": level,
        "case_weighted": float(d.mean()) if len(d) else float("nan"),
        "median_difference": float(np.median(sample.units)) if len(d) else float("nan"),
        "rank_biserial": rank_biserial(sample.units),
        "superiority": superiority(d),
        "largest_share": float(sample.sizes.max() / len(d)) if len(d) else float("nan"),
        "sets_above": int((sample.set_means > 0).sum()),
        "sets_below": int((sample.set_means < 0).sum()),
        "generalises_to": generalises_to,
        "unit": noun,
        "p": p,
        "p_signed_rank": _ranked(sample.units, comparison, null),
        "method": f"{sample.method.format(units=noun + 's')}, {asked}" if len(d) > 1 else "none",
        "note": "; ".join(_notes(sample, side, d, noun)),
    }
    return row, sample.interval


def compare_pairs(
    values: pd.DataFrame, comparison: Comparison, noun: str = "case", null: float = 0.0
) -> dict:
    """Return effects, interval and test of one set of pairs, not corrected for others (`assess`)."""
    return assess(values, comparison, noun, null)[0]


def corrected(
    rows: Sequence[Mapping], intervals: Sequence[Interval | None], counted: Sequence[bool] | None = None
) -> pd.DataFrame:
    """Return the tests of one or more families with corrected p values, and intervals to match.

    Parameters
    ----------
    rows : sequence of mapping
        With `family`, `p` and `ci_level`.
    intervals : sequence of callable
        What gives each row's interval at a level; None where there is none.
    counted : sequence of bool, optional
        False for a row that repeats the test of another: it gets no corrected p here.

    Returns
    -------
    DataFrame
        The rows with `p_holm`, `n_tests` (of the family) and `holm_low`, `holm_high`,
        `holm_level`: the interval that leaves 0, or lies within the margin, where `p_holm` is below 0.05.
    """
    frame = pd.DataFrame(rows)
    p = frame["p"].astype(float).where(np.ones(len(frame), bool) if counted is None else np.array(counted))
    for _, family in p.groupby(frame["family"], sort=False):
        tests = family.to_numpy(float)
        frame.loc[family.index, "p_holm"] = holm(tests)
        frame.loc[family.index, "divisor"] = holm_divisors(tests)
        frame.loc[family.index, "n_tests"] = int(np.isfinite(tests).sum())
    levels = 1 - (1 - frame["ci_level"].astype(float)) / frame["divisor"].astype(float)
    limits = [
        interval(level) if interval and np.isfinite(level) else (float("nan"), float("nan"))
        for interval, level in zip(intervals, levels, strict=True)
    ]
    frame["holm_low"], frame["holm_high"] = np.array(limits, float).T
    frame["holm_level"] = levels
    return frame.drop(columns="divisor").astype({"p_holm": float, "n_tests": "Int64"})


def joined(note: str, why: str) -> str:
    """Return a note with a further one, unless the first says already that there are too few."""
    return note if "cannot reach" in note else "; ".join(filter(None, [note, why]))


def _expanded(table: pd.DataFrame, comparison: Comparison) -> list[tuple[str, Comparison]]:
    if not comparison.each:
        return [("", comparison)]
    # `each` splits only over values which both sides can have
    rows = table
    for column, wanted in comparison.where.items():
        rows = rows[rows[column].isin(wanted if isinstance(wanted, list) else [wanted])]
    # and that say anything of what differs: masks from elsewhere have no prompt and no design
    rows = rows.dropna(subset=[comparison.each, *{*comparison.a, *comparison.b} - {comparison.each}])
    levels = sorted(rows[comparison.each].unique())
    return [
        (str(level), replace(comparison, where={**comparison.where, comparison.each: level}))
        for level in levels
    ]


# What a person reads first; the interval is the one that goes with the corrected p.
BRIEF_COLUMNS = [
    *("comparison", "level", "n", "unit", "difference", "holm_low", "holm_high", "p_holm", "finding"),
    *("generalises_to", "case_weighted", "note"),
]
COMPARISON_COLUMNS = [
    *("comparison", "level", "family", "n_tests", "metric", "unit", "test", "margin"),
    *(
        "n",
        "n_patients",
        "n_cases",
        "n_data_sets",
        "n_units",
        "n_zero",
        "n_unpaired",
        "failed_a",
        "failed_b",
        "designs",
    ),
    *("mean_a", "mean_b", "difference", "ci_low", "ci_high", "ci_level"),
    *("holm_low", "holm_high", "holm_level"),
    *("case_weighted", "median_difference", "rank_biserial", "superiority"),
    *("largest_share", "sets_above", "sets_below"),
    *("p", "p_holm", "p_signed_rank", "finding", "generalises_to", "method", "note"),
]


def compare(table: pd.DataFrame, comparisons: list[Mapping | Comparison]) -> pd.DataFrame:
    """Make the declared comparisons, corrected by Holm within each family.

    Parameters
    ----------
    table : DataFrame
        The tidy table (`table.COLUMNS`), of this workbook or any other.
    comparisons : list of mapping
        See `declarations.declare`. All of them are made, and all are reported.

    Returns
    -------
    DataFrame
        One row per comparison, columns `COMPARISON_COLUMNS`. `difference` weighs data sets alike; its
        interval belongs to `p`, and that of `holm_*` to `p_holm` and to the finding, which holds for whom
        `generalises_to` says. `median_difference`, `rank_biserial` and `p_signed_rank` (exact) are of what
        the inference takes as drawn: means of data sets from 6 on, otherwise units. `case_weighted` lets
        large data sets weigh more. A comparison for which the table has no pairs has `n` 0 and a note; it
        does not count as a test.
    """
    checked = check_table(table)
    declared = [declare(item) for item in comparisons]
    names = [comparison.name for comparison in declared]
    if len(set(names)) < len(names):
        raise InputError("comparisons", "two of them have the same name.", "Give each its own.")
    rows, intervals, relations = [], [], []
    for comparison in declared:
        for level, one in _expanded(checked, comparison) or [("", comparison)]:
            pairs = paired_values(checked, one)
            row, interval = assess(pairs.values, one, pairs.noun)
            rows.append(
                {
                    "comparison": comparison.name,
                    "level": level,
                    "family": comparison.family,
                    "metric": comparison.metric,
                    "test": comparison.test,
                    "margin": comparison.margin if comparison.test != "difference" else float("nan"),
                    "n_unpaired": pairs.unpaired,
                    "failed_a": pairs.failed_a,
                    "failed_b": pairs.failed_b,
                    "designs": pairs.designs,
                    **row,
                    "n_patients": pairs.n_patients,
                    "n_cases": pairs.n_cases,
                }
            )
            intervals.append(interval)
            directions = {"two-sided": "!=", "greater": ">", "less": "<"}
            relation = {"equivalence": "=", "not_worse": ">="}.get(one.test, directions[one.alternative])
            relations.append((relation, one.margin, one.metric in OVERLAPS))
    if not rows:
        return pd.DataFrame(columns=COMPARISON_COLUMNS).astype({"p_holm": float, "n_tests": "Int64"})
    result = corrected(rows, intervals)
    found = [
        finding(*how[:1], row, *how[1:])
        for how, row in zip(relations, result.to_dict("records"), strict=True)
    ]
    result["finding"] = [what for what, _ in found]
    result["note"] = [joined(note, why) for note, (_, why) in zip(result["note"], found, strict=True)]
    return result[COMPARISON_COLUMNS]


def summarise(cases: pd.DataFrame, by: list[str], level: float = 1 - ALPHA) -> pd.DataFrame:
    """Return the mean of every cell, data sets weighing alike, its interval, and the numbers behind.

    Parameters
    ----------
    cases : DataFrame
        One row per case and cell: `data_set`, `case_id`, `patient_id` (without it, the case is its own
        patient), `value` and the columns of `by`.
    by : list of str
    level : float
        Of the intervals.

    Returns
    -------
    DataFrame
        Columns of `by`, `mean`, `ci_low`, `ci_high` (of `inference.Sample`; missing for fewer than 6
        patients in fewer than 6 data sets), `n_patients`, `n_cases`, `n_data_sets`.
    """
    found = []
    patients = patient_means(cases, by)
    for key, cell in patients.groupby(by, dropna=False, sort=False):
        sample = Sample(cell["value"].to_numpy(float), cell["data_set"].to_numpy(str))
        low, high = sample.interval(level)
        found.append(
            {
                **dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)),
                "mean": sample.estimate,
                "ci_low": low,
                "ci_high": high,
                "n_patients": len(cell),
                "n_cases": int(cell["n_cases"].sum()),
                "n_data_sets": sample.n_data_sets,
            }
        )
    columns = [*by, "mean", "ci_low", "ci_high", "n_patients", "n_cases", "n_data_sets"]
    return pd.DataFrame(found, columns=columns)
