"""SAM's published results: their means, their comparisons, and ours beside them."""

import pytest
from helpers.made_up import made_up_table

from medsam_nb.statistics import published, released_scripts
from medsam_nb.statistics.scoreboard import published_scoreboard


def test_published_means_are_those_of_the_release():
    table = published.sam_table()
    first = table[table["mask_choice"] == "first_mask"].groupby("prompt")["value"].mean()
    expected = {
        "one_point": 0.461,
        "point_per_component": 0.483,
        "one_box": 0.589,
        "box_per_component": 0.654,
    }
    assert {name: round(float(first[name]), 3) for name in expected} == expected
    oracle = table[table["mask_choice"] == "oracle_channel"].groupby("prompt")["value"].mean()
    assert round(float(oracle["box_per_component"]), 3) == 0.744
    assert len(table) == 280 and len(table[["data_set", "object"]].drop_duplicates()) == 28


def test_published_comparisons_speak_of_data_sets():
    found = published.compare_published().set_index("comparison")
    assert found["n"].eq(28).all() and found["n_tests"].eq(9).all() and found["n_data_sets"].eq(19).all()
    assert found["unit"].eq("object").all() and found["generalises_to"].eq("data sets like these").all()
    box = found.loc["one box against one point"]
    # five of the 28 objects are of one data set, which weighs as much as any other in the main estimate
    assert box["difference"] == pytest.approx(0.1312, abs=1e-4)
    assert box["case_weighted"] == pytest.approx(0.589 - 0.461, abs=1e-3)
    assert box["p_holm"] < 1e-4 and box["finding"] == "a is higher"
    # every data set gains or loses nothing: one of 2^18 ways, whatever the ties and zeros
    oracle = found.loc["oracle against first mask, one point"]
    assert oracle["p_signed_rank"] == pytest.approx(2 / 2 ** (19 - (oracle["sets_above"] < 19)))
    assert found.loc["a point per component against one point", "finding"] == "inconclusive"
    assert found.loc["a point per component against one point", "p_holm"] > 0.5


def test_published_claims():
    board = published_scoreboard()
    assert board["finding"].eq("supported").all() and set(board["claim"]) == {"H2", "H3"}
    assert board["verdict"].eq("supported in part").all()  # of SAM 2 nothing is published per object
    assert board["note"].str.contains("published means of objects").all()


def test_a_published_mean_has_no_dice():
    """Dice follows from the IoU of a mask, not from a mean over masks."""
    declared = published.PUBLISHED_COMPARISONS[0] | {"unit": "object", "metric": "dice"}
    assert published.compare(published.sam_table(), [declared])["n"].tolist() == [0]


def test_measured_stands_beside_published_only_where_it_is_the_same_object():
    table = made_up_table(("CT-Spleen", "CT-Organ"), cases=2)
    found = published.measured_against_published(table)
    assert set(found["published_object"]) == {"CT-Spleen"}  # "organ" is no object of CT-Organ
    named = published.measured_against_published(table, {("CT-Organ", "organ"): "CT-Organ: Lung"})
    assert set(named["published_object"]) == {"CT-Spleen", "CT-Organ: Lung"}
    row = named[named["published_object"] == "CT-Organ: Lung"].iloc[0]
    assert row["difference"] == pytest.approx(row["measured"] - row["published"])
    pooled = released_scripts.paper_means(table[table["task"] == "2d"])
    assert row["measured"] in pooled["value"].to_numpy()
