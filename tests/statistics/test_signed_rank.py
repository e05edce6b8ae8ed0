"""The exact signed-rank test against its definition, R's values, and the interval that inverts it."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from medsam_nb.statistics import signed_rank as exact
from medsam_nb.statistics.signed_rank import estimate, rank_biserial, signed_rank

QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)
PLAIN = [0.11, -0.23, 0.35, 0.47, -0.05, 0.61, 0.72, 0.08, 0.94, -0.13]
TIES = [0.1, 0.1, -0.1, 0.4, 0.5, -0.5, 0.7, 0.2, 0.2]
ZEROS = [0, 0, 0.1, 0.2, 0.3, -0.4, 0.5, 0.6, 0, -0.1]
LONG = [((k * 37) % 53 - 20) / 100 for k in range(1, 51)]
# benchmarks/r_constants.R: coin::wilcoxsign_test(distribution = "exact", zero.method = "Pratt")
FROM_R = {
    "plain": (PLAIN, 0.083984375, 0.0419921875),
    "ties": (TIES, 0.140625, 0.0703125),
    "zeros": (ZEROS, 0.234375, 0.1171875),
    "long": (LONG, 0.00646869868337774, 0.00323434934168887),
}


def by_all_sign_changes(d, alternative):
    """p from the definition: every assignment of signs, zeros after Pratt."""
    ranks = scipy_stats.rankdata(np.abs(d))
    moved, seen = ranks[d != 0], ranks[d > 0].sum()
    sums = np.array([moved[list(s)].sum() for s in product([False, True], repeat=len(moved))])
    above, below = (sums >= seen - 1e-9).mean(), (sums <= seen + 1e-9).mean()
    return {"greater": above, "less": below, "two-sided": min(1.0, 2 * min(above, below))}[alternative]


@QUICK
@given(
    st.lists(st.integers(-5, 5), min_size=2, max_size=12),
    st.sampled_from(["two-sided", "greater", "less"]),
)
def test_equals_its_definition_with_ties_and_zeros(steps, alternative):
    d = np.array(steps) / 10
    p, method = signed_rank(d, alternative)
    if d.any():
        assert p == pytest.approx(by_all_sign_changes(d, alternative), abs=1e-12) and method == "exact"
    else:
        assert (p, method) == (1.0, "all differences are zero")


@pytest.mark.parametrize("name", FROM_R)
def test_equals_r(name):
    d, two_sided, greater = FROM_R[name]
    assert signed_rank(np.array(d))[0] == pytest.approx(two_sided, rel=1e-9)
    assert signed_rank(np.array(d), "greater")[0] == pytest.approx(greater, rel=1e-9)


def test_estimate_and_interval_equal_r():
    found = estimate(np.array(PLAIN))  # wilcox.test(exact, conf.int): 0.28 (-0.025 to 0.595)
    assert [found.value, found.low, found.high] == pytest.approx([0.28, -0.025, 0.595], abs=1e-9)


def test_small_p_values_have_no_floor():
    assert signed_rank(np.arange(1, 51.0))[0] == pytest.approx(2.0**-49, rel=1e-9)
    tied = np.repeat(np.arange(1, 26.0), 2)
    assert signed_rank(tied)[0] == pytest.approx(2.0**-49, rel=1e-9)


def test_the_normal_approximation_is_near_where_exactness_ends():
    d = np.random.default_rng(0).normal(0.08, 1, exact.EXACT_MOST)
    p, method = signed_rank(d)
    ranks = scipy_stats.rankdata(np.abs(d))
    n = len(d)
    z = (ranks[d > 0].sum() - n * (n + 1) / 4) / np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    assert method == "exact" and p == pytest.approx(2 * scipy_stats.norm.sf(abs(z)), rel=0.01)
    longer = np.r_[d, d[:1]]
    assert signed_rank(longer)[1] == "normal approximation"


@QUICK
@given(st.integers(0, 10_000), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_the_interval_leaves_0_out_exactly_where_the_test_rejects(seed, sizes):
    d = np.random.default_rng(seed).normal(0.4, 1, sum(sizes))
    strata = np.repeat(np.arange(len(sizes)), sizes)
    if len(d) < 2:
        return
    for level in (0.95, 0.99):
        found = estimate(d, strata, level)
        assert (found.low > 0 or found.high < 0) == (found.p <= 1 - level + 1e-12)
        assert np.sign(found.rank_biserial) in (0, np.sign(found.value)) or found.p > 0.5


def test_strata_have_the_same_weight_whatever_their_size():
    rng = np.random.default_rng(2)
    small, large = rng.normal(0.5, 0.1, 6), rng.normal(-0.5, 0.1, 600)
    d, strata = np.r_[small, large], np.r_[np.zeros(6), np.ones(600)]
    assert abs(rank_biserial(d, strata)) < 0.01 < abs(rank_biserial(d))
    assert abs(estimate(d, strata).value) <= 0.5 and estimate(d).value == pytest.approx(-0.5, abs=0.05)


def test_many_averages_are_counted_as_if_they_were_listed(monkeypatch):
    d = np.round(np.random.default_rng(5).normal(0.1, 1, 300), 2)
    listed = estimate(d)
    monkeypatch.setattr(exact, "MOST_LISTED", 10)
    counted = estimate(d)
    for name in ("value", "low", "high"):
        assert getattr(counted, name) == pytest.approx(getattr(listed, name), abs=1e-9)


def test_without_information_nothing_is_said():
    assert np.isnan(signed_rank(np.array([0.3]))[0]) and np.isnan(signed_rank(np.array([]))[0])
    assert np.isnan(estimate(np.array([])).value) and np.isnan(rank_biserial(np.array([])))
    five = estimate(np.arange(1, 6.0))
    assert np.isinf(five.low) and np.isinf(five.high) and five.p == 2 / 2**5
    assert rank_biserial(np.zeros(3)) == 0.0 and rank_biserial(np.array([1.0, 2, 3, -4])) == pytest.approx(
        0.2
    )
