"""The visual language of all figures: sizes, colours, marks, axes, legends; and how a figure is saved.

One visual language throughout: a colour and a shape per prompt, and others per direction; filled for
the first mask and open for the most confident one. No colour stands alone: shapes, dashes and how light a
colour is tell the same in grey. Points are means over cases (slices first averaged within their case, data
sets with equal weight); bars and bands are 95 % intervals.
"""

import re
from collections.abc import Sequence
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
from matplotlib.ticker import FixedFormatter, FixedLocator

from medsam_nb.figures.choices import Colours, chosen
from medsam_nb.figures.words import as_csv, label
from medsam_nb.files import write_study_file

COLUMN_MM = 88  # one and two columns of most journals
PAGE_MM = 180
# After Okabe and Ito's palette, told apart with every common colour vision; and in grey, by steps one sees.
PROMPT_COLOURS = Colours(
    {  # with the grey of 0 to 255 that each becomes
        "one_point": "#E69F00",  # 162
        "point_per_component": "#A8488C",  # 108
        "one_box": "#0072B2",  # 87
        "box_per_component": "#3FA2DB",  # 139
        "mask": "#00543C",  # 56
        "given": "#000000",  # by a file of prompts
    }
)
PROMPT_MARKERS = {
    "one_point": "o",
    "point_per_component": "^",
    "one_box": "s",
    "box_per_component": "P",
    "mask": "*",
    "given": "X",
}
DIRECTION_COLOURS = Colours({"bidirectional": "#005B8F", "front_to_end": "#D55E00"})
DIRECTION_MARKERS = {"bidirectional": "d", "front_to_end": ">"}  # both ways, and forwards
OTHER_COLOURS = ("#000000", "#56B4E9", "#D55E00", "#005B8F", "#CC79A7", "#009E73", "#E69F00")
OTHER_MARKERS = ("o", "s", "^", "D", "P", "v", "X")
OTHER_DASHES = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
    (0, (8, 2)),
    (0, (2, 2)),
    (0, (6, 1, 1, 1, 1, 1)),
)
SIZES = {"*": 1.6, "P": 1.2, "X": 1.2, "^": 1.15, "v": 1.15, ">": 1.15, "d": 1.2, "D": 0.85, "s": 0.9}
GREY = "#7a7a7a"
CLEAR = "#0072B2"  # of a difference whose interval leaves 0; one that holds it is grey
CSV_NUMBERS = "%.8g"  # as exact as anything that can be seen when the figure is drawn again
MOST_BANDS = 2  # of curves with intervals as bands; of more none could be followed
FEWEST = 6  # patients from which on an interval is drawn


