"""Doses and responses with a known slope, on the same slices; gains and costs of repairs; all of it drawn
and said."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers.volumes import disc_case

from medsam_nb.errors import InputError
from medsam_nb.figures import slice_distance as drawing
from medsam_nb.figures import style
from medsam_nb.protocol.table import as_table
from medsam_nb.protocol.volume_changes import ShownVolume, VolumeChange
from medsam_nb.protocol.volume_repairs import VolumeRepair, repaired
from medsam_nb.statistics import slice_distance as doses
from medsam_nb.statistics.paired import compare
from medsam_nb.statistics.resampling import patient_weights
from medsam_nb.workbook.slice_findings import clear_changes, dose_said

mpl.use("agg")
FACTORS = (1, 2, 3, 4)
NAMES = {factor: VolumeChange("decimated", factor).name for factor in FACTORS}


def made_up(patients=10, per_mm=-0.006, noise=0.0, seed=0):
    """Objects whose IoU falls by `per_mm` for every mm between neighbours, and by the slice for itself."""
    rng, rows = np.random.default_rng(seed), []
    for patient in range(patients):
        spacing = (2.0, 5.0)[patient % 2]
        for factor in FACTORS:
            for z in range(0, 13, factor):
                lost = per_mm * spacing * (factor - 1) * (z > 0) + rng.normal(0, noise)
                case = {"task": "3d", "data_set": f"s{patient % 3}", "case_id": f"p{patient}", "object": "o"}
                rows.append(
                    case
                    | {"model": "m", "volume_change": NAMES[factor], "volume_repair": "none", "metric": "iou"}
                    | {"slice_index": z, "distance_slices": z, "spacing_z_mm": spacing * factor}
                    | {"neighbour_iou": 1 - 0.02 * spacing * factor if z else None}
                    | {"n_steps": 13 // factor + 1, "value": 0.8 - 0.02 * z + lost}
                )
    return as_table(rows)


def test_the_dose_is_measured_on_the_slices_that_both_volumes_have():
    points = doses.dose_points(made_up(2))
    one = points[(points["patient_id"] == "p1") & (points["volume_change"] == NAMES[3])].iloc[0]
    kept = np.array([3, 6, 9, 12])
    assert one["n_slices"] == 4 and one["before"] == pytest.approx((0.8 - 0.02 * kept).mean())
    assert one["difference"] == pytest.approx(-0.006 * 10) and one["step_mm"] == 15
    assert one["step_mm_before"] == 5 and one["likeness"] == pytest.approx(0.7)
    assert one["likeness_before"] == pytest.approx(0.9)
    assert set(points["volume_change"]) == set(NAMES.values()) - {"none"} and len(points) == 2 * 3


def test_a_built_in_slope_is_found_on_both_axes():
    points = doses.dose_points(made_up())
    for axis, slope in (("step_mm", -0.06), ("likeness", 0.03)):  # per 10 mm; 0.1 of likeness are 5 mm
        found = doses.dose_response(points, axis, draws=200)
        assert found.slope == pytest.approx(slope) and found.low == pytest.approx(slope)
        assert found.explained == pytest.approx(1) and found.n_patients == 10 and found.n_data_sets == 3


def test_the_interval_covers_the_slope_and_holds_0_where_there_is_none():
    covered = held = 0
    for seed in range(25):
        for slope in (-0.006, 0.0):
            points = doses.dose_points(made_up(12, slope, 0.03, seed))
            found = doses.dose_response(points, "step_mm", seed=seed, draws=300)
            covered += slope < 0 and found.low <= 10 * slope <= found.high
            held += slope == 0 and found.low <= 0 <= found.high
    assert covered >= 20 and held >= 20  # a percentile interval of 12 patients is a little short of 95 %


def test_too_few_patients_have_no_slope_and_mixed_experiments_are_refused():
    few = doses.dose_response(doses.dose_points(made_up(4)), "step_mm")
    assert np.isnan(few.slope) and "needs 5 patients" in few.note
    table = made_up(2)
    other = table.assign(model="other")
    with pytest.raises(InputError, match="model has several values"):
        doses.dose_points(as_table([*table.to_dict("records"), *other.to_dict("records")]))


def test_patients_are_drawn_within_their_data_sets():
    sets = ["a", "a", "b", "b", "b"]
    weights = patient_weights(sets, 100, 1)
    assert (weights[:, :2].sum(axis=1) == 2).all() and (weights[:, 2:].sum(axis=1) == 3).all()
    assert weights[:, 0].std() > 0 and np.array_equal(weights, patient_weights(sets, 100, 1))


def test_from_six_data_sets_on_they_are_drawn_with_all_their_patients():
    sets = np.array(list("aabcdef"))
    weights = patient_weights(sets, 500, 1)
    assert np.array_equal(weights[:, 0], weights[:, 1]) and weights[:, 0].max() >= 3
    assert (weights[:, 1:].sum(axis=1) == 6).all()


@pytest.mark.parametrize("patients", [1, 3])
def test_the_slope_s_interval_holds_that_of_data_sets_like_these(patients):
    """Slopes vary from one data set to the next; within one they hardly do."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        sets = np.repeat([f"s{number:02d}" for number in range(12)], patients)
        slopes = np.repeat(rng.normal(-0.1, 0.05, 12), patients) + rng.normal(0, 0.005, len(sets))
        points = pd.DataFrame({"data_set": sets, "patient_id": [f"p{n}" for n in range(len(sets))]})
        points = points.assign(step_mm=15.0, step_mm_before=5.0, difference=slopes)
        found = doses.dose_response(points, "step_mm", draws=300)
        held += found.low <= -0.1 <= found.high
    assert 170 <= held <= 198  # nominally 190; percentiles of twelve are a little narrow


