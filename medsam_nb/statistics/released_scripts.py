"""The paper's own averages, and what the slips of its released scripts do to them.

The paper pools the slices of all volumes of an object, so a long volume weighs more, and averages
over objects. Its released 3D script departs from its description in six places, each of which is a
switch here, so that its part in a number can be seen. On the same masks, all switches together
give what the script prints. What rows cannot tell any more stands in `NOT_REPLAYED`.
"""

from collections.abc import Collection

import numpy as np
import pandas as pd

from medsam_nb.errors import InputError, StudyError
from medsam_nb.protocol.designs import DESIGN_FACTORS, start_slice
from medsam_nb.protocol.table import FACTORS
from medsam_nb.statistics.pooling import case_means, check_table

SWITCHES = {
    # The list of scores is extended by itself after each pass: the backward pass ends up counted
    # four times and the forward pass twice. One pass alone: twice, which changes no mean.
    "reverse_counted_twice": "slices up to the start of a bidirectional run weigh double",
    # Backward from the middle prompt, but forward only from after the last one.
    "slices_between_prompts_skipped": "after the middle prompt up to the last one, no slice is scored",
    # A backward pass from slice 0 has no slices, and the forward pass starts at slice 1.
    "slice_zero_skipped": "slice 0 is not scored where a bidirectional run starts there",
    # Scores are padded to 1,000; a longer list makes the array ragged and the script stops.
    "long_volumes_stop": "a data set with a volume of more than 1,000 collected scores has no value",
    # Every (n // 4)-th non-empty slice, of which the second to fourth.
    "uneven_three_slices": "three slices are chosen by the script's rule (rows of protocol 'released')",
    # The loops over designs are commented out.
    "default_design_only": "only one point on the centre slice is run",
}
NOT_REPLAYED = (
    "After the last of three prompts the script's forward pass starts anew, without the memory of the slices "
    "that it skipped; our masks there come from a pass that began behind the middle prompt.",
    "The script's choice of three slices gives other masks: it needs rows that were computed with protocol "
    "'released'.",
    "The script draws among equally central points from one generator for all files, so its points depend on "
    "the order of the files; ours depend on the case alone.",
)
MOST_SCORES = 1000
DESIGN = list(DESIGN_FACTORS)


def chosen_switches(protocol: str, switches: Collection[str] | None = None) -> frozenset[str]:
    """Return the switches that are on: none ("corrected"), all ("released"), or those named.

    All but `default_design_only` for "released": it chooses what is run, not how it is scored.
    """
    if protocol not in ("corrected", "released"):
        raise StudyError("protocol", f"{protocol!r} is unknown.", "Use corrected or released.")
    if switches is None:
        return frozenset() if protocol == "corrected" else frozenset(SWITCHES) - {"default_design_only"}
    unknown = sorted(set(switches) - set(SWITCHES))
    if unknown:
        raise StudyError("switches", f"{', '.join(unknown)} are unknown.", f"Known: {', '.join(SWITCHES)}.")
    return frozenset(switches)


def slice_weights(rows: pd.DataFrame, switches: Collection[str]) -> np.ndarray:
    """Return how often every row counts: 1, or what the switches make of it; 0 for not scored.

    Parameters
    ----------
    rows : DataFrame
        3D rows of slices, with `direction`, `prompted_slices` and `slice_index`.
    switches : collection of str
    """
    prompted = {
        text: tuple(int(part) for part in text.split(";")) for text in rows["prompted_slices"].unique()
    }
    start = rows["prompted_slices"].map({text: start_slice(found) for text, found in prompted.items()})
    last = rows["prompted_slices"].map({text: max(found) for text, found in prompted.items()})
    start, last = start.to_numpy(int), last.to_numpy(int)
    place = rows["slice_index"].to_numpy(int)
    both_ways = (rows["direction"] == "bidirectional").to_numpy(bool)
    weight = np.ones(len(rows))
    if "reverse_counted_twice" in switches:
        weight[both_ways & (place <= start)] = 2
    if "slices_between_prompts_skipped" in switches:
        weight[both_ways & (place > start) & (place <= last)] = 0
    if "slice_zero_skipped" in switches:
        weight[both_ways & (start == 0) & (place == 0)] = 0
    return weight


def _collected_scores(rows: pd.DataFrame, switches: Collection[str]) -> np.ndarray:
    """Return how many scores the script collects for the volume of each row, empty slices included."""
    twice = 2 if "reverse_counted_twice" in switches else 1
    n = rows["n_slices"].to_numpy(int)
    prompted = [tuple(map(int, text.split(";"))) for text in rows["prompted_slices"]]
    start = np.array([start_slice(p) for p in prompted])
    resumed = start
    if "slices_between_prompts_skipped" in switches:
        resumed = np.array([max(p) for p in prompted])
    backward = np.where((start == 0) & ("slice_zero_skipped" in switches), 0, start + 1)
    both = twice * (twice * backward + (n - 1 - resumed))
    return np.where(rows["direction"] == "bidirectional", both, twice * n)


def _of_protocol(rows: pd.DataFrame, switches: Collection[str]) -> pd.DataFrame:
    """Keep the rows with the wanted choice of three slices; other designs do not depend on it."""
    wanted = "released" if "uneven_three_slices" in switches else "corrected"
    protocol = rows["protocol"].fillna("corrected")
    three = (rows["frame_choice"] == "three_slices").fillna(False)
    other = "corrected" if (protocol[~three] == "corrected").any() else "released"
    return rows[(three & (protocol == wanted)) | (~three & (protocol == other))]


