"""Rows of changed volumes: those of the unchanged task where nothing is changed, on the same slices
elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from helpers.volumes import shipped

from medsam_nb.data.simulated.anatomy import simulate_case
from medsam_nb.errors import StudyError
from medsam_nb.evaluation import reference
from medsam_nb.evaluation.changed_volumes import evaluate_3d_changed
from medsam_nb.evaluation.rows import evaluate_3d
from medsam_nb.evaluation.unit import TASKS, Unit
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol.designs import chosen_designs
from medsam_nb.protocol.directions import turned
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.options import MemoryWindow, PropagationOptions
from medsam_nb.protocol.prompts import prompt_3d
from medsam_nb.protocol.table import as_table
from medsam_nb.protocol.volume import Case, Volume
from medsam_nb.protocol.volume_changes import VolumeChange
from medsam_nb.protocol.volume_repairs import VolumeRepair
from medsam_nb.statistics.declarations import declare
from medsam_nb.statistics.pairing import paired_values
from medsam_nb.statistics.pooling import check_table

DESIGN = "centre_slice/one_box/bidirectional/most_confident_mask"
DESIGNS = chosen_designs([DESIGN, "three_slices/one_point/front_to_end/first_mask"])
COMPARED = [
    "object",
    "prompt",
    "mask_choice",
    "slice_index",
    "distance_slices",
    "distance_mm",
    "neighbour_iou",
]
COMPARED += ["n_slices", "spacing_z_mm", "n_components", "truth_px", "predicted_px", "value", "score"]
COMPARED += ["prompted_slices", "task", "memory", "volume_change", "volume_repair", "patient_id"]


@pytest.fixture(scope="module")
def case():
    made = simulate_case("ct", 5, shape=(14, 96, 96), spacing_mm=(4.0, 2.0, 2.0))
    volume = Volume.from_spacing(made.image, made.spacing_mm)
    objects = {"organ": (made.objects["organ"], made.objects["lesion"])}
    return Case("s", "a", "simulated CT", volume, made.labels, objects, Intensity("window", -160, 240), "p")


@pytest.fixture(scope="module")
def model():
    return shipped()


@pytest.fixture(scope="module")
def unchanged(model, case):
    return as_table(evaluate_3d_changed(model, case, DESIGNS, seed=1))


def sorted_values(table):
    table = table.sort_values(["object", "prompt", "slice_index"]).reset_index(drop=True)
    return table[COMPARED]


def test_without_a_change_the_rows_are_those_of_the_unchanged_task(model, case, unchanged, tmp_path):
    plain = as_table(evaluate_3d(model, case, DESIGNS, seed=1))
    assert len(plain) > 10
    assert sorted_values(plain).equals(sorted_values(unchanged))
    kept = SliceFeatures(model, case.slices_uint8(), folder=tmp_path)
    none = VolumeChange("decimated", 1), VolumeRepair("interpolated", 0)
    again = evaluate_3d_changed(model, case, DESIGNS, seed=1, change=none[0], repair=none[1], features=kept)
    assert sorted_values(as_table(again)).equals(sorted_values(unchanged))
    assert len(list(tmp_path.rglob("*.features"))) > 0


def test_a_decimated_volume_is_measured_on_the_same_original_slices(model, case, unchanged):
    one = chosen_designs([DESIGN])
    rows = as_table(evaluate_3d_changed(model, case, one, seed=1, change=VolumeChange("decimated", 3)))
    prompted = int(rows["prompted_slices"][0])
    before = unchanged[unchanged["prompt"] == "one_box"]
    assert set(before["prompted_slices"]) == {str(prompted)}
    expected = {z for z in before["slice_index"] if (z - prompted) % 3 == 0}
    assert set(rows["slice_index"]) == expected and len(expected) >= 3
    assert set(rows["volume_change"]) == {"every 3rd slice"} and set(rows["spacing_z_mm"]) == {12.0}
    mask = case.mask("organ")
    for row in rows.itertuples():
        assert (
            row.distance_slices == row.slice_index - prompted and row.distance_mm == 4 * row.distance_slices
        )
        assert row.truth_px == mask[row.slice_index].sum()
        if row.distance_slices:
            towards = row.slice_index - 3 * np.sign(row.distance_slices)
            assert row.neighbour_iou == iou(mask[row.slice_index], mask[towards])
    declared = {"name": "x", "task": "3d", "vary": "volume_change", "a": "every 3rd slice", "b": "none"}
    pairs = paired_values(check_table(as_table([*before.to_dict("records"), *rows.to_dict("records")])),
                          declare(declared | {"slices": "propagated"}))  # fmt: skip
    away = before[before["slice_index"].isin(expected - {prompted})]["value"].mean()
    assert pairs.values["b"][0] == pytest.approx(away)  # the rest of the undecimated slices counts nowhere


@pytest.mark.parametrize("repair", [VolumeRepair("interpolated", 2), VolumeRepair("registered", 2),
                                    VolumeRepair("repeated", 1), VolumeRepair("smoothed"),
                                    VolumeRepair("by_similarity")])  # fmt: skip
def test_a_repair_is_scored_on_the_slices_of_the_volume_that_it_repairs(model, case, repair):
    one, change = chosen_designs([DESIGN]), VolumeChange("decimated", 2)
    plain = as_table(evaluate_3d_changed(model, case, one, seed=1, change=change))
    rows = as_table(evaluate_3d_changed(model, case, one, seed=1, change=change, repair=repair))
    same = ["slice_index", "distance_slices", "neighbour_iou", "truth_px", "spacing_z_mm", "prompted_slices"]
    ordered = [table.sort_values("slice_index").reset_index(drop=True)[same] for table in (plain, rows)]
    assert ordered[0].equals(ordered[1]) and set(rows["volume_repair"]) == {repair.name}
    steps = [int(table["n_steps"].iloc[0]) for table in (plain, rows)]
    longer = {"interpolated": 3 * (steps[0] - 1) + 1, "registered": 3 * (steps[0] - 1) + 1}
    longer |= {"repeated": 2 * steps[0] - 1}  # the prompted slice once
    assert steps[0] == len(plain) and steps[1] == longer.get(repair.kind, steps[0])
    prompt = [table[table["distance_slices"] == 0]["value"].iloc[0] for table in (plain, rows)]
    assert (prompt[0] == prompt[1]) == (repair.kind != "smoothed")


def test_three_directions_are_three_runs_and_a_vote(model, case):
    """A pass along y of the volume is a pass along z of the case that has y for its z."""
    design = chosen_designs([DESIGN])[0]
    repair = VolumeRepair("three_directions")
    plain = as_table(evaluate_3d_changed(model, case, [design], seed=1))
    rows = as_table(evaluate_3d_changed(model, case, [design], seed=1, repair=repair))
    same = ["slice_index", "distance_slices", "truth_px", "prompted_slices"]
    assert plain[same].equals(rows[same]) and set(rows["volume_repair"]) == {"vote of three directions"}
    assert rows["score"].isna().all()
    votes = {z: [] for z in rows["slice_index"]}
    options, steps = PropagationOptions(until="volume_end"), set(plain["n_steps"])
    for axis in (None, 1, 2):
        slices, truth = case.slices_uint8(), case.mask("organ")
        view = None if axis is None else turned(slices, truth, axis, 4.0, 2.0, every=2)
        if view is not None:
            slices, truth = view.slices, view.truth
            assert slices.shape == (48, 27, 96) and view.rows == tuple(range(0, 27, 2))
        masks = np.zeros(truth.shape, np.float32)
        for found in reference.sweep(
            model, slices, {"organ": truth}, [design],
            lambda _, z, kind, truth=truth: prompt_3d(truth[z], kind, (1,)), options,
        ):  # fmt: skip
            masks[found.slice_index] = found.logits
        for z in votes:
            votes[z].append((masks > 0 if view is None else view.back(masks))[z])
    for row in rows.itertuples():
        mask = np.sum(votes[row.slice_index], axis=0) >= 2
        assert row.value == iou(case.mask("organ")[row.slice_index], mask) and row.predicted_px == mask.sum()
    assert set(rows["n_steps"]) == {steps.pop() + 2 * 48}


def test_a_film_has_no_other_axes(model, case):
    change, repair = VolumeChange("camera", 2), VolumeRepair("three_directions")
    with pytest.raises(StudyError, match="a film of one slice has no other axes"):
        evaluate_3d_changed(model, case, DESIGNS, seed=1, change=change, repair=repair)


def test_the_change_is_in_the_key_and_where_there_is_none_the_key_is_as_before(case, tmp_path):
    from medsam_nb.evaluation.unit import _plain

    found = [
        _plain(change) for change in (VolumeChange(), VolumeChange("averaged", 2), VolumeRepair("smoothed"))
    ]
    assert found[1] == {"kind": "averaged", "factor": 2} and found[2] == {"kind": "smoothed", "between": 0}
    assert TASKS["3d"] is evaluate_3d and TASKS["3d_changed"] is evaluate_3d_changed
    unit = Unit("3d", Path(), None, Path(), (("options", PropagationOptions()),), None)
    assert not any("volume" in name for name in unit.plain_parameters["options"])


def test_bounds_of_a_memory_are_not_asked_of_changed_volumes(model, case):
    options = PropagationOptions(window=MemoryWindow(remembered="truth"))
    with pytest.raises(StudyError, match="remember predictions only"):
        evaluate_3d_changed(model, case, DESIGNS, seed=1, options=options)