def style() -> AbstractContextManager:
    """Return the context in which figures are made: fonts, sizes, lines, embedded TrueType fonts."""
    choices = chosen()
    size = choices.font_size
    return mpl.rc_context(
        {
            "font.family": [choices.font, "DejaVu Sans"],
            "font.size": size,
            "axes.labelsize": size,
            "axes.titlesize": size,
            "xtick.labelsize": size - 0.5,
            "ytick.labelsize": size - 0.5,
            "legend.fontsize": size - 0.7,
            "legend.title_fontsize": size - 0.7,
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
            "hatch.linewidth": 0.5,
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
    """Return a figure of the given printed size and its axes, laid out so that nothing is cut.

    One and two columns are as wide as the study says (`choices`), other widths and heights in proportion.
    """
    factor = chosen().column_mm / COLUMN_MM if width_mm <= COLUMN_MM else chosen().page_mm / PAGE_MM
    width_mm, height_mm = width_mm * factor, height_mm * factor
    return plt.subplots(
        rows, columns, figsize=(width_mm / 25.4, height_mm / 25.4), layout="constrained", **options
    )


def save(fig: Figure, folder: Path, name: str, plotted: pd.DataFrame) -> dict[str, Path]:
    """Write the figure as PDF and PNG, and what it shows as CSV, side by side.

    The file dates are left out of the PDF, so the same figure gives the same bytes.
    """
    if chosen().decimal == ",":
        _with_commas(fig)
    paths = {kind: Path(folder) / f"{name}.{kind}" for kind in ("pdf", "png", "csv")}
    for kind in ("pdf", "png"):
        buffer = BytesIO()
        metadata = {"CreationDate": None} if kind == "pdf" else None
        fig.savefig(buffer, format=kind, metadata=metadata)
        write_study_file(paths[kind], buffer.getvalue())
    write_study_file(paths["csv"], as_csv(plotted, CSV_NUMBERS))
    plt.close(fig)  # a notebook shows it where it is named, not once more when the cell ends
    return paths


def _with_commas(fig: Figure) -> None:
    """Write the numbers on the axes with a decimal comma."""
    fig.canvas.draw()
    for axis in (one for ax in fig.axes for one in (ax.xaxis, ax.yaxis)):
        texts = [tick.get_text() for tick in axis.get_ticklabels()]
        if any(re.fullmatch(r"[-\u2212]?\d+\.\d+", text) for text in texts):
            axis.set_major_locator(FixedLocator(axis.get_ticklocs()))
            axis.set_major_formatter(FixedFormatter([text.replace(".", ",") for text in texts]))


def colour_of(name: str, number: int = 0) -> str:
    """Return the colour of a model or data set: the study's, or the palette's by its place."""
    return chosen().colours.get(name, OTHER_COLOURS[number % len(OTHER_COLOURS)])


def size_of(marker: str, size: float = 0) -> float:
    """Return the size of a marker at which it looks as large as a circle of `size` (by default the usual)."""
    return (size or mpl.rcParams["lines.markersize"]) * SIZES.get(marker, 1.0)


def look_of(number: int) -> tuple[str, str, object]:
    """Return colour, marker and dash of the n-th of several lines; no two of the first seven look alike."""
    number %= len(OTHER_COLOURS)
    return OTHER_COLOURS[number], OTHER_MARKERS[number], OTHER_DASHES[number]


def band(ax: Axes, x: pd.Series, drawn: pd.DataFrame, colour: str, dash: object = "-") -> None:
    """Draw the intervals of a curve as a band, where at least `FEWEST` patients stand behind them.

    For two curves at most: of more bands none can be followed.

    Parameters
    ----------
    ax : Axes
    x : Series
        Where the rows of `drawn` stand.
    drawn : DataFrame
        `ci_low`, `ci_high` and `n_patients` (or `n_cases`), as `paired.summarise` gives them.
    colour : str
    dash : str or tuple
        Of the curve; its band has edges of the same.
    """
    counts = drawn["n_patients"] if "n_patients" in drawn else drawn["n_cases"]
    enough = (counts >= FEWEST).to_numpy(bool)
    low, high = (drawn[name].astype(float).where(enough) for name in ("ci_low", "ci_high"))
    ax.fill_between(x.astype(float), low, high, color=colour, alpha=0.12, lw=0)
    for edge in (low, high):
        ax.plot(x.astype(float), edge, ls=dash, color=colour, lw=0.4)


def bars_in_turn(
    ax: Axes, x: pd.Series, drawn: pd.DataFrame, colour: str, number: int, many: int
) -> list[int]:
    """Draw some intervals of the n-th of many curves upright, each curve's at places of its own.

    Parameters are those of `band`, and which curve of how many it is. Return the places, for its marks.
    """
    every = max(many, len(x) // 4, 1)
    places = list(range(number * every // max(many, 1), len(x), every))
    bars(ax, x.iloc[places].astype(float), drawn.iloc[places], colour)
    return places


def bars(ax: Axes, x: pd.Series, drawn: pd.DataFrame, colour: str) -> None:
    """Draw the intervals of a curve upright, where at least `FEWEST` patients stand behind them.

    Parameters are those of `band`.
    """
    counts = drawn["n_patients"] if "n_patients" in drawn else drawn["n_cases"]
    enough = (counts >= FEWEST) & drawn["ci_low"].notna()
    ax.vlines(x[enough], drawn["ci_low"][enough], drawn["ci_high"][enough], color=colour, lw=0.7)


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


def point(ax: Axes, row: pd.Series, y: float, colour: str, marker: str = "o", filled: bool = True) -> None:
    """Draw a mean and its interval, horizontally."""
    count = row.get("n_patients", row.get("n_cases", FEWEST))
    if row["ci_low"] == row["ci_low"] and count >= FEWEST:  # NaN for too few cases
        ax.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, lw=0.9, solid_capstyle="butt")
    look = {"color": colour, "mfc": colour if filled else "white", "mew": 0.8, "ms": size_of(marker)}
    ax.plot(row["mean"], y, marker, **look)


def difference(ax: Axes, row: pd.Series, y: float, colour: str = "", marker: str = "o") -> None:
    """Draw a paired difference with its corrected interval, horizontally; filled where that leaves 0.

    Parameters
    ----------
    ax : Axes
    row : Series
        Of `paired.compare`.
    y : float
    colour : str
        If empty, it too says whether the interval leaves 0.
    marker : str
    """
    low, high = row["holm_low"], row["holm_high"]
    clear = low > 0 or high < 0
    colour = colour or (CLEAR if clear else GREY)
    if np.isfinite([low, high]).all():
        ax.plot([low, high], [y, y], color=colour, lw=0.9)
    ax.plot(row["difference"], y, marker, color=colour, mfc=colour if clear else "white", mew=0.8)


def difference_rows(ax: Axes, names: Sequence[str], what: str) -> None:
    """Name the rows of drawn differences, from top to bottom, and the axis that they lie on."""
    ax.axvline(0, color=GREY, lw=0.6)
    ax.set_yticks(range(len(names)), list(names))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_xlabel(f"{what},\ncorrected interval (filled: leaves 0)")


def iou_axis(ax: Axes, name: str = "IoU", which: str = "x", low: float = 0.0) -> None:
    """Give the axis of IoUs its range (from `low`, of curves that stay above it), ticks, grid and label."""
    getattr(ax, f"set_{which}lim")(low, 1.015)  # a mark at 1 is seen whole
    getattr(ax, f"set_{which}ticks")(np.arange(low, 1.01, 0.2 if low < 0.4 else 0.1))
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
    look = {"color": colour, "mfc": colour if filled else "white", "mew": 0.8, "ms": size_of(marker)}
    return Line2D([], [], ls="", marker=marker, label=text, **look)


def prompt_mark(name: str, text: str = "", filled: bool = True) -> Line2D:
    """Return the legend entry of a prompt, in its colour and shape."""
    return mark(PROMPT_COLOURS[name], text or label(name), PROMPT_MARKERS[name], filled)
