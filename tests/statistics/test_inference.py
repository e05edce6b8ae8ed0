"""One statistic at the right level: against scipy and R, and against what the definitions say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from medsam_nb.statistics.inference import FEWEST_DATA_SETS, GENERAL, SIGNS_FROM, Sample
from medsam_nb.statistics.multiple_testing import holm, holm_divisors
from medsam_nb.statistics.signs import mean_sign_change

MEANS = np.array([0.031, 0.052, -0.012, 0.044, 0.027, 0.061, 0.018])


def sample(*sets):
    """One list of values per data set."""
    names = np.concatenate([[f"set {place}"] * len(values) for place, values in enumerate(sets)])
    return Sample(np.concatenate(sets).astype(float), names)


def test_seven_data_sets_are_tested_by_their_means_as_in_r():
    """benchmarks/reference_values.R: t.test of the means; patients scatter around them, and do not matter."""
    of_sets = sample(*[[m - 0.2, m, m, m + 0.2] * (1 + place) for place, m in enumerate(MEANS)])
    assert of_sets.general and of_sets.generalises_to == GENERAL and of_sets.studentised
    assert of_sets.p() == pytest.approx(0.0138339700177496)
    assert of_sets.interval(0.95) == pytest.approx((0.0091015647292324, 0.0540412924136248))
    assert of_sets.p("greater", 0.01) == pytest.approx(
        scipy_stats.ttest_1samp(MEANS, 0.01, alternative="greater").pvalue
    )


def test_twelve_data_sets_are_tested_by_the_signs_of_their_means():
    of_sets = sample(*[[0.01 * place, 0.01 * place + 0.02] for place in range(SIGNS_FROM)])
    assert of_sets.general and not of_sets.studentised
    assert of_sets.p() == pytest.approx(2 / 2**SIGNS_FROM)
    assert of_sets.method == f"sign-change test of the means of {SIGNS_FROM} data sets"


def test_fewer_data_sets_are_tested_by_their_patients_and_weigh_alike():
    of_sets = sample([0.1] * 40, [-0.1, -0.1])
    assert not of_sets.general and of_sets.generalises_to == "these data sets"
    assert of_sets.estimate == pytest.approx(0) and of_sets.weights.sum() == pytest.approx(1)
    assert of_sets.p() > 0.9  # forty patients against two, and yet one data set against one
    assert of_sets.p("less", 0.2) == pytest.approx(
        mean_sign_change(of_sets.values, of_sets.weights, 0.2, "less")
    )


def test_who_a_statement_is_about():
    assert sample([0.1] * 9).generalises_to == "this data set"
    assert sample([0.1] * 9, [0.2] * 9).generalises_to == "these data sets"
    assert sample([0.1] * 4).generalises_to == "these alone"
    assert sample(*[[0.1]] * FEWEST_DATA_SETS).generalises_to == GENERAL
    empty = Sample(np.array([]), np.array([]))
    assert empty.generalises_to == "" and np.isnan(empty.p()) and np.isnan(empty.estimate)


def test_equal_means_of_data_sets_have_signs_but_no_spread():
    assert sample(*[[0.1, 0.1]] * 8).p() == pytest.approx(2 / 2**8)
    assert sample(*[[0.0, 0.0]] * 8).p() == 1.0
    assert sample(*[[0.1, 0.1]] * 8).interval() == (0.1, 0.1)


def test_one_unit_has_neither_test_nor_interval():
    one = sample([0.3])
    assert np.isnan(one.p()) and np.isnan(one.interval()).all() and one.estimate == 0.3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=14),
    st.sampled_from([0.8, 0.9, 0.95, 0.996]),
    st.integers(0, 10_000),
)
def test_the_interval_leaves_0_exactly_where_p_is_below_the_level(sizes, level, seed):
    rng = np.random.default_rng(seed)
    found = sample(*[rng.normal(0.04, 0.1, size) for size in sizes])
    low, high = found.interval(level)
    if np.isfinite(low) and min(abs(low), abs(high)) > 1e-6:
        assert (low > 0 or high < 0) == (found.p() < 1 - level)
    elif np.isnan(low) and len(found.values) > 1:
        assert found.p() >= 1 - level - 1e-12  # too few for any value to be rejected


def test_the_estimate_lies_in_its_interval():
    rng = np.random.default_rng(2)
    for sizes in ([8], [20, 3], [1, 3, 3, 3, 3], [2] * 7, [5] * 13):
        found = sample(*[rng.normal(0.1, 0.1, size) for size in sizes])
        low, high = found.interval()
        assert low < found.estimate < high


def test_holm_steps_down_as_its_definition_says():
    p = np.random.default_rng(4).random(12) ** 3
    expected, running = np.empty(12), 0.0
    for rank, place in enumerate(np.argsort(p)):
        running = max(running, min(1.0, (12 - rank) * p[place]))
        expected[place] = running
    assert holm(p) == pytest.approx(expected)
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    corrected = holm(np.array([0.01, np.nan, 0.04, 0.03]))
    assert corrected[[0, 2, 3]] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(corrected[1])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-6, 1) | st.just(float("nan")), max_size=12))
def test_a_test_is_judged_at_the_level_that_its_divisor_says(p):
    p = np.array(p, float)
    divisors, corrected = holm_divisors(p), holm(p)
    tested = ~np.isnan(p)
    assert np.isnan(divisors[~tested]).all()
    near = np.abs(corrected[tested] - 0.05) < 1e-9
    judged = p[tested] < 0.05 / divisors[tested]
    assert (judged == (corrected[tested] < 0.05))[~near].all()
