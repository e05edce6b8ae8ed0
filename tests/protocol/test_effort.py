"""Measures of effort against values worked out by hand, and against a numerical integral."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsam_nb.protocol.effort import area_under_curve, gain_per_effort, number_of_clicks

SETTINGS = settings(max_examples=80, deadline=None, derandomize=True, database=None)
curves = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@SETTINGS
@given(curves)
def test_the_area_is_the_mean_height_of_the_line_through_the_values(values):
    fine = np.linspace(0, max(len(values) - 1, 0), 120 * len(values) + 1)
    height = np.interp(fine, range(len(values)), values)
    expected = height.mean() if len(values) == 1 else ((height[1:] + height[:-1]) / 2).mean()
    assert area_under_curve(values) == pytest.approx(expected, abs=2e-2)
    assert min(values) - 1e-12 <= area_under_curve(values) <= max(values) + 1e-12


@SETTINGS
@given(curves, st.floats(0.05, 1))
def test_a_target_is_reached_by_the_first_value_not_below_it(values, target):
    found = number_of_clicks(values, target)
    if found is None:
        assert all(value < target for value in values)
    else:
        assert values[found - 1] >= target and all(value < target for value in values[: found - 1])


def test_gain_per_unit_of_effort():
    assert gain_per_effort([0.4, 0.9], [7.0, 57.0]) == pytest.approx(0.01)
    assert gain_per_effort([0.9, 0.4], [1, 2]) == pytest.approx(-0.5)
    assert np.isnan(gain_per_effort([0.4], [7.0]))
