"""Declared comparisons: pairing, averaging, effects and findings against hand-made and made-up tables."""

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table
from scipy import stats as scipy_stats

from medsam_nb.errors import InputError, StudyError
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics import paired
from medsam_nb.statistics.declarations import Comparison, declare
from medsam_nb.statistics.pairing import paired_values
from medsam_nb.statistics.pooling import check_table
from medsam_nb.statistics.signs import signed_rank

BOX = {"name": "box", "task": "2d", "vary": "prompt", "a": "one_box", "b": "one_point"}
BOX |= {"where": {"mask_choice": "first_mask", "model": "miniature_sam2"}}


def pairs(d, sets=None):
    """Differences as pairs, of one data set or of those named."""
    return pd.DataFrame({"data_set": sets if sets is not None else "s", "a": np.asarray(d, float), "b": 0.0})


def test_superiority_on_hand_made_numbers():
    assert paired.superiority(np.array([1.0, 0.0, -1.0, 2.0])) == pytest.approx(0.625)
    assert np.isnan(paired.superiority(np.array([])))


def test_equal_values_tie_although_floating_point_says_otherwise():
    assert paired.differences([0.3, 0.1 + 0.2], [0.1 + 0.2, 0.3]).tolist() == [0.0, 0.0]


def test_data_sets_weigh_alike_and_units_stand_beside():
    row = paired.compare_pairs(
        pairs([0.1] * 8 + [-0.2, -0.2], ["a"] * 8 + ["b"] * 2), Comparison("c", {}, {})
    )
    assert row["difference"] == pytest.approx(-0.05) == row["mean_a"] - row["mean_b"]
    assert row["case_weighted"] == pytest.approx(0.04)
    assert row["median_difference"] == pytest.approx(0.1) and row["largest_share"] == pytest.approx(0.8)
    assert (row["sets_above"], row["sets_below"]) == (1, 1)
    assert row["method"] == "sign-change test of the mean over 10 cases within 2 data sets, two-sided"


def test_medians_and_ranks_are_of_what_was_drawn():
    """Eight data sets: of their means, however many patients each has."""
    means = np.array([0.02, 0.05, 0.01, 0.04, -0.03, 0.06, 0.02, 0.07])
    row = paired.compare_pairs(
        pairs(np.repeat(means, 5), np.repeat(np.arange(8), 5)), Comparison("c", {}, {})
    )
    assert row["median_difference"] == pytest.approx(np.median(means))
    assert row["p_signed_rank"] == signed_rank(means)[0]
    assert row["p"] == pytest.approx(scipy_stats.ttest_1samp(means, 0).pvalue)
    assert (row["n"], row["n_data_sets"]) == (40, 8)


def test_equivalence_is_two_one_sided_tests_and_their_interval():
    d = np.random.default_rng(1).normal(0.01, 0.02, 20)
    declared = Comparison("c", {}, {}, test="equivalence", margin=0.05)
    row = paired.compare_pairs(pairs(d), declared)
    lower = paired.compare_pairs(pairs(d + 0.05), Comparison("c", {}, {}, alternative="greater"))
    upper = paired.compare_pairs(pairs(d - 0.05), Comparison("c", {}, {}, alternative="less"))
    assert row["p"] == max(lower["p"], upper["p"]) and row["ci_level"] == 0.9
    of_ranks = [
        scipy_stats.wilcoxon(d + 0.05, alternative="greater").pvalue,
        scipy_stats.wilcoxon(d - 0.05, alternative="less").pvalue,
    ]
    assert row["p_signed_rank"] == pytest.approx(max(of_ranks), rel=1e-6)
    inside = row["ci_low"] > -0.05 and row["ci_high"] < 0.05
    assert inside == (row["p"] < 0.05) and inside
    assert paired.compare_pairs(pairs(d + 0.05), declared)["p"] > 0.05


@pytest.mark.parametrize(
    ("n", "declared", "words"),
    [
        (5, {}, "only 5 cases: a two-sided test cannot reach p < 0.05"),
        (4, {"alternative": "greater"}, "only 4 cases: a one-sided test cannot reach p < 0.05"),
        (4, {"test": "not_worse"}, "only 4 cases: a one-sided test cannot reach p < 0.05"),
        (5, {"alternative": "greater"}, ""),
        (5, {"test": "equivalence"}, ""),
        (6, {}, ""),
    ],
)
def test_too_few_for_a_test_of_that_side_is_said_and_true(n, declared, words):
    row = paired.compare_pairs(pairs([0.01] * n), Comparison("c", {}, {}, **declared))
    assert row["note"] == words
    assert (row["p"] < 0.05) == (words == "")  # as small as it can be


