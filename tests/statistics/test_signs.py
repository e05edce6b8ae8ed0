"""Tests by changes of sign against their definition, against R, and against exact convolutions."""

from itertools import product
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from medsam_nb.statistics import signs

PLAIN = np.array([0.11, 0.24, 0.37, -0.05, 0.62, -0.18, 0.43, 0.29, 0.07, -0.33])
TIED = np.array([0.1, 0.1, -0.1, 0.4, 0.5, 0.6, 0.7, -0.2, 0.2, 0.3, 0.3, 0.1])
ZEROS = np.array([0, 0, 0.1, 0.2, 0.3, -0.4, 0.5, 0.6, 0.2, 0, -0.1])
FIFTY = np.sin(np.arange(1, 51)) / 10 + 0.05
# benchmarks/reference_values.R: wilcox.test(exact = TRUE), and coin's wilcoxsign_test by Pratt's method
OF_R = [
    (PLAIN, 0.130859375, 0.0654296875, 0.947265625),
    (FIFTY, 6.82525048674165e-05, 3.41262524337083e-05, 0.999967455046757),
    (TIED, 0.01318359375, 0.006591796875, 0.995361328125),
    (ZEROS, 0.1484375, 0.07421875, 0.93359375),
]
# few values, so that there are ties and zeros; twelfths, so that sums are exact
small = st.lists(st.integers(-4, 4).map(lambda n: n / 4), min_size=2, max_size=12).map(np.array)


def all_sums(scores):
    """The sum of the scores that are taken, for every way of taking them."""
    return np.array(list(product([0, 1], repeat=len(scores)))) @ np.asarray(scores, float)


def by_enumeration(scores, positive, alternative):
    """p from the definition: all assignments of signs are equally likely."""
    sums, seen = all_sums(scores), scores[positive].sum()
    greater, less = (sums >= seen - 1e-9).mean(), (sums <= seen + 1e-9).mean()
    return {"greater": greater, "less": less, "two-sided": min(1.0, 2 * min(greater, less))}[alternative]


@settings(max_examples=60, deadline=None)
@given(small, st.sampled_from(signs.ALTERNATIVES))
def test_the_signed_rank_test_equals_full_enumeration(d, alternative):
    p, method = signs.signed_rank(d, alternative)
    ranks = scipy_stats.rankdata(np.abs(d))[d != 0]
    expected = by_enumeration(ranks, d[d != 0] > 0, alternative) if d.any() else 1.0
    assert p == pytest.approx(expected, abs=1e-14)
    assert method == ("exact" if d.any() else "all differences are zero")


@settings(max_examples=60, deadline=None)
@given(small, st.data(), st.sampled_from(signs.ALTERNATIVES))
def test_the_sign_change_test_of_a_mean_equals_full_enumeration(d, data, alternative):
    """Weights of two data sets; sums that tie by rounding to the grid alone would show here."""
    first = data.draw(st.integers(1, len(d) - 1))
    weights = np.r_[np.full(first, 0.5 / first), np.full(len(d) - first, 0.5 / (len(d) - first))]
    null = data.draw(st.sampled_from([0.0, 0.25, -0.125]))
    parts = (d - null) * weights
    found = signs.mean_sign_change(d, weights, null, alternative)
    total = np.abs(parts).sum()
    scores = np.maximum(np.rint(np.abs(parts) / total * signs.GRID), 1)[parts != 0] if total else parts
    expected = by_enumeration(scores, parts[parts != 0] > 0, alternative) if total else 1.0
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("d", "both", "greater", "less"), OF_R)
def test_the_signed_rank_test_equals_r(d, both, greater, less):
    for alternative, expected in (("two-sided", both), ("greater", greater), ("less", less)):
        assert signs.signed_rank(d, alternative)[0] == pytest.approx(expected, rel=1e-12)


def test_the_sign_change_test_equals_r():
    """benchmarks/reference_values.R makes all changes of sign."""
    sets, weights = np.r_[PLAIN, 0.02, -0.08], np.r_[np.full(10, 1 / 20), 0.25, 0.25]
    assert signs.mean_sign_change(PLAIN, np.full(10, 0.1), 0, "greater") == pytest.approx(0.0625)
    assert signs.mean_sign_change(sets, weights, 0, "greater") == pytest.approx(0.129638671875)
    assert signs.mean_sign_change(sets, weights, 0.1, "less") == pytest.approx(0.309814453125)


