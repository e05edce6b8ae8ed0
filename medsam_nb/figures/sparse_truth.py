"""What a study with sparse truth would say, beside what it says with all of it.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

import numpy as np
import pandas as pd

from medsam_nb.figures.style import GREY, nothing

DRAW, INTERVAL = "#0072B2", "#bbbbbb"
JITTER = 0.22  # rows between which the draws of an annotation are spread


def sparse_estimates(estimates: pd.DataFrame, axes: np.ndarray, margin: float) -> pd.DataFrame:
    """Draw every draw's mean (left) and its answer to the claim (right), a row per annotation.

    Parameters
    ----------
    estimates : DataFrame
        Of `sparse_truth.sparse_estimates`; the first annotation is that of all slices.
    axes : ndarray of Axes, shape (2,)
    margin : float
        Of the claim: not worse by more.

    Returns
    -------
    DataFrame
        The rows that are drawn, with `mean_ci_low` and `mean_ci_high` of their annotation.
    """
    if estimates.empty:
        return [nothing(ax, "no rows of slices") for ax in axes][0]
    ends = estimates.groupby("annotation", sort=False)[["ci_low", "ci_high"]].transform("mean")
    estimates = estimates.assign(mean_ci_low=ends["ci_low"], mean_ci_high=ends["ci_high"])
    full = estimates.iloc[0]
    names = list(dict.fromkeys(estimates["annotation"]))
    for place, name in enumerate(names):
        rows = estimates[estimates["annotation"] == name]
        spread = np.linspace(-JITTER, JITTER, len(rows)) if len(rows) > 1 else [0.0]
        interval = rows[["mean_ci_low", "mean_ci_high"]].iloc[0]
        axes[0].plot(interval, [place] * 2, color=INTERVAL, lw=4, zorder=1)
        axes[0].plot(rows["estimate"], place + np.array(spread), "o", color=DRAW, ms=2, mew=0)
        axes[1].hlines(
            place + np.array(spread), rows["difference_low"], rows["difference"], color=INTERVAL, lw=0.8
        )
        held = rows["holds"].to_numpy(bool)
        for filled in (True, False):
            some = held == filled
            look = {"mfc": DRAW if filled else "white", "mec": DRAW, "mew": 0.5, "ms": 2.4, "ls": ""}
            axes[1].plot(rows["difference"][some], (place + np.array(spread))[some], "o", **look)
        right = {"transform": axes[1].get_yaxis_transform(), "ha": "left", "va": "center", "fontsize": 6.3}
        axes[1].text(1.02, place, f"{held.sum()} of {len(rows)}", **right)
    _finish(axes, names, full, margin)
    return estimates


def _finish(axes: np.ndarray, names: list[str], full: pd.Series, margin: float) -> None:
    axes[0].axvline(full["estimate"], color=GREY, lw=0.6)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_xlabel("mean IoU with the first mask:\neach draw, and the mean 95 % interval")
    axes[1].axvline(0, color=GREY, lw=0.6)
    axes[1].axvline(-margin, color="#D55E00", lw=0.8, ls="--")
    axes[1].set_yticks([])
    axes[1].set_xlabel(
        "first minus most confident mask, down to the\nlower limit (filled: shown not to be worse)"
    )
    axes[1].text(1.02, -0.75, "shown in", transform=axes[1].get_yaxis_transform(), fontsize=6.3, va="center")
    for ax in axes:
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