def test_corrected_intervals_answer_to_corrected_p_values():
    """A family of four: an interval leaves 0 exactly where the corrected p is below 0.05."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        rows, intervals = [], []
        for effect in (0.0, 0.02, 0.05, 0.1):
            row, interval = paired.assess(pairs(rng.normal(effect, 0.08, 15)), Comparison("c", {}, {}))
            rows.append(row | {"family": "f"})
            intervals.append(interval)
        found = paired.corrected(rows, intervals)
        left = (found["holm_low"] > 0) | (found["holm_high"] < 0)
        assert (left == (found["p_holm"] < 0.05)).all()
        assert (found["holm_low"] <= found["ci_low"] + 1e-7).all() and found["n_tests"].eq(4).all()


def test_what_repeats_another_test_is_not_counted():
    rows = [{"family": "f", "p": p, "ci_level": 0.95} for p in (0.01, 0.01, 0.04)]
    found = paired.corrected(rows, [None] * 3, counted=[True, False, True])
    assert found["p_holm"].tolist()[0] == pytest.approx(0.02) and np.isnan(found["p_holm"][1])
    assert found["n_tests"].eq(2).all()


def test_patients_not_cases_are_the_unit():
    """Three patients with four cases each: slices, objects, cases and then patients weigh alike."""
    table = made_up_table(("MRI-Heart",), cases=12)
    number = table["case_id"].str[-2:].astype(int) // 4
    grouped = table.assign(patient_id=("p" + number.astype(str)).astype("string"))
    row = paired.compare(grouped, [BOX]).iloc[0]
    assert (row["n"], row["n_patients"], row["n_cases"]) == (3, 3, 12) and row["unit"] == "patient"
    assert row["note"] == "only 3 patients: a two-sided test cannot reach p < 0.05"
    assert row["generalises_to"] == "these patients alone"
    alone = paired.compare(table, [BOX]).iloc[0]
    assert alone["unit"] == "case" and alone["n"] == 12
    assert row["mean_a"] == pytest.approx(alone["mean_a"])  # four cases each: the same mean
    wide = paired_values(check_table(grouped), declare(BOX)).values
    assert wide["n_cases"].tolist() == [4, 4, 4]
    split = table.assign(patient_id=table["case_id"].where(table["slice_index"] > 4, "other"))
    with pytest.raises(InputError, match="case 'MRI-Heart_00' belongs to patients"):
        paired.compare(split, [BOX])


def test_dice_of_slices_follows_from_their_iou():
    table = made_up_table(("MRI-Heart",), cases=7)
    found = paired.compare(table, [BOX | {"metric": "dice"}]).iloc[0]
    stored = table.assign(value=2 * table["value"] / (1 + table["value"]), metric="dice").astype(table.dtypes)
    beside = paired.compare(stored, [BOX | {"metric": "dice"}]).iloc[0]
    assert found["metric"] == "dice" and found["mean_a"] == pytest.approx(beside["mean_a"])
    assert found["p"] == beside["p"] and found["mean_a"] > paired.compare(table, [BOX]).iloc[0]["mean_a"]


def test_a_summary_weighs_data_sets_alike_and_averages_within_patients():
    cases = pd.DataFrame(
        {
            "data_set": ["a"] * 4 + ["b"] * 2,
            "patient_id": ["1", "1", "1", "2", "3", "4"],
            "case_id": list("uvwxyz"),
            "prompt": "one_box",
            "value": [0.9, 0.9, 0.9, 0.1, 0.6, 0.6],
        }
    )
    row = paired.summarise(cases, ["prompt"]).iloc[0]
    assert row["mean"] == pytest.approx((0.5 + 0.6) / 2) and np.isnan(row["ci_low"])
    assert (row["n_patients"], row["n_cases"], row["n_data_sets"]) == (4, 6, 2)
    many = pd.DataFrame(
        {"data_set": list("abcdefg"), "case_id": "1", "prompt": "p", "value": np.arange(7) / 10}
    )
    low, high = scipy_stats.ttest_1samp(many["value"], 0).confidence_interval()
    assert paired.summarise(many, ["prompt"]).iloc[0][["ci_low", "ci_high"]].tolist() == pytest.approx(
        [low, high]
    )


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
    assert "one case" in result["note"][0] and "no case has both sides" in result["note"][1]


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
        ({"unit": "slice"}, "'slice' is no known unit"),
        ({"margin": 0}, "margin is not positive"),
        ({"where": {"promt": "x"}}, "unknown columns promt"),
    ):
        with pytest.raises(StudyError, match=words):
            declare({**BOX, **wrong})
    with pytest.raises(StudyError, match="'b' is missing"):
        declare({"name": "x", "a": 1})
