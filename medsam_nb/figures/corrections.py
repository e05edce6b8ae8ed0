"""Corrections: IoU by click, by loop and by effort.

In the visual language of `style`: functions draw on axes they are given and return what they drew. Colour
and shape are those of the prompt that is given: the initial one in 2D, the new information in 3D. Intervals
of up to six curves are bars, for bands of so many could not be followed.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from medsam_nb.figures.style import (
    MOST_BANDS,
    PROMPT_COLOURS,
    PROMPT_MARKERS,
    band,
    bars,
    iou_axis,
    legend,
    mark,
    nothing,
    prompt_mark,
    size_of,
)
from medsam_nb.figures.words import label
from medsam_nb.protocol.corrections import FRESH, RESTARTED, RUNNING
from medsam_nb.statistics import effort
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means

DASHES = {RUNNING: "-", FRESH: (0, (3, 1.5))}
STRATEGY_WORDS = {RUNNING: "running predictor", FRESH: "fresh start in every loop"}
APART = 0.075  # loops, between curves at one loop
SECONDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # ticks


def iou_by_click(table: pd.DataFrame, ax: Axes, metric: str = "iou") -> pd.DataFrame:
    """Draw the mean IoU or Dice of slices against the number of prompts, a curve per initial prompt.

    Parameters
    ----------
    table : DataFrame
        Rows of one model and the task "2d_clicks".
    ax : Axes
    metric : {"iou", "dice"}

    Returns
    -------
    DataFrame
        What is drawn: `effort.curves` by `prompt`, with `n_prompts`.
    """
    rows = table[table["task"] == "2d_clicks"]
    if rows.empty:
        return nothing(ax, "no clicks on single slices")
    drawn = effort.curves(rows, ["prompt"], metric)
    drawn["n_prompts"] = drawn["loop"] + 1
    prompts = list(drawn["prompt"].unique())
    for prompt in prompts:
        curve = drawn[drawn["prompt"] == prompt]
        _curve(ax, curve["n_prompts"], curve, prompt)
        if len(prompts) <= MOST_BANDS:
            band(ax, curve["n_prompts"], curve, PROMPT_COLOURS[prompt])
        else:
            bars(ax, curve["n_prompts"].iloc[-1:], curve.iloc[-1:], PROMPT_COLOURS[prompt])
    first = label(prompts[0]) if len(prompts) == 1 else "the initial one"
    ax.set_xlabel(f"prompts: {first}, then clicks")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    lowest = float(np.nanmin(drawn[["mean", "ci_low"]].to_numpy(float)))
    iou_axis(ax, "mean Dice" if metric == "dice" else "mean IoU", "y", np.floor(10 * lowest) / 10)
    if len(prompts) > 1:
        legend(ax, [prompt_mark(name, f"first {label(name)}") for name in prompts])
    return drawn


def iou_by_loop(table: pd.DataFrame, ax: Axes) -> pd.DataFrame:
    """Draw the mean IoU of volumes against loops of corrections: a curve per strategy and new information.

    Curves stand side by side at each loop, with an interval each. An open mark after the last loop is what a
    fresh predictor makes of the running one's prompts.

    Parameters
    ----------
    table : DataFrame
        Rows of one model, one initial prompt and the task "3d_loops".

    Returns
    -------
    DataFrame
        What is drawn: `effort.curves` by strategy and new information, and the open marks.
    """
    rows = table[table["task"] == "3d_loops"]
    if rows.empty:
        return nothing(ax, "no corrections in volumes")
    by = ["strategy", "new_information"]
    drawn = effort.curves(rows, by)
    restarted, last = rows[rows["strategy"] == RESTARTED], int(drawn["loop"].max())
    drawn["place"] = drawn["loop"].astype(str)
    curves = list(drawn.groupby(by, sort=False).groups)
    if len(restarted):
        ends = summarise(case_means(restarted, by), by).assign(loop=last, place=f"{last}, fresh start")
        drawn = pd.concat([drawn, ends], ignore_index=True)
    in_order = drawn.sort_values(["loop", "place"])["place"].unique()
    ticks = {name: number for number, name in enumerate(in_order)}
    for (strategy, information), curve in drawn.groupby(by, sort=False):
        number = curves.index((RUNNING if strategy == RESTARTED else strategy, information))
        beside = (number - (len(curves) - 1) / 2) * APART
        x = curve["place"].map(ticks) + beside * (curve["loop"] > 0)  # before the first loop all are one
        _curve(ax, x, curve, information, strategy)
        bars(ax, x, curve, PROMPT_COLOURS[information])
    ax.set_xlabel("loops of corrections")
    ax.set_xticks(list(ticks.values()), [name.replace(", ", ",\n") for name in ticks])
    ax.set_xlim(-0.3, len(ticks) - 0.7)
    iou_axis(ax, "mean IoU", "y")
    handles = _handles(rows)
    if len(restarted):
        handles.append(mark("black", "fresh start with all its prompts", filled=False))
    legend(ax, handles, 3)
    return drawn


def iou_by_effort(table: pd.DataFrame, ax: Axes, seconds: Mapping[str, float]) -> pd.DataFrame:
    """Draw the mean IoU of volumes against the mean seconds that all prompts so far take, a point per loop.

    Intervals are drawn before the first and after the last loop.

    Parameters
    ----------
    table : DataFrame
        As for `iou_by_loop`.
    ax : Axes
    seconds : mapping of kind of prompt to float

    Returns
    -------
    DataFrame
        As `iou_by_loop`, with `n_prompts` and `seconds`.
    """
    rows = table[table["task"] == "3d_loops"]
    if rows.empty:
        return nothing(ax, "no corrections in volumes")
    by = ["prompt", "strategy", "new_information"]
    drawn = effort.with_effort(rows, by, seconds)
    for (_, strategy, information), curve in drawn.groupby(by, sort=False):
        _curve(ax, curve["seconds"], curve, information, strategy)
        bars(ax, curve["seconds"].iloc[-1:], curve.iloc[-1:], PROMPT_COLOURS[information])
    start = drawn[drawn["loop"] == drawn["loop"].min()]
    ax.vlines(start["seconds"], start["ci_low"], start["ci_high"], color="black", lw=0.9)
    ax.set_xscale("log")
    low, high = float(drawn["seconds"].min()) / 1.2, float(drawn["seconds"].max()) * 1.2
    ax.set_xlim(low, high)
    ax.set_xticks([tick for tick in SECONDS if low <= tick <= high])
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("seconds of prompting an object (assumed cost per prompt)")
    iou_axis(ax, "mean IoU", "y")
    legend(ax, _handles(rows), 3)
    return drawn


def _curve(ax: Axes, x: pd.Series, curve: pd.DataFrame, prompt: str, strategy: str = RUNNING) -> None:
    """Draw a curve with the marks of a prompt; open ones and no line after a restart."""
    colour, marker = PROMPT_COLOURS[prompt], PROMPT_MARKERS[prompt]
    look = {"ls": DASHES.get(strategy, "none"), "marker": marker, "ms": size_of(marker), "color": colour}
    ax.plot(x, curve["mean"], mfc="white" if strategy == RESTARTED else colour, mew=0.8, zorder=3, **look)


def _handles(rows: pd.DataFrame) -> list[Line2D]:
    told = [name for name in PROMPT_COLOURS if name in set(rows["new_information"])]
    handles = [prompt_mark(name, f"corrected by {label(name)}") for name in told]
    shown = [name for name in DASHES if name in set(rows["strategy"])]
    return handles + [
        Line2D([], [], ls=DASHES[name], color="black", label=STRATEGY_WORDS[name]) for name in shown
    ]
