"""How much quality is lost where neighbouring slices lie farther apart or are less alike.

From rows of changed volumes (`evaluation.changed_volumes`). Every change is set against the unchanged
volume of the same patient on the same original slices, so that slices, their truth and their distance from
the prompt in mm are equal, and only what lies between them differs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from medsam_nb.errors import require_known
from medsam_nb.protocol.designs import parse_design
from medsam_nb.protocol.table import FACTORS, UNCHANGED
from medsam_nb.statistics.pooling import check_table, of_metric, refuse_mixture
from medsam_nb.statistics.resampling import patient_weights, percentiles

AXES = ("step_mm", "likeness")
FEWEST_PATIENTS = 5  # fewer give no interval
CHANGED = ("volume_change", "volume_repair")

Way = tuple[str, str]  # a design, and what is done to the volume before


@dataclass(frozen=True)
class DoseResponse:
    """The loss on one axis of the dose: a line through no change and no loss.

    Attributes
    ----------
    axis : {"step_mm", "likeness"}
    slope, low, high : float
        Change of the IoU per 10 mm more between slices, or per 0.1 that the IoU of neighbouring truths rises.
    explained, explained_low, explained_high : float
        Share of the squared differences that the line accounts for: 1 all, 0 none.
    n_patients, n_data_sets : int
    note : str
        Why there is no answer; empty if there is one.
    """

    axis: str
    slope: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    explained: float = float("nan")
    explained_low: float = float("nan")
    explained_high: float = float("nan")
    n_patients: int = 0
    n_data_sets: int = 0
    note: str = ""


UNITS = {"step_mm": 10.0, "likeness": 0.1}  # of a slope


def dose_points(table: pd.DataFrame, metric: str = "iou") -> pd.DataFrame:
    """Return for every patient and change the quality with it and without, on the same propagated slices.

    Parameters
    ----------
    table : DataFrame
        3D rows of one model under several volume changes, the unchanged volume among them; repairs are
        left out.

    Returns
    -------
    DataFrame
        Columns `data_set`, `patient_id`, `volume_change`, `value`, `before` (without the change),
        `difference`, `step_mm` and `step_mm_before` (between neighbouring slices), `likeness` and
        `likeness_before` (IoU of the truth on a slice and on its neighbour towards the prompt), `n_slices`
        (that count).

    Raises
    ------
    InputError
        If the rows mix models, memories or protocols.
    """
    rows = of_metric(check_table(table[table["task"] == "3d"]), metric)
    rows = rows[rows["volume_repair"].eq(UNCHANGED) & rows["distance_slices"].ne(0)]
    refuse_mixture(rows, ["volume_change"])
    same = [factor for factor in FACTORS if factor not in CHANGED]
    case = ["data_set", "patient_id", "case_id"]
    measured = {"value": "value", "spacing_z_mm": "step_mm", "neighbour_iou": "likeness"}
    rows = rows.rename(columns=measured).astype(dict.fromkeys(measured.values(), float))
    keys = [*case, "object", *same, "slice_index"]
    rows = rows[[*keys, "volume_change", *measured.values()]]
    plain = rows[rows["volume_change"] == UNCHANGED].drop(columns="volume_change")
    plain = plain.rename(columns={"value": "before"} | {axis: f"{axis}_before" for axis in AXES})
    both = rows[rows["volume_change"] != UNCHANGED].merge(plain, on=keys)
    both["difference"] = both["value"] - both["before"]
    columns = ["value", "before", "difference", *AXES, *(f"{axis}_before" for axis in AXES)]
    counts = both.groupby([*case[:2], "volume_change"]).size().rename("n_slices")
    cells = [*case, "object", "volume_change"]
    for dropped in ("object", "case_id"):
        both = both.groupby(cells)[columns].mean().reset_index()
        cells.remove(dropped)
    both = both.groupby(cells)[columns].mean().reset_index()
    return both.merge(counts.reset_index(), on=cells)


def dose_response(points: pd.DataFrame, axis: str, *, seed: int = 0, draws: int = 2000) -> DoseResponse:
    """Return how the loss grows with the dose, on one axis for all data sets.

    The difference from the unchanged volume is fitted by least squares as a line through 0 of the change
    on the axis, data sets weighing alike. Intervals are percentiles over what is drawn again
    (`resampling.patient_weights`).

    Parameters
    ----------
    points : DataFrame
        Of `dose_points`; those changes that shall lie on one line.
    axis : {"step_mm", "likeness"}
    seed : int
        Of the resampling.
    draws : int
    """
    require_known("dose response", axis, AXES, what="axis")
    points = points.dropna(subset=[axis, f"{axis}_before", "difference"])
    x = ((points[axis] - points[f"{axis}_before"]) / UNITS[axis]).to_numpy(float)
    y = points["difference"].to_numpy(float)
    sums = pd.DataFrame({"xx": x * x, "xy": x * y, "yy": y * y}, index=points.index)
    sums[["data_set", "patient_id"]] = points[["data_set", "patient_id"]]
    patients = sums.groupby(["data_set", "patient_id"]).mean()
    sets = patients.index.get_level_values("data_set").to_numpy(str)
    facts = {"n_patients": len(patients), "n_data_sets": len(set(sets))}
    if len(patients) < FEWEST_PATIENTS or not patients["xx"].sum() > 0:
        return DoseResponse(axis, **facts, note=f"needs {FEWEST_PATIENTS} patients under a changed dose")
    sizes = pd.Series(sets).map(pd.Series(sets).value_counts()).to_numpy(float)
    values = patients.to_numpy() / sizes[:, None]
    slope, explained = _line(values.sum(axis=0)[None])[0]
    low, high = percentiles(_line(patient_weights(sets, draws, seed) @ values))
    return DoseResponse(axis, slope, low[0], high[0], explained, low[1], high[1], **facts)


def _line(sums: np.ndarray) -> np.ndarray:
    """Return slope and explained share of lines through 0, shape (draws, 2), from sums of xx, xy and yy."""
    xx, xy, yy = np.where(sums > 0, sums, np.nan)[:, 0], sums[:, 1], np.where(sums > 0, sums, np.nan)[:, 2]
    return np.column_stack([xy / xx, xy**2 / (xx * yy)])


def change_comparisons(changes: Sequence[str], where: Mapping | None = None) -> list[dict]:
    """Return the declarations of every volume change against none, one family (`paired.compare`)."""
    where = {"volume_repair": UNCHANGED} | dict(where or {})
    return [_declared(name, "volume_change", where, "volume changes") for name in changes]


def repair_comparisons(repairs: Sequence[str], change: str, where: Mapping | None = None) -> list[dict]:
    """Return the declarations of every repair against none under one volume change, one family."""
    where = {"volume_change": change} | dict(where or {})
    return [_declared(name, "volume_repair", where, "volume repairs") for name in repairs]


def prompting_comparisons(pairs: Mapping[str, tuple[Way, Way]], change: str) -> list[dict]:
    """Return the declarations of ways to prompt against others, under one volume change, one family.

    All slices count, the prompted ones too: they are a part of what prompts give.

    Parameters
    ----------
    pairs : mapping of str to (way, way)
        What is compared with what, by the name of the comparison; a way is a design and a volume repair.
    change : str
        Name of the volume change.
    """

    def factors(way: Way) -> dict[str, str]:
        design, repair = way
        return asdict(parse_design(design)) | {"volume_repair": repair}

    where = {"task": "3d", "volume_change": change}
    return [
        {"name": name, "family": "prompts", "a": factors(one), "b": factors(other), "where": where}
        for name, (one, other) in pairs.items()
    ]


def _declared(name: str, column: str, where: Mapping, family: str) -> dict:
    shared = {"task": "3d", "vary": column, "b": UNCHANGED, "where": where, "slices": "propagated"}
    return {"name": name, "family": family, "a": name} | shared


def costs(table: pd.DataFrame, change: str) -> pd.DataFrame:
    """Return how many times as many slices each repair makes the model go through, mean over cases and
    objects.

    Returns
    -------
    DataFrame
        Columns `volume_repair`, `cost` (1 is no more than without a repair).
    """
    rows = table[table["volume_change"].eq(change) & table["n_steps"].notna()].astype({"n_steps": float})
    keys = ["data_set", "case_id", "object", "mask_choice", "prompt", "frame_choice", "direction"]
    steps = rows.groupby([*keys, "volume_repair"], dropna=False)["n_steps"].first().unstack("volume_repair")
    if UNCHANGED not in steps:
        return pd.DataFrame(columns=["volume_repair", "cost"])
    ratios = steps.div(steps[UNCHANGED], axis=0)
    return ratios.mean().rename("cost").rename_axis("volume_repair").reset_index()
