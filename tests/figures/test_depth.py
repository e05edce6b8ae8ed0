"""Depth, modality and variation, drawn and said."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from medsam_nb.figures import depth
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics.change_point import by_distance, change_point
from medsam_nb.statistics.depth import contrasts, depth_pairs, losses, modality_pairs, slice_losses
from medsam_nb.statistics.explained import explained
from medsam_nb.workbook import depth_findings

mpl.use("agg")
CELLS = [(5, 2.0), (5, 8.0), (17, 2.0)]


def made_up(cells=CELLS, modality="CT", loss=0.002):
    """Rows whose IoU falls with the distance in mm."""
    rng, rows = np.random.default_rng(0), []
    for patient in range(8):
        for count, mm in cells:
            for d in range(-(count // 2), count // 2 + 1):
                place = {"task": "3d", "data_set": f"set_{modality}", "modality": modality, "model": "m"}
                place |= {"patient_id": f"p{patient}", "case_id": f"p{patient}_{count}x{mm}", "object": "o"}
                place |= {"slice_index": d + count // 2, "distance_slices": d, "distance_mm": d * mm}
                value = 0.9 - loss * abs(d) * mm + 0.001 * rng.normal() - 0.01 * patient
                rows.append(place | {"n_slices": count, "spacing_z_mm": mm, "metric": "iou", "value": value})
    return as_table(rows)


def test_the_scheme_shows_every_slice_at_its_height():
    fig, ax = plt.subplots()
    drawn = depth.depth_scheme(CELLS, ax)
    heights = drawn.groupby(["n_slices", "spacing_z_mm"])["height_mm"]
    assert {cell: (min(h), max(h), len(h)) for cell, h in heights} == {
        (5, 2.0): (-4, 4, 5), (5, 8.0): (-16, 16, 5), (17, 2.0): (-16, 16, 17)
    }  # fmt: skip
    assert [text.get_text() for text in ax.get_yticklabels()][0] == "5 slices, 2 mm apart"
    plt.close(fig)


def test_the_factorial_figure_is_the_table():
    table, (fig, axes) = made_up(), plt.subplots(1, 3)
    drawn = depth.iou_by_depth(table, axes).set_index(["panel", "spacing_z_mm", "x"])["mean"]
    found = losses(table).groupby(["spacing_z_mm", "n_slices"])["propagated"].mean()
    assert np.isclose(drawn["number of slices", 2.0, 17], found[2.0, 17])
    assert np.isclose(drawn["mm", 2.0, 16.0], drawn["steps", 2.0, 8])  # the same slices on both axes
    assert drawn["steps"].index.get_level_values(0).unique().tolist() == [2.0]  # of the longest volumes
    assert depth.iou_by_depth(table[:0], axes).empty
    plt.close(fig)


def test_contrasts_are_drawn_in_their_families_and_said():
    result = contrasts(depth_pairs(made_up()))
    fig, ax = plt.subplots()
    drawn = depth.contrast_forest(result, ax, "difference")
    texts = [text.get_text() for text in ax.get_yticklabels()]
    assert len(drawn) == len(result) and "same extent, more slices:" in texts
    assert len(texts) == len(result) + result["family"].nunique()
    said = depth_findings.depth_told_apart(result)
    assert "17 slices against 5, 2 mm apart -0.0" in said and "Same slices, cut out or not" in said
    assert depth.contrast_forest(result[:0], ax, "difference").empty
    assert depth_findings.depth_told_apart(result[:0]) == "No contrast of depth could be tested."
    longest = made_up([(17, 2.0)])
    found = {2.0: change_point(by_distance(longest), draws=50)}
    assert depth_findings.where_losses_begin(found).startswith("Slices 2 mm apart: ")
    plt.close(fig)


def test_modalities_are_drawn_and_said():
    table = pd.concat([made_up(), made_up(modality="PET", loss=0.01)])
    table = table[table["spacing_z_mm"] == 8.0]
    fig, ax = plt.subplots()
    drawn = depth.iou_by_modality(table, ax)
    assert drawn.groupby("modality").size().to_dict() == {"CT": 3, "PET": 3}
    said = depth_findings.modality_losses(contrasts(modality_pairs(table, "CT")))
    assert "PET against CT +0.09" in said and "holds 0" not in said
    plt.close(fig)


def test_what_explains_a_loss_is_drawn_and_said():
    rows = slice_losses(made_up())
    rows["mm"], rows["chance"] = rows["distance_mm"].abs(), np.random.default_rng(0).normal(size=len(rows))
    found = explained(rows, ["mm", "chance"], draws=100)
    fig, axes = plt.subplots(1, 2)
    drawn = depth.explained_forest(found, axes, {"mm": "distance in mm"})
    assert len(drawn) == 2 and axes[0].get_yticklabels()[0].get_text() == "distance in mm"
    said = depth_findings.loss_explained(found, {"mm": "distance in mm"})
    assert "goes with: distance in mm, more loss with more of it" in said and "chance" not in said
    few = explained(rows[rows["patient"] == rows["patient"].iloc[0]], ["mm"])
    assert depth.explained_forest(few, axes, {}).empty
    assert "cannot be said: needs 6 patients" in depth_findings.loss_explained(few, {})
    plt.close(fig)
