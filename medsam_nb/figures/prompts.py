"""2D: IoU by prompt.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.axes import Axes

from medsam_nb.figures.order import data_sets_in_order, groups_of, in_order
from medsam_nb.figures.style import (
    GREY,
    PROMPT_COLOURS,
    PROMPT_MARKERS,
    iou_axis,
    legend,
    nothing,
    point,
    prompt_mark,
)
from medsam_nb.figures.words import label, metric_label
from medsam_nb.protocol.prompt_sources import GIVEN
from medsam_nb.protocol.prompts import PROMPTS_2D
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means

EVERY = "all data sets"


def iou_by_prompt_2d(
    table: pd.DataFrame, ax: Axes, mask_choice: str = "first_mask", metric: str = "iou"
) -> pd.DataFrame:
    """Draw the IoU, or "dice", of every 2D prompt mode, one row per data set; `table` holds one model's rows.

    The last row is of all data sets, which weigh alike; it is left out where there is one only.

    Returns
    -------
    DataFrame
        What is drawn: `data_set` ("all data sets" in the last row), `prompt`, `mean`, `ci_low`, `ci_high`,
        `n_cases`, `n_data_sets`.
    """
    rows = table[(table["task"] == "2d") & (table["mask_choice"] == mask_choice)]
    if rows.empty:
        return nothing(ax, f"no 2D rows with mask choice {label(mask_choice)}")
    means = case_means(rows, ["prompt"], metric)
    drawn = summarise(means, ["data_set", "prompt"])
    modes = [mode for mode in (*PROMPTS_2D, GIVEN) if mode in set(drawn["prompt"])]
    names = data_sets_in_order(rows)
    groups = groups_of(rows, names)
    if len(names) > 1:
        drawn = pd.concat([drawn, summarise(means, ["prompt"]).assign(data_set=EVERY)], ignore_index=True)
        names, groups = [*names, EVERY], [*groups, EVERY]
    for place, name in enumerate(names):
        for number, mode in enumerate(modes):
            cell = drawn[(drawn["data_set"] == name) & (drawn["prompt"] == mode)]
            offset = (number - (len(modes) - 1) / 2) * 0.2
            for _, row in cell.iterrows():
                point(ax, row, place + offset, PROMPT_COLOURS[mode], PROMPT_MARKERS[mode])
        if name == EVERY:
            ax.axhline(place - 0.5, color="black", lw=0.8)
        elif place:
            new = groups[place] != groups[place - 1]  # another modality begins
            ax.axhline(place - 0.5, color=GREY if new else "#dddddd", lw=0.5 if new else 0.4)
    counts = drawn.groupby("data_set")["n_cases"].max()
    ax.set_yticks(range(len(names)), [f"{label(name, 26)} ({counts[name]})" for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    iou_axis(ax, f"mean {metric_label(metric)} (cases in brackets)")
    legend(ax, [prompt_mark(mode) for mode in modes])
    return drawn


def iou_by_prompt_2d_of_models(
    table: pd.DataFrame, models: Sequence[str], axes: Iterable[Axes]
) -> pd.DataFrame:
    """Draw `iou_by_prompt_2d` for several models, each on its axes; return what is drawn with `model`."""
    drawn = []
    for name, ax in zip(in_order(models), axes, strict=True):
        drawn.append(iou_by_prompt_2d(table[table["model"] == name], ax).assign(model=name))
        ax.set_title(label(name))
    return pd.concat(drawn, ignore_index=True)
