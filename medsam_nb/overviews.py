"""Figures that sum up a study: all designs, ranks, SAM against SAM 2, claims, depth, published numbers.

In the visual language of `figures`: functions draw on axes they are given and return what they drew.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from medsam_nb.designs import FRAME_CHOICES
from medsam_nb.figures import (
    DIRECTION_COLOURS,
    DIRECTION_MARKERS,
    GREY,
    PROMPT_COLOURS,
    counted,
    iou_axis,
    label,
    legend,
    mark,
    nothing,
    point,
    summarise,
)
from medsam_nb.pooling import case_means
from medsam_nb.prompts import KINDS_3D, MODES_2D
from medsam_nb.rankings import DESIGN, Ranking, alike

KEPT = ["task", "model", "mask_scope", "protocol"]
MOST_BARS = 6
VERDICT_COLOURS = {
    "supported": "#009E73",
    "contradicted": "#D55E00",
    "inconclusive": "#7a7a7a",
    "not testable": "#bbbbbb",
}


def design_heat_map(table: pd.DataFrame, ax: Axes) -> pd.DataFrame:
    """Draw the mean IoU of every 3D design as a coloured table; designs without rows stay white."""
    rows = table[table["task"] == "3d"]
    if rows.empty:
        return nothing(ax, "no 3D rows")
    drawn = summarise(case_means(rows, [*KEPT, *DESIGN]), DESIGN)
    lines = [(p, f) for p in KINDS_3D for f in FRAME_CHOICES]
    columns = [(d, m) for d in DIRECTION_COLOURS for m in ("first_mask", "most_confident_mask")]
    cells = drawn.set_index(["prompt", "frame_choice", "direction", "mask_choice"])["mean"].to_dict()
    grid = np.array([[cells.get((*line, *column), np.nan) for column in columns] for line in lines], float)
    shown = ~np.isnan(grid).all(axis=1)
    grid, lines = grid[shown], [line for line, keep in zip(lines, shown, strict=True) if keep]
    ax.imshow(grid, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(grid):
        if np.isfinite(value):
            ax.text(
                x,
                y,
                f"{value:.2f}",
                ha="center",
                va="center",
                color="white" if value < 0.55 else "black",
                size=6,
            )
    names = [f"{label(d)}, {label(m.removesuffix('_mask'))}" for d, m in columns]
    ax.set_xticks(range(len(columns)), names, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(lines)), [f"{label(p)}, {label(f)}" for p, f in lines])
    ax.tick_params(length=0)
    for edge, (one, other) in enumerate(zip(lines, lines[1:], strict=False)):
        if one[0] != other[0]:
            ax.axhline(edge + 0.5, color="white", lw=1.5)
    ax.set_title(f"mean IoU ({counted(int(drawn['n_cases'].max()), 'case')})")
    return drawn


def design_ranking(table: pd.DataFrame, ax: Axes, most: int = 24) -> pd.DataFrame:
    """Draw the designs from best to worst; thin lines join the same design with other mask choice.

    Where there are more than `most`, the best and the worst halves of that number are drawn, and
    the number left out is written between them.
    """
    rows = table[table["task"] == "3d"]
    if rows.empty:
        return nothing(ax, "no 3D rows")
    drawn = summarise(case_means(rows, [*KEPT, *DESIGN]), DESIGN)
    drawn = drawn.sort_values("mean", ascending=False, kind="stable").reset_index(drop=True)
    half = most // 2
    left_out = max(0, len(drawn) - 2 * half) if len(drawn) > most else 0
    shown = pd.concat([drawn.head(half), drawn.tail(half)]) if left_out else drawn
    place = {index: y + (1 if left_out and y >= half else 0) for y, index in enumerate(shown.index)}
    for _, pair in shown.groupby(["frame_choice", "prompt", "direction"]):
        if len(pair) == 2:
            ax.plot(pair["mean"], [place[i] for i in pair.index], color="#bbbbbb", lw=0.5, zorder=0)
    for index, row in shown.iterrows():
        colour, marker = PROMPT_COLOURS[row["prompt"]], DIRECTION_MARKERS[row["direction"]]
        point(ax, row, place[index], colour, marker, filled=row["mask_choice"] == "first_mask")
    if left_out:
        ax.text(0.5, half, f"{left_out} designs between", ha="center", va="center", color=GREY, size=6)
    names = [
        f"{label(r.frame_choice)}, {label(r.direction)}, {label(r.mask_choice.removesuffix('_mask'))}"
        for r in shown.itertuples()
    ]
    ax.set_yticks([place[i] for i in shown.index], names)
    ax.set_ylim(max(place.values()) + 0.7, -0.7)
    ax.tick_params(axis="y", length=0)
    iou_axis(ax, f"mean IoU ({counted(int(drawn['n_cases'].max()), 'case')})")
    present = [prompt for prompt in KINDS_3D if prompt in set(shown["prompt"])]
    legend(ax, [mark(PROMPT_COLOURS[prompt], label(prompt)) for prompt in present])
    return drawn.assign(shown=drawn.index.isin(shown.index))


def critical_difference(ranking: Ranking, ax: Axes, most: int = 20) -> pd.DataFrame:
    """Draw mean ranks, best first; bars join designs that Nemenyi's test does not tell apart.

    Where the bars would be too many to read, the ranks not told apart from the best are shaded.
    """
    ranks = ranking.ranks
    if ranks.empty:
        return nothing(ax, ranking.note or "nothing to rank")
    shown = ranks.head(most)
    ax.plot(shown["mean_rank"], range(len(shown)), "o", color="black")
    ax.set_yticks(range(len(shown)), [label(name).replace("/", ", ") for name in shown["design"]])
    right = float(shown["mean_rank"].max())
    runs = [(first, min(last, len(shown) - 1)) for first, last in alike(ranking) if first < len(shown) - 1]
    if len(runs) > MOST_BARS:  # too many bars to read: mark what is not told apart from the best
        edge = float(shown["mean_rank"].min()) + ranking.critical_difference
        ax.axvspan(float(shown["mean_rank"].min()), min(edge, right + 0.5), color="#eeeeee", zorder=0)
        runs = []
    for number, (first, last) in enumerate(runs):
        ax.plot([right + 0.35 + 0.25 * number] * 2, [first - 0.25, last + 0.25], color=GREY, lw=2)
    low = float(shown["mean_rank"].min())
    ax.set_xlim(low - 0.3, right + 0.6 + 0.25 * len(runs))
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.grid(axis="x")
    ax.set_xlabel("mean rank (1 is best)")
    test = f"Friedman p = {ranking.p:.2g}, " if np.isfinite(ranking.p) else ""
    width = f"CD = {ranking.critical_difference:.2f}, " if np.isfinite(ranking.critical_difference) else ""
    more = f", best {most} of {len(ranks)}" if len(ranks) > most else ""
    ax.set_title(f"{test}{width}{counted(ranking.n_cases, 'case')}{more}", loc="right")
    return ranks.assign(critical_difference=ranking.critical_difference, p=ranking.p, n_cases=ranking.n_cases)


def sam2_against_sam(table: pd.DataFrame, ax: Axes, sam2: str, sam: str) -> pd.DataFrame:
    """Draw each case's 2D IoU with SAM 2 against that with SAM (first mask), a colour per prompt."""
    rows = table[(table["task"] == "2d") & (table["mask_choice"] == "first")]
    rows = rows[rows["model"].isin([sam2, sam])]
    if rows["model"].nunique() < 2:
        return nothing(ax, f"no 2D rows of both {label(sam2)} and {label(sam)}")
    means = case_means(rows, [*KEPT, "prompt"])
    wide = means.pivot_table(index=["data_set", "case_id", "prompt"], columns="model", values="value")
    wide = wide.dropna().reset_index()
    present = [mode for mode in MODES_2D if mode in set(wide["prompt"])]
    ax.plot([0, 1], [0, 1], color=GREY, lw=0.6, ls="--")
    for mode in present:
        cell = wide[wide["prompt"] == mode]
        ax.plot(cell[sam], cell[sam2], "o", color=PROMPT_COLOURS[mode], ms=2.5, alpha=0.8, mew=0)
    iou_axis(ax, f"IoU, {label(sam)}")
    iou_axis(ax, f"IoU, {label(sam2)}", "y")
    ax.set_aspect("equal")
    legend(ax, [mark(PROMPT_COLOURS[mode], label(mode)) for mode in present])
    return wide