def test_patients_alone_in_their_data_set_are_drawn_among_each_other():
    """Drawn within it they could not vary: the interval of many data sets of one patient would be a point."""
    weights = patient_weights(["a", "b", "c", "d", "d"], 500, 1)
    assert (weights[:, :3].sum(axis=1) == 3).all() and (weights[:, 3:].sum(axis=1) == 2).all()
    assert weights.std(axis=0).min() > 0.3
    assert (patient_weights(["a", "b", "b"], 50, 1)[:, 0] == 1).all()


def with_repairs():
    """Under every 3rd slice one repair that gives 0.05 for twice the slices, and one that gives nothing."""
    table = made_up(noise=0.002)
    few = table[table["volume_change"] == NAMES[3]]
    better = few.assign(volume_repair="better", value=few["value"] + 0.05, n_steps=2 * few["n_steps"])
    rng = np.random.default_rng(1)
    same = few.assign(volume_repair="same", value=few["value"] + rng.normal(0, 0.003, len(few)))
    return as_table([row for part in (table, better, same) for row in part.to_dict("records")])


def test_gains_and_costs_of_repairs_are_those_built_in():
    table = with_repairs()
    result = compare(table, doses.repair_comparisons(["better", "same"], NAMES[3])).set_index("comparison")
    assert result.loc["better", "difference"] == pytest.approx(0.05) and result.loc["better", "p_holm"] < 0.05
    assert abs(result.loc["same", "difference"]) < 0.01 and result.loc["same", "p_holm"] > 0.05
    cost = doses.costs(table, NAMES[3]).set_index("volume_repair")["cost"]
    assert cost.to_dict() == {"better": 2, "none": 1, "same": 1}
    changes = compare(table, doses.change_comparisons([NAMES[2]]))  # repairs are no part of it
    assert changes["difference"][0] == pytest.approx(-0.006 * 3.5, abs=0.003)


