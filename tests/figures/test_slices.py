"""Pictures show what the models see: stored grey levels unstretched, colours in colour."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import networks
from matplotlib.figure import Figure

from medsam_nb.data.mosaics import mosaic
from medsam_nb.evaluation.rows import evaluate_2d, evaluate_3d
from medsam_nb.figures.grids import PAGE_HEIGHT_MM, grid, pages
from medsam_nb.figures.slices import Panel, draw, field
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.protocol.table import as_table
from medsam_nb.protocol.volume import Case, Volume
from medsam_nb.workbook import pictures, row_pictures

SHAPE = (5, 40, 52)


@pytest.fixture
def case():
    grey = networks.textured_slices(*SHAPE, seed=2) // 4 + 40  # dark: a stretch would be seen
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 8:25, 10:40] = 1
    volume = Volume.from_spacing(grey.astype(np.float32), (3.0, 1.0, 1.0))
    return Case("set", "case", "ultrasound", volume, labels, {"spot": (1,)}, Intensity("stored"))


@pytest.fixture
def coloured(case):
    grey = case.slices_uint8()
    return dataclasses.replace(case, colours=np.stack([grey, grey[:, ::-1], 255 - grey], axis=-1))


def drawn(axes):
    (image,) = axes.images
    return np.asarray(image.get_array()), image.get_clim()


@pytest.mark.parametrize("kind", ["case", "coloured"])
def test_panels_mosaics_and_predictions(kind, request):
    case = request.getfixturevalue(kind)
    shown, model = case.slices_uint8(), networks.small_model()
    axes = Figure().subplots()
    draw(axes, Panel(shown[2], case.mask("spot")[2]))
    array, limits = drawn(axes)
    assert np.array_equal(array, shown[2])
    assert kind == "coloured" or limits == (0, 255)
    array, limits = drawn(mosaic(case).axes[0])
    assert array.shape == shown[0].shape and any(np.array_equal(array, one) for one in shown)
    assert kind == "coloured" or limits == (0, 255)
    assert np.array_equal(pictures.panel_of_truth(case).image, shown[1])
    assert np.array_equal(pictures.panel_2d(model, case, "one_box", seed=1, slice_index=2).image, shown[2])
    design = Design("centre_slice", "one_box", "bidirectional", "most_confident_mask")
    panels = pictures.panels_3d(model, case, "spot", design, seed=1, count=3)
    assert [panel.image.shape for panel in panels] == [shown[0].shape] * 3
    grid(panels, columns=3)


@pytest.mark.parametrize("kind", ["case", "coloured"])
def test_a_picture_equals_its_row(kind, request):
    case, model = request.getfixturevalue(kind), networks.small_model()
    flat = as_table(evaluate_2d(model, case, ["one_box"], seed=1))
    row = flat[(flat["mask_choice"] == "first_mask") & (flat["slice_index"] == 2)].iloc[0]
    (panel,) = row_pictures.panels_of_row(model, case, row, seed=1)
    assert panel.iou == row["value"]
    design = Design("centre_slice", "one_box", "bidirectional", "most_confident_mask")
    deep = as_table(evaluate_3d(model, case, [design], seed=1))
    row = deep[deep["slice_index"] == 3].iloc[0]
    assert row_pictures.panels_of_row(model, case, row, seed=1)[-1].iou == row["value"]


def test_pictures_of_other_number_types_are_still_scaled():
    axes = Figure().subplots()
    draw(axes, Panel(np.linspace(0, 1, 12).reshape(3, 4)))
    assert drawn(axes)[1] == (0.0, 1.0)


def square(**options):
    """Return a panel of 40 x 80 pixels of 2 mm with an object of 4 x 6."""
    image, truth = np.zeros((40, 80), np.uint8), np.zeros((40, 80), bool)
    truth[30:34, 60:66] = True
    return Panel(image, truth, spacing_mm=(2.0, 2.0), **options)


def test_a_cropped_panel_shows_its_object_in_the_proportions_of_the_image():
    left, right, top, bottom = field(square(crop=True))
    assert (right - left) / (bottom - top) == pytest.approx(2) and right - left == pytest.approx(32)
    assert left < 60 and right > 65 and top < 30 and bottom > 33
    assert left >= -0.5 and right <= 79.5 and top >= -0.5 and bottom <= 39.5
    assert field(square()) == (-0.5, 79.5, -0.5, 39.5)
    prompted = dataclasses.replace(square(crop=True), prompt=Prompt(points=((3, 4),)))
    assert field(prompted)[0] < 3 and field(prompted)[1] > 65


def test_a_scale_bar_is_as_long_as_it_says():
    axes = Figure().subplots()
    draw(axes, square(crop=True, bar=True))
    (x0, x1), (said,) = axes.lines[-1].get_xdata(), [t.get_text() for t in axes.texts]
    assert (x1 - x0) * 2.0 == pytest.approx(float(said.removesuffix(" mm")))


def test_more_rows_than_a_page_holds_become_pages():
    panels = [square(title="one\ntwo")] * 61
    parts = pages(panels, 5, 180)
    assert sum(map(len, parts)) == 61 and all(len(part) % 5 == 0 for part in parts[:-1]) and len(parts) > 1
    for part in parts:
        figure, shown = grid(part, columns=5, width_mm=180)
        assert figure.get_size_inches()[1] * 25.4 <= PAGE_HEIGHT_MM and len(shown) == len(part)
        plt.close(figure)


def test_what_a_panel_is_of_stands_beside_the_first_of_its_kind_wherever_that_is():
    kinds = ["MRI", "MRI", "MRI", "CT", "CT", "CT", "MRI"]
    panels = [Panel(np.zeros((8, 8), np.uint8), row=kind) for kind in kinds]
    panels[1] = None
    fig, _ = grid(panels, columns=6)
    assert [ax.get_ylabel() for ax in fig.axes[:7]] == ["MRI", "", "", "CT", "", "", "MRI"]
    plt.close(fig)


def test_what_stands_beside_a_row_is_no_longer_than_the_row_is_high():
    flat = Panel(np.zeros((40, 80), np.uint8), row="2 registered slices between")
    fig, _ = grid([flat, None] * 4, columns=7)
    fig.canvas.draw()
    heights = [ax.yaxis.label.get_window_extent().height for ax in fig.axes if ax.get_ylabel()]
    assert max(heights) <= fig.axes[0].get_window_extent().height * 1.15
    plt.close(fig)
