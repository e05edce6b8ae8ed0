"""A picture of every prepared case: middle slices with the outlines of all objects, and the grey levels."""

import shutil
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medsam_nb.figures.slices import outline
from medsam_nb.files import remove_made
from medsam_nb.protocol.intensity import limits
from medsam_nb.protocol.volume import Case

MOSAICS_SHOWN = 20  # of a data set in a report; all of them lie with the prepared cases
OUTLINES = (  # bright on grey; beyond ten objects the line style changes
    "#56b4e9", "#ffa726", "#f0e442", "#2ecc71", "#ff79c6", "#ff5252", "#b388ff", "#00e5ff", "#d7a06a",
    "#b2ff59",
)  # fmt: skip
LINE_STYLES = ("solid", "dashed", "dotted", "dashdot")
NAMES_PER_COLUMN = 16  # of a mosaic's legend


def mosaic(case: Case, slices: int = 3) -> Figure:
    """Draw a case for inspection: slices through its objects with outlines, and its histogram.

    Parameters
    ----------
    case : Case
    slices : int
        Evenly spaced between the first and last slice that hold an object; fewer where there are
        fewer.

    Returns
    -------
    Figure
        The last panel is the histogram of all voxels on a logarithmic axis; dashed lines are the
        values that become black and white.
    """
    held = np.flatnonzero((case.labels > 0).any(axis=(1, 2)))
    chosen = np.unique(
        held[np.linspace(0, len(held) - 1, min(slices, len(held)) + 2).round().astype(int)[1:-1]]
    )
    depth, height, width = case.labels.shape
    grey = case.slices_uint8()
    _, y, x = case.image.spacing_mm
    legend_columns = -(-len(case.objects) // NAMES_PER_COLUMN)
    # Places in inches, set by hand: a layout engine would take longer than all the drawing.
    side, gap = 2.3, 0.08
    total = len(chosen) * (side + gap) + 0.4 + 2.1 + 0.1 + 1.75 * legend_columns
    figure = Figure(figsize=(total, side + 0.62))
    FigureCanvasAgg(figure)

    def axes_at(left: float, wide: float):
        return figure.add_axes((left / total, 0.3 / (side + 0.62), wide / total, side / (side + 0.62)))

    for place, index in enumerate(chosen):
        ax = axes_at(gap + place * (side + gap), side)
        ax.imshow(grey[index], cmap="gray", vmin=0, vmax=255, aspect=y / x)
        for number, name in enumerate(case.objects):
            colour, style = _look(number)
            mask = np.isin(case.labels[index], case.objects[name])  # a whole one would be kept by the figure
            outline(ax, mask, colour, style, 1.0)
        ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        ax.set_title(f"slice {index} (of 0 to {depth - 1})" if depth > 1 else "", fontsize=7, pad=3)
        ax.set_axis_off()
    low, high = limits(case.image.array, case.intensity)
    counts, edges = np.histogram(case.image.array, bins=128)
    ax = axes_at(len(chosen) * (side + gap) + 0.4, 2.1)
    ax.stairs(counts, edges, fill=True, color="0.55")
    ax.set_yscale("log", nonpositive="clip")
    for value in (low, high):
        ax.axvline(value, color="#c62828", linestyle="--", linewidth=0.9)
    ax.set_title(f"voxels; black at {low:.6g}, white at {high:.6g}", fontsize=7, pad=3)
    ax.tick_params(labelsize=6)
    handles = [
        Line2D([], [], color=colour, linestyle=style, label=name.replace("_", " "))
        for name, (colour, style) in zip(case.objects, map(_look, range(len(case.objects))), strict=True)
    ]
    place = ((total - 1.75 * legend_columns) / total, 0.93)
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=place,
        ncols=legend_columns,
        fontsize=6.5,
        frameon=False,
    )
    figure.text(gap / total, 0.985, f"{case.data_set} / {case.case_id}", fontsize=8, va="top", weight="bold")
    return figure


def _look(number: int) -> tuple[str, str]:
    """Return colour and line style of a case's n-th object."""
    return OUTLINES[number % len(OUTLINES)], LINE_STYLES[number // len(OUTLINES) % len(LINE_STYLES)]


def mosaic_png(case: Case) -> bytes:
    """Return a case's mosaic as a PNG file."""
    buffer = BytesIO()
    mosaic(case).savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def copy_mosaics(
    cases: pd.DataFrame, prepared_root: Path, run_dir: Path, most: int = MOSAICS_SHOWN
) -> dict[str, list[tuple[str, str]]]:
    """Copy mosaics of prepared cases into a run's folder, for its report.

    Parameters
    ----------
    cases : DataFrame
        The case table.
    prepared_root, run_dir : Path
    most : int
        Of a data set; those with warnings come first.

    Returns
    -------
    dict of str to list of (str, str)
        By heading: picture below the run's folder, and caption (the case's warnings).
    """
    target = Path(run_dir) / "figures" / "mosaics"
    for old in target.iterdir() if target.is_dir() and not target.is_symlink() else ():
        with suppress(ValueError, OSError):  # a folder of somebody else's stays
            remove_made(old, target, ["*.png"])
    found = {}
    for name, group in cases[cases.status == "ok"].groupby("data_set", sort=False):
        shown = group.assign(quiet=group.warnings == "").sort_values("quiet", kind="stable").head(most)
        (target / name).mkdir(parents=True, exist_ok=True)
        pictures = []
        for line in shown.sort_index().itertuples():
            shutil.copyfile(
                Path(prepared_root) / name / line.case_id / "mosaic.png",
                target / name / f"{line.case_id}.png",
            )
            pictures.append((f"figures/mosaics/{name}/{line.case_id}.png", line.warnings))
        counted = f"{len(group)} case{'s' * (len(group) != 1)}"
        if len(shown) < len(group):
            counted += f", {len(shown)} shown; all are {Path(prepared_root).name}/{name}/*/mosaic.png"
        found[f"{name} ({counted})"] = pictures
    return found
