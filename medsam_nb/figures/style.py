"""Figures for papers: every function draws a tidy table on axes it is given and returns what it drew.

One visual language throughout: a colour per prompt, blue for bidirectional and orange for
front to end, filled for the first mask and open for the most confident one. Points are means over cases
(slices first averaged within their case); bars and bands are 95 % cluster-bootstrap intervals.
"""

from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from medsam_nb.protocol.designs import FRAME_CHOICES
from medsam_nb.statistics.pooling import case_means, check_table, refuse_mixture
from medsam_nb.protocol.prompts import KINDS_3D, MODES_2D
from medsam_nb.statistics.retention import retention
from medsam_nb.statistics.paired import bootstrap_draws
from medsam_nb.evaluation.store import write_atomically
from medsam_nb.workbook.manuscript import counted

COLUMN_MM = 88  # one and two columns of most journals
PAGE_MM = 180
# Okabe and Ito's palette: told apart with every common colour vision, and in print.
PROMPT_COLOURS = {
    "one_point": "#E69F00",
    "point_per_component": "#CC79A7",
    "one_box": "#0072B2",
    "box_per_component": "#56B4E9",
    "mask": "#009E73",
}
DIRECTION_COLOURS = {"bidirectional": "#0072B2", "front_to_end": "#D55E00"}
DIRECTION_MARKERS = {"bidirectional": "o", "front_to_end": "s"}
OTHER_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#7a7a7a"
RESAMPLES = 1000


def style() -> AbstractContextManager:
    """Return the context in which figures are made: fonts, sizes, lines, embedded TrueType fonts."""
    return mpl.rc_context(
        {
            "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are alike everywhere
            "font.size": 7,
            "axes.labelsize": 7,
            "axes.titlesize": 7,
            "xtick.labelsize": 6.5,
            "ytick.labelsize": 6.5,
            "legend.fontsize": 6.3,
            "legend.title_fontsize": 6.3,
            "legend.frameon": False,
            "legend.handletextpad": 0.4,
            "legend.columnspacing": 1.0,
            "axes.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "lines.linewidth": 1.0,
            "lines.markersize": 3.5,
            "grid.linewidth": 0.4,
            "grid.color": "#dddddd",
            "axes.axisbelow": True,
            "figure.dpi": 150,
            "savefig.dpi": 300,
            "pdf.fonttype": 42,
            "ps.fonttype": 42,
            "svg.fonttype": "none",
        }
    )


def canvas(
    width_mm: float = COLUMN_MM, height_mm: float = 62, rows: int = 1, columns: int = 1, **options
) -> tuple[Figure, Axes | np.ndarray]:
    """Return a figure of the given printed size and its axes, laid out so that nothing is cut."""
    return plt.subplots(
        rows, columns, figsize=(width_mm / 25.4, height_mm / 25.4), layout="constrained", **options
    )


def save(fig: Figure, folder: Path, name: str, plotted: pd.DataFrame) -> dict[str, Path]:
    """Write the figure as PDF and PNG, and what it shows as CSV, side by side.

    The file dates are left out of the PDF, so the same figure gives the same bytes.
    """
    paths = {kind: Path(folder) / f"{name}.{kind}" for kind in ("pdf", "png", "csv")}
    for kind in ("pdf", "png"):
        buffer = BytesIO()
        metadata = {"CreationDate": None} if kind == "pdf" else None
        fig.savefig(buffer, format=kind, metadata=metadata)
        write_atomically(paths[kind], buffer.getvalue())
    write_atomically(paths["csv"], plotted.to_csv(index=False, float_format="%.6g").encode())
    plt.close(fig)  # a notebook shows it where it is named, not once more when the cell ends
    return paths


def label(name: object, width: int = 0) -> str:
    """Return a name as it is printed: no underscores, wrapped at `width` characters where given."""
    text = str(name).replace("_", " ")
    return fill(text, width) if width else text


