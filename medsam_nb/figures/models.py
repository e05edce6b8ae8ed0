"""SAM 2 against SAM, and what is measured here against what was published.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from medsam_nb.figures.order import data_sets_in_order
from medsam_nb.figures.style import (
    GREY,
    PROMPT_COLOURS,
    PROMPT_MARKERS,
    iou_axis,
    legend,
    mark,
    nothing,
    prompt_mark,
    size_of,
)
from medsam_nb.figures.words import label
from medsam_nb.protocol.prompt_sources import GIVEN
from medsam_nb.protocol.prompts import PROMPTS_2D
from medsam_nb.statistics.claims import MARGIN
from medsam_nb.statistics.declarations import Comparison
from medsam_nb.statistics.paired import compare_pairs, differences, summarise
from medsam_nb.statistics.pairing import paired_values
from medsam_nb.statistics.pooling import check_table, unit_noun


def _both_models(table: pd.DataFrame, sam2: str, sam: str) -> pd.DataFrame:
    """Return the first-mask 2D rows of both models; empty where one of them has none."""
    rows = table[(table["task"] == "2d") & (table["mask_choice"] == "first_mask")]
    rows = rows[rows["model"].isin([sam2, sam])]
    return check_table(rows if rows["model"].nunique() == 2 else rows[:0])


def _pairs(rows: pd.DataFrame, sam2: str, sam: str) -> pd.DataFrame:
    """Return a pair of values per patient: `a` of SAM 2, `b` of SAM."""
    return paired_values(rows, Comparison("figure", {"model": sam2}, {"model": sam})).values


def sam2_against_sam(
    table: pd.DataFrame, ax: Axes, sam2: str, sam: str, margin: float = MARGIN
) -> pd.DataFrame:
    """Draw each object's 2D IoU with SAM 2 against that with SAM (first mask), colour and shape by prompt.

    Crosses are means over patients with 95 % intervals of either; the band is the equivalence margin.
    Marks are open: of an object of one component a prompt per component is that of the whole; both are seen.

    Returns
    -------
    DataFrame
        What is drawn: `data_set`, `object`, `prompt`, `n` (patients), mean and interval of both.
    """
    rows = _both_models(table, sam2, sam)
    if rows.empty:
        return nothing(ax, f"no 2D rows of both {label(sam2)} and {label(sam)}")
    found = []
    for key, group in rows.groupby(["data_set", "object", "prompt"], dropna=False):
        pairs = _pairs(group, sam2, sam)
        cell = dict(zip(["data_set", "object", "prompt"], key, strict=True)) | {"n": len(pairs)}
        for side, name in (("a", "sam2"), ("b", "sam")):
            for one in summarise(pairs.assign(value=pairs[side], all="all"), ["all"]).itertuples():
                cell |= {f"{name}_mean": one.mean, f"{name}_low": one.ci_low, f"{name}_high": one.ci_high}
        found.append(cell)
    drawn = pd.DataFrame(found)
    drawn = drawn[drawn["n"] > 0].reset_index(drop=True)
    if drawn.empty:
        return nothing(ax, f"no slice that both {label(sam2)} and {label(sam)} were given")
    ax.fill_between([0, 1], [-margin, 1 - margin], [margin, 1 + margin], color="#e3e3e3", lw=0, zorder=0)
    ax.plot([0, 1], [0, 1], color=GREY, lw=0.6, ls="--")
    for row in drawn.itertuples():
        colour = PROMPT_COLOURS.get(row.prompt, GREY)
        ax.plot([row.sam_low, row.sam_high], [row.sam2_mean] * 2, color=colour, lw=0.6, alpha=0.7)
        ax.plot([row.sam_mean] * 2, [row.sam2_low, row.sam2_high], color=colour, lw=0.6, alpha=0.7)
        marker = PROMPT_MARKERS.get(row.prompt, "o")
        size = 4.6 if "per_component" in row.prompt else 2.6
        ax.plot(
            row.sam_mean, row.sam2_mean, marker, color=colour, mfc="none", mew=0.7, ms=size_of(marker, size)
        )
    iou_axis(ax, f"IoU, {label(sam)}")
    iou_axis(ax, f"IoU, {label(sam2)}", "y")
    ax.set_aspect("equal")
    present = [mode for mode in (*PROMPTS_2D, GIVEN) if mode in set(drawn["prompt"])]
    legend(ax, [prompt_mark(mode, filled=False) for mode in present], columns=4)
    return drawn


def sam2_minus_sam(
    table: pd.DataFrame, ax: Axes, sam2: str, sam: str, margin: float = MARGIN
) -> pd.DataFrame:
    """Draw, per object, the paired difference of SAM 2 and SAM over its patients, and over all data.

    Points are mean paired differences (2D, first mask, prompts averaged within a case; over all data, data
    sets weigh alike) with 90 % intervals, the ones that answer to two one-sided tests; ticks are patients.
    The shaded band is the equivalence margin. Estimate, interval and p are those of a declared comparison
    of the two models (`paired.compare`), before the correction for other tests.

    Returns
    -------
    DataFrame
        What is drawn: `data_set`, `object` ("all patients" or "all cases" in the last row), `n`,
        `n_data_sets`, `mean_a` (SAM 2), `mean_b`, `difference`, `ci_low`, `ci_high`, `ci_level`, `p`
        (of equivalence), `generalises_to`; then a row per tick with its `patient_id` and `difference`.
    """
    rows = _both_models(table, sam2, sam)
    if rows.empty:
        return nothing(ax, f"no 2D rows of both {label(sam2)} and {label(sam)}")
    test = Comparison("figure", {}, {}, test="equivalence", margin=margin)
    noun = unit_noun(rows)
    places = {name: place for place, name in enumerate(data_sets_in_order(rows))}
    groups = sorted(rows.groupby(["data_set", "object"], dropna=False), key=lambda g: places[g[0][0]])
    groups = [*groups, (("", f"all {noun}s"), rows)]
    found, dots = [], []
    for (data_set, name), group in groups:
        pairs = _pairs(group, sam2, sam)
        if len(pairs):
            item = compare_pairs(pairs, test, noun)
            kept = (
                "n",
                "n_data_sets",
                "mean_a",
                "mean_b",
                "difference",
                "ci_low",
                "ci_high",
                "ci_level",
            )
            kept += ("p", "generalises_to")
            found.append({"data_set": data_set, "object": name} | {k: item[k] for k in kept})
            dots.append(
                pairs[["data_set", "patient_id"]].assign(
                    object=name, difference=differences(pairs["a"], pairs["b"])
                )
            )
    drawn = pd.DataFrame(found)
    if drawn.empty:
        return nothing(ax, f"no slice that both {label(sam2)} and {label(sam)} were given")
    last = len(drawn) - 1
    ax.axvspan(-margin, margin, color="#e3e3e3", zorder=0)
    ax.axvline(0, color=GREY, lw=0.6)
    ax.axhline(last - 0.5, color=GREY, lw=0.4)
    for y, (row, cases) in enumerate(zip(drawn.itertuples(), dots, strict=True)):
        ax.plot(cases["difference"], [y] * len(cases), "|", color=GREY, ms=4.5, mew=0.6, zorder=1)
        ax.plot([row.ci_low, row.ci_high], [y, y], color="black", lw=1.0)
        ax.plot(row.difference, y, "D" if y == last else "o", color="black", ms=3.2)
    names = [f"{r.data_set}: {r.object}" if r.data_set else r.object for r in drawn.itertuples()]
    counts = [f"{label(n)} ({k})" for n, k in zip(names, drawn["n"], strict=True)]
    ax.set_yticks(range(len(drawn)), [fill(name, 40) for name in counts], size=6)
    ax.set_ylim(last + 0.6, -0.6)
    ax.tick_params(axis="y", length=0)
    ticks = pd.concat(dots)
    reach = max(1.15 * float(ticks["difference"].abs().max()), 2 * margin)
    ax.set_xlim(-reach, reach)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(fill(f"IoU of {label(sam2)} minus {label(sam)}", 50))
    look = {"ls": "", "color": GREY, "marker": "|", "ms": 4.5, "mew": 0.6}
    handles = [Line2D([], [], **look, label=f"one {noun}"), mark("black", "mean of an object")]
    shade = Patch(color="#e3e3e3", label=f"alike within {margin:g}")
    handles += [mark("black", f"mean of all {noun}s", "D"), shade]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return pd.concat([drawn, ticks], ignore_index=True)


def measured_and_published(joined: pd.DataFrame, ax: Axes, mask_choice: str = "first_mask") -> pd.DataFrame:
    """Draw measured beside SAM's published IoU for every object both have (`published` module)."""
    shown = joined[joined["mask_choice"] == mask_choice].reset_index(drop=True)
    if shown.empty:
        return nothing(ax, "no object of this table is among the published ones")
    names = sorted(shown["published_object"].unique())
    modes = [mode for mode in PROMPTS_2D if mode in set(shown["prompt"])]
    for row in shown.itertuples():
        y = names.index(row.published_object) + (modes.index(row.prompt) - (len(modes) - 1) / 2) * 0.18
        colour, marker = PROMPT_COLOURS[row.prompt], PROMPT_MARKERS[row.prompt]
        ax.plot([row.published, row.measured], [y, y], color=colour, lw=0.6)
        ax.plot(row.published, y, marker, color=colour, mfc="white", mew=0.8, ms=size_of(marker))
        ax.plot(row.measured, y, marker, color=colour, mew=0.8, ms=size_of(marker))
    ax.set_yticks(range(len(names)), [label(name, 26) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    iou_axis(ax, "IoU: filled measured here, open SAM as published")
    legend(ax, [prompt_mark(mode) for mode in modes])
    return shown