def test_they_are_drawn_and_said():
    table = with_repairs()
    result = compare(table, doses.repair_comparisons(["better", "same", "absent"], NAMES[3]))
    fig, axes = plt.subplots(1, 3)
    order, notes = ["better", "absent", "same"], ["x", "y", "z"]
    shown = drawing.differences_by_row(result, axes[0], order, "gain", notes, 0.1)
    assert shown["comparison"].tolist() == ["better", "same"]
    texts = [text.get_text() for text in axes[0].texts]
    assert texts == ["x", "z"] and axes[0].get_yticklabels()[1].get_text() == "same"
    marks = [line for line in axes[0].lines if line.get_marker() == "o"]
    assert [mark.get_markerfacecolor() for mark in marks] == [style.CLEAR, "white"]
    points = doses.dose_points(table)
    for ax, axis in zip(axes[1:], doses.AXES, strict=True):
        found = doses.dose_response(points, axis, draws=100)
        lines = drawing.dose_lines(points, ax, found)
        starts = lines[lines["volume_change"] == "none"]
        assert len(points) == 30 and len(starts) == 10 and len(lines) == 40
        assert starts["difference"].eq(0).all() and set(starts[axis]) == set(points[f"{axis}_before"])
    left, right = axes[2].get_xlim()
    assert left > right  # less alike to the right, as farther apart on the other axis
    said = dose_said([found], "Leaving out slices")
    assert said.startswith("Leaving out slices changes the mean IoU of the same slices by +0.0")
    assert "10 patients" in said
    gains = clear_changes(result, "repair")
    assert gains.startswith("Of 2 repairs, after correction 1 changes the mean IoU: better +0.050")
    assert clear_changes(result[:0], "repair") == "No repair could be compared."
    few = doses.dose_response(points[:0], "step_mm")
    assert "cannot be judged" in dose_said([few], "Leaving out slices")
    assert drawing.differences_by_row(result[:0], axes[0], [], "gain").empty
    assert drawing.dose_lines(points[:0], axes[1], few).empty
    plt.close(fig)


def test_other_ways_to_prompt_are_compared_on_all_shown_slices():
    table = made_up()
    rows = []
    for prompt, prompted, gain in (("one_box", 0, 0.0), ("one_point", 6, 0.04)):
        part = table.assign(
            prompt=prompt, frame_choice="first_slice" if prompt == "one_box" else "three_slices"
        )
        part = part.assign(direction="bidirectional", mask_choice="first_mask", value=part["value"] + gain)
        rows += part.assign(distance_slices=part["slice_index"] - prompted).to_dict("records")
    ways = {"points": "three_slices/one_point/bidirectional/first_mask"}
    reference = "first_slice/one_box/bidirectional/first_mask"
    pairs = {name: ((way, "none"), (reference, "none")) for name, way in ways.items()}
    declared = doses.prompting_comparisons(pairs, NAMES[3])
    result = compare(as_table(rows), declared)
    spacing = np.mean(
        [np.mean([(2.0, 5.0)[p % 2] for p in range(s, 10, 3)]) for s in range(3)]
    )  # by data set
    # the mean of 0.8 - 0.02 z over slices 0, 3, ... 12 is 0.68; the first of the five loses nothing
    assert result["difference"][0] == pytest.approx(0.04) and result["n"][0] == 10
    assert result["mean_b"][0] == pytest.approx(0.68 - 0.006 * 2 * spacing * 4 / 5)


def test_the_object_that_varies_most_is_shown():
    case = disc_case()
    assert (
        drawing.most_varying([case]) == (case, "bar")
        and drawing.most_varying([case], ["discs"])[1] == "discs"
    )


def test_panels_stand_at_the_place_of_their_slice():
    slices = np.arange(7, dtype=np.uint8)[:, None, None] * np.ones((7, 20, 20), np.uint8)
    truth = np.zeros(slices.shape, bool)
    truth[:, 8:12, 8:12] = True
    whole = ShownVolume(slices, truth, tuple(range(7)), (0,), 1.0)
    few = ShownVolume(slices[::3], truth[::3], (0, 3, 6), (0,), 3.0)
    between = repaired(few, VolumeRepair("interpolated", 2))
    twice = repaired(few, VolumeRepair("repeated", 1))
    rows = {"all": whole, "few": few, "between": between, "twice": twice}
    panels = drawing.shown_panels(rows, 0, 5, (1.0, 1.0))
    seen = [None if panel is None else (int(panel.image[0, 0]), bool(panel.truth.any())) for panel in panels]
    assert seen[:5] == [(z, True) for z in range(5)] and panels[1].title == "slice 1"
    assert seen[5:10] == [(0, True), None, None, (3, True), None] and panels[5].row == "few"
    assert seen[10:15] == [(0, True), (1, False), (2, False), (3, True), (4, False)]
    assert seen[15:] == [(0, True), None, None, (3, True), None]
