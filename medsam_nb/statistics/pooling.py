"""From rows to one value per unit: what counts, and how it is averaged.

The order of averaging is: slices of an object, designs that are compared alike, objects of a case, cases of
a patient; every step weighs what it averages alike. Data sets are not averaged here: they are the clusters
of `inference`. Nothing is imputed. A mask that could not be scored although the object is there counts as 0
and is counted; a row without a value for any other reason is left out and counted.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd

from medsam_nb.errors import InputError
from medsam_nb.protocol.designs import parse_design
from medsam_nb.protocol.table import FACTORS, KEY_COLUMNS, as_table

# Metrics between 0 and 1 in which a failed mask is a 0.
OVERLAPS = ("iou", "volume_iou", "volume_dice", "dice", "nsd")
# Averaging over these by accident would mix experiments: a selection has to name them if they vary.
NEVER_MIXED = (
    *("task", "model", "mask_scope", "protocol", "frames", "memory", "prompt_source"),
    *("volume_change", "volume_repair"),
)


def check_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its types, failed masks set to 0, and a column `failed`.

    Where no patient is named, the case is its own patient. Rows without a value that are no failures
    (nothing to score, a distance that is not defined) are left out; their number is in
    ``attrs["missing"]``.

    Raises
    ------
    InputError
        If two rows have the same key, if a row names no data set, case or metric, if a case belongs to
        two patients, or if a value is infinite or an overlap lies outside 0 to 1.
    """
    table = as_table(table)
    for column in ("data_set", "case_id", "metric"):
        if table[column].isna().any():
            raise InputError("results table", f"rows without {column!r}.", "Fill the column.")
    table = table.assign(patient_id=table["patient_id"].fillna(table["case_id"]))
    owners = table[["data_set", "case_id", "patient_id"]].drop_duplicates()
    shared = owners[owners.duplicated(["data_set", "case_id"], keep=False)]
    if len(shared):
        raise InputError(
            "results table",
            f"case {shared['case_id'].iloc[0]!r} belongs to patients {', '.join(shared['patient_id'])}.",
            "Give every case one patient.",
        )
    keys = [column for column in KEY_COLUMNS if column != "run_key"]
    repeated = table.duplicated(keys, keep=False)
    if repeated.any():
        first = table.loc[repeated, keys].iloc[0].dropna().to_dict()
        raise InputError(
            "results table",
            f"{int(repeated.sum())} rows share their keys with others, the first of them {first}.",
            "Keep one row per value; rows of two runs must differ in a key column.",
        )
    value = table["value"].astype("float64").to_numpy(na_value=np.nan)
    overlap = table["metric"].isin(OVERLAPS).to_numpy()
    wrong = np.isinf(value) | (overlap & ((value < 0) | (value > 1)))
    if wrong.any():
        first = table.loc[wrong, [*keys, "value"]].iloc[0].dropna().to_dict()
        raise InputError("results table", f"impossible values, the first in {first}.", "Compute it again.")
    absent = table["truth_px"].eq(0).fillna(False).to_numpy(dtype=bool)
    failed = np.isnan(value) & overlap & ~absent
    table = table.assign(value=pd.array(np.where(failed, 0.0, value), "Float64"), failed=failed)
    kept = ~(np.isnan(value) & ~failed)
    checked = table[kept].reset_index(drop=True)
    checked.attrs = {"missing": int((~kept).sum()), "failed": int(failed.sum())}
    return checked


def select(table: pd.DataFrame, choice: Mapping) -> pd.DataFrame:
    """Return the rows in which every named column has the value, or one of the values."""
    for column, wanted in choice.items():
        wanted = list(wanted) if isinstance(wanted, list | tuple | set) else [wanted]
        table = table[table[column].isin(wanted)]
    return table


