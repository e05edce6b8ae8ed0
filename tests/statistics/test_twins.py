"""The same test has one p and one interval, whichever table it stands in."""

import numpy as np
import pytest
from helpers.made_up import made_up_table

from medsam_nb.protocol.designs import ALL_DESIGNS
from medsam_nb.statistics import twins
from medsam_nb.statistics.paired import compare
from medsam_nb.statistics.scoreboard import scoreboard

DECLARED = [
    {"name": "bidirectional against front to end", "family": "3D", "task": "3d", "vary": "direction",
     "a": "bidirectional", "b": "front_to_end"},
    {"name": "point against box", "family": "2D", "task": "2d", "vary": "prompt", "a": "one_point",
     "b": "one_box", "where": {"mask_choice": "first_mask"}, "each": "model"},
    {"name": "most confident against first", "family": "2D", "task": "2d", "vary": "mask_choice",
     "a": "most_confident_mask", "b": "first_mask", "each": "model"},
]  # fmt: skip


@pytest.fixture(scope="module")
def both():
    table = made_up_table(("MRI-Heart", "CT-Liver"), 6, designs=ALL_DESIGNS[::3])
    declared = compare(table, DECLARED)
    alone, together = (scoreboard(table, draws=99, declared=d) for d in (None, declared))
    return declared, alone, together


def test_a_claim_s_test_that_is_declared_has_the_declared_p_and_interval(both):
    declared, _, board = both
    found = twins.find(board, declared)
    assert len(found) == 2 and any(turned for _, turned in found.values())
    for place, (other, turned) in found.items():
        test, row = board.loc[place], declared.loc[other]
        assert test["p_holm"] == row["p_holm"] and test["n_tests"] == row["n_tests"]
        low, high = row["holm_low"], row["holm_high"]
        expected = (-high, -low) if turned else (low, high)
        assert np.allclose(test[["holm_low", "holm_high"]].astype(float), expected, equal_nan=True)
        assert test["family"] == row["family"]


def test_what_is_counted_elsewhere_does_not_count_among_the_claims(both):
    declared, alone, board = both
    mirrors = 1  # H5c
    of_claims = board[(board["family"] == "claims") & board["p"].notna()]
    before = alone[(alone["family"] == "claims") & alone["p"].notna()]
    assert of_claims["n_tests"].max() == len(of_claims) - mirrors * (of_claims["claim"] == "H5c").sum()
    assert before["n_tests"].max() == len(of_claims) + len(twins.find(board, declared)) - (
        mirrors * (before["claim"] == "H5c").sum()
    )


def test_findings_follow_the_interval_that_is_shown(both):
    _, _, board = both
    for row in board[board["family"].isin(["2D", "3D"])].itertuples():
        shown = row.holm_low > 0 or row.holm_high < 0
        assert shown or row.finding in ("inconclusive", "supported")  # a claim of "not worse" may hold 0


def test_without_declared_comparisons_nothing_changes(both):
    declared, alone, _ = both
    assert twins.find(alone, declared.iloc[:0]) == {}
