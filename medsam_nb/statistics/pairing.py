"""What is compared with what: two sides of the table, matched row by row, averaged to one pair per unit."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd

from medsam_nb.errors import InputError
from medsam_nb.protocol.table import FACTORS
from medsam_nb.statistics.declarations import UNITS, Comparison
from medsam_nb.statistics.pooling import NEVER_MIXED, of_metric, select, unit_noun

CASE = ("data_set", "patient_id", "case_id")


def _side(table: pd.DataFrame, comparison: Comparison, choice: Mapping) -> pd.DataFrame:
    rows = of_metric(select(table, {**comparison.where, **choice}), comparison.metric)
    if comparison.slices != "all" and rows["distance_slices"].notna().any():
        prompted = rows["distance_slices"].eq(0).fillna(False)
        rows = rows[prompted if comparison.slices == "prompted" else ~prompted]
    for column in NEVER_MIXED:
        values = sorted(rows[column].dropna().unique())
        if len(values) > 1:
            raise InputError(
                f"comparison {comparison.name!r}",
                f"one side mixes {column} {', '.join(values)}.",
                f"Name one of them under 'where', or set 'each: {column}'.",
            )
    return rows


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two values per unit, and what was counted on the way.

    Attributes
    ----------
    values : DataFrame
        One row per unit that has both sides: the columns of the unit, `a`, `b` and `n_cases`.
    unpaired : int
        Units that have only one side.
    failed_a, failed_b : int
        Masks that failed and count as 0.
    designs : int
        Combinations of the remaining factors that were matched and averaged.
    n_patients, n_cases : int
        That have both sides.
    noun : str
        What a unit is called: "patient", "case" where every case is its own patient, or "object".
    """

    values: pd.DataFrame
    unpaired: int
    failed_a: int
    failed_b: int
    designs: int
    n_patients: int
    n_cases: int
    noun: str


def by_patient(
    cases: pd.DataFrame,
    values: Collection[str] = ("a", "b"),
    unit: str = "patient",
) -> pd.DataFrame:
    """Return the means of cases over each unit of a data set, with the number of cases in `n_cases`.

    Parameters
    ----------
    cases : DataFrame
        One row per case: `data_set`, `patient_id` or `object`, `case_id`, and the values.
    values : collection of str
    unit : {"patient", "object"}
    """
    means = {name: (name, "mean") for name in values}
    grouped = cases.groupby(UNITS[unit], dropna=False, sort=True)
    return grouped.agg(**means, n_cases=("case_id", "nunique")).reset_index()


def paired_values(table: pd.DataFrame, comparison: Comparison) -> Pairs:
    """Match the two sides row by row, and average what is matched to one pair per unit.

    Rows are matched on data set, case, object, slice and on every factor that has values on both
    sides and is not what differs. A factor that exists on one side only (the frame choice, between
    2D and 3D) is averaged over.

    Parameters
    ----------
    table : DataFrame
        As `check_table` returns it.
    comparison : Comparison
    """
    sides = [_side(table, comparison, choice) for choice in (comparison.a, comparison.b)]
    differs = {*comparison.a, *comparison.b}
    factors = [
        column
        for column in FACTORS
        if column not in differs and all(side[column].notna().any() for side in sides)
    ]
    unit = UNITS[comparison.unit]
    index = [*CASE, "object", *factors, "slice_index"]
    a, b = (
        side.astype({"value": "float64"}).groupby(index, dropna=False, sort=False)["value"].mean()
        for side in sides
    )
    both = pd.concat([a.rename("a"), b.rename("b")], axis=1, join="inner").reset_index()
    present = [set(map(tuple, side[unit].drop_duplicates().itertuples(index=False))) for side in sides]
    means = both
    for kept in (
        [*CASE, "object", *factors],
        [*CASE, "object"],
        *([[*CASE]] if comparison.unit == "patient" else []),
    ):
        means = means.groupby(kept, dropna=False, sort=True)[["a", "b"]].mean().reset_index()
    means = by_patient(means, unit=comparison.unit)
    paired = set(map(tuple, means[unit].itertuples(index=False)))
    return Pairs(
        values=means,
        unpaired=len((present[0] | present[1]) - paired),
        failed_a=int(sides[0]["failed"].sum()),
        failed_b=int(sides[1]["failed"].sum()),
        designs=len(both[factors].drop_duplicates()) if factors else int(len(both) > 0),
        n_patients=len(both[["data_set", "patient_id"]].drop_duplicates()),
        n_cases=len(both[["data_set", "case_id"]].drop_duplicates()),
        noun=unit_noun(both) if comparison.unit == "patient" else comparison.unit,
    )
