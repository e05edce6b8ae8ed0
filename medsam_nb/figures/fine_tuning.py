"""Fine-tuning: what it is worth by number of patients, and what it costs elsewhere.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from medsam_nb.figures.choices import chosen
from medsam_nb.figures.style import GREY, difference, difference_rows, legend, nothing
from medsam_nb.figures.words import label, metric_label
from medsam_nb.statistics.fine_tuning import WORDS

COLOURS = {"mask_decoder": "#005B8F", "memory": "#D55E00", "lora": "#56B4E9"}  # ever lighter
DASHES = {"mask_decoder": "-", "memory": (0, (4, 1.5)), "lora": (0, (1, 1))}
MARKERS = {"mask_decoder": "o", "memory": "s", "lora": "^"}
APART = 0.13  # between the arms at one place


def learning_curve(curves: pd.DataFrame, ax: Axes, title: str = "", metric: str = "iou") -> pd.DataFrame:
    """Draw the mean on held-out patients by number of training patients, a line for each of what learns.

    Parameters
    ----------
    curves : DataFrame
        Of `fine_tuning.learning_curves`. Bars are intervals over patients of the mean of the seeds; small
        open marks are the seeds. The grey line is the parent.
    ax : Axes
    title : str

    Returns
    -------
    DataFrame
        `curves`.
    """
    if curves.empty:
        return nothing(ax, "nothing was measured")
    places = {patients: place for place, patients in enumerate(_sizes(curves))}
    arms = list(dict.fromkeys(curves["learns"]))
    for number, learns in enumerate(arms):
        shift = (number - (len(arms) - 1) / 2) * APART
        some = curves[curves["learns"] == learns]
        some = some.assign(x=some["patients"].map(places) + shift * some["patients"].ne("0"))
        mean, seeds = some[some["repeat"].isna()], some[some["repeat"].notna()]
        colour, marker = COLOURS[learns], MARKERS[learns]
        ax.plot(mean["x"], mean["mean"], ls=DASHES[learns], color=colour, lw=0.9)
        trained = mean[mean["patients"] != "0"]
        ax.vlines(trained["x"], trained["ci_low"], trained["ci_high"], color=colour, lw=0.9)
        ax.plot(trained["x"], trained["mean"], marker, color=colour, ms=3.5)
        if seeds["repeat"].nunique() < 2:
            continue  # the mean is that of the one seed
        ax.plot(seeds["x"] + 0.045, seeds["mean"], marker, color=colour, mfc="white", ms=2.2, mew=0.6)
    direct = curves[curves["patients"] == "0"].iloc[0]
    ax.axhline(direct["mean"], color=GREY, lw=0.7, ls="--", zorder=0)
    ax.vlines(0, direct["ci_low"], direct["ci_high"], color=GREY, lw=0.9)
    ax.plot(0, direct["mean"], "D", color=GREY, ms=3.5)
    ax.set_xticks(list(places.values()), [_patients(curves, size) for size in places])
    ax.set_xlim(-0.4, len(places) - 0.6)
    ax.set_xlabel("training patients")
    ax.set_ylabel(f"mean {metric_label(metric)}, held-out patients")
    ax.grid(axis="y")
    ax.set_title(title, loc="left")
    wide = ax.figure.get_figwidth() * 25.4 > chosen().column_mm + 1
    legend(ax, _handles(arms), 4 if wide else 2)
    return curves


def _sizes(curves: pd.DataFrame) -> list[str]:
    order = curves.groupby("patients")["n_patients"].mean().sort_values(kind="stable")
    return list(order.index)


def _patients(curves: pd.DataFrame, size: str) -> str:
    if size == "0":
        return "0"
    many = curves.loc[curves["patients"] == size, "n_patients"].mean()
    return f"{many:g}\n(all)" if size == "all" else size


def _handles(arms: Sequence[str]) -> list[Line2D]:
    handles = [Line2D([], [], ls="", marker="D", color=GREY, label="direct application")]
    return handles + [
        Line2D([], [], ls=DASHES[arm], lw=0.9, marker=MARKERS[arm], color=COLOURS[arm], label=WORDS[arm])
        for arm in arms
    ]


def arm_differences(result: pd.DataFrame, ax: Axes) -> pd.DataFrame:
    """Draw every comparison of an arm with the parent, with the corrected interval, a row each.

    Parameters
    ----------
    result : DataFrame
        Of `paired.compare`, with a column `learns`; filled where the corrected interval leaves 0.

    Returns
    -------
    DataFrame
        The rows that are drawn.
    """
    shown = result[result["n"] > 0].reset_index(drop=True)
    if shown.empty:
        return nothing(ax, "nothing to compare")
    for place, row in shown.iterrows():
        difference(ax, row, place, COLOURS[row["learns"]], MARKERS[row["learns"]])
    difference_rows(ax, shown["comparison"], "difference of the mean IoU from direct application")
    return shown


def forgetting(
    differences: pd.DataFrame,
    means: pd.DataFrame,
    ax: Axes,
    trained_on: Sequence[str],
    learns: dict[str, str],
) -> pd.DataFrame:
    """Draw the change from the parent on the data sets trained on and on others, a row per data set.

    Parameters
    ----------
    differences, means : DataFrame
        Of `fine_tuning.gains` and `fine_tuning.mean_gains`: small marks are patients, large ones their
        means, bars 95 % intervals where there are enough patients.
    ax : Axes
    trained_on : sequence of str
        Data sets of the training; their rows come first, and are measured on held-out patients.
    learns : mapping of arm to what learns

    Returns
    -------
    DataFrame
        `means`, then `differences`, which have a `patient_id`.
    """
    if means.empty:
        return nothing(ax, "nothing was measured on other data sets")
    others = [name for name in dict.fromkeys(means["data_set"]) if name not in trained_on]
    order = [*(name for name in trained_on if name in set(means["data_set"])), *others]
    arms = list(dict.fromkeys(means["arm"]))
    for number, arm in enumerate(arms):
        colour, marker = COLOURS[learns[arm]], MARKERS[learns[arm]]
        shift = (number - (len(arms) - 1) / 2) * 0.22
        for place, name in enumerate(order):
            points = differences[(differences["arm"] == arm) & (differences["data_set"] == name)]
            ax.plot(
                points["difference"],
                np.full(len(points), place + shift),
                marker,
                color=colour,
                ms=1.8,
                alpha=0.45,
            )
            for row in means[(means["arm"] == arm) & (means["data_set"] == name)].itertuples():
                if np.isfinite(row.ci_low):
                    ax.plot([row.ci_low, row.ci_high], [place + shift] * 2, color=colour, lw=0.9)
                ax.plot(row.difference, place + shift, marker, color=colour, ms=4)
    ax.axvline(0, color=GREY, lw=0.6)
    if others and len(order) > len(others):
        ax.axhline(len(order) - len(others) - 0.5, color=GREY, lw=0.6, ls=":")
    names = [
        f"{label(name)}\n({'held-out patients' if name in trained_on else 'not trained on'})"
        for name in order
    ]
    ax.set_yticks(range(len(order)), names)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_xlabel("difference of the mean IoU from direct application")
    legend(ax, _handles([learns[arm] for arm in arms])[1:], 3)
    return pd.concat([means, differences], ignore_index=True)


def split_of_patients(lines: pd.DataFrame, ax: Axes) -> pd.DataFrame:
    """Draw who is trained on and who is measured on, a column per patient and a row per training.

    Parameters
    ----------
    lines : DataFrame
        Columns `fold`, `repeat`, `patients` (how many), `column` (of the patient, from 0) and `role`
        ("trained on" or "measured on"), rows in their order.
    ax : Axes

    Returns
    -------
    DataFrame
        `lines`.
    """
    keys = ["fold", "repeat", "patients"]
    rows = {key: place for place, key in enumerate(lines.groupby(keys, sort=False).groups)}
    x, many = lines["column"], int(lines["column"].max()) + 1
    y = pd.Series([rows[key] for key in lines[keys].itertuples(index=False, name=None)], lines.index)
    trained = lines["role"] == "trained on"
    ax.plot(x[trained], y[trained], "s", color="#0072B2", ms=5)
    ax.plot(x[~trained], y[~trained], "o", color="black", mfc="white", ms=5, mew=0.8)
    several = lines["fold"].nunique() > 1
    names = [
        f"{f'split {fold + 1}, ' if several else ''}seed {repeat + 1}, {_counted_patients(patients)}"
        for fold, repeat, patients in rows
    ]
    ax.set_yticks(range(len(rows)), names)
    ax.tick_params(axis="x", bottom=False, labelbottom=False)
    ax.set_xlim(-0.7, many - 0.3)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"{many} patients")
    marks = [("s", "#0072B2", "trained on"), ("o", "white", "measured on, never trained on")]
    legend(
        ax,
        [
            Line2D([], [], ls="", marker=m, color="#0072B2" if m == "s" else "black", mfc=c, label=t)
            for m, c, t in marks
        ],
        2,
    )
    return lines


def _counted_patients(patients: str) -> str:
    return "all patients" if patients == "all" else f"{patients} patient{'s' if patients != '1' else ''}"
