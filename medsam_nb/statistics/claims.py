"""The study's claims as hypotheses: each names the tests that decide it.

A test takes the checked table and the models that play SAM 2 and SAM, and returns pairs: one row per patient
(or per case, which `scoreboard` averages) with the columns `data_set`, `a` and `b`. `scoreboard` makes the
inference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from medsam_nb.protocol.designs import DESIGN_FACTORS, MASK_CHOICES_3D
from medsam_nb.protocol.seeds import derive_seed
from medsam_nb.protocol.table import FACTORS
from medsam_nb.statistics.pooling import (
    NEVER_MIXED,
    Comparison,
    case_means,
    paired_values,
    patient_means,
    select,
)

FAR_SLICES = 8  # the length of the clips on which SAM 2 was trained
HIGH_IOU = 0.8


@dataclass(frozen=True)
class Claim:
    """One statement of the study and how it is tested.

    Attributes
    ----------
    number : str
    sentence : str
        In our own words.
    source : str
        The version that says it.
    relation : {">", ">=", "<", "=", "<<"}
        What is claimed of the estimate, against 0 (">=": not lower by more than the margin; "=": within it;
        "<<": lower by more than the margin).
    tests : tuple of (name, function of table and model names returning pairs)
    needs : str
        What a table must hold to test it.
    mirror_of : str
        The claim whose test this is, read in the other direction: one test, counted once.
    """

    number: str
    sentence: str
    source: str
    relation: str
    tests: tuple[tuple[str, Callable], ...]
    needs: str
    mirror_of: str = ""


def _versus(a: Mapping, b: Mapping, where: Mapping | None = None, model: str = "sam2", **options) -> Callable:
    """Return a test of side a against side b for the model that plays the given part."""

    def pairs(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
        if model not in models:
            return pd.DataFrame(columns=["data_set", "a", "b"])
        fixed = dict(where or {}) | {"model": models[model]}
        return paired_values(table, Comparison("claim", a, b, fixed, **options)).values

    return pairs


def _flat(a: str, b: str, model: str) -> Callable:
    return _versus({"prompt": a}, {"prompt": b}, {"task": "2d", "mask_choice": "first_mask"}, model)


def _deep(column: str, a: str, b: str, **where) -> Callable:
    return _versus({column: a}, {column: b}, {"task": "3d"} | where)


def _models(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    if not {"sam2", "sam"} <= set(models):
        return pd.DataFrame(columns=["data_set", "a", "b"])
    comparison = Comparison(
        "claim",
        {"model": models["sam2"]},
        {"model": models["sam"]},
        {"task": "2d", "mask_choice": "first_mask"},
    )
    return paired_values(table, comparison).values


def _deep_against_flat(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """3D against 2D on propagated slices, for the prompts that both have, mask choices alike."""
    found = []
    for choice in MASK_CHOICES_3D:
        a, b = {"task": "3d", "mask_choice": choice}, {"task": "2d", "mask_choice": choice}
        fixed = {"prompt": ["one_point", "point_per_component", "one_box"]}
        found.append(_versus(a, b, fixed, slices="propagated")(table, models))
    both = pd.concat(found)
    return both.groupby(["data_set", "patient_id"])[["a", "b"]].mean().reset_index() if len(both) else both


def deep_rows(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """Return the 3D rows of the model that plays SAM 2."""
    rows = select(table, {"task": "3d", "metric": "iou", "model": models.get("sam2", "")})
    return rows.astype({"value": float})


def halves(places: pd.DataFrame) -> np.ndarray:
    """Return which patients are for choosing a design (True) and which for testing it.

    Within every data set patients are taken in turn, in an order that depends on their names alone; a data
    set of one patient is for testing, as is the odd one.

    Parameters
    ----------
    places : DataFrame
        Columns `data_set`, `patient_id`, one row per patient.
    """
    order = [
        derive_seed("halves", *place) for place in places[["data_set", "patient_id"]].itertuples(index=False)
    ]
    rank = places.assign(order=order).groupby("data_set")["order"].rank(method="first")
    return (rank.to_numpy() % 2) == 0


def designs_of_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean IoU of every patient (rows) under every design (columns) that all of them have."""
    design = list(DESIGN_FACTORS)
    cells = [*design, *NEVER_MIXED]
    means = patient_means(case_means(rows.drop(columns="failed"), cells), cells)
    return means.pivot_table(index=["data_set", "patient_id"], columns=design, values="value").dropna()


