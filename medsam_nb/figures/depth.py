"""3D: depth and slice-to-slice change told apart, one anatomy in several modalities, what explains a loss.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from medsam_nb.figures.style import (
    CLEAR,
    GREY,
    OTHER_COLOURS,
    bars,
    bars_in_turn,
    difference,
    difference_rows,
    iou_axis,
    legend,
    look_of,
    nothing,
    size_of,
)
from medsam_nb.figures.words import label, metric_label
from medsam_nb.statistics.depth import cell_means, losses, slices_of
from medsam_nb.statistics.paired import summarise


def _colours(values: Sequence) -> dict:
    return {value: OTHER_COLOURS[number % len(OTHER_COLOURS)] for number, value in enumerate(values)}


def _line(ax: Axes, x: pd.Series, y: pd.Series, number: int, words: str, at: list[int] | None) -> None:
    """Draw the n-th line in its colour and dash, with its marks at some places (None: at all)."""
    colour, marker, dash = look_of(number)
    ax.plot(x, y, ls=dash, color=colour, marker=marker, ms=size_of(marker, 3), markevery=at, label=words)


def depth_scheme(cells: Sequence[tuple[int, float]], ax: Axes) -> pd.DataFrame:
    """Draw the slices of every cell of a factorial design of depth, a row each, at their heights.

    Parameters
    ----------
    cells : sequence of (int, float)
        Number of slices, and the distance between them in mm.

    Returns
    -------
    DataFrame
        What is drawn: `n_slices`, `spacing_z_mm`, `height_mm`; and `prompted_mm`, where a prompt is.
    """
    spacings = sorted({mm for _, mm in cells})
    colours, rows = _colours(spacings), []
    cells = sorted(cells, key=lambda cell: (cell[1], cell[0]))
    for place, (count, mm) in enumerate(cells):
        heights = (np.arange(count) - (count - 1) / 2) * mm
        rows += [{"n_slices": count, "spacing_z_mm": mm, "height_mm": height} for height in heights]
        ax.plot(heights, [place] * count, "|", color=colours[mm], ms=5, mew=0.8)
    ax.plot([0] * len(cells), range(len(cells)), "D", color="#E69F00", ms=3.5, mew=0, label="prompted slice")
    ax.axvline(0, color=GREY, lw=0.4, zorder=0)
    ax.set_yticks(range(len(cells)), [f"{count} slices, {mm:g} mm apart" for count, mm in cells])
    ax.set_ylim(len(cells) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("height in the trunk, mm: slices at the same height are the same slice")
    legend(ax, ax.get_legend_handles_labels()[0])
    return pd.DataFrame(rows).assign(prompted_mm=0.0)


def iou_by_depth(table: pd.DataFrame, axes: np.ndarray, metric: str = "iou") -> pd.DataFrame:
    """Draw the factorial result on three axes: by number of slices, and by distance in slices and in mm.

    Where lines of different slice distances fall together on one axis, that axis is what counts.

    Parameters
    ----------
    table : DataFrame
        3D rows of a factorial data set, one model.
    axes : ndarray of Axes, shape (3,)

    Returns
    -------
    DataFrame
        What is drawn: `panel`, `spacing_z_mm`, `x`, `mean`, `ci_low`, `ci_high`, `n_patients`.
    """
    found = losses(table, metric)
    if found.empty:
        return [nothing(ax, "no propagated slices") for ax in axes][0]
    means = cell_means(found).assign(panel="number of slices", x=lambda t: t["n_slices"])
    rows = slices_of(table, metric)
    rows = rows[rows["n_slices"] == rows["n_slices"].max()]
    rows = rows.assign(steps=rows["distance_slices"].abs(), mm=rows["distance_mm"].abs())
    drawn = [means]
    for panel in ("steps", "mm"):
        place = ["data_set", "patient_id", "case_id", "object", "spacing_z_mm", panel]
        cases = rows.groupby(place)["value"].mean().groupby(place[:3] + place[4:]).mean().reset_index()
        drawn.append(summarise(cases, ["spacing_z_mm", panel]).assign(panel=panel, x=lambda t, p=panel: t[p]))
    names = ("number of slices", "distance from the prompt, slices", "distance from the prompt, mm")
    spacings, depths = (sorted(found[of].unique()) for of in ("spacing_z_mm", "n_slices"))
    for ax, part, name in zip(axes, drawn, names, strict=True):
        for number, mm in enumerate(spacings):
            line = part[part["spacing_z_mm"] == mm].sort_values("x")
            x, many = line["x"], len(spacings)
            if ax is axes[0]:  # depths are few: curves stand side by side at each
                x = x.map({depth: place for place, depth in enumerate(depths)}) + 0.08 * (number - many / 2)
                bars(ax, x, line, look_of(number)[0])
                at = None
            else:
                at = bars_in_turn(ax, x, line, look_of(number)[0], number, many)
            _line(ax, x, line["mean"], number, f"slices {mm:g} mm apart", at)
        ax.set_xlabel(name)
        iou_axis(ax, f"mean {metric_label(metric)}" if ax is axes[0] else "", "y")
    axes[0].set_xticks(range(len(depths)), [f"{depth:g}" for depth in depths])
    axes[1].set_xlim(left=0)
    axes[0].set_ylabel(f"mean {metric_label(metric)} of propagated slices")
    reach = rows.groupby("spacing_z_mm")["mm"].max().min()
    axes[2].set_xlim(0, 1.05 * reach)  # as far as the thinnest slices reach, and a little beyond
    legend(axes[0], axes[0].get_legend_handles_labels()[0], columns=3)
    columns = ["panel", "spacing_z_mm", "x", "mean", "ci_low", "ci_high", "n_patients"]
    return pd.concat(drawn)[columns].reset_index(drop=True)


def contrast_forest(result: pd.DataFrame, ax: Axes, what: str) -> pd.DataFrame:
    """Draw paired contrasts with their corrected intervals, under the names of their families.

    Parameters
    ----------
    result : DataFrame
        Of `depth.contrasts`.
    what : str
        Of what the differences are, for the axis.

    Returns
    -------
    DataFrame
        The rows that are drawn.
    """
    shown = result[result["n"] > 0]
    if shown.empty:
        return nothing(ax, "nothing to compare")
    names, several = [], shown["family"].nunique() > 1
    for family, rows in shown.groupby("family", sort=False):
        if several:
            names.append(f"{family}:")
        for _, row in rows.iterrows():
            difference(ax, row, len(names))
            names.append(label(row["comparison"]))
    difference_rows(ax, names, what)
    for text, name in zip(ax.get_yticklabels(), names, strict=True):
        text.set_fontweight("bold" if name.endswith(":") else "normal")
    return shown


def iou_by_modality(table: pd.DataFrame, ax: Axes, metric: str = "iou") -> pd.DataFrame:
    """Draw the IoU by distance from the prompt, both sides together, a line for each modality.

    A line ends where objects of a patient do: beyond it would be that of the longest object alone.

    Returns
    -------
    DataFrame
        What is drawn: `modality`, `steps`, `mean`, `ci_low`, `ci_high`, `n_patients`.
    """
    rows = slices_of(table, metric)
    if rows.empty:
        return nothing(ax, "no 3D rows")
    rows = rows.assign(steps=rows["distance_slices"].abs(), data_set="same anatomy")
    place = ["data_set", "patient_id", "modality", "steps"]
    objects = rows.groupby([*place, "object"])["value"].mean()
    patients = objects.groupby(place).agg(["mean", "size"]).rename(columns={"mean": "value"}).reset_index()
    every = patients.groupby(place[:-1])["size"].transform("max")
    drawn = summarise(patients[patients["size"] == every], ["modality", "steps"])
    drawn = drawn[drawn["n_patients"] >= drawn["n_patients"].max() / 2].sort_values(["modality", "steps"])
    names = sorted(drawn["modality"].unique())
    for number, name in enumerate(names):
        line = drawn[drawn["modality"] == name]
        at = bars_in_turn(ax, line["steps"], line, look_of(number)[0], number, len(names))
        _line(ax, line["steps"], line["mean"], number, label(name.removeprefix("simulated ")), at)
    ax.set_xlabel("slices from the prompted slice")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    iou_axis(ax, f"mean {metric_label(metric)}", "y")
    legend(ax, ax.get_legend_handles_labels()[0], columns=5)
    return drawn.reset_index(drop=True)


def explained_forest(found: pd.DataFrame, axes: np.ndarray, words: Mapping[str, str]) -> pd.DataFrame:
    """Draw partial R squared (left) and the slope (right) of every kind of variation, with intervals.

    Parameters
    ----------
    found : DataFrame
        Of `explained.explained`.
    axes : ndarray of Axes, shape (2,)
    words : mapping of str to str
        How predictors are printed.
    """
    drawn = found.dropna(subset=["slope"])
    if drawn.empty:
        return [nothing(ax, "; ".join(found["note"].dropna().unique())) for ax in axes][0]
    for place, row in enumerate(drawn.itertuples()):
        clear = row.slope_low > 0 or row.slope_high < 0
        look = {"color": CLEAR if clear else GREY, "mfc": CLEAR if clear else "white", "mew": 0.8}
        axes[0].plot([row.r2_low, row.r2_high], [place] * 2, color=look["color"], lw=0.9)
        axes[0].plot(row.partial_r2, place, "o", **look)
        axes[1].plot([row.slope_low, row.slope_high], [place] * 2, color=look["color"], lw=0.9)
        axes[1].plot(row.slope, place, "o", **look)
    axes[0].set_yticks(range(len(drawn)), [words.get(name, label(name)) for name in drawn["predictor"]])
    axes[1].set_yticks([])
    axes[0].set_xlim(left=0)
    axes[0].set_xlabel("partial R squared")
    axes[1].axvline(0, color=GREY, lw=0.6)
    axes[1].set_xlabel("loss of IoU for one standard deviation more\n(filled: the interval leaves 0)")
    for ax in axes:
        ax.set_ylim(len(drawn) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
    return drawn
