"""3D: IoU away from the prompted slice, by depth of the volume and by slice spacing.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from medsam_nb.figures.order import data_sets_in_order
from medsam_nb.figures.style import (
    DIRECTION_COLOURS,
    DIRECTION_MARKERS,
    GREY,
    MOST_BANDS,
    OTHER_COLOURS,
    PROMPT_COLOURS,
    PROMPT_MARKERS,
    band,
    bars_in_turn,
    colour_of,
    iou_axis,
    legend,
    look_of,
    mark,
    nothing,
    size_of,
)
from medsam_nb.figures.words import label, metric_label
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means, check_table, of_metric, refuse_mixture
from medsam_nb.statistics.retention import retention

COUNTS_HEIGHT = 0.06  # of the axes, where numbers of cases are written
MOST_PLACES = 5  # on an axis, of which each is named and its points are spread


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
    """Draw a line for each value of `by`, with its band if there are few; return what is drawn."""
    drawn = summarise(cases, [by, "distance_slices"]).sort_values([by, "distance_slices"])
    most = int(drawn["n_cases"].max())
    drawn = drawn[drawn["n_cases"] >= min(fewest_cases or max(2, most / 4), most)]
    names = data_sets_in_order(cases) if by == "data_set" else sorted(drawn[by].unique())
    names = [name for name in names if name in set(drawn[by])]
    handles = []
    for number, name in enumerate(names):
        line = drawn[drawn[by] == name]
        colour, marker, dash = _look(by, name, number)
        x = line["distance_slices"]
        few = len(names) <= MOST_BANDS
        # A few marks on every line, at places of its own: they tell lines apart where these run together.
        every = max(1, len(x) // 4)
        at = (number % every, every) if few else bars_in_turn(ax, x, line, colour, number, len(names))
        look = {"ls": dash, "color": colour, "marker": marker, "ms": size_of(marker, 3)}
        ax.plot(x, line["mean"], markevery=at, **look)
        handles.append(Line2D([], [], label=label(name), **look))
        if few:
            band(ax, x, line, colour, dash)
    ax.axvline(0, ymin=COUNTS_HEIGHT, color=GREY, lw=0.5, ls=":")
    _cases_below(ax, drawn)
    ax.set_xlabel("slices from the nearest prompted slice (small: cases)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(ax, handles)
    return drawn.reset_index(drop=True)


def _look(by: str, name: str, number: int) -> tuple[str, str, object]:
    """Return colour, marker and dash of a line: those of its direction or prompt, or of its place."""
    colour, marker, dash = look_of(number)
    if by == "direction" and name in DIRECTION_COLOURS:
        return DIRECTION_COLOURS[name], DIRECTION_MARKERS[name], "--" if name == "front_to_end" else "-"
    if by == "prompt" and name in PROMPT_COLOURS:
        return PROMPT_COLOURS[name], PROMPT_MARKERS[name], dash
    return colour_of(name, number), marker, dash


def _cases_below(ax: Axes, drawn: pd.DataFrame, most: int = 13) -> None:
    """Write along the lower edge how many cases stand behind the curves, at both ends in any case."""
    counts = drawn.groupby("distance_slices")["n_cases"].max()
    step = max(1, int(np.ceil((counts.index.max() - counts.index.min() + 1) / most)))
    ends = {counts.index.min(), counts.index.max()}
    near = {at for at in counts.index for end in ends if 0 < abs(at - end) < step}
    for at in sorted((set(counts.index[counts.index % step == 0]) - near) | ends):
        place = ax.get_xaxis_transform()
        ax.text(at, 0.015, str(counts[at]), transform=place, ha="center", size=6, color="#555555")


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
    looks = {name: look_of(number)[1] if few else "o" for number, name in enumerate(names)}
    colours = {name: colour_of(name, number if few else 1) for number, name in enumerate(names)}
    panels = (("n_slices", "slices of the volume"), ("spacing_z_mm", "slice spacing, mm"))
    for ax, (column, name) in zip(axes, panels, strict=True):
        places = {value: place for place, value in enumerate(sorted(drawn[column].unique()))}
        as_names = len(places) <= MOST_PLACES  # points of one place stand side by side
        for number, data_set in enumerate(names):
            cases = drawn[drawn["data_set"] == data_set]
            beside = (number - (len(names) - 1) / 2) * 0.8 / max(len(names), 4)
            x = cases[column].map(places) + beside if as_names else cases[column]
            look = {"mfc": "none", "mec": colours[data_set], "mew": 0.9, "ms": size_of(looks[data_set], 4)}
            ax.plot(x, cases["value"], looks[data_set], **look)
        if as_names:
            ax.set_xticks(list(places.values()), [f"{value:g}" for value in places])
            ax.set_xlim(-0.5, len(places) - 0.5)
        ax.set_xlabel(name)
        iou_axis(ax, f"mean {metric_label(metric)}", "y")
    if few:
        marks = [mark(colours[name], label(name), looks[name], filled=False) for name in names]
        legend(axes[0], marks, columns=4)
    return drawn


def depth_goes_with_spacing(drawn: pd.DataFrame) -> str:
    """Return, for a caption, that depth and slice spacing cannot be told apart; "" if they can.

    They cannot where all volumes of one depth have one spacing (or the other way round). Where there are
    many depths and spacings that is so by chance, and nothing is said.

    Parameters
    ----------
    drawn : DataFrame
        Of `depth_and_spacing`.
    """
    if drawn.empty:
        return ""
    pairs = drawn[["n_slices", "spacing_z_mm"]].astype(float).round(2).drop_duplicates()
    pairs = pairs.sort_values(["n_slices", "spacing_z_mm"])
    if not all(2 <= pairs[name].nunique() <= MOST_PLACES for name in pairs):
        return ""
    if not any(pairs[name].is_unique for name in pairs):
        return ""
    said = ", ".join(f"{row.n_slices:g} slices {row.spacing_z_mm:g} mm apart" for row in pairs.itertuples())
    return f" Depth and spacing go together here ({said}): the panels show one contrast, not two."
