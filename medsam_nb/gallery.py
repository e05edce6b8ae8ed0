"""Which cases a paper should show: best, median and worst of a modality, and failures.

The choice follows from the results table by a stated rule, so that nobody picks the pictures. What
a failure looks like needs its masks: `reason` names it.
"""

import numpy as np
import pandas as pd

from medsam_nb.pooling import FACTORS, case_means, check_table

FAILED_BELOW = 0.1  # IoU
REASONS = {
    "empty prediction": "nothing was predicted",
    "leak": "at least half of the object is covered, but so is much else",
    "wrong object": "most of the prediction lies outside the object and misses most of it",
    "fragment": "most of the prediction lies inside the object and misses most of it",
}
_PLACE = ["data_set", "case_id", "object"]


def _scored_slices(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of slices that were not prompted in 3D: prompted ones would flatter propagation."""
    rows = check_table(table[table["metric"] == "iou"])
    given = rows["distance_slices"].eq(0).fillna(False)
    return rows[rows["slice_index"].notna() & ~given].astype({"value": float})


def spread_of_cases(table: pd.DataFrame) -> pd.DataFrame:
    """Choose the best, the median and the worst case of every modality, and a slice of each.

    Cases are ordered by their mean IoU (`pooling.case_means`; ties by name). The median of an even
    number is the lower of the two in the middle. Of two cases the best and the worst are chosen, of
    one this one. Shown is the object whose mean is nearest to the case's, on the slice whose IoU is
    nearest to that object's mean; in 3D only slices without a prompt are considered.

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
    means = case_means(table).sort_values(["modality", "value", "data_set", "case_id"], ascending=False)
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
            objects = rows.groupby("object", dropna=False)["value"].mean()
            name = (objects - case["value"]).abs().idxmin()
            rows = rows[rows["object"].isna() if pd.isna(name) else rows["object"] == name]
            shown = rows.loc[(rows["value"] - objects[name]).abs().idxmin()]
            head = {"modality": modality, "rank": rank, "case_mean": case["value"], "n_cases": n}
            found.append(head | shown.drop(labels=["modality", "failed"]).to_dict())
    columns = ["modality", "rank", "case_mean", "n_cases", *[c for c in slices if c != "modality"]]
    return pd.DataFrame(found, columns=[c for c in columns if c != "failed"])


def failures(table: pd.DataFrame, below: float = FAILED_BELOW, most: int = 6) -> pd.DataFrame:
    """Choose failed masks to show: every case and object at its worst, modalities in turn.

    Of the slices of a case and object with an IoU under `below`, over all designs, the one with the
    lowest IoU is taken; of equal ones that with the largest object, then the nearest to the prompt.
    Modalities take turns, the lowest IoU and the largest object first.

    Parameters
    ----------
    table : DataFrame
        Rows of one model.
    below : float
        IoU under which a mask is a failure.
    most : int
        How many to return.

    Returns
    -------
    DataFrame
        Rows of the table.
    """
    rows = _scored_slices(table)
    rows = rows[rows["value"] < below]
    rows = rows.assign(size=rows["truth_px"].fillna(0), far=rows["distance_slices"].abs().fillna(0))
    order = {"value": True, "size": False, "far": True}
    by = [*order, "modality", *_PLACE, *FACTORS, "slice_index"]
    rows = rows.sort_values(by, ascending=[order.get(column, True) for column in by], kind="stable")
    rows = rows.drop_duplicates(_PLACE)
    turn = rows.groupby("modality", dropna=False).cumcount().rename("turn")
    rows = rows.assign(turn=turn).sort_values(["turn"], kind="stable").head(most)
    return rows.drop(columns=["size", "far", "turn", "failed"]).reset_index(drop=True)


def failure_counts(table: pd.DataFrame, below: float = FAILED_BELOW) -> pd.DataFrame:
    """Return, per modality, how many masks failed of how many, and in how many cases of how many."""
    rows = _scored_slices(table)
    rows = rows.assign(low=rows["value"] < below)
    found = []
    for modality, group in rows.groupby("modality", dropna=False, sort=True):
        cases = group.groupby(["data_set", "case_id"])["low"].any()
        masks = {"failed_masks": int(group["low"].sum()), "masks": len(group)}
        shares = {"share": masks["failed_masks"] / len(group)}
        found.append(
            {"modality": modality} | masks | shares | {"failed_cases": int(cases.sum()), "cases": len(cases)}
        )
    columns = ["modality", "failed_masks", "masks", "share", "failed_cases", "cases"]
    return pd.DataFrame(found, columns=columns)


def reason(truth: np.ndarray, prediction: np.ndarray) -> str:
    """Return which of `REASONS` describes a failed mask.

    Parameters
    ----------
    truth, prediction : ndarray of bool, same shape
        The truth has a pixel.

    Examples
    --------
    >>> truth = np.array([1, 1, 0, 0, 0, 0], bool)
    >>> reason(truth, truth & False), reason(truth, ~truth), reason(truth, truth | True)
    ('empty prediction', 'wrong object', 'leak')
    """
    if not prediction.any():
        return "empty prediction"
    shared = np.count_nonzero(truth & prediction)
    if shared >= 0.5 * np.count_nonzero(truth):
        return "leak"
    return "fragment" if shared >= 0.5 * np.count_nonzero(prediction) else "wrong object"
