"""The scoreboard's verdicts on tables whose truth is known, and on SAM's published results."""

from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table
from scipy import stats as scipy_stats

from medsam_nb.errors import InputError
from medsam_nb.protocol.designs import ALL_DESIGNS
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics import claims, paired, published, rankings, released_scripts
from medsam_nb.statistics.inference import OTHERS, THESE
from medsam_nb.statistics.pooling import check_table
from medsam_nb.statistics.scoreboard import WITHIN, _verdict, published_scoreboard, scoreboard


@pytest.fixture(scope="module")
def table():
    return made_up_table()


@pytest.fixture(scope="module")
def board(table):
    return scoreboard(table)


def test_verdicts_follow_from_the_effects_that_were_built_in(board):
    verdict = board.groupby("claim")["verdict"].first()
    # the largest slice was made better than the centre, and nothing reaches 0.8 reliably; with two data
    # sets nothing is said of others
    assert verdict["H5b"] == f"contradicted {WITHIN}" and verdict["H5c"] == f"supported {WITHIN}"
    for claim in ("H1", "H2", "H3", "H4", "H5a", "H5d", "H6", "H7", "H9", "H10", "H12"):
        assert verdict[claim] == f"supported {WITHIN}", claim
    assert verdict["H11"] == f"supported in part {WITHIN}"  # no 2D rows as far from the prompt
    assert verdict["H13"] == "inconclusive"
    assert verdict["H8"] == "not testable"
    assert set(board.loc[(board["n"] > 0) & (board["claim"] != "H13"), "generalises_to"]) == {THESE}


def test_with_many_data_sets_verdicts_speak_of_others_like_them():
    table = made_up_table(tuple(f"set {k}" for k in range(14)), cases=1, designs=ALL_DESIGNS[:16])
    board = scoreboard(table)
    verdict = board.groupby("claim")["verdict"].first()
    assert verdict["H2"] == verdict["H6"] == "supported"
    assert set(board.loc[board["claim"] == "H2", "generalises_to"]) == {OTHERS}
    assert board.loc[board["claim"] == "H2", "n_units"].eq(14).all()


def test_a_certain_but_tiny_difference_is_of_no_practical_weight(table):
    tiny = table["value"].astype(float).groupby(table["case_id"]).transform("mean")
    tiny = (
        tiny
        + 0.004 * table["prompt"].eq("one_box").astype(float)
        + 0.001 * np.arange(len(table)) / len(table)
    )
    board = scoreboard(table.assign(value=pd.array(tiny, "Float64")))
    h6 = board[board["test"] == "one box against one point"].iloc[0]
    assert h6["p_holm"] < 0.05 and h6["finding"] == "of no practical weight" and "smaller" in h6["note"]


def test_a_mirrored_claim_is_one_test_counted_once(board):
    one, other = (board[board["claim"] == claim].iloc[0] for claim in ("H5b", "H5c"))
    assert one["p"] == other["p"] and one["difference"] == -other["difference"]
    assert (one["holm_low"], one["holm_high"]) == (-other["holm_high"], -other["holm_low"])
    claims_tested = board[(board["family"] == "claims") & board["p"].notna()]
    assert board["n_tests"].iloc[0] == len(claims_tested) - 1


def test_much_worse_needs_more_than_the_margin(table):
    """3D loses 0.15 to 2D in the made-up table; with that given back, "much" is contradicted."""
    for back, finding in ((0.0, "supported"), (0.3, "contradicted")):
        moved = table["value"].astype(float) + back * table["task"].eq("3d").astype(float)
        board = scoreboard(table.assign(value=pd.array(np.clip(moved, 0, 1), "Float64")))
        assert board.loc[board["claim"] == "H9", "finding"].iloc[0] == finding


def test_a_claim_of_which_a_part_cannot_be_tested_is_supported_in_part(table):
    one = scoreboard(table[table["model"] == "miniature_sam2"])
    h2 = one[one["claim"] == "H2"]
    assert set(h2["verdict"]) == {f"supported in part {WITHIN}"}
    assert h2["because"].iloc[0].startswith("2 of 4 tests supported; 2 of 4 tests not testable")
    assert "SAM: one box against one point" in h2["because"].iloc[0]
    flat = table[table["task"] == "3d"]
    h11 = scoreboard(flat.assign(neighbour_iou=pd.NA)).groupby("claim").first()
    assert (
        h11.loc["H11", "verdict"].startswith("supported in part") and "2D rows" in h11.loc["H11", "because"]
    )
    assert "neighbour_iou" in h11.loc["H12", "because"]


def test_what_is_not_testable_says_what_it_needs(board):
    h8 = board[board["claim"] == "H8"].iloc[0]
    assert h8["because"].startswith("1 of 1 tests not testable; needs an interactive 3D run")
    assert board["because"].str.len().gt(10).all()


