"""Image panels: slices with the outlines of truth and prediction, the prompt, and the IoU."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from medsam_nb.figures.words import label
from medsam_nb.protocol.prompts import Prompt

# Told apart in grey too: the truth is a wide light line, the prediction a thin one with dark dashes, which is
# seen on the truth as well as on black and on white; a prompt is a cross, a rectangle, or hatched.
TRUTH, PREDICTION, PROMPT = "#8FD3FF", "#FF9A00", "#F0E442"
DASHES = (0, (2.0, 2.0))  # of the prediction
NEGATIVE = "#F2A0D0"  # points outside the object
MISSED, EXCESS = "#E8703A", "#FFE3F3"  # of the truth, and beyond it: both lighter than the dimmed image
DIMMED = 0.4  # of an image's brightness, below errors
PAGE_HEIGHT_MM = 235  # of A4 with a caption
# A dark rim keeps thin lines visible on light and on dark tissue.
RIM = [withStroke(linewidth=1.8, foreground="black", alpha=0.8)]
HATCH = "////"  # of a mask that is a prompt
SIZE = 6.5  # points, of what is written


@dataclass(frozen=True, eq=False)
class Panel:
    """One slice to show.

    Attributes
    ----------
    image : ndarray, shape (y, x) or (y, x, 3)
        Of 8 bits it is shown as the models see it: 0 is black and 255 white, whatever it holds.
    truth, prediction : ndarray of bool, shape (y, x), or None
    prompt : Prompt, None, or a sequence of Prompt
        Drawn as crosses (points; turned where negative), rectangles (boxes) or hatched (masks).
    iou : float or None
        Printed in the panel, with `decimals`.
    title : str
    group : str
        Written once above this panel's title and those of the panels right of it with the same group.
    spacing_mm : (y, x)
        Size of a pixel; sets the aspect ratio.
    errors : bool
        Fill what the prediction misses of the truth, and what it has beyond it, instead of its outline.
    crop : bool
        Show the object, the prediction and the prompt with room around them, not the whole image.
    view : (left, right, top, bottom) or None
        What is shown, in pixels, in place of what `crop` finds; see `with_one_view`.
    bar : bool
        Draw a scale bar in mm.
    row : str
        Written beside the panel unless the panel to its left is of the same.
    source : str
        Which case and slice it is; stands in the table of what is shown, not in the figure.
    """

    image: np.ndarray
    truth: np.ndarray | None = None
    prediction: np.ndarray | None = None
    prompt: Prompt | Sequence[Prompt] | None = None
    iou: float | None = None
    title: str = ""
    spacing_mm: tuple[float, float] = (1.0, 1.0)
    errors: bool = False
    crop: bool = False
    bar: bool = False
    row: str = ""
    source: str = ""
    group: str = ""
    view: tuple[float, float, float, float] | None = None
    decimals: int = 2


def outline(
    ax: Axes,
    mask: np.ndarray | None,
    colour: str,
    style: object = "solid",
    width: float = 0.8,
    rim: float = 0,
) -> None:
    """Draw the border of a mask, bool (y, x), with a dark rim if asked for; of an empty one nothing."""
    if mask is not None and np.any(mask):
        rows, columns = (np.flatnonzero(np.any(mask, axis)) for axis in (1, 0))
        part = np.asarray(mask, float)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        padded = np.pad(part, 1)  # objects at the border get a closed outline
        # The figure keeps these: of the object, not of the whole slice.
        y, x = (np.arange(held[0] - 1, held[-1] + 2) for held in (rows, columns))
        drawn = ax.contour(x, y, padded, levels=[0.5], colors=colour, linewidths=width, linestyles=[style])
        if rim:
            drawn.set_path_effects([withStroke(linewidth=width + 2 * rim, foreground="black", alpha=0.7)])


def _prompt(ax: Axes, prompt: Prompt, scale: float) -> None:
    for (x, y), positive in zip(prompt.points, prompt.point_labels, strict=True):
        marker, colour = ("P", PROMPT) if positive else ("X", NEGATIVE)
        ax.plot(x, y, marker, color=colour, mec="black", mew=0.5 * scale, ms=5 * scale)
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        # the box is inclusive: its drawn edge runs around the last row and column
        box = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False, ec=PROMPT)
        box.set_linewidth(0.9 * scale)
        box.set_path_effects(RIM)
        ax.add_patch(box)
    if prompt.mask is not None and np.any(prompt.mask):  # not its outline: that would hide the truth's
        hatched = ax.contourf(
            np.asarray(prompt.mask, float), levels=[0.5, 1.5], colors="none", hatches=[HATCH]
        )
        hatched.set(edgecolor=PROMPT, linewidth=0)


def _fill(ax: Axes, mask: np.ndarray, colour: str, aspect: float) -> None:
    """Cover the pixels of a mask, bool (y, x), with a colour; its edge makes single pixels visible."""
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = to_rgba(colour)
    ax.imshow(layer, aspect=aspect, interpolation="nearest")
    outline(ax, mask, colour, width=0.6)


def field(panel: Panel, room: float = 0.6, least: float = 0.4) -> tuple[float, float, float, float]:
    """Return what of a panel is shown, in pixels: left, right, top, bottom.

    A cropped panel has the proportions of its image, so that panels beside each other have one size.

    Parameters
    ----------
    panel : Panel
    room : float
        Around the object, as a share of its size, both sides together.
    least : float
        Of the image that is shown at least, as a share of its sides.
    """
    height, width = panel.image.shape[:2]
    if panel.view is not None:
        return panel.view
    corners = _corners(panel)
    if not panel.crop or not len(corners):
        return -0.5, width - 0.5, -0.5, height - 0.5
    low, high = corners.min(0), corners.max(0)
    share = max(*((high - low + 1) * (1 + room) / (height, width)), least)
    share = min(share, 1.0)
    half = np.array([height, width]) * share / 2
    middle = np.clip((low + high) / 2, half - 0.5, np.array([height, width]) - 0.5 - half)
    (top, left), (bottom, right) = middle - half, middle + half
    return float(left), float(right), float(top), float(bottom)


def _corners(panel: Panel) -> np.ndarray:
    """Return (y, x) of all that a panel shows beside the image: truth, prediction, prompts."""
    shapes = [np.argwhere(mask) for mask in (panel.truth, panel.prediction) if mask is not None]
    prompts = _prompts(panel)
    shapes += [np.array(prompt.points, float).reshape(-1, 2)[:, ::-1] for prompt in prompts]
    shapes += [np.array(p.box, float).reshape(2, 2)[:, ::-1] for p in prompts if p.box is not None]
    return np.concatenate([*shapes, np.empty((0, 2))])


def _prompts(panel: Panel) -> Sequence[Prompt]:
    return [panel.prompt] if isinstance(panel.prompt, Prompt) else (panel.prompt or [])


def with_one_view(panels: Sequence[Panel]) -> list[Panel]:
    """Return pictures of one case, cropped alike to what any of them shows."""
    masks = [mask for panel in panels for mask in (panel.truth, panel.prediction) if mask is not None]
    prompts = [prompt for panel in panels for prompt in _prompts(panel)]
    whole = replace(panels[0], crop=True, prediction=np.any(masks, axis=0), prompt=prompts)
    return [replace(panel, view=field(whole)) for panel in panels]


def scale_bar(ax: Axes, panel: Panel, scale: float = 1.0) -> None:
    """Draw a bar of a round number of mm, about a quarter of what is shown, into the lower right corner."""
    left, right, _, bottom = field(panel)
    mm = panel.spacing_mm[1]
    wanted = (right - left) * mm / 4
    length = max((n for n in (1, 2, 5, 10, 20, 50, 100, 200) if n <= max(wanted, 1)), default=1)
    end = right - (right - left) * 0.05
    y = bottom - (right - left) * 0.05
    ax.plot([end - length / mm, end], [y, y], color="white", lw=1.6 * scale, path_effects=RIM)
    text = ax.text(end, y - (right - left) * 0.02, f"{length} mm", color="white", fontsize=6)
    text.set(ha="right", va="bottom", path_effects=[withStroke(linewidth=1.5, foreground="black")])


def pages(panels: Sequence[Panel | None], columns: int, width_mm: float) -> list[list[Panel | None]]:
    """Return panels in groups of whole rows that fit a page of `PAGE_HEIGHT_MM`."""
    columns = min(columns, max(len(panels), 1))
    most = max(1, int((PAGE_HEIGHT_MM - 8) // _row_mm(panels, columns, width_mm))) * columns
    return [list(panels[at : at + most]) for at in range(0, len(panels), most)] or [[]]


def _row_mm(panels: Sequence[Panel | None], columns: int, width_mm: float) -> float:
    """Return how high a row of panels is with its titles."""
    shown, side = [panel for panel in panels if panel is not None], width_mm / columns
    ratios = [p.image.shape[0] * p.spacing_mm[0] / (p.image.shape[1] * p.spacing_mm[1]) for p in shown]
    lines = [_wrapped(p.title, max(8, int(side / 1.28))).count("\n") + 1 for p in shown if p.title]
    lines = [max(lines, default=0) + max((p.group.count("\n") + 1 for p in shown if p.group), default=0)]
    return side * float(np.clip(np.median(ratios or [0.5]), 0.4, 1.6)) + 3.0 * max(lines, default=0) + 1


def draw(ax: Axes, panel: Panel, scale: float = 1.0) -> None:
    """Draw one panel on the axes; `scale` makes lines and marks larger, for a screen."""
    aspect = panel.spacing_mm[0] / panel.spacing_mm[1]
    levels = {"vmin": 0, "vmax": 255} if panel.image.dtype == np.uint8 else {}
    image = (panel.image * DIMMED).astype(panel.image.dtype) if panel.errors else panel.image
    ax.imshow(image, cmap="gray", aspect=aspect, interpolation="nearest", **levels)
    # Wider than the prediction: seen also where both agree. Errors are not covered by it.
    outline(
        ax, panel.truth, TRUTH, width=(0.5 if panel.errors else 1.7) * scale, rim=0 if panel.errors else 0.4
    )
    if panel.errors:
        _fill(ax, panel.truth & ~panel.prediction, MISSED, aspect)
        _fill(ax, panel.prediction & ~panel.truth, EXCESS, aspect)
    else:
        outline(ax, panel.prediction, PREDICTION, width=0.8 * scale)
        outline(ax, panel.prediction, "black", DASHES, 0.8 * scale)
    for prompt in _prompts(panel):
        _prompt(ax, prompt, scale)
    if panel.iou is not None:
        text = f"IoU {panel.iou:.{panel.decimals}f}" if panel.iou == panel.iou else "no IoU"
        written = ax.text(0.03, 0.03, text, transform=ax.transAxes, color="white", fontsize=SIZE)
        written.set_path_effects([withStroke(linewidth=1.5, foreground="black")])
    left, right, top, bottom = field(panel)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    if panel.bar:
        scale_bar(ax, panel, scale)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _wrapped(text: str, characters: int) -> str:
    """Break a title where it may break (spaces, underscores, slashes), never wider than its panel."""
    if "\n" in text:
        return "\n".join(_wrapped(part, characters) for part in text.split("\n"))
    lines, line = [], ""
    for part in label(text).replace("/", "/ ").split(" "):
        while len(part) > characters:
            lines, line, part = [*lines, *([line] if line else []), part[:characters]], "", part[characters:]
        if line and len(line) + len(part) + 1 > characters:
            lines, line = [*lines, line], part
        else:
            line = f"{line} {part}".strip()
    return "\n".join([*lines, line]) if line else "\n".join(lines)


def grid(panels: Sequence[Panel], columns: int = 4, width_mm: float = 180) -> tuple[Figure, pd.DataFrame]:
    """Return a figure of all panels, and a table of what it shows.

    Parameters
    ----------
    panels : sequence of Panel
        Row by row. None leaves a place empty.
    columns : int
    width_mm : float
        Of the printed figure; its height follows from the images.

    Returns
    -------
    figure : Figure
    plotted : DataFrame
        Columns `row`, `column`, `title`, `iou`, `source`.
    """
    shown = [panel for panel in panels if panel is not None]
    columns = min(columns, max(len(panels), 1))
    rows = max(1, -(-len(panels) // columns))
    side = width_mm / columns
    height = rows * _row_mm(panels, columns, width_mm) + 8
    fig, axes = plt.subplots(
        rows, columns, figsize=(width_mm / 25.4, height / 25.4), squeeze=False, layout="constrained"
    )
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.04, wspace=0.01, hspace=0.01)
    plotted = []
    for place, ax in enumerate(axes.flat):
        panel = panels[place] if place < len(panels) else None
        if panel is None:
            ax.set_axis_off()
            continue
        draw(ax, panel)
        row, column = divmod(place, columns)
        left = panels[place - 1] if column else None
        wide = max(8, int(side / 1.28))
        ax.set_title(_wrapped(panel.title, wide), fontsize=SIZE, pad=2)
        if panel.group and (left is None or left.group != panel.group):
            ax.set_title(f"{panel.group}\n ", loc="left", fontsize=SIZE, pad=2)
        before = [other.row for other in panels[place - column : place] if other is not None]
        if panel.row and before[-1:] != [panel.row]:
            ax.set_ylabel(_wrapped(panel.row, wide), fontsize=SIZE)
        plotted.append(
            {"row": row, "column": column, "title": _said(panel), "iou": panel.iou} | {"source": panel.source}
        )
    if not shown:
        axes.flat[0].text(
            0.5, 0.5, "no cases to show", ha="center", va="center", transform=axes.flat[0].transAxes
        )
    elif handles := _handles(shown):
        fig.legend(
            handles=list(handles.values()),
            labels=list(handles),
            loc="outside lower center",
            ncols=min(len(handles), max(2, int(width_mm / 28))),
            fontsize=SIZE,
            frameon=False,
            handletextpad=0.8,
            handler_map={tuple: HandlerTuple(ndivide=1)},
        )
    return fig, pd.DataFrame(plotted, columns=["row", "column", "title", "iou", "source"])


def _said(panel: Panel) -> str:
    """Return all that is written at a panel, in one line."""
    return ", ".join(" ".join(text.split()) for text in (panel.row, panel.group, panel.title) if text)


def _handles(shown: Sequence[Panel]) -> dict[str, object]:
    """Return the legend's entries by their words: each kind that is drawn, as it is drawn."""
    handles: dict[str, object] = {}
    if any(panel.truth is not None for panel in shown):
        rim = [withStroke(linewidth=2.7, foreground="black", alpha=0.7)]
        handles["ground truth"] = Line2D([], [], color=TRUTH, lw=1.9, path_effects=rim)
    if any(panel.errors for panel in shown):
        handles["missed"] = Patch(fc=MISSED, ec="black", lw=0.4)
        handles["excess"] = Patch(fc=EXCESS, ec="black", lw=0.4)
    if any(panel.prediction is not None and not panel.errors for panel in shown):
        lines = [Line2D([], [], color=PREDICTION, lw=1.1), Line2D([], [], color="black", lw=1.1, ls=DASHES)]
        handles["prediction"] = tuple(lines)
    prompts = [prompt for panel in shown for prompt in _prompts(panel)]
    signs = {bool(sign) for prompt in prompts for sign in prompt.point_labels}
    look = {"ls": "", "mec": "black", "mew": 0.5, "ms": 5}
    if True in signs:
        handles["point inside" if False in signs else "point"] = Line2D(
            [], [], marker="P", color=PROMPT, **look
        )
    if False in signs:
        handles["point outside"] = Line2D([], [], marker="X", color=NEGATIVE, **look)
    if any(prompt.box is not None for prompt in prompts):
        look = {"ls": "", "mfc": "none", "mec": PROMPT, "mew": 0.9, "ms": 6, "path_effects": RIM}
        handles["box"] = Line2D([], [], marker="s", **look)
    if any(prompt.mask is not None for prompt in prompts):
        handles["mask as prompt"] = Patch(fc="#555555", ec=PROMPT, hatch=HATCH, lw=0)
    return handles