def test_no_floor_no_seed_and_no_time():
    """Fifty pairs that all favour one side, one of them zero and two tied: nothing is drawn."""
    d = np.round(np.linspace(0.01, 0.5, 50), 2)
    d[1], d[2] = d[3], 0.0
    p, method = signs.signed_rank(d)
    assert p == pytest.approx(2 * 0.5**49) and method == "exact"
    times = []
    for _ in range(5):
        start = perf_counter()
        signs.signed_rank(d)
        times.append(perf_counter() - start)
    assert min(times) < 0.005
    start = perf_counter()
    signs.signed_rank(np.random.default_rng(0).normal(0.01, 1, 2000))
    assert perf_counter() - start < 1


@pytest.mark.parametrize("n", [signs.EXACT_UP_TO + 1, 450])
@pytest.mark.parametrize("ties", [False, True])
def test_beyond_the_exact_range_p_is_off_by_less_than_a_hundredth(n, ties):
    rng = np.random.default_rng(n)
    for shift in (0.0, 0.05, 0.15, 0.3):
        d = rng.normal(shift, 1, n)
        d = np.round(d, 1) if ties else d
        scores = np.rint(2 * scipy_stats.rankdata(np.abs(d))).astype(int)[d != 0]
        seen = int(scores[d[d != 0] > 0].sum())
        seen = max(seen, int(scores.sum()) - seen)
        exact = signs.upper_tail(scores, seen, exact_up_to=n)
        assert signs.signed_rank(d)[1] == "nearly exact"
        assert signs.upper_tail(scores, seen) == pytest.approx(exact, rel=1e-2)


def test_a_tiny_data_set_beside_a_huge_one_is_approximated_too():
    """Three patients make up half of the mean: whatever their signs, the others are approximated well."""
    rng = np.random.default_rng(1)
    parts = np.r_[rng.normal(0, 0.1, 3) / 3, rng.standard_t(3, 600) * 0.05 / 600]
    scores = np.maximum(np.rint(np.abs(parts) / np.abs(parts).sum() * 2**17), 1).astype(int)
    for z in (0.3, 1.0, 1.6):
        seen = int(scores.sum() / 2 + z * np.sqrt((scores.astype(float) ** 2).sum()) / 2)
        exact = signs.upper_tail(scores, seen, exact_up_to=len(scores))
        assert signs.upper_tail(scores, seen) == pytest.approx(exact, rel=1e-2)


def test_without_information():
    assert signs.signed_rank(np.zeros(9)) == (1.0, "all differences are zero")
    assert np.isnan(signs.signed_rank(np.array([0.3]))[0])
    assert np.isnan(signs.signed_rank(np.array([]))[0])
    assert signs.mean_sign_change(np.zeros(4), np.full(4, 0.25)) == 1.0
    assert np.isnan(signs.mean_interval(np.arange(5.0), np.full(5, 0.2), 0.95)).all()  # 2 / 2^5 > 0.05


def test_rank_biserial_on_hand_made_numbers_and_as_scipys_rank_sum():
    assert signs.rank_biserial(np.array([1.0, 2.0, 3.0, -4.0])) == pytest.approx(0.2)  # (6 - 4) / 10
    assert signs.rank_biserial(np.zeros(3)) == 0.0
    assert np.isnan(signs.rank_biserial(np.array([])))
    d = np.random.default_rng(3).normal(0.2, 1, 15)
    favourable = scipy_stats.wilcoxon(d, alternative="greater").statistic
    assert signs.rank_biserial(d) == pytest.approx(2 * favourable / (15 * 16 / 2) - 1)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_interval_is_made_of_the_means_of_all_subsets(level):
    """Hartigan (1969): a value is rejected where few of the means of subsets of the sample lie beyond it."""
    d = np.random.default_rng(5).normal(0.1, 0.2, 11)
    sums, sizes = all_sums(d), all_sums(np.ones(11))
    means = np.sort(sums[sizes > 0] / sizes[sizes > 0])
    low, high = signs.mean_interval(d, np.full(11, 1 / 11), level)
    beyond = int(np.floor((1 - level) / 2 * 2**11))  # the empty subset lies beyond every value
    assert low == pytest.approx(means[beyond - 1], abs=2e-4) and high == pytest.approx(
        means[-beyond], abs=2e-4
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(6, 40), st.floats(-0.2, 0.2), st.integers(0, 10_000))
def test_the_interval_leaves_a_value_exactly_where_the_test_rejects_it(n, null, seed):
    rng = np.random.default_rng(seed)
    d = rng.normal(0.05, 0.1, n)
    weights = np.full(n, 1 / n)
    low, high = signs.mean_interval(d, weights, 0.95)
    p = signs.mean_sign_change(d, weights, null)
    if min(abs(null - low), abs(null - high)) > 1e-6:
        assert (low <= null <= high) == (p >= 0.05)