def test_the_loss_far_from_the_prompt_is_taken_net_of_2d_prompting():
    """3D falls by 0.02 per slice; where 2D falls alike, nothing of it is propagation's."""
    table = made_up_table(cases=3)
    models = {"sam2": "miniature_sam2", "sam": "miniature_sam"}
    flat = table[(table["task"] == "2d") & (table["model"] == "miniature_sam2")]
    deep = table[table["task"] == "3d"]
    same = deep[deep["prompt"].isin(flat["prompt"])]
    same = same[(same["frame_choice"] == "first_slice") & (same["direction"] == "bidirectional")]
    twin = same.assign(task="2d", frame_choice=pd.NA, direction=pd.NA)
    found = claims._far_loss_against_near(pd.concat([twin, same]), models)
    assert len(found) == 6 and (found["a"] - found["b"]).abs().max() < 1e-12
    level = pd.concat([twin.assign(value=0.5), same])
    raw, net = claims._far_against_near(same, models), claims._far_loss_against_near(level, models)
    assert (net["a"] - net["b"]).to_numpy() == pytest.approx((raw["a"] - raw["b"]).to_numpy())


def test_likeness_of_neighbouring_slices_against_scipy(table):
    models = {"sam2": "miniature_sam2"}
    found = claims._likeness_of_truth(table, models).set_index("case_id")["a"]
    rows = table[(table["task"] == "3d") & (table["distance_slices"] != 0)]
    one = rows[rows["case_id"] == "MRI-Heart_03"].astype({"value": float, "neighbour_iou": float})
    means = one.groupby(["slice_index", "neighbour_iou"])["value"].mean().reset_index()
    expected = scipy_stats.spearmanr(means["neighbour_iou"], means["value"]).statistic
    assert found["MRI-Heart_03"] == pytest.approx(expected)


def test_the_objects_of_h13_are_a_holm_family_beside_that_of_the_claims(board):
    for name, family in board.groupby("family"):
        tested = family["p"].notna() & family["claim"].ne("H5c")  # which is H5b the other way round
        assert family["claim"].eq("H13").all() == (name == "objects")
        assert family["n_tests"].eq(tested.sum()).all()
        assert family.loc[tested, "p_holm"].to_numpy() == pytest.approx(paired.holm(family.loc[tested, "p"]))


def test_every_claim_of_the_protocol_is_there(board):
    assert {f"H{n}" for n in range(1, 14)} == {claim.rstrip("abcd") for claim in board["claim"]}
    assert board["sentence"].str.len().gt(20).all() and board["needs"].str.len().gt(10).all()


def test_the_opposite_effect_is_contradicted(table):
    swapped = table.assign(
        prompt=table["prompt"].replace({"one_box": "one_point", "one_point": "one_box"})
    ).astype({"prompt": "string"})
    verdict = scoreboard(swapped).groupby("claim")["verdict"].first()
    assert verdict["H6"] == verdict["H2"] == f"contradicted {WITHIN}"


def test_no_effect_is_inconclusive_not_supported(table):
    rng = np.random.default_rng(0)
    noise = np.clip(0.5 + rng.normal(0, 0.1, len(table)), 0, 1)
    found = scoreboard(table.assign(value=pd.array(noise, "Float64")))
    directed = found[found["relation"].isin([">", "<"]) & ~found["claim"].isin(["H8", "H10", "H13"])]
    assert (directed["finding"] == "inconclusive").mean() > 0.9


def test_too_little_is_said_to_be_too_little(table):
    nothing = scoreboard(table[:0])
    assert set(nothing["verdict"]) == {"not testable"} and nothing["n_tests"].eq(0).all()
    one = scoreboard(table[table["case_id"] == "MRI-Heart_00"])
    assert set(one["verdict"]) == {"inconclusive", "not testable"} and one["p"].isna().all()
    flat = scoreboard(table[table["task"] == "2d"])
    assert set(flat.loc[flat["claim"].isin(["H4", "H5a", "H7", "H9", "H11"]), "verdict"]) == {"not testable"}


def test_a_broken_table_is_refused(table):
    with pytest.raises(InputError, match="share their keys"):
        scoreboard(as_table(pd.concat([table, table.head(1)])))
    mixed = table.assign(protocol="released").astype({"protocol": "string"})
    with pytest.raises(InputError, match="mixes protocol"):
        scoreboard(pd.concat([table, mixed]))


def test_verdict_of_several_findings():
    def verdict(*findings, level=OTHERS, **options):
        tests = pd.DataFrame({"finding": findings, "generalises_to": level})
        return _verdict(tests, **options)

    assert verdict("supported", "supported") == "supported"
    assert verdict("supported", "inconclusive") == "inconclusive"
    assert verdict("supported", "contradicted") == "contradicted"
    assert verdict("supported", "not testable") == "supported in part"
    assert verdict("inconclusive", "not testable") == "inconclusive"
    assert verdict("supported", "of no practical weight") == "of no practical weight"
    assert verdict("not testable") == "not testable"
    assert verdict("inconclusive", "supported", any_is_enough=True) == "supported"
    assert verdict("supported", level=THESE) == f"supported {WITHIN}"
    assert verdict("supported", "supported", level=[OTHERS, THESE]) == f"supported {WITHIN}"


