"""The simulation of what the statistics promise, with few repeats: `benchmarks/check_statistics.py`."""

import numpy as np
import pytest

from benchmarks import check_statistics

BY_NAME = {one.name: one for one in check_statistics.scenarios()}
NOTHING = [
    "one data set, sides alike (heavy tails), 20 patients",
    "three data sets of 4, 20 and 60 patients, sides alike",
    "five data sets of 1, 3, 3, 3 and 3 patients",
    "8 data sets of 10 patients, mean effect 0, SD 0.05 between them",
    "the study's 18 data sets, mean effect 0, SD 0.08 between them",
    "one data set, 12 patients with 10 pictures",
    "8 data sets of 5 patients with 10 pictures, SD 0.05",
    "equivalence at its margin, 12 data sets, SD 0.05",
    "not worse at its margin, one data set of 20",
]


def limit(repeats, level=0.05):
    """The level and four standard errors: one false alarm in some thousands of runs."""
    return level + 4 * np.sqrt(level * (1 - level) / repeats)


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_not_there_is_rarely_found(name):
    repeats = 120
    seen = check_statistics.simulate(BY_NAME[name], repeats)
    assert seen["false"] <= seen["p"] <= limit(repeats)
    assert seen["coverage"] >= 1 - (0.1 if "margin" in name else 0.05) - 4 * np.sqrt(0.09 / repeats)


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("effect 0.08, SD 0.05 between, 12 volumetric", 0.8),
        ("effect 0.05, one data set, 50 patients", 0.8),
        ("17 data sets of 20 at +0.05, one of 1,000 at -0.05", 0.9),
        ("equivalence, sides alike, 12 data sets, SD 0.03", 0.9),
    ],
)
def test_what_is_there_is_found(name, power):
    seen = check_statistics.simulate(BY_NAME[name], 30)
    assert seen["right"] >= power and seen["false"] == 0


def test_five_patients_are_never_enough_whatever_their_pictures():
    seen = check_statistics.simulate(BY_NAME["one data set, 5 patients with 10 pictures"], 30)
    assert seen["p"] == seen["false"] == 0 and np.isnan(seen["coverage"])


def test_choices_families_and_models_err_as_rarely_as_promised():
    repeats, sets = 60, [10] * 8
    for function, *arguments in (
        (check_statistics.best_design, sets, 0.05, 0.0),
        (check_statistics.high_object, 12, check_statistics.symmetric, 0.8),
        (check_statistics.friedman, sets, 0.05),
        (check_statistics.mixed_effect, sets, 0.05),
    ):
        seen = [function(*arguments, number) for number in range(repeats)]
        assert np.mean(seen) <= limit(repeats), function.__name__
    wrong, right = zip(*(check_statistics.families(sets, 0.02, 0.1, n) for n in range(40)), strict=True)
    assert np.mean(wrong) <= limit(40) and np.mean(right) > 0.9


def test_the_sizes_of_the_study_are_those_of_the_manifest():
    assert len(check_statistics.study_sizes()) == 18 and len(check_statistics.study_sizes(3)) == 12
    assert 4586 in check_statistics.study_sizes(2)  # synthetic ultrasound of kidneys


def test_the_table_has_a_row_for_every_scenario():
    rows = [{"scenario": "a", "p": 0.051, "false": 0.04, "right": float("nan"), "coverage": 0.95}]
    table = check_statistics.markdown([*rows, {"scenario": check_statistics.NOT_PROMISED}], 1000)
    assert "| a | 5.1 | 4.0 |  | 95.0 |" in table and "Per cent of 1,000 repeats" in table
