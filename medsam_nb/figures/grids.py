"""Image panels in a grid, on as many pages as they need, with titles and a legend of what is drawn."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from medsam_nb.figures.slices import (
    DASHES,
    EXCESS,
    HATCH,
    MISSED,
    NEGATIVE,
    PREDICTION,
    PROMPT,
    RIM,
    SIZE,
    TRUTH,
    Panel,
    draw,
    prompts_of,
)
from medsam_nb.figures.words import label

PAGE_HEIGHT_MM = 235  # of A4 with a caption


def pages(panels: Sequence[Panel | None], columns: int, width_mm: float) -> list[list[Panel | None]]:
    """Return panels in groups of whole rows that fit a page of `PAGE_HEIGHT_MM`."""
    columns = min(columns, max(len(panels), 1))
    most = max(1, int((PAGE_HEIGHT_MM - 8) // _row_mm(panels, columns, width_mm))) * columns
    return [list(panels[at : at + most]) for at in range(0, len(panels), most)] or [[]]


def _row_mm(panels: Sequence[Panel | None], columns: int, width_mm: float) -> float:
    """Return how high a row of panels is with its titles."""
    shown, side = [panel for panel in panels if panel is not None], width_mm / columns
    lines = [_wrapped(p.title, _characters(side)).count("\n") + 1 for p in shown if p.title]
    lines = [max(lines, default=0) + max((p.group.count("\n") + 1 for p in shown if p.group), default=0)]
    return side * _ratio(shown) + 3.0 * max(lines, default=0) + 1


def _ratio(shown: Sequence[Panel]) -> float:
    """Return how high panels are for their width."""
    ratios = [p.image.shape[0] * p.spacing_mm[0] / (p.image.shape[1] * p.spacing_mm[1]) for p in shown]
    return float(np.clip(np.median(ratios or [0.5]), 0.4, 1.6))


def _characters(mm: float) -> int:
    """Return how many characters of a title fit a length."""
    return max(8, int(mm / 1.28))


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
        ax.set_title(_wrapped(panel.title, _characters(side)), fontsize=SIZE, pad=2)
        before = next((p for p in reversed(panels[place - column : place]) if p is not None), None)
        if panel.group and (before is None or before.group != panel.group):
            ax.set_title(f"{panel.group}\n ", loc="left", fontsize=SIZE, pad=2)
        if panel.row and (before is None or before.row != panel.row):
            ax.set_ylabel(_wrapped(panel.row, _characters(side * _ratio(shown))), fontsize=SIZE)
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
    prompts = [prompt for panel in shown for prompt in prompts_of(panel)]
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
