"""Where on the way from the prompt the loss begins: a broken line, its interval by resampling."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medsam_nb.statistics.pooling import check_table, of_metric, refuse_mixture
from medsam_nb.statistics.resampling import patient_weights, percentiles

FEWEST_PATIENTS = 5  # a distance that fewer reach takes no part; fewer in all give no interval


@dataclass(frozen=True)
class ChangePoint:
    """A line of quality over the distance from the prompted slice, broken at one distance.

    Attributes
    ----------
    at, low, high : float
        Slices from the prompt where the slope changes, and its interval.
    before, after : float
        Slopes up to there and beyond, per slice.
    change, change_low, change_high : float
        `after` minus `before`; where its interval holds 0, no break is shown.
    n_patients, n_data_sets : int
    farthest : int
        The largest distance that counts.
    note : str
        Why there is no answer; empty if there is one.
    """

    at: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    before: float = float("nan")
    after: float = float("nan")
    change: float = float("nan")
    change_low: float = float("nan")
    change_high: float = float("nan")
    n_patients: int = 0
    n_data_sets: int = 0
    farthest: int = 0
    note: str = ""


def by_distance(table: pd.DataFrame, metric: str = "iou") -> pd.DataFrame:
    """Return the mean of every patient at every distance from the prompted slice, both sides together.

    Parameters
    ----------
    table : DataFrame
        The tidy table; its 3D rows of slices count. Designs are averaged over within a case.

    Returns
    -------
    DataFrame
        Columns `data_set`, `patient_id`, `distance` (slices, from 0), `value`.

    Raises
    ------
    InputError
        If the rows mix models, memories or protocols.
    """
    rows = of_metric(check_table(table[table["task"] == "3d"]), metric)
    rows = rows[rows["distance_slices"].notna()].astype({"value": float, "distance_slices": int})
    refuse_mixture(rows, [])
    rows = rows.assign(distance=rows["distance_slices"].abs())
    cells = ["data_set", "patient_id", "case_id", "object", "distance"]
    for dropped in ("object", "case_id"):
        rows = rows.groupby(cells)["value"].mean().reset_index()
        cells.remove(dropped)
    return rows.groupby(cells)["value"].mean().reset_index()


def change_point(means: pd.DataFrame, *, seed: int = 0, draws: int = 2000) -> ChangePoint:
    """Return where the fall of quality with the distance begins, or changes.

    A line with one break is fitted by least squares (a segmented regression) with a level of its own for
    every patient, as only long objects reach far and these may be easier; the break is the distance with
    the smallest residual sum. Intervals are percentiles over what is drawn again: patients within data sets,
    or from six on the data sets (`resampling.patient_weights`). As the break is searched for, a
    change of slope is shown for straight lines a little too often: for 9, 8 and 6 % of 300 draws with 10, 20
    and 40 patients; the interval of a true break covered it in all of them.

    Parameters
    ----------
    means : DataFrame
        Of `by_distance`.
    seed : int
        Of the resampling.
    draws : int
    """
    reached = means.groupby("distance")["patient_id"].size()
    farthest = (
        int(reached.index[reached >= FEWEST_PATIENTS].max()) if (reached >= FEWEST_PATIENTS).any() else 0
    )
    means = means[means["distance"] <= farthest].sort_values(["data_set", "patient_id", "distance"])
    groups = [group for _, group in means.groupby(["data_set", "patient_id"], sort=True) if len(group) > 1]
    facts = {
        "n_patients": len(groups),
        "n_data_sets": means["data_set"].nunique(),
        "farthest": farthest,
    }
    if len(groups) < FEWEST_PATIENTS or farthest < 3:
        return ChangePoint(
            **facts, note=f"needs {FEWEST_PATIENTS} patients that reach 3 slices or more from the prompt"
        )
    knots = np.arange(1, farthest)
    products = np.zeros((len(groups), len(knots), 3, 3))  # of both regressors and the value
    for number, group in enumerate(groups):
        distance = group["distance"].to_numpy(float)
        beyond = np.maximum(distance - knots[:, None], 0)
        columns = np.stack([np.broadcast_to(distance, beyond.shape), beyond], axis=1)
        value = np.broadcast_to(group["value"].to_numpy(float), (len(knots), 1, len(group)))
        both = np.concatenate([columns, value], axis=1)
        both = both - both.mean(axis=2, keepdims=True)  # a level of its own
        products[number] = both @ both.transpose(0, 2, 1)
    sets = np.array([group["data_set"].iloc[0] for group in groups])
    found = _fit(products.sum(axis=0)[None], knots)[0]
    weights = patient_weights(sets, draws, seed)
    resampled = _fit(np.einsum("dp,pkij->dkij", weights, products), knots)
    low, high = percentiles(resampled)
    change_low, change_high = percentiles(resampled[:, 2] - resampled[:, 1])
    at, before, after = found
    return ChangePoint(
        at, low[0], high[0], before, after, after - before,
        change_low, change_high, **facts,
    )  # fmt: skip


def _fit(products: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return the best break, the slope before it and the slope after it, shape (draws, 3)."""
    squares, mixed, total = products[..., :2, :2], products[..., :2, 2], products[..., 2, 2]
    singular = np.linalg.det(squares) <= 1e-9 * np.prod(np.diagonal(squares, axis1=-2, axis2=-1), axis=-1)
    safe = np.where(singular[..., None, None], np.eye(2), squares)
    slopes = np.linalg.solve(safe, mixed[..., None])[..., 0]
    residual = np.where(singular, np.inf, total - (slopes * mixed).sum(-1))
    best = residual.argmin(axis=1)
    rows = np.arange(len(products))
    chosen = slopes[rows, best]
    fitted = np.column_stack([knots[best], chosen[:, 0], chosen.sum(axis=1)]).astype(float)
    fitted[~np.isfinite(residual[rows, best])] = np.nan
    return fitted
