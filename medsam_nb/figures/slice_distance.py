"""3D: what is lost where slices lie farther apart or are less alike, and what repairs give back.

In the visual language of `style`: functions draw on axes they are given and return what they drew.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from medsam_nb.figures.slices import Panel
from medsam_nb.figures.style import GREY, colour_of, difference, difference_rows, legend, nothing
from medsam_nb.figures.words import label
from medsam_nb.protocol.metrics import adjacent_iou
from medsam_nb.protocol.table import UNCHANGED
from medsam_nb.protocol.volume import Case
from medsam_nb.protocol.volume_changes import ShownVolume
from medsam_nb.statistics.slice_distance import DoseResponse

AXIS_NAMES = {
    "step_mm": "mm between neighbouring slices",
    "likeness": "IoU of the truth on neighbouring slices",
}
SURROUNDINGS = 0.35  # of the object's size, shown around it
MARKERS = ("o", "s", "D", "^", "v")


def differences_by_row(
    result: pd.DataFrame,
    ax: Axes,
    order: Sequence[str],
    name: str,
    notes: Sequence[str] = (),
    reference: float = float("nan"),
) -> pd.DataFrame:
    """Draw mean paired differences with corrected intervals, a row each, from top to bottom.

    Parameters
    ----------
    result : DataFrame
        Of `paired.compare`.
    order : sequence of str
        Names of comparisons; those without pairs are left out.
    name : str
        Of the horizontal axis.
    notes : sequence of str
        Written at the right of each row of `order`; none if empty.
    reference : float
        Where a dotted line stands, if anywhere.

    Returns
    -------
    DataFrame
        The rows of `result` that are drawn, with `note` and `reference` if they are.
    """
    known = result[result["n"] > 0].set_index("comparison")
    said = dict(zip(order, notes, strict=True)) if notes else {}
    shown = known.loc[[name for name in order if name in known.index]]
    if shown.empty:
        return nothing(ax, "nothing to compare")
    for place, (comparison, row) in enumerate(shown.iterrows()):
        difference(ax, row, place)
        right = {"transform": ax.get_yaxis_transform(), "ha": "left", "va": "center", "fontsize": 6.3}
        ax.text(1.02, place, said.get(comparison, ""), **right)
    if np.isfinite(reference):
        ax.axvline(reference, color=GREY, lw=0.9, ls=":")
    difference_rows(ax, shown.index, name)
    drawn = shown.reset_index()
    drawn = drawn.assign(note=drawn["comparison"].map(said)) if said else drawn
    return drawn.assign(reference=reference) if np.isfinite(reference) else drawn


def dose_lines(points: pd.DataFrame, ax: Axes, response: DoseResponse) -> pd.DataFrame:
    """Draw the change of the IoU against the dose: a line per patient, from its unchanged volume at 0.

    Parameters
    ----------
    points : DataFrame
        Of `slice_distance.dose_points`, of changes of one kind.
    response : DoseResponse
        Of the same points; says on which axis.

    Returns
    -------
    DataFrame
        What is drawn: `data_set`, `patient_id`, `volume_change` ("none" where a line starts), the axis and
        `difference`.
    """
    axis = response.axis
    points = points.dropna(subset=[axis, "difference"])
    if points.empty:
        return nothing(ax, "no changed volume beside the unchanged one")
    handles, drawn = [], []
    for number, (name, rows) in enumerate(points.groupby("data_set", sort=True)):
        look = {"color": colour_of(name, number), "marker": MARKERS[number % len(MARKERS)]}
        handles.append(Line2D([], [], **look, lw=0.8, ms=3, label=label(name)))
        for _, line in rows.groupby("patient_id"):
            start = line.iloc[:1].assign(volume_change=UNCHANGED, difference=0.0)
            start[axis] = line[f"{axis}_before"].mean()
            line = pd.concat([start, line.sort_values("step_mm")])
            ax.plot(line[axis], line["difference"], lw=0.7, ms=3, alpha=0.85, **look)
            ax.plot(start[axis], [0], "o", color="white", mec=look["color"], ms=3, mew=0.7, zorder=3)
            drawn.append(line)
    ax.axhline(0, color=GREY, lw=0.6)
    if axis == "likeness":  # farther to the right is a larger dose on both axes
        ax.set_xlim(1, max(0, min(points[axis].min(), points[f"{axis}_before"].min()) - 0.05))
    else:
        ax.set_xlim(left=0)
    ax.grid(axis="y")
    ax.set_xlabel(AXIS_NAMES[axis])
    ax.set_ylabel("change of the mean IoU,\nsame slices")
    legend(ax, handles, columns=4)
    columns = ["data_set", "patient_id", "volume_change", axis, "difference"]
    return pd.concat(drawn, ignore_index=True)[columns]


SEEN_SLICES = 7  # of an object, for its changes to be seen side by side


def most_varying(cases: Sequence[Case], objects: Sequence[str] = ()) -> tuple[Case, str]:
    """Return the case and the name of its object whose truth differs most from slice to slice.

    Parameters
    ----------
    cases : sequence of Case
    objects : sequence of str
        Names to choose from; all if empty. Those on fewer than `SEEN_SLICES` slices come last.
    """
    named = [(case, name) for case in cases for name in case.objects if not objects or name in objects]

    def place(one: tuple[Case, str]) -> tuple[bool, float]:
        mask = one[0].mask(one[1])
        return mask.any(axis=(1, 2)).sum() < SEEN_SLICES, float(np.nanmean(adjacent_iou(mask)))

    return min(named, key=place)


def shown_panels(
    rows: Mapping[str, ShownVolume], first: int, count: int, spacing_mm: tuple
) -> list[Panel | None]:
    """Return panels that show what a model is shown, a row per name and a column per slice of the case.

    Parameters
    ----------
    rows : mapping of str to ShownVolume
        Of one object of a case; the first is the case itself. Pictures between two slices stand at their
        place between them, if that is a slice of the case.
    first, count : int
        Slices of the case that are the columns.
    spacing_mm : (y, x)

    Returns
    -------
    list of Panel or None
        For `grids.grid` with `count` columns, cut to the object and its surroundings. None where nothing
        is shown.
    """
    whole = next(iter(rows.values()))
    y, x = np.nonzero(whole.truth[first : first + count].any(axis=0))
    rim = SURROUNDINGS * max(np.ptp(y), np.ptp(x))
    cut = tuple(slice(int(max(a.min() - rim, 0)), int(a.max() + rim) + 1) for a in (y, x))
    panels = []
    for number, (name, shown) in enumerate(rows.items()):
        scored = [place for place, index in enumerate(shown.stands_for) if index is not None]
        known = [shown.stands_for[place] for place in scored]
        at = np.interp(np.arange(len(shown.slices)), scored, known)
        for z in range(first, first + count):
            here = np.flatnonzero(np.isclose(at, z))
            title = f"slice {z}" if number == 0 else ""
            panels.append(
                Panel(
                    shown.slices[here[-1]][cut],
                    shown.truth[here].any(axis=0)[cut],
                    title=title,
                    spacing_mm=spacing_mm,
                    row=name,
                )
                if len(here)
                else None
            )
    return panels
