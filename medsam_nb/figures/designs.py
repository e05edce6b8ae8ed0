"""3D: the designs one by one, all at a glance, ranked, and which cannot be told apart.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from medsam_nb.figures.style import (
    DIRECTION_COLOURS,
    DIRECTION_MARKERS,
    GREY,
    PROMPT_COLOURS,
    PROMPT_MARKERS,
    iou_axis,
    legend,
    mark,
    nothing,
    point,
    prompt_mark,
    readable_on,
)
from medsam_nb.figures.words import counted, label, metric_label, p_text
from medsam_nb.protocol.designs import FRAME_CHOICES
from medsam_nb.protocol.prompt_sources import GIVEN
from medsam_nb.protocol.prompts import PROMPTS_3D
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means
from medsam_nb.statistics.rankings import DESIGN, Ranking, alike

MOST_BARS = 6


def iou_by_design(table: pd.DataFrame, ax: Axes, metric: str = "iou") -> pd.DataFrame:
    """Draw the IoU of every 3D design: a row per prompt and frame choice, four marks per row.

    Parameters
    ----------
    table : DataFrame
        3D rows of one model; other rows are passed over.
    metric : str
        "iou", or "dice" of the same masks.

    Returns
    -------
    DataFrame
        What is drawn: the four factors, `mean`, `ci_low`, `ci_high`, `n_cases`, `n_data_sets`.
    """
    rows = table[table["task"] == "3d"]
    if rows.empty:
        return nothing(ax, "no 3D rows")
    factors = ["prompt", "frame_choice", "direction", "mask_choice"]
    drawn = summarise(case_means(rows, factors, metric), factors)
    cells = [
        (prompt, frame)
        for prompt in (*PROMPTS_3D, GIVEN)
        for frame in (*FRAME_CHOICES, GIVEN)
        if ((drawn["prompt"] == prompt) & (drawn["frame_choice"] == frame)).any()
    ]
    ticks, place, previous = [], 0.0, None
    for prompt, frame in cells:
        if previous not in (None, prompt):
            ax.axhline(place - 0.3, color=GREY, lw=0.6)
            place += 0.4
        previous = prompt
        if len(ticks) % 2:
            ax.axhspan(place - 0.5, place + 0.5, color="#f3f3f3", lw=0, zorder=0)
        here = drawn[(drawn["prompt"] == prompt) & (drawn["frame_choice"] == frame)]
        for _, row in here.iterrows():
            offset = -0.33 + 0.44 * (row["direction"] == "front_to_end")
            offset += 0.22 * (row["mask_choice"] == "most_confident_mask")
            point(
                ax,
                row,
                place + offset,
                DIRECTION_COLOURS[row["direction"]],
                DIRECTION_MARKERS[row["direction"]],
                filled=row["mask_choice"] == "first_mask",
            )
        ticks.append((place, _named(prompt, frame)))
        place += 1
    ax.set_yticks([t for t, _ in ticks], [text for _, text in ticks])
    ax.set_ylim(place - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    iou_axis(ax, f"mean {metric_label(metric)} ({counted(drawn['n_cases'].max(), 'case')})")
    marks = [
        (direction, choice)
        for direction in DIRECTION_COLOURS
        for choice in ("first_mask", "most_confident_mask")
        if ((drawn["direction"] == direction) & (drawn["mask_choice"] == choice)).any()
    ]
    legend(
        ax,
        [
            mark(
                DIRECTION_COLOURS[d],
                f"{label(d)}, {label(c)}",
                DIRECTION_MARKERS[d],
                filled=c == "first_mask",
            )
            for d, c in marks
        ],
    )
    return drawn


def _named(prompt: str, frame: str) -> str:
    """Return how a prompt and its slices are called; those of a file of prompts have one name for both."""
    return ", ".join(dict.fromkeys([label(prompt), label(frame)]))


def design_heat_map(table: pd.DataFrame, ax: Axes, metric: str = "iou") -> pd.DataFrame:
    """Draw the mean IoU of every 3D design as a coloured table; what was not measured stays white.

    The colours reach from the tenth below the lowest mean to the tenth above the highest.
    """
    rows = table[table["task"] == "3d"]
    if rows.empty:
        return nothing(ax, "no 3D rows")
    drawn = summarise(case_means(rows, DESIGN, metric), DESIGN)
    lines = [(p, f) for p in (*PROMPTS_3D, GIVEN) for f in (*FRAME_CHOICES, GIVEN)]
    columns = [(d, m) for d in DIRECTION_COLOURS for m in ("first_mask", "most_confident_mask")]
    cells = drawn.set_index(["prompt", "frame_choice", "direction", "mask_choice"])["mean"].to_dict()
    grid = np.array([[cells.get((*line, *column), np.nan) for column in columns] for line in lines], float)
    measured = np.isfinite(grid)
    lines = [line for line, some in zip(lines, measured.any(axis=1), strict=True) if some]
    columns = [column for column, some in zip(columns, measured.any(axis=0), strict=True) if some]
    grid = grid[np.ix_(measured.any(axis=1), measured.any(axis=0))]
    low, high = np.floor(10 * np.nanmin(grid)) / 10, np.ceil(10 * np.nanmax(grid)) / 10
    image = ax.imshow(grid, cmap="cividis", vmin=low, vmax=max(high, low + 0.1), aspect="auto")
    for (y, x), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = readable_on(image.to_rgba(value))
            ax.text(x, y, f"{value:.2f}", ha="center", va="center_baseline", color=colour, size=6.5)
    names = [f"{label(d)},\n{label(m, 14)}" for d, m in columns]
    # upright where a column is narrower than its words
    narrow = ax.figure.get_figwidth() * 72 < 52 * mpl.rcParams["font.size"]
    ax.set_xticks(range(len(columns)), names, rotation=90 if narrow else 0)
    ax.set_yticks(range(len(lines)), [_named(*line) for line in lines], va="center_baseline")
    ax.tick_params(length=0)
    for edge in range(1, len(columns)):
        ax.axvline(edge - 0.5, color="white", lw=0.6)
    for edge, (one, other) in enumerate(zip(lines, lines[1:], strict=False)):
        ax.axhline(edge + 0.5, color="white" if one[0] == other[0] else "black", lw=0.6)
    bar = ax.figure.colorbar(image, ax=ax, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label(f"mean {metric_label(metric)} ({counted(int(drawn['n_cases'].max()), 'case')})")
    return drawn


def design_ranking(table: pd.DataFrame, ax: Axes, most: int = 24, metric: str = "iou") -> pd.DataFrame:
    """Draw the designs from best to worst; thin lines join the same design with other mask choice.

    Colour and shape are those of the prompt, open for the most confident mask. Where there are more than
    `most`, the best and the worst halves of that number are drawn; how many lie between is written there.
    """
    rows = table[table["task"] == "3d"]
    if rows.empty:
        return nothing(ax, "no 3D rows")
    drawn = summarise(case_means(rows, DESIGN, metric), DESIGN)
    drawn = drawn.sort_values("mean", ascending=False, kind="stable").reset_index(drop=True)
    half = most // 2
    left_out = max(0, len(drawn) - 2 * half) if len(drawn) > most else 0
    shown = pd.concat([drawn.head(half), drawn.tail(half)]) if left_out else drawn
    place = {index: y + (1 if left_out and y >= half else 0) for y, index in enumerate(shown.index)}
    for _, pair in shown.groupby(["frame_choice", "prompt", "direction"]):
        if len(pair) == 2:
            ax.plot(pair["mean"], [place[i] for i in pair.index], color="#999999", lw=0.6, zorder=0)
    for index, row in shown.iterrows():
        colour, marker = PROMPT_COLOURS[row["prompt"]], PROMPT_MARKERS[row["prompt"]]
        point(ax, row, place[index], colour, marker, filled=row["mask_choice"] == "first_mask")
    if left_out:
        ax.text(0.5, half, f"{left_out} designs between", ha="center", va="center", color=GREY, size=6)
    names = [
        f"{_named(r.prompt, r.frame_choice)}, {label(r.direction)}, {label(r.mask_choice)}"
        for r in shown.itertuples()
    ]
    ax.set_yticks([place[i] for i in shown.index], names)
    ax.set_ylim(max(place.values()) + 0.7, -0.7)
    ax.tick_params(axis="y", length=0)
    iou_axis(ax, f"mean {metric_label(metric)} ({counted(int(drawn['n_cases'].max()), 'case')})")
    present = [prompt for prompt in (*PROMPTS_3D, GIVEN) if prompt in set(shown["prompt"])]
    choices = set(shown["mask_choice"])
    handles = [prompt_mark(prompt) for prompt in present]
    handles += [mark("black", "first mask")] if "first_mask" in choices else []
    handles += [mark("black", "most confident mask", filled=False)] if len(choices) > 1 else []
    legend(ax, handles, columns=4)
    return drawn.assign(shown=drawn.index.isin(shown.index))


def critical_difference(ranking: Ranking, ax: Axes, most: int = 20, name: str = "") -> pd.DataFrame:
    """Draw mean ranks, best first; bars join designs that Nemenyi's test does not tell apart.

    Where there are more than `most` designs, the best and the worst halves of that number are drawn;
    there, and where bars would be too many to read, the ranks that are not told apart from the best
    are shaded instead. `name` stands at the left: of what the ranks are.

    Returns
    -------
    DataFrame
        `ranking.ranks` with `shown` (not left out), `critical_difference`, `shaded_to` (a rank; NaN where
        nothing is shaded), `p` and `n_blocks`.
    """
    ranks = ranking.ranks
    if ranks.empty:
        return nothing(ax, ranking.note or "nothing to rank")
    half = most // 2
    left_out = len(ranks) - 2 * half if len(ranks) > most else 0
    shown = pd.concat([ranks.head(half), ranks.tail(half)]) if left_out else ranks
    y = np.arange(len(shown)) + np.where(left_out and np.arange(len(shown)) >= half, 1, 0)
    ax.plot(shown["mean_rank"], y, "o", color="black")
    ax.set_yticks(y, [label(design).replace("/", ", ") for design in shown["design"]])
    ax.set_ylabel(label(name))
    low, right = float(shown["mean_rank"].min()), float(shown["mean_rank"].max())
    room = 0.03 * max(right - low, 1)
    runs, shade, shaded_to = alike(ranking), "", np.nan
    if left_out or len(runs) > MOST_BARS:
        shaded_to = min(low + ranking.critical_difference, right + room)
        ax.axvspan(low, shaded_to, color="#eeeeee", zorder=0)
        runs, shade = [], ";\nshaded: not told apart from the best"
    # From the best rank there could be to the worst, so that panels of as many ranks have one scale.
    start, end = min(low, 1) - room, max(right, len(ranks)) + room * (2 + len(runs))
    for number, (first, last) in enumerate(runs):  # beside the ranks: where along the axis says nothing
        beside = 1 - room * (len(runs) - number) / (end - start)
        rows = [first - 0.25, last + 0.25]
        ax.plot([beside] * 2, rows, color=GREY, lw=2, transform=ax.get_yaxis_transform())
    if left_out:
        middle = (start + end) / 2
        ax.text(middle, half, f"{left_out} designs between", ha="center", va="center", color=GREY, size=6)
    ax.set_xlim(start, end)
    ax.set_ylim(y.max() + 0.6, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"mean rank of {len(ranks)} (1 is best{shade})", x=1, ha="right")
    tested = p_text(ranking.p)
    test = (
        f"Friedman p {f'< {tested[1:]}' if tested[0] == '<' else f'= {tested}'}, "
        if np.isfinite(ranking.p)
        else ""
    )
    width = f"CD = {ranking.critical_difference:.2f}, " if np.isfinite(ranking.critical_difference) else ""
    ax.set_title(f"{test}{width}{counted(ranking.n_blocks, ranking.block)}", loc="right")
    return ranks.assign(
        shown=ranks.index.isin(shown.index),
        critical_difference=ranking.critical_difference,
        shaded_to=shaded_to,
        p=ranking.p,
        n_blocks=ranking.n_blocks,
    )