def readable_on(background: tuple[float, ...]) -> str:
    """Return black or white, whichever has the greater contrast (WCAG 2) on an RGB(A) colour of 0 to 1.

    Examples
    --------
    >>> readable_on((0.0, 0.13, 0.3)), readable_on((1.0, 0.9, 0.2))
    ('white', 'black')
    """
    rgb = np.asarray(background[:3], float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def nothing(ax: Axes, why: str) -> pd.DataFrame:
    """Say on the axes why there is nothing to draw, and return an empty table."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, fill(why, 44), ha="center", va="center", color=GREY, transform=ax.transAxes)
    return pd.DataFrame()


def summarise(cases: pd.DataFrame, by: list[str], resamples: int = RESAMPLES) -> pd.DataFrame:
    """Return mean over cases, 95 % cluster-bootstrap interval and number of cases of every cell.

    Parameters
    ----------
    cases : DataFrame
        One row per case and cell: `data_set`, `value` and the columns of `by`.

    Returns
    -------
    DataFrame
        Columns of `by`, `mean`, `ci_low`, `ci_high` (missing for one case), `n_cases`, `n_data_sets`.
    """
    found = []
    for key, cell in cases.groupby(by, dropna=False, sort=False):
        values = cell["value"].to_numpy(float)
        low = high = float("nan")
        if len(values) > 1:
            draws = bootstrap_draws(values, cell["data_set"].to_numpy(str), np.nanmean, resamples)
            low, high = np.quantile(draws, [0.025, 0.975])
        found.append(
            {
                **dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)),
                "mean": values.mean(),
                "ci_low": low,
                "ci_high": high,
                "n_cases": len(values),
                "n_data_sets": cell["data_set"].nunique(),
            }
        )
    return pd.DataFrame(found, columns=[*by, "mean", "ci_low", "ci_high", "n_cases", "n_data_sets"])


def point(ax: Axes, row: pd.Series, y: float, colour: str, marker: str = "o", filled: bool = True) -> None:
    """Draw a mean and its interval, horizontally."""
    if row["ci_low"] == row["ci_low"]:  # NaN for one case
        ax.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, lw=0.9, solid_capstyle="butt")
    ax.plot(row["mean"], y, marker, color=colour, mfc=colour if filled else "white", mew=0.8)


def iou_axis(ax: Axes, name: str = "IoU", which: str = "x") -> None:
    """Give the axis of IoUs its range, ticks, grid and label."""
    getattr(ax, f"set_{which}lim")(0, 1)
    getattr(ax, f"set_{which}ticks")(np.arange(0, 1.01, 0.2))
    getattr(ax, f"set_{which}label")(name)
    ax.grid(axis=which)


def legend(ax: Axes, handles: list[Line2D], columns: int = 2) -> None:
    """Put a legend above the whole figure, where it covers no data; once for axes that share it."""
    wanted = [handle.get_label() for handle in handles]
    for other in ax.figure.legends:
        if [text.get_text() for text in other.get_texts()] == wanted:
            return
    ax.figure.legend(handles=handles, loc="outside upper center", ncols=min(columns, len(handles)))


def mark(colour: str, text: str, marker: str = "o", filled: bool = True) -> Line2D:
    """Return a legend entry."""
    return Line2D([], [], ls="", marker=marker, color=colour, mfc=colour if filled else "white", label=text)


def iou_by_prompt_2d(table: pd.DataFrame, ax: Axes, mask_choice: str = "first") -> pd.DataFrame:
    """Draw the IoU of every 2D prompt mode, one row per data set; `table` holds one model's rows.

    Returns
    -------
    DataFrame
        What is drawn: `data_set`, `prompt`, `mean`, `ci_low`, `ci_high`, `n_cases`, `n_data_sets`.
    """
    rows = table[(table["task"] == "2d") & (table["mask_choice"] == mask_choice)]
    if rows.empty:
        return nothing(ax, f"no 2D rows with mask choice {label(mask_choice)}")
    drawn = summarise(case_means(rows, ["prompt"]), ["data_set", "prompt"])
    modes = [mode for mode in MODES_2D if mode in set(drawn["prompt"])]
    names = sorted(drawn["data_set"].unique())
    for place, name in enumerate(names):
        for number, mode in enumerate(modes):
            cell = drawn[(drawn["data_set"] == name) & (drawn["prompt"] == mode)]
            offset = (number - (len(modes) - 1) / 2) * 0.17
            for _, row in cell.iterrows():
                point(ax, row, place + offset, PROMPT_COLOURS[mode])
        if place:
            ax.axhline(place - 0.5, color="#dddddd", lw=0.4)
    counts = drawn.groupby("data_set")["n_cases"].max()
    ax.set_yticks(range(len(names)), [f"{label(name, 26)} ({counts[name]})" for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    iou_axis(ax, "mean IoU (cases in brackets)")
    legend(ax, [mark(PROMPT_COLOURS[mode], label(mode)) for mode in modes])
    return drawn


def iou_by_design(table: pd.DataFrame, ax: Axes) -> pd.DataFrame:
    """Draw the IoU of every 3D design: a row per prompt and frame choice, four marks per row.

    Parameters
    ----------
    table : DataFrame
        3D rows of one model; other rows are passed over.

    Returns
    -------
    DataFrame
        What is drawn: the four factors, `mean`, `ci_low`, `ci_high`, `n_cases`, `n_data_sets`.
    """
    rows = table[table["task"] == "3d"]
    if rows.empty:
        return nothing(ax, "no 3D rows")
    factors = ["prompt", "frame_choice", "direction", "mask_choice"]
    drawn = summarise(case_means(rows, factors), factors)
    cells = [
        (prompt, frame)
        for prompt in KINDS_3D
        for frame in FRAME_CHOICES
        if ((drawn["prompt"] == prompt) & (drawn["frame_choice"] == frame)).any()
    ]
    ticks, place, previous = [], 0.0, None
    for prompt, frame in cells:
        if previous not in (None, prompt):
            ax.axhline(place - 0.25, color=GREY, lw=0.4)
            place += 0.5
        previous = prompt
        here = drawn[(drawn["prompt"] == prompt) & (drawn["frame_choice"] == frame)]
        for _, row in here.iterrows():
            offset = -0.3 + 0.4 * (row["direction"] == "front_to_end")
            offset += 0.2 * (row["mask_choice"] == "most_confident_mask")
            point(
                ax,
                row,
                place + offset,
                DIRECTION_COLOURS[row["direction"]],
                DIRECTION_MARKERS[row["direction"]],
                filled=row["mask_choice"] == "first_mask",
            )
        ticks.append((place, f"{label(prompt)}, {label(frame)}"))
        place += 1
    ax.set_yticks([t for t, _ in ticks], [text for _, text in ticks])
    ax.set_ylim(place - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    iou_axis(ax, f"mean IoU ({counted(drawn['n_cases'].max(), 'case')})")
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
                f"{label(d)}, {label(c.removesuffix('_mask'))}",
                DIRECTION_MARKERS[d],
                filled=c == "first_mask",
            )
            for d, c in marks
        ],
    )
    return drawn


def iou_by_distance(
    table: pd.DataFrame, ax: Axes, by: str = "direction", fewest_cases: int | None = None
) -> pd.DataFrame:
    """Draw the IoU against the distance from the nearest prompted slice, in slices.

    Parameters
    ----------
    table : DataFrame
        3D rows of one model.
    by : {"direction", "prompt", "data_set"}
        A line for each.
    fewest_cases : int, optional
        Distances that fewer cases reach are left out, unless the table has fewer cases in all. By
        default a quarter of the cases, at least 2: at the far end one deep volume would be the line.

    Returns
    -------
    DataFrame
        What is drawn: `by`, `distance_slices`, `mean`, `ci_low`, `ci_high`, `n_cases`, `n_data_sets`.
    """
    rows = check_table(table[(table["task"] == "3d") & (table["metric"] == "iou")])
    rows = rows[rows["distance_slices"].notna()].astype({"value": float, "distance_slices": int})
    if rows.empty:
        return nothing(ax, "no 3D rows with a distance from the prompt")
    refuse_mixture(rows, [by])
    case = list(dict.fromkeys(["data_set", "case_id", by, "distance_slices"]))
    objects = rows.groupby([*case, "object"], dropna=False)["value"].mean().reset_index()
    cases = objects.groupby(case, dropna=False)["value"].mean().reset_index()
    drawn = _by_distance(cases, ax, by, fewest_cases)
    iou_axis(ax, "mean IoU", "y")
    return drawn


def retention_by_distance(
    table: pd.DataFrame, ax: Axes, by: str = "direction", fewest_cases: int = 2
) -> pd.DataFrame:
    """Draw the retention ratio (`retention` module) against the distance from the prompted slice.

    Parameters are those of `iou_by_distance`. What failed on its prompted slice has no ratio.

    Returns
    -------
    DataFrame
        What is drawn: `by`, `distance_slices`, `mean`, `ci_low`, `ci_high`, `n_cases`, `n_data_sets`.
    """
    cases = retention(table, by).dropna(subset=["value"])
    if cases.empty:
        return nothing(ax, "no 3D rows away from a prompted slice that itself was segmented")
    start = cases.drop_duplicates(list(dict.fromkeys(["data_set", "case_id", by])))
    cases = pd.concat([cases, start.assign(distance_slices=0, value=1.0)])  # 1 by definition
    drawn = _by_distance(cases, ax, by, fewest_cases)
    ax.axhline(1, color=GREY, lw=0.5, ls=":")
    top = float(np.nanmax(drawn[["mean", "ci_high"]].to_numpy(float)))
    ax.set_ylim(0, max(1.1, min(1.05 * top, 2.0)))
    ax.set_ylabel("IoU / IoU on the prompted slice")
    ax.grid(axis="y")
    return drawn


def _by_distance(cases: pd.DataFrame, ax: Axes, by: str, fewest_cases: int) -> pd.DataFrame:
    """Draw a line with its band for each value of `by`; return what is drawn."""
    drawn = summarise(cases, [by, "distance_slices"]).sort_values([by, "distance_slices"])
    most = int(drawn["n_cases"].max())
    drawn = drawn[drawn["n_cases"] >= min(fewest_cases or max(2, most / 4), most)]
    colours = {"direction": DIRECTION_COLOURS, "prompt": PROMPT_COLOURS}.get(by, {})
    for number, (name, line) in enumerate(drawn.groupby(by, sort=True)):
        colour = colours.get(name, OTHER_COLOURS[number % len(OTHER_COLOURS)])
        x = line["distance_slices"]
        dash = "--" if name == "front_to_end" else "-"
        ax.plot(x, line["mean"], dash, color=colour, label=label(name), marker="o" if len(x) == 1 else "")
        ax.fill_between(x, line["ci_low"], line["ci_high"], color=colour, alpha=0.18, lw=0)
    ax.axvline(0, color=GREY, lw=0.5, ls=":")
    ax.set_xlabel("slices from the nearest prompted slice")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(ax, ax.get_legend_handles_labels()[0])
    return drawn.reset_index(drop=True)
