"""What is generalised to: tables of known truth, and the promises about errors in a quick version."""

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table

from benchmarks import check_statistics
from medsam_nb.statistics import inference
from medsam_nb.statistics.paired import compare, holm, holm_levels
from medsam_nb.statistics.pooling import case_means, patient_means

REPEATS = 150
LIMIT = 0.05 + 3 * np.sqrt(0.05 * 0.95 / REPEATS)
BOX = {"name": "box", "task": "2d", "vary": "prompt", "a": "one_box", "b": "one_point"}
BOX |= {"where": {"mask_choice": "first_mask", "model": "miniature_sam2"}}


def test_the_level_follows_from_the_number_of_data_sets():
    d = np.full(12, 0.1) + np.arange(12) / 1000
    six, two = np.repeat(list("abcdef"), 2), np.repeat(list("ab"), 6)
    others, these = inference.infer(d, six), inference.infer(d, two)
    assert others["generalises_to"] == inference.OTHERS and others["n_units"] == 6
    assert these["generalises_to"] == inference.THESE and these["n_units"] == 12
    assert "on data sets" in others["method"] and "on patients" in these["method"]
    assert inference.infer(d[:3], two[:3])["generalises_to"] == inference.NONE


def test_one_huge_contrary_data_set_does_not_decide():
    sets = np.repeat(np.arange(18), [10] * 17 + [1000]).astype(str)
    d = np.where(sets == "17", -0.05, 0.05) + np.random.default_rng(0).normal(0, 0.02, len(sets))
    found = inference.infer(d, sets)
    assert found["p"] < 0.05 and found["difference"] > 0.03 and found["case_weighted"] < 0
    assert (found["sets_above"], found["sets_below"]) == (17, 1)
    assert found["largest_share"] == pytest.approx(1000 / 1170)


def test_tiny_gains_and_large_losses_are_no_gain():
    gains, losses = np.linspace(0.001, 0.01, 33), np.linspace(-0.3, -0.1, 27)
    found = inference.infer(np.r_[gains, losses], np.full(60, "one"))
    assert np.median(np.r_[gains, losses]) > 0 > found["difference"] and found["rank_biserial"] < 0


def test_pictures_of_one_patient_are_no_patients():
    table = made_up_table(("MRI-Heart",), cases=12)
    owner = table["case_id"].str.extract(r"_(\d+)$")[0].astype(int) // 3
    shared = table.assign(patient_id="patient " + owner.astype(str))
    row, own = compare(shared, [BOX]).iloc[0], compare(table, [BOX]).iloc[0]
    assert (row["n"], row["n_cases"], row["unit"]) == (4, 12, "patient")
    assert (own["n"], own["n_cases"], own["unit"]) == (12, 12, "case")
    assert "4 units: the test cannot reach" in row["note"] and not own["note"]
    means = case_means(shared[shared["task"] == "2d"], ["prompt", "model"])
    of_patient = patient_means(means, ["prompt", "model"])
    one = means[(means["patient_id"] == "patient 0") & (means["prompt"] == "one_box")]
    found = of_patient[(of_patient["patient_id"] == "patient 0") & (of_patient["prompt"] == "one_box")]
    assert found["value"].tolist() == pytest.approx(one.groupby("model")["value"].mean().tolist())


def test_dice_follows_from_the_iou_of_a_slice():
    table = made_up_table(("MRI-Heart",), cases=8)
    row = compare(table, [BOX | {"metric": "dice"}]).iloc[0]
    rows = table[(table["task"] == "2d") & (table["mask_choice"] == "first_mask")]
    rows = rows[(rows["model"] == "miniature_sam2") & (rows["prompt"] == "one_box")]
    iou = rows["value"].astype(float)
    expected = (2 * iou / (1 + iou)).groupby(rows["case_id"]).mean().mean()
    assert row["mean_a"] == pytest.approx(expected)


def test_holms_intervals_agree_with_holms_p_values():
    rng = np.random.default_rng(3)
    for _ in range(50):
        effects = rng.choice([0.0, 0.6], 6)
        d = [rng.normal(effect, 1, 25) for effect in effects]
        p = np.array([inference.infer(x, np.full(25, "a"))["p"] for x in d])
        corrected, levels = holm(p), holm_levels(p)
        for x, value, left in zip(d, corrected, levels, strict=True):
            low, high = inference.interval_at(x, np.full(25, "a"), 1 - left)
            assert (low > 0 or high < 0) == (value < 0.05)


def test_the_mean_and_its_interval_by_hand():
    values = np.array([0.4, 0.6, 0.9, 0.7, 0.8])
    sets = np.array(["a", "a", "b", "b", "b"])
    mean, low, high = inference.mean_interval(values, sets)
    assert mean == pytest.approx((0.5 + 0.8) / 2)
    variance = (0.02 + 0.02) / 3  # within data sets, 3 degrees of freedom
    error = np.sqrt(variance / 2 + variance / 3) / 2
    assert [low, high] == pytest.approx([mean - 3.182446 * error, mean + 3.182446 * error], abs=1e-6)
    one = inference.mean_interval(np.array([0.5]), np.array(["a"]))
    assert one[0] == 0.5 and np.isnan(one[1])


@pytest.mark.parametrize("between", [0.03, 0.08])
def test_effects_that_differ_between_data_sets_are_not_called_general(between):
    assert check_statistics.findings(check_statistics.STUDY_COUNTS, between, 0.0, REPEATS)["false"] <= LIMIT
    assert check_statistics.findings((10,) * 4, between, 0.0, REPEATS)["false"] <= LIMIT


def test_no_effect_is_rarely_a_finding_and_a_clear_one_mostly():
    for counts in ((10,), (3, 12, 1, 40), (10,) * 8):
        assert check_statistics.findings(counts, 0.0, 0.0, REPEATS)["false"] <= LIMIT
    assert check_statistics.findings((10,) * 12, 0.05, 0.08, 60)["above"] > 0.9


def test_the_best_of_many_equal_designs_is_rarely_called_better():
    assert check_statistics.best_of_designs((24,), 64, REPEATS) <= LIMIT
    assert check_statistics.best_of_designs((24,), 32, REPEATS, bar=0.8) <= LIMIT


def test_families_and_equivalence_err_as_often_as_they_may():
    wrong, power = check_statistics.family((20,), 0.1, REPEATS)
    assert wrong <= LIMIT and power > 0.9
    assert check_statistics.equivalences(0.05, (20,), REPEATS) <= LIMIT
    assert check_statistics.equivalences(0.0, (40,), 60) > 0.9


@pytest.mark.parametrize("counts", [(6,), (10,) * 4, (10,) * 8])
def test_intervals_cover_about_as_often_as_they_say(counts):
    seen = check_statistics.coverage(counts, 0.05, REPEATS)
    assert seen["effect"] > 0.95 - 3 * np.sqrt(0.05 * 0.95 / REPEATS)
    assert seen["mean"] > 0.88  # a t interval of skewed values


def test_missing_cells_are_matched_away():
    table = made_up_table(("MRI-Heart",), cases=8)
    gone = (table["case_id"] == "MRI-Heart_00") & (table["prompt"] == "one_point")
    row = compare(table[~gone], [BOX]).iloc[0]
    assert (row["n"], row["n_unpaired"]) == (7, 1)
    assert isinstance(row["note"], str) and pd.notna(row["p"])
