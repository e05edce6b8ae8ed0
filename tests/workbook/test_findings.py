"""Sentences about comparisons say what was found, and of whom it holds."""

import numpy as np
import pandas as pd

from medsam_nb.protocol.table import as_table
from medsam_nb.statistics.paired import compare
from medsam_nb.workbook.findings import (
    best_prompts,
    best_slices,
    comparisons_made,
    decay,
    objects_and_parts,
    reach_of,
    usable_cases,
)

BOX = {"name": "box", "vary": "prompt", "a": "one_box", "b": "one_point"}


def table_of(gains, sets):
    cases = pd.DataFrame({"data_set": np.asarray(sets, str), "case_id": [f"c{n}" for n in range(len(sets))]})
    rows = [
        cases.assign(prompt=prompt, metric="iou", value=0.5 + gain)
        for prompt, gain in (("one_box", np.asarray(gains)), ("one_point", 0.0))
    ]
    return as_table(pd.concat(rows))


def test_what_is_certain_but_does_not_matter_is_no_difference():
    """A p value alone says less than a finding: 0.004 IoU is certain here, and of no practical weight."""
    rng = np.random.default_rng(0)
    small = compare(table_of(0.004 + rng.normal(0, 0.002, 40), ["s"] * 40), [BOX])
    assert small["p_holm"].iloc[0] < 0.001
    assert (
        comparisons_made(small) == "1 of 1 comparison could be tested; after correction none has a finding."
    )
    large = compare(table_of(np.linspace(0.05, 0.15, 40), ["s"] * 40), [BOX])
    assert comparisons_made(large).endswith("1 have a finding (mean paired difference): box +0.10.")


def test_whom_it_holds_for():
    gains = np.linspace(0.05, 0.15, 12)
    within = "With fewer than six data sets, what is found holds within these data sets, not for others."
    assert reach_of(compare(table_of(gains, ["s"] * 12), [BOX])) == within
    assert reach_of(compare(table_of(gains, [0, 1] * 6), [BOX])) == within
    general = "Data sets are the units: what is found holds for data sets like these."
    assert reach_of(compare(table_of(gains, [*range(6)] * 2), [BOX])) == general
    assert reach_of(compare(table_of(gains[:3], ["s"] * 3), [BOX])) == "There are too few units for any test."


def test_the_fall_with_the_distance_is_said_of_the_same_cases():
    line = {
        "distance_slices": [-2, -1, 1, 2, 3],
        "mean": [0.6, 0.8, 0.7, 0.5, 0.9],
        "n_cases": [4, 4, 4, 4, 1],
    }
    said = decay(pd.DataFrame(line).assign(direction="bidirectional"))
    assert said.endswith(
        "as all 4 cases reach, the mean IoU goes: bidirectional from 0.75 to 0.55 2 slices away."
    )


def test_the_slice_to_prompt_is_said_by_prompt():
    cells = [("one_point", "first_slice", 0.7), ("one_point", "centre_slice", 0.5)]
    cells += [("mask", "first_slice", 0.6), ("mask", "centre_slice", 0.9)]
    ranked = pd.DataFrame(cells, columns=["prompt", "frame_choice", "mean IoU"]).assign(model="m")
    ranked = pd.concat([ranked, ranked.assign(frame_choice="three_slices", **{"mean IoU": 0.95})])
    assert best_slices(ranked, "m") == (
        "If one slice is prompted, the best (worst), over directions and masks: one point: first slice 0.70 "
        "(centre slice 0.50); mask: centre slice 0.90 (first slice 0.60)."
    )
    assert best_slices(ranked[ranked.frame_choice == "first_slice"], "m") == ""


def test_objects_of_several_parts_are_counted_on_prompted_slices():
    place = {"data_set": "s", "case_id": "c", "slice_index": [4, 5], "distance_slices": [0, 1]}
    one = pd.DataFrame(place | {"object": "organ", "n_components": [1, 1]})
    two = pd.DataFrame(place | {"object": "paired_organ", "n_components": [2, 2]})
    assert objects_and_parts(one) == "Objects: organ."
    assert objects_and_parts(pd.concat([one, two, two])) == (
        "Objects: organ, paired organ. On 1 of 2 prompted slices the object has several components: there a "
        "point or a box tells of the largest only, a mask of all."
    )


def test_data_are_named_with_their_numbers_of_usable_cases():
    cases = pd.DataFrame({"data_set": ["b_ct", "b_ct", "a", "a"], "status": ["ok", "ok", "ok", "failed"]})
    said = usable_cases(cases.assign(accuracy=True))
    assert said == "3 of 4 cases can be used; 1 could not be read or do not fit their row: b CT 2, a 1."
    none = usable_cases(cases.assign(accuracy=True, status="failed"))
    assert none == "0 of 4 cases can be used; 4 could not be read or do not fit their row."


def test_prompts_are_said_with_their_means_not_as_better_or_worse():
    rows = [
        ("m", "s", f"c{n}", prompt, value)
        for n in range(2)
        for prompt, value in (("one_box", 0.8), ("x", 0.5))
    ]
    means = pd.DataFrame(rows, columns=["model", "data_set", "case_id", "prompt", "value"])
    assert (
        best_prompts(means)
        == "M has its highest mean IoU with one box, 0.80; its lowest with x, 0.50 (2 cases)."
    )
