"""Figures: drawn for zero, one and many data sets without a warning, nothing cut; tables and text."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_up import made_up_table

from medsam_nb import figures, overviews, panels, published, rankings, stats, tables
from medsam_nb.designs import ALL_DESIGNS
from medsam_nb.prompts import Prompt
from medsam_nb.scoreboard import scoreboard

mpl.use("agg")
LONG = ("CT-Hepaticvessel with a very long name of its own", "MRI-Heart", "simulated_ultrasound_thick_slices")
TABLES = {
    "zero": lambda: made_up_table(cases=1)[:0],
    "one": lambda: made_up_table(("MRI-Heart",), 1, designs=ALL_DESIGNS[::5]),  # designs are missing
    "many": lambda: made_up_table(LONG, 3),
}
DRAWN = {
    "iou_by_design": (110, figures.iou_by_design),
    "iou_by_distance": (62, figures.iou_by_distance),
    "iou_by_prompt_2d": (75, figures.iou_by_prompt_2d),
    "design_heat_map": (95, overviews.design_heat_map),
    "design_ranking": (100, overviews.design_ranking),
    "critical_difference": (80, lambda t, ax: overviews.critical_difference(rankings.rank_designs(t), ax)),
    "published": (
        70,
        lambda t, ax: overviews.measured_and_published(published.measured_against_published(t), ax),
    ),
}


def is_cut(fig):
    """Whether anything that is drawn reaches beyond the page (a hundredth of an inch is let pass)."""
    fig.canvas.draw()
    box, (width, height) = fig.get_tightbbox(fig.canvas.get_renderer()), fig.get_size_inches()
    return min(box.x0, box.y0, width - box.x1, height - box.y1) < -0.01


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_fits_its_page(kind, name, tmp_path):
    table = TABLES[kind]()
    table = table[table["model"] == "miniature_sam2"]
    height, draw = DRAWN[name]
    with figures.style():
        fig, ax = figures.canvas(120, height)
        plotted = draw(table, ax)
        assert not is_cut(fig)
        paths = figures.save(fig, tmp_path, name, plotted)
        plt.close(fig)
    assert paths["pdf"].read_bytes().startswith(b"%PDF") and paths["csv"].is_file()
    if name != "published":
        assert (len(plotted) == 0) == (kind == "zero")


def test_fonts_are_embedded_as_truetype_and_bytes_repeat(tmp_path):
    table = made_up_table(("MRI-Heart",), 2, designs=ALL_DESIGNS[:4])
    found = []
    for name in ("a", "b"):
        with figures.style():
            fig, ax = figures.canvas()
            plotted = figures.iou_by_distance(table, ax)
            found.append(figures.save(fig, tmp_path, name, plotted)["pdf"].read_bytes())
            plt.close(fig)
    assert b"/FontFile2" in found[0] and b"/Type3" not in found[0]
    assert found[0] == found[1]


def test_what_is_drawn_is_the_mean_over_cases():
    table = made_up_table(("MRI-Heart",), 3)
    with figures.style():
        fig, ax = figures.canvas()
        drawn = figures.iou_by_prompt_2d(table[table["model"] == "miniature_sam2"], ax)
        plt.close(fig)
    rows = table[(table["task"] == "2d") & (table["mask_choice"] == "first") & (table["prompt"] == "one_box")]
    rows = rows[rows["model"] == "miniature_sam2"].astype({"value": float})
    expected = rows.groupby("case_id")["value"].mean().mean()
    assert drawn.set_index("prompt").loc["one_box", "mean"] == pytest.approx(expected)


def test_image_panels_of_no_one_and_several_cases():
    image = np.random.default_rng(0).random((40, 30))
    truth, prediction = np.zeros((2, 40, 30), bool)
    truth[:20, :15] = True  # at the border
    shown = panels.Panel(image, truth, prediction, Prompt(points=((3, 4),)), 0.0, "a/very_long_title " * 4)
    boxed = panels.Panel(image, truth, truth, Prompt(box=(0, 0, 14, 19)), float("nan"))
    for some in ([], [shown], [shown, None, boxed, shown, boxed]):
        with figures.style():
            fig, plotted = panels.grid(some, columns=3)
            assert len(plotted) == len([panel for panel in some if panel is not None])
            assert not is_cut(fig)
            plt.close(fig)


def test_tables_and_text_of_a_paper():
    table = made_up_table(("MRI-Heart",), 6, designs=ALL_DESIGNS[:4])
    declared = {"name": "box_50 %", "task": "2d", "vary": "prompt", "a": "one_box", "b": "one_point"}
    declared |= {"where": {"mask_choice": "first"}, "each": "model"}
    result = stats.compare(table, [declared], resamples=100)
    text = tables.latex(tables.comparison_table(result), "Effects & tests", "effects")
    assert r"\toprule" in text and r"box\_50 \%" in text and r"Effects \& tests" in text
    assert tables.latex(tables.claims_table(scoreboard(table, resamples=50)), "Claims", "claims").count("H13")
    record = {
        "checkpoints": {"m": "ab" * 32},
        "packages": {"torch": "2.5"},
        "seed": ["7"],
        "git_commit": None,
    }
    words = tables.methods_paragraph(record, table, result)
    assert "6 cases of 1 data sets" in words and "2 comparisons in 1 families" in words
    assert "m (SHA-256 abababababab)" in words and "torch 2.5" in words and "None" not in words
