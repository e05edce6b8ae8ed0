"""What a claim's test looks at: from the checked table to pairs of values, one per patient.

Every function takes the table and the models that play SAM 2 and SAM, and returns a frame with the columns
`data_set`, `patient_id`, `a`, `b` and `n_cases` (`pairing.by_patient`); empty where the table has nothing.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from medsam_nb.protocol.corrections import RESTARTED, RUNNING
from medsam_nb.protocol.designs import DESIGN_FACTORS, MASK_CHOICES_3D
from medsam_nb.protocol.table import FACTORS
from medsam_nb.statistics.declarations import Comparison
from medsam_nb.statistics.pairing import by_patient, paired_values
from medsam_nb.statistics.pooling import (
    NEVER_MIXED,
    case_means,
    patient_means,
    refuse_mixture,
    select,
)

FAR_SLICES = 8  # the length of the clips on which SAM 2 was trained
PAIR_COLUMNS = ["data_set", "patient_id", "a", "b", "n_cases"]
CASE = ["data_set", "patient_id", "case_id"]
Pairs = Callable[[pd.DataFrame, Mapping[str, str]], pd.DataFrame]


def _none() -> pd.DataFrame:
    return pd.DataFrame(columns=PAIR_COLUMNS)


def versus(a: Mapping, b: Mapping, where: Mapping | None = None, model: str = "sam2", **options) -> Pairs:
    """Return a test of side a against side b for the model that plays the given part."""

    def pairs(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
        if model not in models:
            return _none()
        fixed = dict(where or {}) | {"model": models[model]}
        return paired_values(table, Comparison("claim", a, b, fixed, **options)).values

    return pairs


def flat(a: str, b: str, model: str) -> Pairs:
    """Return a test of two 2D prompts, first mask."""
    return versus({"prompt": a}, {"prompt": b}, {"task": "2d", "mask_choice": "first_mask"}, model)


def deep(column: str, a: str, b: str, **where) -> Pairs:
    """Return a test of two values of a column of the 3D rows."""
    return versus({column: a}, {column: b}, {"task": "3d"} | where)


def both_models(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """SAM 2 against SAM on single slices, first mask, prompts averaged."""
    if not {"sam2", "sam"} <= set(models):
        return _none()
    comparison = Comparison(
        "claim",
        {"model": models["sam2"]},
        {"model": models["sam"]},
        {"task": "2d", "mask_choice": "first_mask"},
    )
    return paired_values(table, comparison).values


def deep_against_flat(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """3D against 2D on propagated slices, for the prompts that both have, mask choices alike."""
    found = []
    for choice in MASK_CHOICES_3D:
        a, b = {"task": "3d", "mask_choice": choice}, {"task": "2d", "mask_choice": choice}
        fixed = {"prompt": ["one_point", "point_per_component", "one_box"]}
        found.append(versus(a, b, fixed, slices="propagated")(table, models))
    both = pd.concat(found)
    if both.empty:
        return _none()
    alike = {"a": "mean", "b": "mean", "n_cases": "max"}
    return both.groupby(["data_set", "patient_id"]).agg(alike).reset_index()


def deep_rows(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """Return the 3D rows of the model that plays SAM 2."""
    rows = select(table, {"task": "3d", "metric": "iou", "model": models.get("sam2", "")})
    return rows.astype({"value": float})


def design_table(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """Return the mean IoU of every patient (rows) with every 3D design (columns).

    Patients that lack a design which others have are left out; `attrs` counts them (`incomplete`) and the
    cases of the others (`n_cases`).
    """
    rows = deep_rows(table, models).drop(columns="failed", errors="ignore")
    design = list(DESIGN_FACTORS)
    cases = case_means(rows, [*design, *NEVER_MIXED])
    patients = patient_means(cases, [*design, *NEVER_MIXED])
    wide = patients.pivot_table(index=["data_set", "patient_id"], columns=design, values="value")
    complete = wide.dropna()
    counts = patients.groupby(["data_set", "patient_id"])["n_cases"].max().reindex(complete.index)
    complete.attrs = {"incomplete": len(wide) - len(complete), "n_cases": int(counts.sum())}
    return complete


def _far_minus_near(rows: pd.DataFrame) -> pd.DataFrame:
    """Pairs of a patient's mean beyond `FAR_SLICES` and nearer, of designs and objects that have both."""
    distance = rows["distance_slices"].abs()
    rows = rows[distance.gt(0).fillna(False)]
    far = rows["distance_slices"].abs() > FAR_SLICES
    cells = [*CASE, "object", *FACTORS]
    sides = [rows[mask].groupby(cells, dropna=False)["value"].mean() for mask in (far, ~far)]
    both = pd.concat(sides, axis=1, keys=["a", "b"], join="inner").reset_index()
    return by_patient(both.groupby(CASE)[["a", "b"]].mean().reset_index())


