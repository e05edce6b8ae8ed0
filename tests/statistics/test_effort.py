"""Curves, areas, numbers of clicks and gains against values worked out one by one."""

import numpy as np
import pytest
from helpers.made_up import made_up_cases, rows_of_loops

from medsam_nb.errors import StudyError
from medsam_nb.protocol.effort import area_under_curve, number_of_clicks
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics import effort

SECONDS = {"one_point": 2.0, "one_box": 7.0, "mask": 80.0}


def click_rows(curves, data_set="MRI-Heart", patient=None, prompt="one_point"):
    """One row per value; `curves` is case -> object -> slice -> values."""
    for case_id, objects in curves.items():
        for name, slices in objects.items():
            for z, values in slices.items():
                for loop, value in enumerate(values):
                    last = loop == len(values) - 1 < 3
                    yield {
                        "task": "2d_clicks", "data_set": data_set, "case_id": case_id, "object": name,
                        "patient_id": (patient or {}).get(case_id, case_id), "model": "m", "prompt": prompt,
                        "mask_choice": "most_confident_mask", "protocol": "corrected", "strategy": "clicks",
                        "new_information": "one_point", "loop": loop, "n_prompts": loop + 1,
                        "ended": "no error is left" if last else None, "slice_index": z, "truth_px": 9,
                        "metric": "iou", "value": value,
                    }  # fmt: skip


CURVES = {
    "a": {"organ": {1: [0.5, 0.8, 0.9, 0.7], 2: [0.6, 1.0]}, "vessel": {4: [0.2, 0.3, 0.4, 0.5]}},
    "b": {"organ": {1: [0.8, 0.81, 0.82, 0.99]}},
}
TABLE = as_table(list(click_rows(CURVES)))


def test_a_curve_that_ended_stays_where_it_was():
    rows = effort.continued_rows(TABLE)
    stayed = rows[(rows["case_id"] == "a") & (rows["slice_index"] == 2)].sort_values("loop")
    assert stayed["value"].tolist() == [0.6, 1.0, 1.0, 1.0] and stayed["loop"].tolist() == [0, 1, 2, 3]
    assert stayed["n_prompts"].tolist() == [1, 2, 2, 2]
    assert len(rows) == 16 and effort.continued_rows(TABLE[:0]).empty


def test_curves_weigh_slices_then_objects_then_cases():
    found = effort.curves(TABLE, ["model"]).set_index("loop")
    organ = [np.mean(pair) for pair in ((0.5, 0.6), (0.8, 1.0), (0.9, 1.0), (0.7, 1.0))]
    a = [(o + v) / 2 for o, v in zip(organ, (0.2, 0.3, 0.4, 0.5), strict=True)]
    expected = [(one + other) / 2 for one, other in zip(a, (0.8, 0.81, 0.82, 0.99), strict=True)]
    assert found["mean"].tolist() == pytest.approx(expected)
    assert set(found["n_patients"]) == {2} and found["ci_low"].isna().all()  # two have no interval
    dice = effort.curves(TABLE[TABLE["case_id"] == "b"], ["model"], "dice")
    assert dice["mean"].tolist() == pytest.approx([2 * v / (1 + v) for v in (0.8, 0.81, 0.82, 0.99)])


def test_patients_are_the_unit_of_curves_and_areas():
    table = as_table(list(click_rows(CURVES | {"c": CURVES["b"]}, patient={"b": "p", "c": "p"})))
    for found in (effort.curves(table, ["model"]), effort.areas(table, ["model"])):
        assert set(found["n_patients"]) == {2} and set(found["n_cases"]) == {3}
    assert (
        effort.curves(table, ["model"])["mean"].tolist() == effort.curves(TABLE, ["model"])["mean"].tolist()
    )


def test_the_area_is_that_of_the_mean_curve():
    curve = effort.curves(TABLE, ["model"])["mean"].tolist()
    (found,) = effort.areas(TABLE, ["model"])["mean"]
    assert found == pytest.approx(area_under_curve(curve))


def test_numbers_of_clicks_count_what_was_not_reached():
    found = effort.clicks_to_reach(TABLE, ["model", "prompt"]).set_index("target")
    assert found["n"].tolist() == [4, 4, 4] and found["limit"].tolist() == [4, 4, 4]
    slices = [values for objects in CURVES.values() for one in objects.values() for values in one.values()]
    for target in (0.8, 0.85, 0.9):
        numbers = [number_of_clicks(values, target) for values in slices]
        reached = [number for number in numbers if number]
        row = found.loc[target]
        assert (row["reached"], row["unreached"]) == (len(reached), 4 - len(reached))
        assert row["noc_reached"] == pytest.approx(np.mean(reached))
        assert row["noc"] == pytest.approx(np.mean([number or 4 for number in numbers]))
    assert np.isnan(effort.clicks_to_reach(TABLE, ["model"], [1.01])["noc_reached"]).all()