def depth_and_spacing(table: pd.DataFrame, axes: np.ndarray) -> pd.DataFrame:
    """Draw each case's mean 3D IoU against its number of slices and its slice spacing (two axes)."""
    rows = table[(table["task"] == "3d") & (table["metric"] == "iou")]
    if rows.empty:
        return [nothing(ax, "no 3D rows") for ax in axes][0]
    means = case_means(rows.assign(), KEPT)
    facts = rows.groupby(["data_set", "case_id"])[["n_slices", "spacing_z_mm"]].first().reset_index()
    drawn = means.merge(facts, on=["data_set", "case_id"]).astype({"n_slices": float, "spacing_z_mm": float})
    for ax, (column, name) in zip(
        axes, (("n_slices", "slices of the volume"), ("spacing_z_mm", "slice spacing, mm")), strict=True
    ):
        ax.plot(drawn[column], drawn["value"], "o", color="#0072B2", ms=2.5, alpha=0.8, mew=0)
        ax.set_xlabel(name)
        iou_axis(ax, "mean IoU", "y")
    return drawn


def claims_forest(board: pd.DataFrame, ax: Axes) -> pd.DataFrame:
    """Draw every test of the scoreboard: estimate and interval, coloured by its finding.

    The shaded half is the claimed direction; equivalence and "not worse" have the margin shaded.
    Rank correlations are drawn on the same axis and marked with a diamond.
    """
    shown = board[board["n"] > 0]
    if shown.empty:
        return nothing(ax, "no claim can be tested with this table")
    limit = float(np.nanmax(np.abs(shown[["ci_low", "ci_high", "median_difference"]].to_numpy(float)))) * 1.1
    limit = max(limit, 0.1)
    for y, row in enumerate(shown.itertuples()):
        colour = VERDICT_COLOURS[row.finding]
        edges = {">": (0, limit), "<": (-limit, 0), ">=": (-0.05, limit), "=": (-0.05, 0.05)}[row.relation]
        ax.fill_between(edges, y - 0.45, y + 0.45, color="#f0f0f0", lw=0)
        if np.isfinite(row.ci_low):
            ax.plot([row.ci_low, row.ci_high], [y, y], color=colour, lw=1.2)
        ax.plot(row.median_difference, y, "o" if row.scale == "IoU" else "D", color=colour, ms=3.5)
    ax.axvline(0, color="black", lw=0.5)
    names = [
        f"{r.claim}  {label(r.test) if len(r.test) < 62 else label(r.test)[:59] + '...'}"
        for r in shown.itertuples()
    ]
    ax.set_yticks(range(len(shown)), names)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(-limit, limit)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("median paired difference of IoU (diamonds: rank correlation)")
    found = [verdict for verdict in VERDICT_COLOURS if verdict in set(shown["finding"])]
    legend(ax, [mark(VERDICT_COLOURS[verdict], verdict) for verdict in found], columns=4)
    return shown


def measured_and_published(joined: pd.DataFrame, ax: Axes, mask_choice: str = "first") -> pd.DataFrame:
    """Draw measured beside SAM's published IoU for every object both have (`published` module)."""
    shown = joined[joined["mask_choice"] == mask_choice].reset_index(drop=True)
    if shown.empty:
        return nothing(ax, "no object of this table is among the published ones")
    names = sorted(shown["published_object"].unique())
    modes = [mode for mode in MODES_2D if mode in set(shown["prompt"])]
    for row in shown.itertuples():
        y = names.index(row.published_object) + (modes.index(row.prompt) - (len(modes) - 1) / 2) * 0.18
        colour = PROMPT_COLOURS[row.prompt]
        ax.plot([row.published, row.measured], [y, y], color=colour, lw=0.6)
        ax.plot(row.published, y, "D", color=colour, mfc="white", mew=0.8, ms=3)
        ax.plot(row.measured, y, "o", color=colour)
    ax.set_yticks(range(len(names)), [label(name, 26) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    iou_axis(ax, "IoU: dots measured here, diamonds SAM as published")
    legend(ax, [mark(PROMPT_COLOURS[mode], label(mode)) for mode in modes])
    return shown
