"""Corrections: IoU by click, by loop and by effort.

In the visual language of `style`: functions draw on axes they are given and return what they drew. The colour
is that of the prompt that is given: the initial one in 2D, the new information in 3D.
"""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from medsam_nb.figures.style import PROMPT_COLOURS, band, iou_axis, legend, mark, nothing
from medsam_nb.figures.words import label
from medsam_nb.protocol.corrections import FRESH, RESTARTED, RUNNING
from medsam_nb.statistics import effort
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means

DASHES = {RUNNING: "-", FRESH: "--"}
STRATEGY_WORDS = {RUNNING: "running predictor", FRESH: "fresh start in every loop"}


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
    for prompt, curve in drawn.groupby("prompt", sort=False):
        _curve(ax, curve, "n_prompts", PROMPT_COLOURS[prompt])
    ax.set_xlabel("prompts: the initial one, then clicks")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    iou_axis(ax, "mean Dice" if metric == "dice" else "mean IoU", "y")
    legend(ax, [mark(PROMPT_COLOURS[name], f"first {label(name)}") for name in drawn["prompt"].unique()])
    return drawn


def iou_by_loop(table: pd.DataFrame, ax: Axes) -> pd.DataFrame:
    """Draw the mean IoU of volumes against loops of corrections: a curve per strategy and new information.

    An open diamond after the last loop is what a fresh predictor makes of the running one's prompts.

    Parameters
    ----------
    table : DataFrame
        Rows of one model, one initial prompt and the task "3d_loops".

    Returns
    -------
    DataFrame
        What is drawn: `effort.curves` by strategy and new information, and the diamonds.
    """
    rows = table[table["task"] == "3d_loops"]
    if rows.empty:
        return nothing(ax, "no corrections in volumes")
    by = ["strategy", "new_information"]
    drawn = effort.curves(rows, by)
    for (strategy, information), curve in drawn.groupby(by, sort=False):
        _curve(ax, curve, "loop", PROMPT_COLOURS[information], DASHES[strategy])
    restarted = rows[rows["strategy"] == RESTARTED]
    if len(restarted):
        ends = summarise(case_means(restarted, by), by)
        ends["loop"] = int(drawn["loop"].max())
        beside = offset_copy(ax.transData, ax.figure, x=6, units="points")  # of the curve's last point
        for row in ends.itertuples():
            colour = PROMPT_COLOURS[row.new_information]
            look = {"color": colour, "mfc": "white", "mew": 0.8, "clip_on": False, "transform": beside}
            ax.plot(row.loop, row.mean, "D", **look)
        drawn = pd.concat([drawn, ends], ignore_index=True)
    ax.set_xlabel("loops of corrections")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    iou_axis(ax, "mean IoU", "y")
    handles = _handles(rows)
    if len(restarted):
        handles.append(mark("black", "its prompts, fresh start", "D", filled=False))
    legend(ax, handles, 3)
    return drawn


def iou_by_effort(table: pd.DataFrame, ax: Axes, seconds: Mapping[str, float]) -> pd.DataFrame:
    """Draw the mean IoU of volumes against the mean seconds that all prompts so far take, a point per loop.

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
        _curve(ax, curve, "seconds", PROMPT_COLOURS[information], DASHES[strategy])
    ax.set_xscale("log")
    ax.set_xlabel("seconds of prompting an object (assumed cost per prompt)")
    iou_axis(ax, "mean IoU", "y")
    legend(ax, _handles(rows), 3)
    return drawn


def _curve(ax: Axes, curve: pd.DataFrame, x: str, colour: str, dash: str = "-") -> None:
    ax.plot(curve[x], curve["mean"], dash, marker="o", ms=2.5, color=colour)
    band(ax, curve[x], curve, colour)


def _handles(rows: pd.DataFrame) -> list[Line2D]:
    told = [name for name in PROMPT_COLOURS if name in set(rows["new_information"])]
    handles = [mark(PROMPT_COLOURS[name], f"new {label(name)}") for name in told]
    shown = [name for name in DASHES if name in set(rows["strategy"])]
    return handles + [
        Line2D([], [], ls=DASHES[name], color="black", label=STRATEGY_WORDS[name]) for name in shown
    ]
