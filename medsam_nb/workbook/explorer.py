"""A slice browser for notebooks: image, true outline and predicted outlines, one slice at a time.

Drawing is a pure function; the widget only calls it, so what a reader sees is what tests check.
"""

from collections.abc import Mapping

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from medsam_nb.figures.slices import PREDICTION, TRUTH, outline
from medsam_nb.figures.words import label
from medsam_nb.protocol.metrics import iou


def draw_slice(
    image: np.ndarray, truth: np.ndarray, predictions: Mapping[str, np.ndarray], slice_index: int
) -> Figure:
    """Draw one slice with outlines.

    Parameters
    ----------
    image : ndarray of uint8, shape (z, y, x)
    truth : ndarray of bool, shape (z, y, x)
    predictions : mapping of str to ndarray of bool, shape (z, y, x)
        One panel each.
    slice_index : int

    Returns
    -------
    Figure
        Not registered with pyplot, so that a notebook does not show it twice.
    """
    count = max(len(predictions), 1)
    figure = Figure(figsize=(3.2 * count, 3.5), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, count))
    panels = dict(predictions) or {"ground truth": np.zeros_like(truth)}
    for ax, (name, prediction) in zip(axes, panels.items(), strict=True):
        ax.imshow(image[slice_index], cmap="gray", vmin=0, vmax=255)
        for mask, colour, style in (
            (truth[slice_index], TRUTH, "solid"),
            (prediction[slice_index], PREDICTION, "dashed"),
        ):
            outline(ax, mask, colour, style, 1.2)
        score = iou(truth[slice_index], prediction[slice_index])
        ax.set_title(
            f"{label(name)}\nslice {slice_index}: " + ("empty" if np.isnan(score) else f"IoU {score:.2f}"),
            fontsize=9,
        )
        ax.set_axis_off()
    return figure


def browse(image: np.ndarray, truth: np.ndarray, predictions: Mapping[str, np.ndarray]) -> widgets.VBox:
    """Return a slider over the slices of a case; it starts where the object is largest.

    Parameters are those of `draw_slice`. An error while drawing is shown below the slider, since
    a widget's callback would otherwise swallow it.
    """
    start = int(truth.sum((1, 2)).argmax())
    slider = widgets.IntSlider(
        start, 0, len(image) - 1, description="slice", continuous_update=False, layout={"width": "28rem"}
    )
    screen = widgets.Output()

    def redraw(change: dict | None = None) -> None:
        screen.clear_output(wait=True)
        with screen:
            figure = draw_slice(image, truth, predictions, slider.value)
            display_figure(figure)

    slider.observe(redraw, names="value")
    redraw()
    return widgets.VBox([slider, screen])


def display_figure(figure: Figure) -> None:
    """Show a figure as a picture, whatever backend the notebook has."""
    from io import BytesIO

    from IPython.display import Image, display

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    display(Image(buffer.getvalue()))
    plt.close(figure)
