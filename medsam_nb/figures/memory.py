"""3D: what the memory of tracked slices is worth.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from medsam_nb.figures.style import CLEAR, difference, difference_rows, iou_axis, legend, nothing, point
from medsam_nb.figures.words import counted, metric_label
from medsam_nb.protocol.options import MemoryWindow
from medsam_nb.statistics.change_point import ChangePoint
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means

READ = {  # what a tracked slice reads of another: marker, colour, size, words
    "pointer": ("o", "#8a8a8a", 2.0, "object pointer"),
    "memory": ("s", "#0072B2", 5.0, "predicted mask in memory"),
    "true mask": ("*", "#00543C", 7.0, "true mask in memory"),
    "prompt": ("D", "#E69F00", 4.5, "prompt"),
}


def iou_by_memory(table: pd.DataFrame, ax: Axes, order: Sequence[str], metric: str = "iou") -> pd.DataFrame:
    """Draw the mean of propagated slices for every memory window, a row each.

    Parameters
    ----------
    table : DataFrame
        3D rows of one model under several windows; prompted slices are left out.
    order : sequence of str
        Names of the windows (`MemoryWindow.name`), from top to bottom.

    Returns
    -------
    DataFrame
        What is drawn: `memory`, `mean`, `ci_low`, `ci_high`, `n_cases`, `n_data_sets`.
    """
    rows = table[(table["task"] == "3d") & table["memory"].isin(list(order)) & table["distance_slices"].ne(0)]
    if rows.empty:
        return nothing(ax, "no 3D rows away from a prompted slice")
    drawn = summarise(case_means(rows, ["memory"], metric), ["memory"])
    drawn = drawn.set_index("memory").reindex([name for name in order if name in set(drawn["memory"])])
    for place, (_, row) in enumerate(drawn.iterrows()):
        point(ax, row, place, CLEAR)
    ax.set_yticks(range(len(drawn)), list(drawn.index))
    ax.set_ylim(len(drawn) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    cases = counted(int(drawn["n_cases"].max()), "case")
    iou_axis(ax, f"mean {metric_label(metric)} of propagated slices\n({cases})")
    return drawn.reset_index()


def memory_differences(result: pd.DataFrame, ax: Axes, order: Sequence[str]) -> pd.DataFrame:
    """Draw the mean paired difference of every window from the released memory, with the corrected interval.

    Parameters
    ----------
    result : DataFrame
        Of `paired.compare`, whose comparisons are named by the window.
    order : sequence of str
        Rows from top to bottom; the released memory's stays empty.

    Returns
    -------
    DataFrame
        The rows of `result` that are drawn.
    """
    shown = result.set_index("comparison")
    shown = shown.loc[[name for name in order if name in shown.index and shown.loc[name, "n"] > 0]]
    if shown.empty:
        return nothing(ax, "nothing to compare")
    places = {name: place for place, name in enumerate(order)}
    for name, row in shown.iterrows():
        difference(ax, row, places[name])
    difference_rows(ax, [""] * len(order), "difference from the released memory")
    return shown.reset_index()


def broken_line(means: pd.DataFrame, found: ChangePoint, ax: Axes, metric: str = "iou") -> pd.DataFrame:
    """Draw the mean over patients by distance, and the broken line that was fitted to the patients.

    Every patient has a level of its own, which is taken out before the means: else the far end, which only
    patients with long objects reach, would lie higher or lower for their sake.

    Parameters
    ----------
    means : DataFrame
        Of `change_point.by_distance`.
    found : ChangePoint
    ax : Axes
    metric : str
        Of `means`.

    Returns
    -------
    DataFrame
        What is drawn: `distance`, `mean`, `n_patients`, `fitted`, and in every row `break_at` with
        `break_low` and `break_high`, which are shaded; empty where no line could be fitted.
    """
    if found.note:
        return nothing(ax, found.note)
    rows = means[means["distance"] <= found.farthest]
    at = rows["distance"].to_numpy(float)
    line = found.before * np.minimum(at, found.at) + found.after * np.maximum(at - found.at, 0)
    rows = rows.assign(line=line, residual=rows["value"] - line)
    patient = rows.groupby(["data_set", "patient_id"])["residual"]
    level = patient.mean().mean()
    rows = rows.assign(mean=rows["value"] - patient.transform("mean") + level, fitted=line + level)
    grouped = rows.groupby("distance")
    drawn = grouped.agg(mean=("mean", "mean"), n_patients=("mean", "size"), fitted=("fitted", "first"))
    drawn = drawn.reset_index().assign(break_at=found.at, break_low=found.low, break_high=found.high)
    ax.axvspan(found.low, found.high, color="#eeeeee", zorder=0)
    ax.plot(drawn["distance"], drawn["mean"], "o", color=CLEAR, ms=2.5)
    ax.plot(drawn["distance"], drawn["fitted"], "-", color="black", lw=0.9)
    ax.set_xlabel("slices from the nearest prompted slice")
    iou_axis(ax, f"mean {metric_label(metric)}", "y")
    return drawn


def window_scheme(windows: Sequence[MemoryWindow], ax: Axes, tracked: int = 20) -> pd.DataFrame:
    """Draw what a tracked slice reads under every window, a row each: memories, pointers, prompts.

    Parameters
    ----------
    windows : sequence of MemoryWindow
    ax : Axes
    tracked : int
        The slice that is tracked; slice 0 is prompted, and the object was tracked from there.

    Returns
    -------
    DataFrame
        What is drawn: `memory`, `slice_index`, `read` ("prompt", "memory", "true mask", "pointer"); and
        the slice that is "tracked".
    """
    drawn = [
        {"memory": window.name, "slice_index": index, "read": kind}
        for window in windows
        for index, kind in _read(window, tracked)
    ]
    drawn += [{"memory": window.name, "slice_index": tracked, "read": "tracked"} for window in windows]
    drawn = pd.DataFrame(drawn, columns=["memory", "slice_index", "read"])
    places = {window.name: place for place, window in enumerate(windows)}
    for kind, (marker, colour, size, text) in READ.items():
        rows = drawn[drawn["read"] == kind]
        y = rows["memory"].map(places)
        ax.plot(rows["slice_index"], y, marker, color=colour, ms=size, mew=0, ls="", label=text)
    ax.plot([tracked] * len(windows), list(places.values()), "|", color="black", ms=7, label="tracked slice")
    ax.set_yticks(range(len(windows)), list(places))
    ax.set_ylim(len(windows) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"slice (slice 0 is prompted, slice {tracked} is tracked)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="x")
    legend(ax, ax.get_legend_handles_labels()[0], columns=5)
    return drawn


def _read(window: MemoryWindow, tracked: int) -> list[tuple[int, str]]:
    """Return the slices that a tracked slice reads, and what of them; of the package's own rule."""
    if window.remembered == "nothing":
        return [(tracked, "prompt")]
    kind = "true mask" if window.remembered == "truth" else "memory"
    last_multiple = (tracked - 2) // window.stride * window.stride
    further = [last_multiple - step * window.stride for step in range(window.memories - 2)]
    memories = [] if window.memories == 1 else [tracked - 1, *further]
    pointers = range(tracked - 1, max(tracked - window.pointers, 0), -1)
    return [(0, "prompt"), *((at, "pointer") for at in pointers), *((at, kind) for at in memories if at > 0)]
