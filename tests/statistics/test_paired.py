"""Statistics against independent computations: closed forms, scipy on hand-made numbers, simulations."""

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table
from scipy import stats as scipy_stats

from medsam_nb.errors import InputError, StudyError
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics import paired
from medsam_nb.statistics.inference import infer
from medsam_nb.statistics.pooling import check_table, declare, paired_values

BOX = {"name": "box", "task": "2d", "vary": "prompt", "a": "one_box", "b": "one_point"}
BOX |= {"where": {"mask_choice": "first_mask", "model": "miniature_sam2"}}


def test_superiority_on_hand_made_numbers():
    assert paired.superiority(np.array([1.0, 0.0, -1.0, 2.0])) == pytest.approx(0.625)


def test_holm_steps_down_as_its_definition_says():
    p = np.random.default_rng(4).random(12) ** 3
    expected, running = np.empty(12), 0.0
    for rank, place in enumerate(np.argsort(p)):
        running = max(running, min(1.0, (12 - rank) * p[place]))
        expected[place] = running
    assert paired.holm(p) == pytest.approx(expected)


def test_holm_on_hand_made_numbers():
    corrected = paired.holm(np.array([0.01, np.nan, 0.04, 0.03]))
    assert corrected[[0, 2, 3]] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(corrected[1])


def test_equivalence_is_two_one_sided_tests():
    d = np.random.default_rng(1).normal(0.01, 0.02, 20)
    w = [
        scipy_stats.wilcoxon(d + 0.05, alternative="greater", method="exact").pvalue,
        scipy_stats.wilcoxon(d - 0.05, alternative="less", method="exact").pvalue,
    ]
    sets = np.full(20, "one")
    assert infer(d, sets, test="equivalence", margin=0.05)["p"] == pytest.approx(max(w), rel=1e-6)
    assert infer(d + 0.05, sets, test="equivalence", margin=0.05)["p"] > 0.05


def test_equal_values_tie_although_floating_point_says_otherwise():
    assert paired.differences([0.3, 0.1 + 0.2], [0.1 + 0.2, 0.3]).tolist() == [0.0, 0.0]


def test_a_declared_comparison_finds_the_built_in_effect():
    table = made_up_table()
    result = paired.compare(table, [BOX]).iloc[0]
    assert result["n"] == 16 and result["n_tests"] == 1 and result["n_unpaired"] == 0
    assert result["ci_low"] < 0.15 < result["ci_high"]
    assert result["rank_biserial"] == 1.0
    assert result["p"] == pytest.approx(2 / 2**16)


def test_2d_and_3d_are_compared_on_the_same_slices():
    table = made_up_table(cases=3)
    comparison = declare(
        {
            "name": "2d against 3d",
            "a": {"task": "2d", "mask_choice": "first_mask"},
            "b": {"task": "3d", "mask_choice": "first_mask"},
            "where": {"model": "miniature_sam2", "prompt": "one_box"},
            "slices": "propagated",
        }
    )
    values = paired_values(check_table(table), comparison).values
    rows = table[(table["prompt"] == "one_box") & (table["model"] == "miniature_sam2")]
    rows = rows[rows["case_id"] == "MRI-Heart_00"]
    three = rows[
        (rows["task"] == "3d") & (rows["mask_choice"] == "first_mask") & (rows["distance_slices"] != 0)
    ]
    two = rows[(rows["task"] == "2d") & (rows["mask_choice"] == "first_mask")]
    joined = pd.concat(
        [two.groupby("slice_index")["value"].mean(), three.groupby("slice_index")["value"].mean()],
        axis=1,
        join="inner",
    )
    found = values[values["patient_id"] == "MRI-Heart_00"].iloc[0]
    assert len(joined) == 6  # the slices that both have
    assert [found["a"], found["b"]] == pytest.approx(joined.astype(float).mean().tolist())


def test_each_makes_one_comparison_per_level():
    item = {**BOX, "where": {"mask_choice": "first_mask"}, "each": "model"}
    result = paired.compare(made_up_table(cases=3), [item])
    assert result["level"].tolist() == ["miniature_sam", "miniature_sam2"]


def test_what_cannot_be_compared_is_said():
    table = made_up_table(cases=1, data_sets=("MRI-Heart",))
    result = paired.compare(table, [BOX, {**BOX, "name": "none", "a": "box_over_all"}])
    assert np.isnan(result["p"]).all() and np.isnan(result["ci_low"]).all()
    assert result["n"].tolist() == [1, 0] and result["n_tests"].tolist() == [0, 0]
    assert "one unit" in result["note"][0] and "no unit has both sides" in result["note"][1]


def test_duplicates_and_mixed_experiments_are_refused():
    table = made_up_table(cases=2)
    with pytest.raises(InputError, match="share their keys"):
        paired.compare(as_table(pd.concat([table, table.head(3)])), [BOX])
    with pytest.raises(InputError, match="mixes model miniature_sam, miniature_sam2"):
        paired.compare(table, [{**BOX, "where": {"mask_choice": "first_mask"}}])
    other = table.assign(protocol="released").astype({"protocol": "string"})
    with pytest.raises(InputError, match="mixes protocol corrected, released"):
        paired.compare(pd.concat([table, other]), [BOX])


def test_a_failed_mask_counts_as_zero_and_is_counted():
    table = made_up_table(cases=8, data_sets=("MRI-Heart",))
    hit = (table["prompt"] == "one_box") & (table["case_id"] == "MRI-Heart_00") & (table["task"] == "2d")
    lost = table.assign(value=table["value"].mask(hit, pd.NA))
    result = paired.compare(lost, [BOX]).iloc[0]
    zeroed = paired.compare(table.assign(value=table["value"].mask(hit, 0.0)), [BOX]).iloc[0]
    assert result["failed_a"] == 6 and result["failed_b"] == 0
    assert result["mean_a"] == zeroed["mean_a"]


def test_mistakes_in_a_declaration_are_named():
    for wrong, words in (
        ({"aa": 1}, "unknown entries aa"),
        ({"unit": "slice"}, "unit is 'slice'"),
        ({"margin": 0}, "margin is not positive"),
        ({"where": {"promt": "x"}}, "unknown columns promt"),
    ):
        with pytest.raises(StudyError, match=words):
            declare({**BOX, **wrong})
    with pytest.raises(StudyError, match="'b' is missing"):
        declare({"name": "x", "a": 1})
