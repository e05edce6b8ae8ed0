"""How much a hand may shake: IoU against the displacement of jittered prompts."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from medsam_nb.figures.style import (
    MOST_BANDS,
    PROMPT_COLOURS,
    PROMPT_MARKERS,
    band,
    iou_axis,
    legend,
    nothing,
    prompt_mark,
    size_of,
)
from medsam_nb.figures.words import label
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means


def share_of(prompt_source: str) -> float:
    """Return the share by which prompts were displaced: 0 for the truth, NaN for those of a file.

    Examples
    --------
    >>> share_of("truth"), share_of("jittered:0.05:3")
    (0.0, 0.05)
    """
    if prompt_source == "truth":
        return 0.0
    return float(prompt_source.split(":")[1]) if prompt_source.startswith("jittered:") else float("nan")


def iou_by_share(table: pd.DataFrame, ax: Axes, mask_choice: str = "first_mask") -> pd.DataFrame:
    """Draw the mean IoU against the share by which prompts were displaced, a curve per prompt.

    Repeats of a share are averaged within a case first; the unit is the case.

    Parameters
    ----------
    table : DataFrame
        Rows of one model and one task under several prompt sources.
    ax : Axes
    mask_choice : str

    Returns
    -------
    DataFrame
        What is drawn: `prompt`, `share`, `mean`, `ci_low`, `ci_high`, `n_cases`, `n_data_sets`.
    """
    rows = table[(table["metric"] == "iou") & (table["mask_choice"] == mask_choice)]
    if rows.empty:
        return nothing(ax, f"no rows with mask choice {label(mask_choice)}")
    cases = case_means(rows, ["prompt", "prompt_source"])
    cases["share"] = cases["prompt_source"].map(share_of).astype(float)
    cases = cases.dropna(subset=["share"])
    cases = cases.groupby(["data_set", "case_id", "prompt", "share"])["value"].mean().reset_index()
    drawn = summarise(cases, ["prompt", "share"]).sort_values(["prompt", "share"], ignore_index=True)
    for prompt, curve in drawn.groupby("prompt", sort=False):
        colour, marker = PROMPT_COLOURS[prompt], PROMPT_MARKERS[prompt]
        ax.plot(curve["share"], curve["mean"], marker=marker, ms=size_of(marker, 3), color=colour)
        if drawn["prompt"].nunique() <= MOST_BANDS:
            band(ax, curve["share"], curve, colour)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    ax.set_xlabel("displacement, % of side or radius")
    iou_axis(ax, "mean IoU", "y")
    legend(ax, [prompt_mark(prompt) for prompt in drawn["prompt"].unique()])
    return drawn
