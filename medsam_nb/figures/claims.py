"""The paper's claims: every test with its estimate, interval and finding.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from medsam_nb.figures.style import legend, mark, nothing
from medsam_nb.figures.words import label

VERDICT_COLOURS = {
    "supported": "#009E73",
    "contradicted": "#D55E00",
    "of no practical weight": "#56B4E9",
    "inconclusive": "#7a7a7a",
    "not testable": "#bbbbbb",
}


def claims_forest(board: pd.DataFrame, ax: Axes, margin: float = 0.05) -> pd.DataFrame:
    """Draw every test of the scoreboard: estimate and interval, coloured by its finding.

    The interval is the one that goes with the corrected p value (`paired.holm_levels`), so that a test is
    coloured as decided only where its interval is. The shaded part is what is claimed; equivalence, "not
    worse" and "much worse" begin at the margin. Rank correlations are marked with a diamond.
    """
    shown = board[board["n"] > 0]
    if shown.empty:
        return nothing(ax, "no claim can be tested with this table")
    limit = float(np.nanmax(np.abs(shown[["holm_low", "holm_high", "difference"]].to_numpy(float)))) * 1.1
    limit = max(limit, 0.1)
    claimed = {">": (0, limit), "<": (-limit, 0), ">=": (-margin, limit), "=": (-margin, margin)}
    claimed["<<"] = (-limit, -margin)
    for y, row in enumerate(shown.itertuples()):
        colour = VERDICT_COLOURS[row.finding]
        edges = claimed[row.relation]
        ax.fill_between(edges, y - 0.45, y + 0.45, color="#f0f0f0", lw=0)
        if np.isfinite([row.holm_low, row.holm_high]).all():
            ax.plot([row.holm_low, row.holm_high], [y, y], color=colour, lw=1.2)
        ax.plot(row.difference, y, "o" if row.scale == "IoU" else "D", color=colour, ms=3.5)
    ax.axvline(0, color="black", lw=0.5)
    names = [
        f"{r.claim}  {label(r.test.split(', ')[0] + ', best design' if r.claim == 'H13' else r.test)} ({r.n})"
        for r in shown.astype({"n": int}).itertuples()
    ]
    ax.set_yticks(range(len(shown)), [fill(name, 72) for name in names], size=6)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(-limit, limit)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(
        "paired difference of IoU, interval corrected with p\n(diamonds: rank correlation; n in brackets)"
    )
    found = [verdict for verdict in VERDICT_COLOURS if verdict in set(shown["finding"])]
    legend(ax, [mark(VERDICT_COLOURS[verdict], verdict) for verdict in found], columns=4)
    return shown
