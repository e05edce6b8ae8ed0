"""A design that is chosen on the same cases: what chance makes of it, by hand and by simulation."""

from itertools import product

import numpy as np
import pytest

from medsam_nb.statistics import selection

ONE = np.repeat("one set", 12)


def test_the_best_of_others_by_hand():
    """Three rows of weights 1/2, 1/4, 1/4: the first is chosen for by the other two, and so on."""
    values = np.array([[0.9, 0.1, 0.2], [0.2, 0.5, 0.4], [0.1, 0.6, 0.3]])
    found = selection.best_of_others(values, np.array([0.5, 0.25, 0.25]))
    # row 0: designs have 0.075, 0.275, 0.175 on the others; row 1: 0.475, 0.2, 0.175; row 2: 0.5, 0.175, 0.2
    assert found.tolist() == [0.1, 0.2, 0.1]


def test_data_sets_are_the_rows_from_six_on_and_weigh_alike():
    values = np.arange(24.0).reshape(12, 2)
    sets = np.repeat([f"s{n}" for n in range(6)], [1, 1, 2, 2, 2, 4])
    rows, weights = selection.rows_and_weights(values, sets)
    assert rows.shape == (6, 2) and rows[-1].tolist() == values[8:].mean(axis=0).tolist()
    assert weights.tolist() == [1 / 6] * 6
    rows, weights = selection.rows_and_weights(values, np.repeat(["a", "b"], [9, 3]))
    assert rows is values and weights == pytest.approx(np.repeat([1 / 18, 1 / 6], [9, 3]))


def test_permutations_are_those_of_designs_within_rows():
    """Two designs and few rows: of all arrangements, p is the share that reaches what was observed."""
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, (7, 2)) + [0, 0.06]
    weights = np.full(7, 1 / 7)

    def statistic(v):
        return (selection.best_of_others(v, weights) - v.mean(axis=1)) @ weights

    arranged = [
        statistic(np.array([row[::-1] if turned else row for row, turned in zip(values, way, strict=True)]))
        for way in product([False, True], repeat=7)
    ]
    share = (np.array(arranged) >= statistic(values) - 1e-12).mean()
    selected, _ = selection.best_against_mean(values, ONE[:7], draws=4000)
    assert selected.estimate == pytest.approx(statistic(values))
    assert selected.p == pytest.approx(2 * share, abs=8 * np.sqrt(share / 4000))


def test_the_interval_of_a_selection_leaves_0_exactly_where_p_is_below_the_level():
    rng = np.random.default_rng(1)
    for number in range(60):
        values = rng.normal(0.5, 0.1, (12, 6)) + np.linspace(0, rng.choice([0, 0.1]), 6)
        selected, best = selection.best_against_mean(values, ONE, 399, number)
        assert best.shape == (12,)
        for level in (0.9, 0.95, 0.98):
            low, high = selected.interval(level)
            assert (low > 0) == (selected.p < 1 - level - 1e-12) and low < high
    assert np.isnan(selected.interval(0.9999)).all()  # 399 draws know no such level


def test_the_best_above_a_bar_makes_all_changes_of_sign_of_few_patients():
    values = np.array([[0.9, 0.7], [0.85, 0.9], [0.95, 0.6], [0.81, 0.8], [0.88, 0.9], [0.83, 0.7]])
    selected, place = selection.best_above(values, 0.8)
    assert place == 0 and selected.estimate == pytest.approx(values[:, 0].mean() - 0.8)
    assert len(selected.draws) == 2**6 - 1
    deviations = values - 0.8
    greatest = [max(np.array(way) @ deviations / 6) for way in product([1, -1], repeat=6)]
    share = (np.array(greatest) >= selected.estimate - 1e-12).mean()
    assert selected.p == pytest.approx(2 * share)
    assert np.isnan(selected.interval(0.9)[1])  # how far above the best lies, chance does not say


@pytest.mark.parametrize("sets", [1, 8])
def test_exchangeable_designs_rarely_have_a_best_one(sets):
    """Designs that are alike in every data set, or better in some and worse in others by chance."""
    rng = np.random.default_rng(2)
    hits, n, repeats = 0, 24, 150
    for repeat in range(repeats):
        names = np.repeat(np.arange(sets), n // sets).astype(str)
        own = rng.normal(0, 0.05, (sets, 10)) if sets > 5 else np.zeros((sets, 10))
        values = rng.normal(0.5, 0.1, (n, 1)) + rng.normal(0, 0.05, (n, 10)) + own[names.astype(int)]
        hits += selection.best_against_mean(values, names, 199, repeat)[0].p < 0.05
    assert hits / repeats <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / repeats)  # the test is one-sided in effect


def test_a_best_design_is_found():
    rng = np.random.default_rng(3)
    values = rng.normal(0.5, 0.1, (12, 1)) + rng.normal(0, 0.03, (12, 10))
    values[:, 4] += 0.08
    selected, best = selection.best_against_mean(values, ONE, 999)
    assert selected.p < 0.01 and best == pytest.approx(values[:, 4])
    assert selection.best_above(values + 0.35, 0.8, 999)[0].p < 0.02
