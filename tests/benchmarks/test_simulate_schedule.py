"""The simulated schedule: what can be computed by hand, and the number of volumes that it is about."""

import pytest

from benchmarks.simulate_schedule import STUDY, simulate, unit_seconds
from medsam_nb.workbook.planning import makespan


def test_without_losses_it_is_the_makespan_of_the_plan():
    seconds = unit_seconds(24, seed=1)[:200]
    for workers in (1, 3, 40):
        assert simulate(seconds, workers, 0.0, seed=0) == (pytest.approx(makespan(seconds, workers)), 0)


def test_losses_cost_time_and_no_unit():
    seconds = [1800.0] * 40
    whole, _ = simulate(seconds, 4, 0.0, seed=0)
    ended, losses = simulate(seconds, 4, 0.5, seed=0)
    assert whole == 18000 and losses > 0 and ended > whole + 60


def test_every_volume_is_a_unit():
    seconds = unit_seconds(64, seed=0)
    assert len(seconds) == sum(volumes.number for volumes in STUDY.values()) and min(seconds) > 0
    assert sum(seconds) > sum(unit_seconds(24, seed=0))
