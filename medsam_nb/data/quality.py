"""Quality control of prepared cases: what is unusual or missing, and a picture of every case."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import ndimage

from medsam_nb.protocol.intensity import limits
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.volume import Case

TINY_PIXELS = 25  # a 5 x 5 object on its largest slice: a point prompt is nearly the whole of it
MANY_COMPONENTS = 10
CLIPPED_FRACTION = 0.2  # of the voxels inside objects
ANISOTROPY = 3.0
MOSAICS_SHOWN = 20  # of a data set in a report; all of them lie with the prepared cases
OUTLINES = (  # bright on grey; beyond ten objects the line style changes
    "#56b4e9", "#ffa726", "#f0e442", "#2ecc71", "#ff79c6", "#ff5252", "#b388ff", "#00e5ff", "#d7a06a",
    "#b2ff59",
)  # fmt: skip
LINE_STYLES = ("solid", "dashed", "dotted", "dashdot")
NAMES_PER_COLUMN = 16  # of a mosaic's legend
CONNECTED = np.ones((3, 3, 3), bool)  # across corners, as the study's 8-connected components in 2D


@dataclass(frozen=True)
class ObjectFacts:
    """What a mask looks like.

    Attributes
    ----------
    name : str
    voxels : int
    components : int
        Connected across faces, edges and corners.
    first_slice, last_slice : int
        That hold the object.
    largest_area : int
        Pixels on the slice that holds most of it.
    """

    name: str
    voxels: int
    components: int
    first_slice: int
    last_slice: int
    largest_area: int


def object_facts(name: str, mask: np.ndarray) -> ObjectFacts:
    """Return the facts of one mask, bool, shape (z, y, x), not empty."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    areas = np.count_nonzero(mask[box], axis=(1, 2))
    components = ndimage.label(mask[box], CONNECTED)[1]
    return ObjectFacts(
        name, int(areas.sum()), int(components), box[0].start, box[0].stop - 1, int(areas.max())
    )


def case_warnings(case: Case, facts: list[ObjectFacts]) -> list[str]:
    """Return what a researcher should look at before trusting a case's results."""
    warnings = []
    for fact in facts:
        if fact.largest_area < TINY_PIXELS:
            warnings.append(f"{fact.name} is tiny: at most {fact.largest_area} pixels on a slice")
        if fact.components > MANY_COMPONENTS:
            warnings.append(f"{fact.name} has {fact.components} components")
        if case.labels.shape[0] > 1 and fact.first_slice == fact.last_slice:
            warnings.append(f"{fact.name} is on one slice only")
    z, y, x = case.image.spacing_mm
    if case.labels.shape[0] > 1 and z / min(y, x) >= ANISOTROPY:
        warnings.append(f"anisotropic: slices are {z:.3g} mm apart, pixels {min(y, x):.3g} mm")
    if abs(y - x) > 0.01 * max(y, x):
        warnings.append(f"pixels are not square: {y:.3g} x {x:.3g} mm")
    low, high = limits(case.image.array, case.intensity)
    inside = case.image.array[case.labels > 0]
    for what, clipped in (("black", inside <= low), ("white", inside >= high)):
        if clipped.mean() >= CLIPPED_FRACTION and inside.min() < inside.max():
            warnings.append(f"{100 * clipped.mean():.0f} % of the labelled voxels are {what} after windowing")
    return warnings


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
            _outline(ax, case.mask(name)[index], number)
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


def _outline(ax, mask: np.ndarray, number: int) -> None:
    if mask.any():
        padded = np.pad(mask.astype(float), 1)  # an object at the border gets a closed outline
        y, x = (np.arange(-1, size + 1) for size in mask.shape)
        colour, style = _look(number)
        ax.contour(x, y, padded, levels=[0.5], colors=colour, linestyles=style, linewidths=1.0)


def mosaic_png(case: Case) -> bytes:
    """Return a case's mosaic as a PNG file."""
    buffer = BytesIO()
    mosaic(case).savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def gallery(
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
    shutil.rmtree(target, ignore_errors=True)
    found = {}
    for name, group in cases[cases.status == "ok"].groupby("data_set", sort=False):
        shown = group.assign(quiet=group.warnings == "").sort_values("quiet", kind="stable").head(most)
        (target / name).mkdir(parents=True)
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


def against_expected(rows: Iterable[DataSet], cases: pd.DataFrame) -> pd.DataFrame:
    """Return what was found beside what a complete download holds, a line per data set.

    Returns
    -------
    DataFrame
        `found` counts every case, usable or not; `difference` is `found` less `expected`, empty where
        the manifest states no number; `slices` are those that hold an object, `study_slices` those
        the study counts.
    """
    lines = []
    for row in rows:
        of_row = cases[(cases.data_set == row.name) & (cases.case_id != "")]
        states = of_row.status.value_counts()
        expected = row.expected.cases
        lines.append(
            {
                "data_set": row.name,
                "expected": expected,
                "found": len(of_row),
                "difference": None if expected is None else len(of_row) - expected,
                "usable": int(states.get("ok", 0)),
                "without_object": int(states.get("no_object", 0)),
                "failed": int(states.get("failed", 0)),
                "slices": int(of_row.labelled_slices.sum()),
                "study_slices": row.expected.study_masks,
                "unverified": "; ".join(row.unverified) or None,
            }
        )
    table = pd.DataFrame(lines)
    whole = ["expected", "difference", "study_slices"]
    return table.astype(dict.fromkeys(whole, "Int64"))
