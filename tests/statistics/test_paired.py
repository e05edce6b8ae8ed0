"""Statistics against independent computations: closed forms, scipy on hand-made numbers, simulations."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table
from scipy import stats as scipy_stats

from benchmarks import check_statistics
from medsam_nb.errors import InputError, StudyError
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics import paired
from medsam_nb.statistics.pooling import declare, paired_values

BOX = {"name": "box", "task": "2d", "vary": "prompt", "a": "one_box", "b": "one_point"}
BOX |= {"where": {"mask_choice": "first_mask", "model": "miniature_sam2"}}


def by_all_sign_changes(d):
    """p of the signed-rank test from its definition: every assignment of signs, zeros after Pratt."""
    ranks = scipy_stats.rankdata(np.abs(d))
    moved = ranks[d != 0]
    seen = ranks[d > 0].sum()
    sums = np.array([moved[list(s)].sum() for s in product([False, True], repeat=len(moved))])
    return min(1.0, 2 * min((sums >= seen - 1e-9).mean(), (sums <= seen + 1e-9).mean()))


@pytest.mark.parametrize(
    "d",
    [
        [0.1, 0.2, 0.3, 0.4, -0.05, 0.6],  # neither ties nor zeros
        [0.1, 0.1, -0.1, 0.4, 0.5, 0.6, 0.7],  # ties
        [0.0, 0.0, 0.1, 0.2, 0.3, -0.4, 0.5, 0.6],  # zeros
        [0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
    ],
)
def test_the_signed_rank_test_equals_its_definition(d):
    p, _ = paired.signed_rank(np.array(d))
    assert p == pytest.approx(by_all_sign_changes(np.array(d)), abs=1e-12)


def test_large_samples_equal_scipys_normal_approximation():
    d = np.random.default_rng(0).normal(0.1, 1, 80)
    p, method = paired.signed_rank(d)
    ranks = scipy_stats.rankdata(np.abs(d))
    z = (ranks[d > 0].sum() - 80 * 81 / 4) / np.sqrt(80 * 81 * 161 / 24)
    assert p == pytest.approx(2 * scipy_stats.norm.sf(abs(z)), rel=1e-9)
    assert method == "normal approximation"


def test_signed_rank_without_information():
    assert paired.signed_rank(np.zeros(9)) == (1.0, "all differences are zero")
    assert np.isnan(paired.signed_rank(np.array([0.3]))[0])
    assert np.isnan(paired.signed_rank(np.array([]))[0])


def test_effect_sizes_on_hand_made_numbers():
    d = np.array([1.0, 2.0, 3.0, -4.0])  # ranks 1 2 3 | 4: (6 - 4) / 10
    assert paired.rank_biserial(d) == pytest.approx(0.2)
    assert paired.superiority(np.array([1.0, 0.0, -1.0, 2.0])) == pytest.approx(0.625)
    assert paired.rank_biserial(np.zeros(3)) == 0.0
    assert np.isnan(paired.rank_biserial(np.array([])))


def test_rank_biserial_is_that_of_scipys_rank_sum():
    d = np.random.default_rng(3).normal(0.2, 1, 15)
    favourable = scipy_stats.wilcoxon(d, alternative="greater").statistic
    assert paired.rank_biserial(d) == pytest.approx(2 * favourable / (15 * 16 / 2) - 1)


def test_holm_steps_down_as_its_definition_says():
    p = np.random.default_rng(4).random(12) ** 3
    expected, running = np.empty(12), 0.0
    for rank, place in enumerate(np.argsort(p)):
        running = max(running, min(1.0, (12 - rank) * p[place]))
        expected[place] = running
    assert paired.holm(p) == pytest.approx(expected)


def test_bootstrap_draws_against_closed_forms():
    """Two cases of one data set: the mean is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4."""
    draws = paired.bootstrap_draws(np.array([0.0, 1.0]), np.array(["s", "s"]), np.nanmean, 20_000)
    shares = [(draws == value).mean() for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.015)  # 4 standard errors
    # data sets drawn, then cases: variance of means plus that within, over the number of sets
    values = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]])
    groups = np.repeat(list("abcde"), 2)
    draws = paired.bootstrap_draws(values.ravel(), groups, np.nanmean, 20_000)
    between, within = values.mean(axis=1).var(), 0.25 / 2
    assert draws.mean() == pytest.approx(4.5, abs=0.04)
    assert draws.var() == pytest.approx((between + within) / 5, rel=0.05)
    given = paired.bootstrap_draws(values.ravel(), groups, np.nanmean, 20_000, outer=False)
    assert given.var() == pytest.approx(within / 5, rel=0.05)


def test_all_sign_changes_and_random_ones_agree():
    d = np.round(np.random.default_rng(5).normal(0.4, 1, 14), 1)  # ties, so that signs are changed
    p, method = paired.signed_rank(d)
    assert method == "9999 sign changes"
    assert p == pytest.approx(by_all_sign_changes(d), abs=4 * np.sqrt(0.25 / 9999))


def test_two_one_sided_tests_err_as_often_as_they_may():
    """A difference that lies exactly at the margin is rarely called equivalent, none mostly."""
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert check_statistics.equivalences(0.05, cases=15, repeats=200) <= limit
    assert check_statistics.equivalences(0.0, cases=30, repeats=50) > 0.9


def test_holm_on_hand_made_numbers():
    corrected = paired.holm(np.array([0.01, np.nan, 0.04, 0.03]))
    assert corrected[[0, 2, 3]] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(corrected[1])


def test_equivalence_agrees_with_two_one_sided_tests():
    d = np.random.default_rng(1).normal(0.01, 0.02, 20)
    p, p_t, _ = paired.equivalence(d, 0.05)
    t = [
        scipy_stats.ttest_1samp(d, -0.05, alternative="greater").pvalue,
        scipy_stats.ttest_1samp(d, 0.05, alternative="less").pvalue,
    ]
    assert p_t == pytest.approx(max(t))
    w = [
        scipy_stats.wilcoxon(d + 0.05, alternative="greater").pvalue,
        scipy_stats.wilcoxon(d - 0.05, alternative="less").pvalue,
    ]
    assert p == pytest.approx(max(w), rel=1e-6)
    assert paired.equivalence(d + 0.05, 0.05)[0] > 0.05


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
    values = paired_values(table.assign(failed=False), comparison).values
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
    found = values[values["case_id"] == "MRI-Heart_00"].iloc[0]
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


@pytest.mark.parametrize(("data_sets", "cases"), [(1, 20), (3, 10), (6, 8)])
def test_the_interval_covers_the_true_median_about_as_often_as_it_says(data_sets, cases):
    seen = check_statistics.coverage(data_sets, cases, repeats=200)
    assert 0.88 < seen <= 1.0  # 95 % less three standard errors of 200 repeats, and 2 % of its own error


def test_the_family_errs_about_as_often_as_it_may_and_finds_what_is_there():
    none = dict.fromkeys(("first_slice", "centre_slice", "largest_slice", "three_slices"), 0.0)
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)
    assert check_statistics.rejections(none, cases=12, repeats=100).any(axis=1).mean() <= limit
    found = check_statistics.rejections({**none, "three_slices": 0.1}, cases=20, repeats=20)
    assert found[:, [2, 4, 5]].mean() > 0.9  # three_slices against each of the others
    assert found[:, [0, 1, 3]].any(axis=1).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 20)
