"""Friedman's test and Nemenyi's critical difference, on the blocks that were drawn."""

import numpy as np
import pytest
from helpers.made_up import made_up_table

from medsam_nb.statistics import rankings
from medsam_nb.statistics.pooling import case_means


def deep(table):
    return table[table["task"] == "3d"]


def test_friedman_and_critical_difference_against_hand_made_numbers():
    """Demsar's example values: q(4) = 2.569 gives CD 1.25 for 14 blocks and 4 designs."""
    table = made_up_table(("MRI-Heart",), cases=14)
    ranking = rankings.rank_designs(deep(table), ["prompt"])
    assert ranking.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=2e-3)
    assert ranking.ranks["design"].tolist()[0] == "mask" and ranking.ranks["mean_rank"].iloc[0] == 1.0
    # closed form without ties: 12 n / (k (k + 1)) sum (R - (k + 1) / 2)^2
    r = ranking.ranks["mean_rank"].to_numpy()
    assert ranking.statistic == pytest.approx(12 * 14 / 20 * ((r - 2.5) ** 2).sum())
    assert (ranking.n_blocks, ranking.block) == (14, "case") and ranking.p < 1e-6
    assert ranking.generalises_to == "this data set"


def test_data_sets_are_the_blocks_from_six_on():
    table = deep(made_up_table(tuple(f"MRI-{n}" for n in range(7)), cases=3))
    ranking = rankings.rank_designs(table, ["prompt"])
    assert (ranking.n_blocks, ranking.block, ranking.n_patients) == (7, "data set", 21)
    assert ranking.generalises_to == "data sets like these"
    means = case_means(table, ["prompt"]).groupby(["data_set", "prompt"])["value"].mean().unstack()
    expected = means.rank(axis=1, ascending=False).mean()
    assert ranking.ranks.set_index("design")["mean_rank"].to_dict() == pytest.approx(expected.to_dict())
    assert "4 designs and 7 data sets" in rankings.resolution(ranking)
    assert rankings.resolution(ranking).endswith("told apart from the best in data sets like these.")


def test_several_cases_of_a_patient_are_one_block():
    table = deep(made_up_table(("MRI-Heart",), cases=6))
    pairs = table["case_id"].str[-1].astype(int) // 2
    table = table.assign(patient_id=("p" + pairs.astype(str)).astype("string"))
    ranking = rankings.rank_designs(table, ["prompt"])
    assert (ranking.n_blocks, ranking.block) == (3, "patient")


def test_patients_that_lack_a_design_are_left_out_and_counted():
    table = made_up_table(("MRI-Heart",), cases=5)
    gone = (table["case_id"] == "MRI-Heart_00") & (table["prompt"] == "mask")
    ranking = rankings.rank_designs(deep(table[~gone]), ["prompt"])
    assert (ranking.n_blocks, ranking.n_left_out) == (4, 1) and "lack a design" in ranking.note
    two = rankings.rank_designs(deep(table), ["direction"])
    assert np.isnan(two.p) and "fewer than three" in two.note
    assert rankings.rank_designs(table[:0]).n_blocks == 0
