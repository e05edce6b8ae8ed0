"""Image panels: slices with the outlines of truth and prediction, the prompt, and the IoU."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from medsam_nb.protocol.prompts import Prompt

# Told apart in grey too: the truth is a wide light line, the prediction a thin one with dark dashes, which is
# seen on the truth as well as on black and on white; a prompt is a cross, a rectangle, or hatched.
TRUTH, PREDICTION, PROMPT = "#8FD3FF", "#FF9A00", "#F0E442"
DASHES = (0, (2.0, 2.0))  # of the prediction
NEGATIVE = "#F2A0D0"  # points outside the object
MISSED, EXCESS = "#E8703A", "#FFE3F3"  # of the truth, and beyond it: both lighter than the dimmed image
DIMMED = 0.4  # of an image's brightness, below errors
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
    prompts = prompts_of(panel)
    shapes += [np.array(prompt.points, float).reshape(-1, 2)[:, ::-1] for prompt in prompts]
    shapes += [np.array(p.box, float).reshape(2, 2)[:, ::-1] for p in prompts if p.box is not None]
    return np.concatenate([*shapes, np.empty((0, 2))])


def prompts_of(panel: Panel) -> Sequence[Prompt]:
    """Return the prompts of a panel."""
    return [panel.prompt] if isinstance(panel.prompt, Prompt) else (panel.prompt or [])


def with_one_view(panels: Sequence[Panel]) -> list[Panel]:
    """Return pictures of one case, cropped alike to what any of them shows."""
    masks = [mask for panel in panels for mask in (panel.truth, panel.prediction) if mask is not None]
    prompts = [prompt for panel in panels for prompt in prompts_of(panel)]
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
    for prompt in prompts_of(panel):
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