def loops(gain, ended=()):
    gains = {"one_point": 0.0, "mask": gain}
    return as_table(list(rows_of_loops(made_up_cases(cases=6), np.random.default_rng(1), gains, ended)))


def test_gains_and_what_they_cost():
    found = effort.gains(loops(0.1), SECONDS).set_index(["strategy", "new_information"])
    masks = found.loc["correction", "mask"]
    assert masks["gain"] == pytest.approx(0.2, abs=0.01) and masks["ci_low"] > 0.15
    assert masks["further_prompts"] == 4 and masks["further_seconds"] == 320
    assert masks["gain_per_prompt"] == pytest.approx(masks["gain"] / 4)
    assert masks["gain_per_minute"] == pytest.approx(masks["gain"] / 320 * 60)
    assert masks["after"] - masks["before"] == pytest.approx(masks["gain"])
    point = found.loc["reinitialisation", "one_point"]
    assert point["further_prompts"] == 2 and point["further_seconds"] == 4 and abs(point["gain"]) < 0.01
    assert set(found.index.get_level_values(0)) == {"correction", "reinitialisation"}


def test_the_running_predictor_ends_with_a_fresh_one():
    """What a fresh predictor makes of all its prompts is what counts, as in claim H8; its loops stay."""
    table = loops(0.1)
    fresh = table["strategy"] == "correction_reinitialised"
    assert (
        fresh.sum()
        and "correction_reinitialised" not in effort.curves(table, ["strategy"])["strategy"].tolist()
    )
    better = table.assign(value=table["value"].where(~fresh, table["value"] + 0.05))
    before, after = (
        effort.gains(one, SECONDS).set_index(["strategy", "new_information"]) for one in (table, better)
    )
    change = after["gain"] - before["gain"]
    assert change["correction"].tolist() == pytest.approx([0.05] * len(change["correction"]))
    assert change["reinitialisation"].abs().max() == 0
    masks = after.loc["correction", "mask"]
    assert (
        masks["corrected_low"] < masks["ci_low"] < masks["gain"] < masks["ci_high"] < masks["corrected_high"]
    )


def test_cases_that_could_not_be_corrected_are_counted_with_their_reasons():
    table = loops(0.1, ended={("MRI-Heart", 0), ("CT-Spleen", 3)})
    found = effort.gains(table, SECONDS)
    assert set(found["uncorrected"]) == {2} and set(found["n_cases"]) == {12}
    assert found.loc[found["new_information"] == "mask", "gain"].max() < 0.18
    told = effort.reasons(table).set_index(["strategy", "new_information", "reason"])["curves"]
    assert told["correction", "mask", "no error is left"] == 2
    assert told["correction", "mask", "the limit was reached"] == 10
    clicks = effort.reasons(TABLE).set_index("reason")["curves"]
    assert clicks.to_dict() == {"no error is left": 1, "the limit was reached": 3}


def test_a_prompt_without_a_cost_is_refused_by_name():
    with pytest.raises(StudyError, match="says nothing of mask"):
        effort.gains(loops(0.1), {"one_point": 2.0})
    assert effort.gains(loops(0.1)[:0], SECONDS).empty


def test_the_effort_up_to_every_loop_is_the_mean_over_cases():
    table = loops(0.1, ended={("MRI-Heart", 0), ("CT-Spleen", 3)})
    by = ["prompt", "strategy", "new_information"]
    found = effort.with_effort(table, by, SECONDS).set_index(by + ["loop"])
    # Ten of twelve cases get two masks in each of the two loops, the others stay with their one point.
    masks = found.loc["one_point", "correction", "mask"]
    assert masks["n_prompts"].tolist() == pytest.approx([1, 1 + 2 * 10 / 12, 1 + 4 * 10 / 12])
    assert masks["seconds"].tolist() == pytest.approx([2, 2 + 160 * 10 / 12, 2 + 320 * 10 / 12])
    assert masks["mean"].tolist() == effort.curves(table, by).set_index(by).loc[
        ("one_point", "correction", "mask"), "mean"
    ].tolist()  # fmt: skip