def rows_of_design(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the 3D rows of one design, by its name (`designs.Design.name`)."""
    return select(table, {"task": "3d"} | asdict(parse_design(name)))


def of_metric(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of a metric; Dice, where it is not stored, from the IoU of the same mask.

    Dice is 2 IoU / (1 + IoU). That holds for one mask, not for means: rows that are no slices, or
    published means, give none.
    """
    rows = table[table["metric"] == metric]
    if metric != "dice" or len(rows):
        return rows
    rows = table[(table["metric"] == "iou") & table["slice_index"].notna()]
    return rows.assign(
        metric=pd.array(["dice"] * len(rows), "string"), value=2 * rows["value"] / (1 + rows["value"])
    )


def refuse_mixture(rows: pd.DataFrame, by: Collection[str]) -> None:
    """Raise InputError if the rows mix experiments that are not kept apart by the columns `by`."""
    for column in NEVER_MIXED:
        if column not in by and rows[column].nunique() > 1:
            raise InputError(
                "results table",
                f"{column} has several values ({', '.join(sorted(rows[column].dropna().unique()))}).",
                f"Select one, or keep {column!r} apart.",
            )


def case_means(table: pd.DataFrame, by: list[str] | None = None, metric: str = "iou") -> pd.DataFrame:
    """Return one value per case and cell: the mean over slices, then over objects.

    Parameters
    ----------
    table : DataFrame
        The tidy table.
    by : list of str
        Columns that tell cells apart; by default every factor of `FACTORS`. Factors that are not
        named are averaged over, except those that must never be mixed.
    metric : str
        As the table names it, or "dice" of slices (`of_metric`).

    Returns
    -------
    DataFrame
        Columns `data_set`, `modality`, `patient_id`, `case_id`, those of `by`, `value`,
        `n_slices_scored`, `n_objects`, `failed`. `patient_means` averages the cases of a patient.
    """
    by = list(FACTORS) if by is None else list(by)
    rows = of_metric(check_table(table), metric).astype({"value": "float64"})
    refuse_mixture(rows, by)
    inner = [c for c in FACTORS if c not in by]
    case = ["data_set", "modality", "patient_id", "case_id"]
    objects = rows.groupby([*case, "object", *by, *inner], dropna=False, sort=False).agg(
        value=("value", "mean"), n_slices_scored=("value", "size"), failed=("failed", "sum")
    )
    alike = {"value": "mean", "n_slices_scored": "sum", "failed": "sum"}
    objects = objects.groupby([*case, "object", *by], dropna=False, sort=False).agg(alike).reset_index()
    return (
        objects.groupby([*case, *by], dropna=False, sort=True)
        .agg(
            value=("value", "mean"),
            n_slices_scored=("n_slices_scored", "sum"),
            n_objects=("object", "nunique"),
            failed=("failed", "sum"),
        )
        .reset_index()
    )


def patient_means(cases: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return one value per patient and cell: the mean over the patient's cases.

    Parameters
    ----------
    cases : DataFrame
        One row per case and cell: `data_set`, `case_id`, `value`, the columns of `by`, and `patient_id`
        (one of the two is enough: the case is its own patient).
    by : list of str

    Returns
    -------
    DataFrame
        Columns `data_set`, `patient_id`, those of `by`, `value`, `n_cases`.
    """
    if "patient_id" not in cases:
        cases = cases.assign(patient_id=cases["case_id"])
    if "case_id" not in cases:
        cases = cases.assign(case_id=cases["patient_id"])
    cells = list(dict.fromkeys(["data_set", "patient_id", *by]))
    grouped = cases.groupby(cells, dropna=False, sort=False)
    return grouped.agg(value=("value", "mean"), n_cases=("case_id", "nunique")).reset_index()


def unit_noun(rows: pd.DataFrame) -> str:
    """Return what a unit is called: "case" where every case is its own patient, otherwise "patient"."""
    if "patient_id" not in rows or "case_id" not in rows:
        return "case"
    named = rows["patient_id"].fillna(rows["case_id"]) != rows["case_id"]
    return "patient" if named.any() else "case"