def far_against_near(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """The IoU beyond `FAR_SLICES` slices from the prompt against nearer ones."""
    return _far_minus_near(deep_rows(table, models))


def far_loss_against_near(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """The same, of the difference to 2D prompting on the same slice with the same prompt and mask choice.

    Slices far from the prompt are often the ends of an object and harder for any method; what 2D
    prompting reaches there takes that out.
    """
    deep = deep_rows(table, models)
    flat = select(table, {"task": "2d", "metric": "iou", "model": models.get("sam2", "")})
    flat = flat.astype({"value": float})
    place = ["data_set", "case_id", "object", "slice_index", "prompt", "mask_choice"]
    flat = flat.groupby(place, dropna=False)["value"].mean().rename("flat").reset_index()
    joined = deep.merge(flat, on=place)
    return _far_minus_near(joined.assign(value=joined["value"] - joined["flat"]))


def _per_patient(table: pd.DataFrame, value: Callable) -> pd.DataFrame:
    """One number per patient, against 0: the mean over cases and objects of `value` of the object's rows.

    Objects for which it is NaN are left out, and so are cases without any other.
    """
    found = [
        dict(zip(CASE, key[:3], strict=True)) | {"a": value(group), "b": 0.0}
        for key, group in table.groupby([*CASE, "object"], dropna=False)
    ]
    frame = pd.DataFrame(found, columns=[*CASE, "a", "b"]).dropna(subset=["a"])
    return by_patient(frame.groupby(CASE)[["a", "b"]].mean().reset_index())


def _rank_correlation(x: pd.Series, y: pd.Series) -> float:
    x, y = x.to_numpy(float), y.to_numpy(float)
    if len(x) < 5 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(scipy_stats.spearmanr(x, y).statistic)


def falls_with_distance(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """Rank correlation of the IoU with the distance from the prompt, in slices."""
    rows = deep_rows(table, models)
    rows = rows[rows["distance_slices"].notna()].assign(
        far=lambda r: r["distance_slices"].abs().astype(float)
    )
    means = rows.groupby([*CASE, "object", "far"], dropna=False)["value"].mean().reset_index()
    return _per_patient(means, lambda group: _rank_correlation(group["far"], group["value"]))


def _propagated(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    rows = deep_rows(table, models)
    return rows[rows["distance_slices"].ne(0).fillna(True)]


def likeness_of_truth(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """Rank correlation of a slice's IoU with that of its truth and its neighbour's towards the prompt."""
    rows = _propagated(table, models)
    rows = rows[rows["neighbour_iou"].notna()].astype({"neighbour_iou": float})
    place = [*CASE, "object", "slice_index", "neighbour_iou"]
    means = rows.groupby(place, dropna=False)["value"].mean().reset_index()
    return _per_patient(means, lambda group: _rank_correlation(group["neighbour_iou"], group["value"]))


def likeness_of_areas(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """Rank correlation of a slice's IoU with how alike its object's area and its neighbours' are.

    The smaller over the larger area is an upper bound of the IoU of the two slices' truths; it needs no
    column that only this workbook writes.
    """
    rows = _propagated(table, models)
    rows = rows[rows["truth_px"].gt(0).fillna(False)]
    place = [*CASE, "object", "slice_index"]
    means = rows.groupby(place).agg(value=("value", "mean"), size=("truth_px", "first")).reset_index()
    means = means.sort_values(place).astype({"size": float, "slice_index": int})
    parts = means.groupby([*CASE, "object"])
    ratios = []
    for step in (1, -1):
        other = parts["size"].shift(step)
        gap = (means["slice_index"] - parts["slice_index"].shift(step)).abs()
        ratio = np.minimum(means["size"], other) / np.maximum(means["size"], other)
        ratios.append(ratio.where(gap == 1))
    means["alike"] = pd.concat(ratios, axis=1).mean(axis=1)
    means = means.dropna(subset=["alike"])
    return _per_patient(means, lambda group: _rank_correlation(group["alike"], group["value"]))


def after_corrections(strategy: str, information: str) -> Pairs:
    """Return a test of a volume after its last correction against before the first.

    Parameters
    ----------
    strategy : {"correction", "reinitialisation"}
        After corrections of the running predictor, what counts is what a fresh one makes of all prompts, with
        which that algorithm ends.
    information : str
        What a correction told (`corrections.NEW_INFORMATION`). An object that could not be corrected stays
        as it was.
    """

    def pairs(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
        rows = select(table, {"task": "3d_loops", "metric": "iou", "model": models.get("sam2", "")})
        rows = rows[rows["new_information"] == information].astype({"value": float})
        refuse_mixture(rows, [])
        curve = [*CASE, "object", *(name for name in FACTORS if name not in ("strategy", "loop"))]
        before = rows[(rows["strategy"] == strategy) & (rows["loop"] == 0)]
        after = rows[rows["strategy"] == (RESTARTED if strategy == RUNNING else strategy)]
        after = after[after["loop"] == after.groupby(curve, dropna=False)["loop"].transform("max")]
        if before.empty:
            return _none()
        place = [*curve, "slice_index"]
        both = before[[*place, "value"]].rename(columns={"value": "b"})
        both = both.merge(after[[*place, "value"]].rename(columns={"value": "a"}), on=place, how="left")
        both["a"] = both["a"].fillna(both["b"])
        for kept in (curve, [*CASE, "object"], CASE):
            both = both.groupby(kept, dropna=False)[["a", "b"]].mean().reset_index()
        return by_patient(both)

    return pairs
