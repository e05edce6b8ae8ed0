"""The break of a line over the distance: found where it is, not shown where there is none."""

import numpy as np
import pandas as pd
import pytest

from medsam_nb.protocol.table import as_table
from medsam_nb.statistics.change_point import ChangePoint, by_distance, change_point


def patients(at, before, after, *, noise=0.02, number=20, farthest=12, seed=0):
    """Means of patients whose levels differ widely and whose objects reach differently far."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(number):
        distance = np.arange(1 + int(rng.integers(farthest // 2, farthest + 1)))
        line = before * np.minimum(distance, at) + after * np.maximum(distance - at, 0)
        value = 0.7 + rng.normal(0, 0.2) + line + rng.normal(0, noise, len(distance))
        place = {"data_set": f"set {patient % 2}", "patient_id": f"p{patient}"}
        rows.append(pd.DataFrame(place | {"distance": distance, "value": value}))
    return pd.concat(rows, ignore_index=True)


def test_a_break_without_noise_is_found_exactly():
    found = change_point(patients(4, -0.01, -0.06, noise=0), draws=200)
    assert (found.at, found.low, found.high) == (4, 4, 4)
    assert found.before == pytest.approx(-0.01) and found.after == pytest.approx(-0.06)
    assert found.n_patients == 20 and found.n_data_sets == 2 and not found.note


def test_the_interval_of_the_break_covers_it_and_no_break_is_found_in_a_straight_line():
    """Of 40 draws; in 300, straight lines had a break in 8 % (5 % would be right: it is searched for)."""
    covered = shown = 0
    for seed in range(40):
        broken = change_point(patients(5, 0, -0.05, seed=seed), draws=300, seed=seed)
        covered += broken.low <= 5 <= broken.high and broken.change_high < 0
        straight = change_point(patients(5, -0.02, -0.02, seed=seed), draws=300, seed=seed)
        shown += not straight.change_low <= 0 <= straight.change_high
    assert covered >= 38 and shown <= 7


def test_the_same_seed_gives_the_same_interval_in_any_order_of_rows():
    means = patients(5, 0, -0.05)
    shuffled = means.sample(frac=1, random_state=1)
    assert change_point(means, seed=3) == change_point(shuffled, seed=3)


def test_too_few_patients_or_slices_give_a_reason():
    few = change_point(patients(4, 0, -0.1, number=4))
    assert "needs 5 patients" in few.note and np.isnan(few.at)
    assert change_point(patients(1, 0, -0.1, farthest=2)).note
    assert change_point(patients(4, 0, -0.1)[:0]) == ChangePoint(
        note="needs 5 patients that reach 3 slices or more from the prompt"
    ) or np.isnan(change_point(patients(4, 0, -0.1)[:0]).at)


def test_both_sides_of_a_patient_are_averaged_and_objects_before_cases():
    rows = [
        {"task": "3d", "data_set": "s", "patient_id": "p", "case_id": case, "object": name, "metric": "iou"}
        | {"slice_index": 5 + d, "distance_slices": d, "value": value}
        for case, name, d, value in (
            ("a", "x", -1, 0.2), ("a", "x", 1, 0.4), ("a", "y", 1, 0.5),
            ("b", "x", 1, 0.8), ("b", "x", 0, 0.9),
        )
    ]  # fmt: skip
    means = by_distance(as_table(rows)).set_index("distance")["value"]
    assert means[0] == 0.9 and means[1] == pytest.approx(((0.3 + 0.5) / 2 + 0.8) / 2)
