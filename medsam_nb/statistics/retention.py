"""How much of a prompted slice's quality is left some slices away: the retention ratio.

Temporal retention decay is one of the failure modes that Chakrabarty and Soni (MIDL 2026) name. A
ratio separates it from objects that are hard already on the prompted slice.
"""

import numpy as np
import pandas as pd

from medsam_nb.protocol.table import FACTORS
from medsam_nb.statistics.pooling import check_table, refuse_mixture

LEAST = 0.1  # IoU on the prompted slice under which there is nothing to retain, and a ratio explodes
STEPS = (1, 2, 4, 8, 16)  # slices at which a table states the retention


def retention(table: pd.DataFrame, by: str = "direction") -> pd.DataFrame:
    """Return, per case and distance, the IoU divided by that on the prompted slice it came from.

    The prompted slice of a row lies `distance_slices` away from it. For each object, the IoU at a
    distance and the IoU on the prompted slices belonging to it are averaged over the designs that
    reach this distance, then divided; a case has the mean over its objects.

    Parameters
    ----------
    table : DataFrame
        The tidy table; its rows of 3D slices count. Rows whose prompted slice has no row of its own
        are left out.
    by : str
        Column whose values are kept apart; other factors of a design are averaged over.

    Returns
    -------
    DataFrame
        Columns `data_set`, `case_id`, `by`, `distance_slices` (negative before the prompted slice,
        0 left out), `value` (1 means nothing was lost; NaN where no object of the case has an IoU of
        at least `LEAST` on its prompted slices), `n_objects` (with a ratio), `n_undefined` (without).

    Raises
    ------
    InputError
        If the rows mix models, protocols or mask scopes that `by` does not tell apart.
    """
    rows = check_table(table[(table["task"] == "3d") & (table["metric"] == "iou")])
    rows = rows[rows["distance_slices"].notna() & rows["slice_index"].notna()]
    refuse_mixture(rows, [by])
    place = ["data_set", "case_id", "object", *FACTORS]
    rows = rows[[*place, "slice_index", "distance_slices", "value"]].astype({"value": float})
    rows["anchor_index"] = rows["slice_index"] - rows["distance_slices"]
    anchors = rows.loc[rows["distance_slices"] == 0, [*place, "slice_index", "value"]]
    anchors = anchors.rename(columns={"slice_index": "anchor_index", "value": "anchor"})
    joined = rows[rows["distance_slices"] != 0].merge(anchors, on=[*place, "anchor_index"])
    cells = list(dict.fromkeys(["data_set", "case_id", by, "distance_slices"]))
    objects = joined.groupby([*cells, "object"], dropna=False)[["value", "anchor"]].mean().reset_index()
    objects["ratio"] = objects["value"] / objects["anchor"].where(objects["anchor"] >= LEAST)
    found = objects.groupby(cells, dropna=False)["ratio"].agg(["mean", "count", "size"]).reset_index()
    found["n_undefined"] = found["size"] - found["count"]
    found = found.rename(columns={"mean": "value", "count": "n_objects"}).drop(columns="size")
    return found.astype({"distance_slices": int, "value": np.float64})


def retention_at(ratios: pd.DataFrame, by: str, steps: tuple[int, ...] = STEPS) -> pd.DataFrame:
    """Return the retention at some absolute distances: both sides of a case averaged first.

    Parameters
    ----------
    ratios : DataFrame
        As `retention` returns it.
    by : str
        The same as there.

    Returns
    -------
    DataFrame
        One row per case: `data_set`, `case_id`, `by`, `slices`, `value`.
    """
    near = ratios.assign(slices=ratios["distance_slices"].abs())
    near = near[near["slices"].isin(steps) & near["value"].notna()]
    cells = list(dict.fromkeys(["data_set", "case_id", by, "slices"]))
    return near.groupby(cells, dropna=False)["value"].mean().reset_index()


def retention_by_prompt(table: pd.DataFrame) -> pd.DataFrame:
    """Return the retention ratio of every case and prompt at the stated distances (`retention_at`)."""
    return retention_at(retention(table, "prompt"), "prompt")