def chosen_and_tested(wide: pd.DataFrame) -> tuple[tuple, pd.DataFrame]:
    """Return the design that is best on one half of the patients, and the rows of the other half.

    Chosen and tested on the same patients the best of many designs looks better than it is, even where
    all are alike.

    Parameters
    ----------
    wide : DataFrame
        Of `designs_of_patients`.

    Returns
    -------
    design : tuple of str, or empty where no patient is left to choose on
    tested : DataFrame
    """
    places = wide.index.to_frame(index=False)
    choosing = halves(places)
    if not choosing.any() or choosing.all() or wide.shape[1] < 2:
        return (), wide[:0]
    means = wide[choosing].groupby(level="data_set").mean().mean()
    return means.idxmax(), wide[~choosing]


def _best_design(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """Mean over all designs against the one that is best on other patients (`chosen_and_tested`)."""
    best, tested = chosen_and_tested(designs_of_patients(deep_rows(table, models)))
    if not best:
        return pd.DataFrame(columns=["data_set", "a", "b"])
    places = tested.index.to_frame(index=False)
    return places.assign(a=tested.mean(axis=1).to_numpy(), b=tested[best].to_numpy())


def _far_minus_near(rows: pd.DataFrame) -> pd.DataFrame:
    """Pairs of a case's mean beyond `FAR_SLICES` and nearer, of designs and objects that have both."""
    distance = rows["distance_slices"].abs()
    rows = rows[distance.gt(0).fillna(False)]
    far = rows["distance_slices"].abs() > FAR_SLICES
    cells = ["data_set", "case_id", "object", *FACTORS]
    sides = [rows[mask].groupby(cells, dropna=False)["value"].mean() for mask in (far, ~far)]
    both = pd.concat(sides, axis=1, keys=["a", "b"], join="inner").reset_index()
    return both.groupby(["data_set", "case_id"])[["a", "b"]].mean().reset_index()


def _far_against_near(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    return _far_minus_near(deep_rows(table, models))


def _far_loss_against_near(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """The same, of the difference to 2D prompting on the same slice with the same prompt and mask choice.

    Slices far from the prompt are often the ends of an object and harder for any method; what 2D
    prompting reaches there takes that out.
    """
    deep = deep_rows(table, models)
    flat = select(table, {"task": "2d", "metric": "iou", "model": models.get("sam2", "")})
    flat = flat.astype({"value": float})
    place = ["data_set", "case_id", "object", "slice_index", "prompt"]
    flat = flat.groupby([*place, "mask_choice"], dropna=False)["value"].mean().rename("flat").reset_index()
    joined = deep.merge(flat, on=[*place, "mask_choice"])
    return _far_minus_near(joined.assign(value=joined["value"] - joined["flat"]))


def _per_case(table: pd.DataFrame, value: Callable) -> pd.DataFrame:
    """One number per case, against 0: the mean over its objects of `value` of the object's rows.

    Objects for which it is NaN are left out, and so are cases without any other.
    """
    found = [
        {"data_set": key[0], "case_id": key[1], "a": value(group), "b": 0.0}
        for key, group in table.groupby(["data_set", "case_id", "object"], dropna=False)
    ]
    frame = pd.DataFrame(found, columns=["data_set", "case_id", "a", "b"]).dropna(subset=["a"])
    return frame.groupby(["data_set", "case_id"])[["a", "b"]].mean().reset_index()


def _rank_correlation(x: pd.Series, y: pd.Series) -> float:
    x, y = x.to_numpy(float), y.to_numpy(float)
    if len(x) < 5 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(scipy_stats.spearmanr(x, y).statistic)


def _falls_with_distance(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    rows = deep_rows(table, models)
    rows = rows[rows["distance_slices"].notna()].assign(
        far=lambda r: r["distance_slices"].abs().astype(float)
    )
    means = rows.groupby(["data_set", "case_id", "object", "far"], dropna=False)["value"].mean().reset_index()
    return _per_case(means, lambda group: _rank_correlation(group["far"], group["value"]))


def _propagated(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    rows = deep_rows(table, models)
    return rows[rows["distance_slices"].ne(0).fillna(True)]


def _likeness_of_truth(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """Rank correlation of a slice's IoU with that of its truth and its neighbour's towards the prompt."""
    rows = _propagated(table, models)
    rows = rows[rows["neighbour_iou"].notna()].astype({"neighbour_iou": float})
    place = ["data_set", "case_id", "object", "slice_index", "neighbour_iou"]
    means = rows.groupby(place, dropna=False)["value"].mean().reset_index()
    return _per_case(means, lambda group: _rank_correlation(group["neighbour_iou"], group["value"]))


def _likeness_of_areas(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """Rank correlation of a slice's IoU with how alike its object's area and its neighbours' are.

    The smaller over the larger area is an upper bound of the IoU of the two slices' truths; it needs no
    column that only this workbook writes.
    """
    rows = _propagated(table, models)
    rows = rows[rows["truth_px"].gt(0).fillna(False)]
    place = ["data_set", "case_id", "object", "slice_index"]
    means = rows.groupby(place).agg(value=("value", "mean"), size=("truth_px", "first")).reset_index()
    means = means.sort_values(place).astype({"size": float, "slice_index": int})
    parts = means.groupby(["data_set", "case_id", "object"])
    ratios = []
    for step in (1, -1):
        other = parts["size"].shift(step)
        gap = (means["slice_index"] - parts["slice_index"].shift(step)).abs()
        ratio = np.minimum(means["size"], other) / np.maximum(means["size"], other)
        ratios.append(ratio.where(gap == 1))
    means["alike"] = pd.concat(ratios, axis=1).mean(axis=1)
    means = means.dropna(subset=["alike"])
    return _per_case(means, lambda group: _rank_correlation(group["alike"], group["value"]))


def _untestable(table: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(columns=["data_set", "a", "b"])


POINTS = ["one_point", "point_per_component"]
_DEEP = "3D rows of SAM 2"
CLAIMS = (
    Claim(
        "H1", "On single slices SAM 2 segments about as well as SAM.", "all versions", "=",
        (("SAM 2 against SAM, all prompts", _models),),
        "2D rows of a SAM 2 and a SAM model on the same cases",
    ),
    Claim(
        "H2", "On single slices a box is better than a point.", "arXiv v1", ">",
        tuple(
            (f"{label}: {a.replace('_', ' ')} against {b.replace('_', ' ')}", _flat(a, b, model))
            for model, label in (("sam2", "SAM 2"), ("sam", "SAM"))
            for a, b in (("one_box", "one_point"), ("box_per_component", "point_per_component"))
        ),
        "2D rows with point and box prompts",
    ),
    Claim(
        "H3", "Prompting several parts of an object is at least as good as prompting one.", "SAM study", ">=",
        tuple(
            (f"{label}: {a.replace('_', ' ')} against {b.replace('_', ' ')}", _flat(a, b, model))
            for model, label in (("sam2", "SAM 2"), ("sam", "SAM"))
            for a, b in (("point_per_component", "one_point"), ("box_per_component", "one_box"))
        ),
        "2D rows with single and per-component prompts",
    ),
    Claim(
        "H4", "In volumes, the first mask is at least as good as the most confident one for points.",
        "arXiv v1 and TBME", ">=",
        (("first against most confident mask, point prompts",
          _deep("mask_choice", "first_mask", "most_confident_mask", prompt=POINTS)),),
        f"{_DEEP} with both mask choices",
    ),
    Claim(
        "H5a", "Prompting three slices is better than prompting one.", "last arXiv version", ">",
        tuple(
            (f"three slices against {b.replace('_', ' ')}", _deep("frame_choice", "three_slices", b))
            for b in ("first_slice", "centre_slice", "largest_slice")
        ),
        f"{_DEEP} with all frame choices",
    ),
    Claim(
        "H5b", "Of single slices the centre one is the best value.", "last arXiv version", ">",
        (("centre against largest slice", _deep("frame_choice", "centre_slice", "largest_slice")),),
        f"{_DEEP} with centre and largest slice",
    ),
    Claim(
        "H5c", "Of single slices the one with the largest area is the best value.", "TBME", ">",
        (), f"{_DEEP} with centre and largest slice", mirror_of="H5b",
    ),
    Claim(
        "H5d", "The object's first slice is the worst to prompt.", "expected from both", "<",
        tuple(
            (f"first against {b.replace('_', ' ')}", _deep("frame_choice", "first_slice", b))
            for b in ("centre_slice", "largest_slice")
        ),
        f"{_DEEP} with first, centre and largest slice",
    ),
    Claim(
        "H6", "In volumes the ground-truth mask is better than a box, and a box better than a point.",
        "last arXiv version and TBME", ">",
        (("mask against one box", _deep("prompt", "mask", "one_box")),
         ("one box against one point", _deep("prompt", "one_box", "one_point"))),
        f"{_DEEP} with point, box and mask prompts",
    ),
    Claim(
        "H7", "Propagating to both sides is better than from front to end.",
        "last arXiv version and TBME", ">",
        (("bidirectional against front to end", _deep("direction", "bidirectional", "front_to_end")),),
        f"{_DEEP} in both directions",
    ),
    Claim(
        "H8", "Correcting with further prompts rarely helps; only further ground-truth masks do.",
        "last arXiv version and TBME", "=",
        (("after against before corrections", _untestable),),
        "an interactive 3D run with rows before and after each correction, once with further prompts and "
        "once with further ground-truth masks; this workbook runs no such task",
    ),
    Claim(
        "H9", "Propagated masks are much worse than prompting every slice, on the same slices.",
        "arXiv v1", "<<",
        (("3D against 2D, propagated slices", _deep_against_flat),),
        "2D and 3D rows of the same model and cases",
    ),
    Claim(
        "H10", "The mean over all designs hides how good the best design is.", "arXiv v1, last version", "<",
        (("mean of designs against the best, chosen on other patients", _best_design),),
        f"{_DEEP} with two or more designs, and patients to choose on and to test on",
    ),
    Claim(
        "H11", f"The IoU falls with the distance from the prompt, notably beyond {FAR_SLICES} slices.",
        "arXiv v1", "<",
        (("rank correlation with distance", _falls_with_distance),
         (f"beyond {FAR_SLICES} slices against nearer", _far_against_near),
         (f"loss against 2D, beyond {FAR_SLICES} slices against nearer", _far_loss_against_near)),
        f"{_DEEP} with distances beyond {FAR_SLICES} slices, and 2D rows of the same slices",
    ),
    Claim(
        "H12", "Where the object changes much from slice to slice, propagation fails more.", "arXiv v1", ">",
        (("rank correlation with the truth's IoU on neighbouring slices", _likeness_of_truth),
         ("rank correlation with likeness of neighbouring areas", _likeness_of_areas)),
        f"{_DEEP} with the truth's likeness on neighbouring slices (neighbour_iou) and its size (truth_px)",
    ),
)  # fmt: skip
H13 = Claim(
    "H13", f"Some objects reach an IoU above {HIGH_IOU} in 3D with a box or mask.", "TBME", ">",
    (), f"{_DEEP} with box or mask prompts, and patients to choose a design on and to test it on",
)  # fmt: skip