def test_the_best_design_is_chosen_on_other_patients():
    """On noise the best design of other patients is no better than the mean."""
    table = made_up_table(cases=20, designs=ALL_DESIGNS[:8])
    rng = np.random.default_rng(1)
    table = table.assign(value=pd.array(np.clip(0.5 + rng.normal(0, 0.1, len(table)), 0, 1), "Float64"))
    pairs = claims._best_design(check_table(table), {"sam2": "miniature_sam2"})
    assert len(pairs) == 20 and abs((pairs["a"] - pairs["b"]).mean()) < 0.012
    places = check_table(table)[["data_set", "patient_id"]].drop_duplicates()
    choosing = claims.halves(places)
    assert choosing.sum() == 20 and (claims.halves(places[::-1])[::-1] == choosing).all()


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


def test_published_comparisons():
    found = published.compare_published().set_index("comparison")
    assert found["n"].eq(28).all() and found["n_tests"].eq(9).all()
    box = found.loc["one box against one point"]
    rows = published.sam_table().astype({"value": float})
    wide = rows[rows["mask_choice"] == "first_mask"].pivot_table("value", ["data_set", "object"], "prompt")
    of_sets = (wide["one_box"] - wide["one_point"]).groupby("data_set").mean().to_numpy()
    walsh = [(x + y) / 2 for x, y in combinations_with_replacement(of_sets, 2)]
    assert box["difference"] == pytest.approx(np.median(walsh), abs=1e-9)
    assert box["n_units"] == len(of_sets) == 19 and box["p_holm"] < 1e-4
    assert found.loc["a point per component against one point", "p_holm"] > 0.5
    assert published_scoreboard()["finding"].eq("supported").all()


def test_measured_stands_beside_published_only_where_it_is_the_same_object():
    table = made_up_table(("CT-Spleen", "CT-Organ"), cases=2)
    found = published.measured_against_published(table)
    assert set(found["published_object"]) == {"CT-Spleen"}  # "organ" is no object of CT-Organ
    named = published.measured_against_published(table, {("CT-Organ", "organ"): "CT-Organ: Lung"})
    assert set(named["published_object"]) == {"CT-Spleen", "CT-Organ: Lung"}
    assert set(named["mask_choice"]) == {"first_mask", "oracle_channel"}
    row = named[named["published_object"] == "CT-Organ: Lung"].iloc[0]
    assert row["difference"] == pytest.approx(row["measured"] - row["published"])
    pooled = released_scripts.paper_means(table[table["task"] == "2d"])
    assert row["measured"] in pooled["value"].to_numpy()
    assert published.measured_against_published(table[:0]).empty


def test_friedman_and_critical_difference_against_hand_made_numbers():
    """Demsar's example values: q(4) = 2.569 gives CD 1.25 for 14 cases and 4 designs."""
    table = made_up_table(("MRI-Heart",), cases=14)
    ranking = rankings.rank_designs(table[table["model"] == "miniature_sam2"], ["prompt"])
    assert ranking.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=2e-3)
    assert ranking.ranks["design"].tolist()[0] == "mask" and ranking.ranks["mean_rank"].iloc[0] == 1.0
    # closed form without ties: 12 n / (k (k + 1)) sum (R - (k + 1) / 2)^2
    r = ranking.ranks["mean_rank"].to_numpy()
    assert ranking.statistic == pytest.approx(12 * 14 / 20 * ((r - 2.5) ** 2).sum())
    assert ranking.n_cases == 14 and ranking.p < 1e-6


def test_cases_that_lack_a_design_are_left_out_and_counted():
    table = made_up_table(("MRI-Heart",), cases=5)
    gone = (table["case_id"] == "MRI-Heart_00") & (table["prompt"] == "mask")
    ranking = rankings.rank_designs(table[~gone & (table["task"] == "3d")], ["prompt"])
    assert (ranking.n_cases, ranking.n_left_out) == (4, 1) and "lack a design" in ranking.note
    two = rankings.rank_designs(table[table["task"] == "3d"], ["direction"])
    assert np.isnan(two.p) and "fewer than three" in two.note
    assert rankings.rank_designs(table[:0]).n_cases == 0


def test_the_mixed_model_finds_the_effect_and_says_how_it_fared(table):
    of_model = table[table["model"] == "miniature_sam2"]
    row = rankings.mixed_model(of_model, "direction").iloc[0]
    assert row["estimate"] == pytest.approx(-0.04, abs=0.005) and row["converged"]
    means = of_model[of_model["task"] == "3d"].astype({"value": float})
    means = means.groupby(["case_id", "direction"])["value"].mean().unstack()
    paired = (means["front_to_end"] - means["bidirectional"]).mean()
    assert row["estimate"] == pytest.approx(paired, abs=1e-6)  # balanced: the paired mean difference
    assert rankings.mixed_model(of_model[:0], "direction").empty
