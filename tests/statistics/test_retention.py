"""The retention ratio against hand-made tables and built-in decays."""

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table

from medsam_nb.errors import InputError
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics.retention import retention, retention_at


def rows(values, prompted, case_id="a", name="organ", direction="bidirectional", **more):
    """3D rows of one object on slices 0, 1, ...: the distance is to the nearest prompted slice."""
    return [
        {
            "task": "3d",
            "data_set": "s",
            "case_id": case_id,
            "object": name,
            "model": "m",
            "prompt": "one_box",
            "direction": direction,
            "slice_index": z,
            "distance_slices": min((z - p for p in prompted), key=abs),
            "metric": "iou",
            "value": value,
            **more,
        }
        for z, value in enumerate(values)
    ]


def ratios(found):
    return found.set_index("distance_slices")["value"].to_dict()


def test_every_slice_is_divided_by_the_prompted_slice_it_came_from():
    table = as_table(rows([0.4, 0.8, 0.6, 0.2, 0.4, 0.1], prompted=(1, 4)))
    # at -1: slices 0 (0.4 of 0.8) and 3 (0.2 of 0.4); at +1: 2 (0.6 of 0.8) and 5 (0.1 of 0.4)
    found = ratios(retention(table))
    assert found == pytest.approx({-1: 0.3 / 0.6, 1: 0.35 / 0.6})


def test_objects_weigh_the_same_and_undefined_ones_are_counted():
    table = as_table(
        rows([0.8, 0.4], (0,))
        + rows([0.4, 0.4], (0,), name="tumour")
        + rows([0.09, 0.3], (0,), name="vessel")
        + rows([0.0, 0.3], (0,), case_id="b")
    )
    found = retention(table).set_index("case_id")
    assert found.loc["a", "value"] == pytest.approx(0.75)
    assert found.loc["a", ["n_objects", "n_undefined"]].tolist() == [2, 1]
    assert np.isnan(found.loc["b", "value"]) and found.loc["b", "n_undefined"] == 1


def test_only_designs_that_reach_a_distance_enter_its_ratio():
    table = as_table(rows([0.8, 0.4], (0,)) + rows([0.2, 0.2, 0.1], (0,), prompt="one_point", object="organ"))
    assert ratios(retention(table)) == pytest.approx({1: 0.6, 2: 0.5})
    apart = retention(table, by="prompt").set_index(["prompt", "distance_slices"])["value"]
    assert apart["one_box", 1] == pytest.approx(0.5) and apart["one_point", 1] == pytest.approx(1.0)


def test_the_built_in_decay_is_found_and_both_sides_are_averaged():
    table = made_up_table(cases=3)
    table = table[(table["prompt"] == "mask") & (table["frame_choice"] == "centre_slice")]
    exact = table["distance_slices"].abs().astype(float)
    table = table.assign(value=pd.array(0.8 - 0.02 * exact, "Float64"))
    found = retention(table)
    assert found["value"].to_numpy() == pytest.approx(1 - 0.025 * found["distance_slices"].abs())
    stated = retention_at(found, "direction", steps=(1, 4))
    assert set(stated["slices"]) == {1, 4} and len(stated) == 2 * 2 * 6
    assert stated.loc[stated["slices"] == 4, "value"].to_numpy() == pytest.approx(0.9)


def test_nothing_to_measure_and_mixed_experiments():
    assert retention(as_table([])).empty and retention_at(retention(as_table([])), "direction").empty
    table = as_table(rows([0.8, 0.4], (0,), protocol="corrected") + rows([0.8, 0.4], (0,), model="other"))
    with pytest.raises(InputError, match="model has several values"):
        retention(table)
    assert set(retention(table, by="model")["model"]) == {"m", "other"}
