"""The paper's claims: every test with its estimate, interval and finding.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from medsam_nb.figures.style import legend, mark, nothing, size_of
from medsam_nb.figures.words import label
from medsam_nb.statistics.claims import MARGIN, MUCH
from medsam_nb.statistics.inference import GENERAL

LIKE_THESE = "\u2020"  # a dagger behind a test that speaks of data sets like these
FINDING_MARKERS = {  # and whether they are filled: a finding is told without its colour
    "supported": ("o", True),
    "contradicted": ("X", True),
    "of no practical weight": ("s", True),
    "inconclusive": ("o", False),
}
FINDING_COLOURS = {
    "supported": "#009E73",
    "contradicted": "#D55E00",
    "of no practical weight": "#0072B2",
    "inconclusive": "#7a7a7a",
}


def claims_forest(board: pd.DataFrame, ax: Axes, margin: float = MARGIN, much: float = MUCH) -> pd.DataFrame:
    """Draw every test of the scoreboard: mean difference and interval, in colour and shape of its finding.

    The interval is at the level at which Holm's method judged the test, so that it leaves 0 (or lies within
    the margin) where the test is significant after correction. The shaded part of the axis is the claim.
    A dagger stands behind tests that speak of data sets like these, not of these data sets only. Rank
    correlations are drawn on the same axis; their rows say so.
    """
    shown = board[board["n"] > 0]
    if shown.empty:
        return nothing(ax, "no claim can be tested with this table")
    drawn = shown[["holm_low", "holm_high", "difference"]].to_numpy(float)
    limit = max(float(np.nanmax(np.abs(drawn))) * 1.1, 0.1)
    claimed = {">": (0, limit), "<": (-limit, 0), ">=": (-margin, limit), "=": (-margin, margin)}
    claimed["<<"] = (-limit, -much)
    for y, row in enumerate(shown.itertuples()):
        colour = FINDING_COLOURS[row.finding]
        ax.fill_between(claimed[row.relation], y - 0.45, y + 0.45, color="#f0f0f0", lw=0)
        low, high = row.holm_low, row.holm_high
        if np.isfinite([low, high]).any():
            # a limit that does not exist is drawn to the edge
            ends = [low if np.isfinite(low) else -limit, high if np.isfinite(high) else limit]
            ax.plot(ends, [y, y], color=colour, lw=1.2)
        marker, filled = FINDING_MARKERS[row.finding]
        look = {"color": colour, "mfc": colour if filled else "white", "mew": 0.9, "ms": size_of(marker)}
        ax.plot(row.difference, y, marker, **look)
    ax.axvline(0, color="black", lw=0.5)
    names = []
    for row in shown.itertuples():
        test = row.test.split(", ")[0] + ", best design" if row.claim == "H13" else row.test
        reach = LIKE_THESE if row.generalises_to == GENERAL else ""
        names.append(f"{row.claim}  {label(test)} ({int(row.n)}/{int(row.n_data_sets)}){reach}")
    ax.set_yticks(range(len(shown)), [fill(name, 72) for name in names], size=6)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(-limit, limit)
    ax.tick_params(axis="y", length=0)
    unit, general = shown["unit"].iloc[0], shown["generalises_to"] == GENERAL
    reach = f"{LIKE_THESE}: of {GENERAL}, others of these only" if general.any() else "all of these data only"
    ax.set_xlabel(
        "mean difference of IoU (rank correlation where a row says so) and corrected interval;\n"
        f"{unit}s/data sets in brackets; {reach}",
        x=1,
        ha="right",
    )
    found = [name for name in FINDING_COLOURS if name in set(shown["finding"])]
    legend(ax, [mark(FINDING_COLOURS[name], name, *FINDING_MARKERS[name]) for name in found], columns=4)
    return shown