def paper_means(
    table: pd.DataFrame, protocol: str = "corrected", switches: Collection[str] | None = None
) -> pd.DataFrame:
    """Return the paper's mean of every object: all slices of all volumes, pooled.

    Parameters
    ----------
    table : DataFrame
        The tidy table. 2D rows are pooled without weights: the switches concern 3D.
    protocol : {"corrected", "released"}
    switches : collection of str, optional
        Exactly these of `SWITCHES`, instead of none or all.

    Returns
    -------
    DataFrame
        One row per data set, object and design: `value`, `n_cases`, `n_slices` (scored at least
        once), `n_skipped` (never scored), `failed`, `note`. Designs for which the table lacks the
        rows are absent.
    """
    on = chosen_switches(protocol, switches)
    rows = check_table(table)
    rows = rows[(rows["metric"] == "iou") & rows["prompt"].notna()].reset_index(drop=True)
    flat, deep = rows[rows["task"] != "3d"], _of_protocol(rows[rows["task"] == "3d"], on)
    if "default_design_only" in on:
        default = (deep["frame_choice"] == "centre_slice") & (deep["prompt"] == "one_point")
        deep = deep[default & (deep["direction"] == "front_to_end")]
    for column in ("prompted_slices", "slice_index", "n_slices"):
        if deep[column].isna().any():
            raise InputError(
                "results table", f"3D rows without {column!r}.", "The paper's pooling needs it; fill it."
            )
    both = pd.concat(
        [
            flat.assign(weight=1.0, too_long=False),
            deep.assign(
                weight=slice_weights(deep, on),
                too_long=("long_volumes_stop" in on) & (_collected_scores(deep, on) > MOST_SCORES),
            ),
        ]
    ).astype({"value": float, "weight": float, "too_long": bool})
    both["weighted"] = both["value"] * both["weight"]
    both["counts"] = both["weight"] > 0
    cells = ["data_set", "object", *[factor for factor in FACTORS if factor != "protocol"]]
    found = (
        both.groupby(cells, dropna=False, sort=True)
        .agg(
            weighted=("weighted", "sum"),
            weight=("weight", "sum"),
            n_cases=("case_id", "nunique"),
            n_slices=("counts", "sum"),
            rows=("counts", "size"),
            failed=("failed", "sum"),
            too_long=("too_long", "any"),
        )
        .reset_index()
    )
    stops = found["too_long"]
    value = (found["weighted"] / found["weight"].where(found["weight"] > 0)).mask(stops)
    note = np.select(
        [stops, found["weight"] == 0],
        ["the script stops: a volume is too long", "no slice is scored"],
        default="",
    )
    found = found.assign(value=value, n_skipped=found["rows"] - found["n_slices"], note=note)
    return found[[*cells, "value", "n_cases", "n_slices", "n_skipped", "failed", "note"]]


def over_objects(means: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over objects of `paper_means`, per model and design; objects weigh the same."""
    cells = [factor for factor in FACTORS if factor != "protocol"]
    return (
        means.groupby(cells, dropna=False, sort=True)
        .agg(
            value=("value", "mean"),
            n_objects=("value", "count"),
            n_missing=("value", lambda v: v.isna().sum()),
        )
        .reset_index()
    )


def both_averages(table: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's mean (slices pooled, then objects) beside the mean over cases, per design.

    Returns
    -------
    DataFrame
        One row per task, model and design of protocol "corrected": `pooled_slices`, `n_objects`,
        `mean_of_cases`, `n_cases`, `difference` (pooled minus mean of cases).
    """
    rows = check_table(table).drop(columns="failed")
    rows = rows[rows["prompt"].notna()]  # what was not prompted has no counterpart in the paper
    rows = rows[(rows["metric"] == "iou") & (rows["protocol"].fillna("corrected") == "corrected")]
    cells = [factor for factor in FACTORS if factor != "protocol"]
    pooled = over_objects(paper_means(rows)).rename(columns={"value": "pooled_slices"})
    cases = case_means(rows, [*cells, "protocol"]).groupby(cells, dropna=False)["value"]
    cases = cases.agg(mean_of_cases="mean", n_cases="size").reset_index()
    both = pooled.merge(cases, on=cells).drop(columns="n_missing")
    return both.assign(difference=both["pooled_slices"] - both["mean_of_cases"])


def switch_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Return how much each slip alone, and all together, change the mean over objects.

    Returns
    -------
    DataFrame
        One row per 3D design and switch: `corrected`, `switched`, `difference`, `n_objects`. The
        difference is of objects that have a value both ways.
    """
    base = paper_means(table[table["task"] == "3d"])
    cells = [column for column in base.columns if column in ("data_set", "object", *FACTORS)]
    found = []
    sets = {name: [name] for name in SWITCHES if name != "default_design_only"}
    for name, switches in {**sets, "all (released)": None}.items():
        other = paper_means(table[table["task"] == "3d"], "released", switches)
        joined = base.merge(other, on=cells, suffixes=("", "_switched"))
        joined = joined[joined["value"].notna() & joined["value_switched"].notna()]
        for design, group in joined.groupby(["model", *DESIGN], dropna=False, sort=True):
            corrected, switched = group["value"].mean(), group["value_switched"].mean()
            found.append(
                {
                    "switch": name,
                    **dict(zip(["model", *DESIGN], design, strict=True)),
                    "corrected": corrected,
                    "switched": switched,
                    "difference": switched - corrected,
                    "n_objects": len(group),
                }
            )
    columns = ["switch", "model", *DESIGN, "corrected", "switched", "difference", "n_objects"]
    return pd.DataFrame(found, columns=columns)
