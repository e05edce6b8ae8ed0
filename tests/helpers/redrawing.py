"""Whether a figure can be drawn again from its CSV: what is drawn, number by number, and what is lacking."""

import re
from collections.abc import Iterable, Iterator
from io import BytesIO

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.lines import AxLine
from matplotlib.ticker import FixedLocator, FuncFormatter

from medsam_nb.figures import style, words
from medsam_nb.figures.words import label

Mark = tuple[float, ...]  # numbers that belong together: a point, the ends of an interval


def as_read_back(plotted: pd.DataFrame) -> pd.DataFrame:
    """Return what a figure says it drew as it is written beside the figure and read from there."""
    if plotted.empty:
        return plotted
    return pd.read_csv(BytesIO(words.as_csv(plotted, style.CSV_NUMBERS)), low_memory=False)


def is_of_categories(axis: Axis) -> bool:
    """Whether places on an axis stand for names: it has ticks with texts of their own, or none."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return False
    return len(axis.get_majorticklocs()) == 0 or isinstance(axis.get_major_formatter(), FuncFormatter)


def drawn_numbers(ax: Axes) -> set[Mark]:
    """Return every number on axes that carries data, those together that one row must hold.

    Points, vertices of lines and of bands, ends of intervals and of shaded spans, cells of a heat map. Left
    out are lines across the whole axes (`axhline`, `axvline`, `axline`), and places that stand for names.
    """
    kept = [not is_of_categories(axis) for axis in (ax.xaxis, ax.yaxis)]
    found: set[Mark] = set()
    for artist, vertices in _outlines(ax):
        of_data = artist.get_transform().contains_branch_seperately(ax.transData)
        axes = [both for both in range(2) if kept[both] and of_data[both]]
        vertices = np.asarray(np.ma.filled(vertices, np.nan), float).reshape(-1, 2)
        vertices = vertices[np.isfinite(vertices).all(axis=1)]
        bar = [both for both in range(2) if not kept[both] and len(set(vertices[:, both])) == 1]
        if len(vertices) == 2 and bar:  # an interval: both ends stand in one row
            found.add(tuple(vertices[:, axes].ravel()))
        else:
            found |= {tuple(vertex[axes]) for vertex in vertices}
    for image in ax.images:
        found |= {(float(cell),) for cell in np.ma.compressed(np.ma.masked_invalid(image.get_array()))}
    return found - {()}


def _outlines(ax: Axes) -> Iterator[tuple[object, np.ndarray]]:
    """Yield what is drawn on axes in coordinates of data, with its vertices."""
    for line in ax.lines:
        if not isinstance(line, AxLine) and all(
            line.get_transform().contains_branch_seperately(ax.transData)
        ):
            yield line, line.get_xydata()
    for collection in ax.collections:
        if isinstance(collection, PathCollection):
            yield collection, collection.get_offsets()
        elif isinstance(collection, LineCollection):
            yield from ((collection, segment) for segment in collection.get_segments())
        else:
            yield from ((collection, path.vertices) for path in collection.get_paths())
    for patch in ax.patches:
        yield patch, patch.get_patch_transform().transform_path(patch.get_path()).vertices


def written_numbers(ax: Axes) -> set[str]:
    """Return the numbers that are written on axes: in cells of a heat map, below curves."""
    return {text.get_text() for text in ax.texts if re.fullmatch(r"-?\d+(\.\d+)?", text.get_text())}


def lacking(axes: Iterable[Axes], table: pd.DataFrame, constants: Iterable[float] = ()) -> list[object]:
    """Return what of a figure is not in a table: marks, written numbers, and names that stand at ticks.

    Parameters
    ----------
    axes : iterable of Axes
    table : DataFrame
        As it was read back from the CSV. A number is found where it differs by 1e-6 of itself at most.
    constants : iterable of float
        Numbers that are no data: of a margin, of an axis' end.

    Returns
    -------
    list
        Empty if the figure can be drawn from the table.
    """
    numbers = table.select_dtypes("number").to_numpy(float)
    fixed, missing = list(constants), []
    for ax in axes:
        for mark in sorted(drawn_numbers(ax)):
            data = [one for one in mark if not np.isclose(one, fixed, rtol=1e-9, atol=1e-12).any()]
            rows = [np.isclose(numbers, one, rtol=1e-6, atol=1e-12).any(axis=1) for one in data]
            if data and not np.logical_and.reduce(rows).any():
                missing.append(mark)
        for text in written_numbers(ax):
            if not np.isclose(
                numbers, float(text), rtol=0, atol=0.5001 * 10.0 ** -len(text.partition(".")[2])
            ).any():
                missing.append(text)
        for axis in (ax.xaxis, ax.yaxis):
            missing += _unnamed(axis, table) if is_of_categories(axis) else []
    return missing


def _unnamed(axis: Axis, table: pd.DataFrame) -> list[str]:
    """Return the tick labels that names and numbers of a table do not give, or do not tell apart."""
    texts = {" ".join(text.get_text().split()) for text in axis.get_ticklabels()} - {""}
    cells = {str(cell) for column in table.select_dtypes(exclude="number") for cell in table[column].dropna()}
    forms = {form for cell in cells for form in (cell, cell.removesuffix("_mask"), cell.split(", ")[0])}
    spelt = {label(form).replace("/", ", ") for form in forms}
    numbers = {f"{value:g}" for value in np.unique(table.select_dtypes("number"))}
    found = {}
    for text in texts:
        names = [one for one in cells | spelt if re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text)]
        known = [one for one in re.findall(r"\d+(?:\.\d+)?", text) if one in numbers]
        found[text] = frozenset(names + known)
    sets = list(found.values())
    return [text for text, names in found.items() if not names or sets.count(names) > 1]
