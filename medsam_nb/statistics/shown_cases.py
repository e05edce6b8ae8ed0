"""Which cases a paper should show: best, median and worst of a modality, and failures.

The choice follows from the results table by a stated rule, so that nobody picks the pictures. How a
mask fails follows from its IoU and the sizes of object and prediction.
"""

import numpy as np
import pandas as pd

from medsam_nb.protocol.table import FACTORS
from medsam_nb.statistics.pooling import case_means, check_table

FAILED_BELOW = 0.1  # IoU
REASONS = {
    "empty prediction": "nothing was predicted",
    "leak": "at least half of the object is covered, but so is much else",
    "fragment": "most of the prediction lies inside the object, of which it misses most",
    "wrong object": "most of the prediction lies elsewhere, and most of the object is missed",
    "unknown": "the table does not say how large the prediction is",
}


def _scored_slices(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of slices that were not prompted in 3D: prompted ones would flatter propagation."""
    rows = check_table(table[table["metric"] == "iou"])
    given = rows["distance_slices"].eq(0).fillna(False)
    return rows[rows["slice_index"].notna() & ~given].astype({"value": float})


def spread_of_cases(table: pd.DataFrame) -> pd.DataFrame:
    """Choose the best, the median and the worst case of every modality, and a slice of each.

    Cases are ordered by their mean IoU (`pooling.case_means`; ties by name). The median of an even
    number is the lower of the two in the middle. Of two cases the best and the worst are chosen, of
    one this one. Shown is the mask whose IoU is nearest to the case's mean (of equal ones that of the
    largest object); in 3D only slices without a prompt are considered.

    Parameters
    ----------
    table : DataFrame
        Rows of one design, or of one 2D prompt, of one model.

    Returns
    -------
    DataFrame
        One row of the table per choice, with `modality`, `rank` ("best", "median", "worst" or "only
        case"), `case_mean` and `n_cases` of the modality before it; empty for an empty table.
    """
    means = case_means(table, []).sort_values(["modality", "value", "data_set", "case_id"], ascending=False)
    slices = _scored_slices(table)
    found = []
    for modality, cases in means.groupby("modality", dropna=False, sort=True):
        n = len(cases)
        ranks = {"best": 0, "median": n // 2, "worst": n - 1} if n > 2 else {"best": 0, "worst": 1}
        for rank, place in ({"only case": 0} if n == 1 else ranks).items():
            case = cases.iloc[place]
            rows = slices[(slices["data_set"] == case["data_set"]) & (slices["case_id"] == case["case_id"])]
            if rows.empty:
                continue
            rows = rows.assign(off=(rows["value"] - case["value"]).abs().round(12))
            rows = rows.sort_values(
                ["off", "truth_px", "object", "slice_index"], ascending=[True, False, True, True]
            )
            shown = rows.drop(columns="off").iloc[0]
            head = {"modality": modality, "rank": rank, "case_mean": case["value"], "n_cases": n}
            found.append(head | shown.drop(labels=["modality", "failed"]).to_dict())
    columns = ["modality", "rank", "case_mean", "n_cases", *[c for c in slices if c != "modality"]]
    return pd.DataFrame(found, columns=[c for c in columns if c != "failed"])


def reasons(rows: pd.DataFrame) -> pd.Series:
    """Return which of `REASONS` describes each failed mask.

    The overlap follows from the IoU v and the sizes a of the object and b of the prediction: it is
    v (a + b) / (1 + v).

    Parameters
    ----------
    rows : DataFrame
        Columns `value`, `truth_px`, `predicted_px`.

    Examples
    --------
    >>> sizes = {"value": [0, 0.05, 0, 0.05], "truth_px": 100, "predicted_px": [0, 1900, 80, 5]}
    >>> list(reasons(pd.DataFrame(sizes)))
    ['empty prediction', 'leak', 'wrong object', 'fragment']
    """
    value, truth, predicted = (
        rows[column].astype("Float64").to_numpy(float, na_value=np.nan)
        for column in ("value", "truth_px", "predicted_px")
    )
    overlap = value * (truth + predicted) / (1 + value)
    known = np.isfinite(truth) & np.isfinite(predicted)
    kinds = [~known, predicted == 0, overlap >= 0.5 * truth, overlap >= 0.5 * predicted]
    found = np.select(kinds, ["unknown", "empty prediction", "leak", "fragment"], default="wrong object")
    return pd.Series(found, index=rows.index, dtype="string")


def _failed(table: pd.DataFrame, below: float) -> pd.DataFrame:
    rows = _scored_slices(table)
    rows = rows[rows["value"] < below]
    return rows.assign(reason=reasons(rows))


def failures(table: pd.DataFrame, below: float = FAILED_BELOW) -> pd.DataFrame:
    """Choose a typical failed mask of every kind and modality, over all designs.

    Of the failed masks of a modality and kind (`reasons`), ordered by IoU, then by the object's size,
    the one in the middle (the lower of two).

    Parameters
    ----------
    table : DataFrame
        Rows of one model.
    below : float
        IoU under which a mask is a failure.

    Returns
    -------
    DataFrame
        Rows of the table with `reason` and `n_alike`, the number of failures of that kind.
    """
    rows = _failed(table, below)
    by = ["value", "truth_px", "data_set", "case_id", "object", *FACTORS, "slice_index"]
    found = []
    for _, alike in rows.sort_values(by, kind="stable").groupby(["modality", "reason"], dropna=False):
        found.append(alike.iloc[[(len(alike) - 1) // 2]].assign(n_alike=len(alike)))
    chosen = pd.concat(found, ignore_index=True) if found else rows.assign(n_alike=0)
    return chosen.drop(columns="failed")


def failure_counts(table: pd.DataFrame, below: float = FAILED_BELOW) -> pd.DataFrame:
    """Return, per modality, how many masks failed of how many, in how many cases, and how.

    Returns
    -------
    DataFrame
        Columns `modality`, `masks`, `failed_masks`, `share`, `cases`, `failed_cases`, and one per kind
        of `REASONS` that occurs; prompted slices are not counted.
    """
    rows, failed = _scored_slices(table), _failed(table, below)
    case = ["data_set", "case_id"]
    found = []
    for modality, group in rows.groupby("modality", dropna=False, sort=True):
        low = failed[failed["modality"].isna() if pd.isna(modality) else failed["modality"] == modality]
        counts = {"modality": modality, "masks": len(group), "failed_masks": len(low)}
        counts |= {"share": len(low) / len(group), "cases": group.groupby(case).ngroups}
        counts |= {"failed_cases": low.groupby(case).ngroups}
        found.append(counts | low["reason"].value_counts().to_dict())
    columns = ["modality", "masks", "failed_masks", "share", "cases", "failed_cases"]
    kinds = [kind for kind in REASONS if kind in set(failed["reason"])]
    counted = pd.DataFrame(found, columns=[*columns, *kinds])
    return counted.fillna(dict.fromkeys(kinds, 0)).astype(dict.fromkeys(kinds, int))
