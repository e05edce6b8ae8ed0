"""3D: IoU away from the prompted slice, by depth of the volume and by slice spacing.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from medsam_nb.figures.choices import Colours
from medsam_nb.figures.order import data_sets_in_order
from medsam_nb.figures.style import (
    DIRECTION_COLOURS,
    GREY,
    OTHER_COLOURS,
    PROMPT_COLOURS,
    band,
    colour_of,
    iou_axis,
    legend,
    mark,
    nothing,
)
from medsam_nb.figures.words import label, metric_label
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means, check_table, of_metric, refuse_mixture
from medsam_nb.statistics.retention import retention


def iou_by_distance(
    table: pd.DataFrame,
    ax: Axes,
    by: str = "direction",
    fewest_cases: int | None = None,
    metric: str = "iou",
) -> pd.DataFrame:
    """Draw the IoU against the distance from the nearest prompted slice, in slices.

    Parameters
    ----------
    table : DataFrame
        3D rows of one model.
    by : {"direction", "prompt", "data_set"}
        A line for each.
    fewest_cases : int, optional
        Distances that fewer cases reach are left out, unless the table has fewer cases in all. By
        default a quarter of the cases, at least 2: at the far end one deep volume would be the line.
    metric : str
        "iou", or "dice" of the same masks.

    Returns
    -------
    DataFrame
        What is drawn: `by`, `distance_slices`, `mean`, `ci_low`, `ci_high`, `n_cases`, `n_data_sets`.
    """
    rows = of_metric(check_table(table[table["task"] == "3d"]), metric)
    rows = rows[rows["distance_slices"].notna()].astype({"value": float, "distance_slices": int})
    if rows.empty:
        return nothing(ax, "no 3D rows with a distance from the prompt")
    refuse_mixture(rows, [by])
    case = list(dict.fromkeys(["data_set", "patient_id", "case_id", by, "distance_slices"]))
    objects = rows.groupby([*case, "object"], dropna=False)["value"].mean().reset_index()
    cases = objects.groupby(case, dropna=False)["value"].mean().reset_index()
    drawn = _by_distance(cases, ax, by, fewest_cases)
    iou_axis(ax, f"mean {metric_label(metric)}", "y")
    return drawn


def retention_by_distance(
    table: pd.DataFrame, ax: Axes, by: str = "direction", fewest_cases: int = 2
) -> pd.DataFrame:
    """Draw the retention ratio (`retention` module) against the distance from the prompted slice.

    Parameters are those of `iou_by_distance`. What failed on its prompted slice has no ratio.

    Returns
    -------
    DataFrame
        What is drawn: `by`, `distance_slices`, `mean`, `ci_low`, `ci_high`, `n_cases`, `n_data_sets`.
    """
    cases = retention(table, by).dropna(subset=["value"])
    if cases.empty:
        return nothing(ax, "no 3D rows away from a prompted slice that itself was segmented")
    start = cases.drop_duplicates(list(dict.fromkeys(["data_set", "patient_id", "case_id", by])))
    cases = pd.concat([cases, start.assign(distance_slices=0, value=1.0)])  # 1 by definition
    drawn = _by_distance(cases, ax, by, fewest_cases)
    ax.axhline(1, color=GREY, lw=0.5, ls=":")
    top = float(np.nanmax(drawn[["mean", "ci_high"]].to_numpy(float)))
    ax.set_ylim(0, max(1.1, min(1.05 * top, 2.0)))
    ax.set_ylabel("IoU / IoU on the prompted slice")
    ax.grid(axis="y")
    return drawn


def _by_distance(cases: pd.DataFrame, ax: Axes, by: str, fewest_cases: int) -> pd.DataFrame:
    """Draw a line with its band for each value of `by`; return what is drawn."""
    drawn = summarise(cases, [by, "distance_slices"]).sort_values([by, "distance_slices"])
    most = int(drawn["n_cases"].max())
    drawn = drawn[drawn["n_cases"] >= min(fewest_cases or max(2, most / 4), most)]
    colours = {"direction": DIRECTION_COLOURS, "prompt": PROMPT_COLOURS}.get(by, Colours())
    names = data_sets_in_order(cases) if by == "data_set" else sorted(drawn[by].unique())
    for number, name in enumerate(name for name in names if name in set(drawn[by])):
        line = drawn[drawn[by] == name]
        colour = colours.get(name) or colour_of(name, number)
        x = line["distance_slices"]
        dash = "--" if name == "front_to_end" else "-"
        ax.plot(x, line["mean"], dash, color=colour, label=label(name), marker="o" if len(x) == 1 else "")
        band(ax, x, line, colour)
    ax.axvline(0, color=GREY, lw=0.5, ls=":")
    _cases_below(ax, drawn)
    ax.set_xlabel("slices from the nearest prompted slice (small: cases)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(ax, ax.get_legend_handles_labels()[0])
    return drawn.reset_index(drop=True)


def _cases_below(ax: Axes, drawn: pd.DataFrame, most: int = 9) -> None:
    """Write along the lower edge how many cases stand behind the curves."""
    counts = drawn.groupby("distance_slices")["n_cases"].max()
    step = max(1, int(np.ceil(len(counts) / most)))
    for at in counts.index[counts.index % step == 0]:
        place = ax.get_xaxis_transform()
        ax.text(at, 0.015, str(counts[at]), transform=place, ha="center", size=5, color=GREY)


def depth_and_spacing(table: pd.DataFrame, axes: np.ndarray, metric: str = "iou") -> pd.DataFrame:
    """Draw each case's mean 3D IoU against its number of slices and its slice spacing (two axes)."""
    rows = of_metric(table[table["task"] == "3d"], metric)
    if rows.empty:
        return [nothing(ax, "no 3D rows") for ax in axes][0]
    means = case_means(rows, [], metric)
    facts = rows.groupby(["data_set", "case_id"])[["n_slices", "spacing_z_mm"]].first().reset_index()
    drawn = means.merge(facts, on=["data_set", "case_id"]).astype({"n_slices": float, "spacing_z_mm": float})
    names = data_sets_in_order(rows)
    few = len(names) <= len(OTHER_COLOURS)  # more could not be told apart
    colours = {name: colour_of(name, number if few else 1) for number, name in enumerate(names)}
    for ax, (column, name) in zip(
        axes, (("n_slices", "slices of the volume"), ("spacing_z_mm", "slice spacing, mm")), strict=True
    ):
        for data_set, cases in drawn.groupby("data_set", sort=False):
            ax.plot(cases[column], cases["value"], "o", color=colours[data_set], ms=3, alpha=0.8, mew=0)
        ax.set_xlabel(name)
        iou_axis(ax, f"mean {metric_label(metric)}", "y")
    if few:
        marks = [mark(colours[name], label(name)) for name in names]
        legend(axes[0], marks, columns=4)
    return drawn
