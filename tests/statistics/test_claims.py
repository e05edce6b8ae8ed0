"""The scoreboard's verdicts on tables whose effects were built in, and the pairs behind them."""

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_cases, made_up_table, rows_of_loops
from scipy import stats as scipy_stats

from medsam_nb.errors import InputError
from medsam_nb.protocol.designs import ALL_DESIGNS
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics import claim_values, claims
from medsam_nb.statistics.correction import holm
from medsam_nb.statistics.pooling import check_table
from medsam_nb.statistics.scoreboard import VERDICTS, _verdict, scoreboard

TWO_SETS = " within these data sets"


@pytest.fixture(scope="module")
def table():
    return made_up_table()


@pytest.fixture(scope="module")
def board(table):
    return scoreboard(table)


def verdicts(board):
    return board.groupby("claim")["verdict"].first()


def test_verdicts_follow_from_the_effects_that_were_built_in(board):
    """Two data sets: what is shown of their cases is said of these data sets, and no more."""
    verdict = verdicts(board)
    # the largest slice was made better than the centre, and nothing reaches 0.8 reliably
    assert verdict["H5b"] == "contradicted" + TWO_SETS and verdict["H5c"] == "supported" + TWO_SETS
    for claim in ("H1", "H2", "H3", "H4", "H5a", "H5d", "H6", "H7", "H9", "H10", "H12"):
        assert verdict[claim] == "supported" + TWO_SETS, claim
    assert verdict["H11"] == "supported in part" + TWO_SETS  # no 2D rows as far from the prompt
    assert verdict["H13"] == "inconclusive"
    assert verdict["H8a"] == verdict["H8b"] == "not testable"
    assert {words.removesuffix(TWO_SETS) for words in board["verdict"]} <= set(VERDICTS)


def test_six_data_sets_carry_a_verdict_without_restriction():
    table = made_up_table(tuple(f"MRI-{n}" for n in range(6)), cases=2)
    board = scoreboard(table, draws=399)
    verdict = verdicts(board)
    for claim in ("H2", "H6", "H9"):
        assert verdict[claim] == "supported", claim
    h2 = board[board["claim"] == "H2"]
    assert h2["generalises_to"].eq("data sets like these").all() and h2["n"].eq(12).all()


def test_a_claim_of_which_a_part_cannot_be_tested_is_supported_in_part(table):
    one = scoreboard(table[table["model"] == "miniature_sam2"], draws=99)
    h2 = one[one["claim"] == "H2"]
    assert set(h2["verdict"]) == {"supported in part" + TWO_SETS}
    assert h2["because"].iloc[0].startswith("2 of 4 tests supported; 2 of 4 tests not testable")
    assert "SAM: one box against one point" in h2["because"].iloc[0]
    deep = table[table["task"] == "3d"]
    found = scoreboard(deep.assign(neighbour_iou=pd.NA), draws=99).groupby("claim").first()
    assert found.loc["H11", "verdict"] == "supported in part" + TWO_SETS
    assert "2D rows" in found.loc["H11", "because"] and "neighbour_iou" in found.loc["H12", "because"]


def test_what_is_not_testable_says_what_it_needs(board):
    h8 = board.groupby("claim")["because"].first()
    assert h8["H8a"].startswith("4 of 4 tests not testable; needs rows of 11_correct_masks")
    assert h8["H8b"].startswith("2 of 2 tests not testable; needs rows of 11_correct_masks")
    assert board["because"].str.len().gt(10).all()


def test_every_sentence_says_its_margin_and_every_claim_of_the_protocol_is_there(board):
    assert {f"H{n}" for n in range(1, 14)} == {claim.rstrip("abcd") for claim in board["claim"]}
    assert board["sentence"].str.len().gt(20).all() and board["needs"].str.len().gt(10).all()
    assert not board["sentence"].str.contains("[{}]").any()
    said = board.groupby("claim")["sentence"].first()
    assert "0.05" in said["H1"] and "0.05" in said["H3"] and "more than 0.1" in said["H9"]
    other = scoreboard(made_up_table(cases=1)[:0], margin=0.02, much=0.2).groupby("claim")["sentence"].first()
    assert "0.02" in other["H1"] and "more than 0.2" in other["H9"]


def test_much_worse_needs_more_than_worse(table):
    """3D is about 0.15 below 2D on the same slices: more than 0.1, and less than 0.3."""
    found = [
        scoreboard(table, much=much, draws=99).set_index("claim").loc["H9"] for much in (0.1, 0.145, 0.3)
    ]
    assert [row["finding"] for row in found] == ["supported", "inconclusive", "contradicted"]
    assert found[1]["note"] == "the interval holds -0.145" and found[0]["difference"] < -0.14


def test_the_loss_far_from_the_prompt_is_taken_net_of_2d_prompting():
    """3D falls by 0.02 per slice; where 2D falls alike, nothing of it is propagation's."""
    table = made_up_table(cases=3)
    models = {"sam2": "miniature_sam2", "sam": "miniature_sam"}
    flat = table[(table["task"] == "2d") & (table["model"] == "miniature_sam2")]
    deep = table[table["task"] == "3d"]
    same = deep[deep["prompt"].isin(flat["prompt"])]
    same = same[(same["frame_choice"] == "first_slice") & (same["direction"] == "bidirectional")]
    twin = same.assign(task="2d", frame_choice=pd.NA, direction=pd.NA)
    found = claim_values.far_loss_against_near(check_table(pd.concat([twin, same])), models)
    assert len(found) == 6 and (found["a"] - found["b"]).abs().max() < 1e-12
    level = check_table(pd.concat([twin.assign(value=0.5), same]))
    raw = claim_values.far_against_near(check_table(same), models)
    net = claim_values.far_loss_against_near(level, models)
    assert (net["a"] - net["b"]).to_numpy() == pytest.approx((raw["a"] - raw["b"]).to_numpy())


def test_likeness_of_neighbouring_slices_against_scipy(table):
    models = {"sam2": "miniature_sam2"}
    found = claim_values.likeness_of_truth(check_table(table), models).set_index("patient_id")["a"]
    rows = table[(table["task"] == "3d") & (table["distance_slices"] != 0)]
    one = rows[rows["case_id"] == "MRI-Heart_03"].astype({"value": float, "neighbour_iou": float})
    means = one.groupby(["slice_index", "neighbour_iou"])["value"].mean().reset_index()
    expected = scipy_stats.spearmanr(means["neighbour_iou"], means["value"]).statistic
    assert found["MRI-Heart_03"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["far_against_near", "falls_with_distance", "likeness_of_areas"])
def test_cases_of_one_patient_are_averaged_in_every_test(table, name):
    grouped = table.assign(patient_id=table["case_id"].str[:-1])  # MRI-Heart_0, CT-Spleen_0
    found = getattr(claim_values, name)(check_table(grouped), {"sam2": "miniature_sam2"})
    alone = getattr(claim_values, name)(check_table(table), {"sam2": "miniature_sam2"})
    assert found["n_cases"].tolist() == [8, 8] and len(alone) == 16
    assert found["a"].mean() == pytest.approx(alone["a"].mean())


def test_the_objects_of_h13_are_a_holm_family_beside_that_of_the_claims(board):
    for name, family in board.groupby("family"):
        counted = family["p"].notna() & family["claim"].ne("H5c")
        assert family["claim"].eq("H13").all() == (name == "objects")
        assert family.loc[counted, "n_tests"].eq(counted.sum()).all()
        assert family.loc[counted, "p_holm"].to_numpy() == pytest.approx(holm(family.loc[counted, "p"]))


def test_a_mirrored_claim_is_the_same_test_and_counted_once(board):
    one, other = (board[board["claim"] == claim].iloc[0] for claim in ("H5b", "H5c"))
    assert (one["p"], one["p_holm"], one["n_tests"]) == (other["p"], other["p_holm"], other["n_tests"])
    assert one["difference"] == -other["difference"]
    assert one["holm_low"] == -other["holm_high"] and one["ci_low"] == pytest.approx(-other["ci_high"])
    family = board[(board["family"] == "claims") & board["p"].notna()]
    assert one["n_tests"] == len(family) - 1


def test_findings_are_those_of_the_intervals_that_are_shown(board):
    tested = board[board["finding"].isin(["supported", "contradicted"]) & board["relation"].isin([">", "<"])]
    assert ((tested["holm_low"] > 0) | (tested["holm_high"] < 0)).all()
    equal = board[(board["claim"] == "H1")].iloc[0]
    assert equal["holm_low"] > -claims.MARGIN and equal["holm_high"] < claims.MARGIN


def test_the_opposite_effect_is_contradicted(table):
    swapped = table.assign(
        prompt=table["prompt"].replace({"one_box": "one_point", "one_point": "one_box"})
    ).astype({"prompt": "string"})
    verdict = verdicts(scoreboard(swapped, draws=99))
    assert verdict["H6"] == verdict["H2"] == "contradicted" + TWO_SETS


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
    def verdict(*findings, generalises_to="data sets like these", **options):
        frame = pd.DataFrame({"finding": findings, "generalises_to": generalises_to})
        return _verdict(frame, **options)

    assert verdict("supported", "supported") == "supported"
    assert verdict("supported", "inconclusive") == "inconclusive"
    assert verdict("supported", "contradicted") == "contradicted"
    assert verdict("supported", "not testable") == "supported in part"
    assert verdict("supported", "of no practical weight") == "supported in part"
    assert verdict("of no practical weight", "of no practical weight") == "of no practical weight"
    assert verdict("inconclusive", "not testable") == "inconclusive"
    assert verdict("not testable") == "not testable"
    assert verdict("inconclusive", "supported", any_is_enough=True) == "supported within these data sets"
    assert verdict("supported", generalises_to="this data set") == "supported within this data set"
    mixed = ["data sets like these", "these data sets"]
    assert verdict("supported", "supported", generalises_to=mixed) == "supported within these data sets"
    assert verdict("supported", "contradicted", generalises_to=mixed) == "contradicted within these data sets"
    assert verdict("contradicted", "supported", generalises_to=mixed) == "contradicted"


def test_the_best_design_is_chosen_on_other_patients():
    """On noise the best design of the others is no better than the mean."""
    table = made_up_table(cases=20, designs=ALL_DESIGNS[:8])
    rng = np.random.default_rng(1)
    table = table.assign(value=pd.array(np.clip(0.5 + rng.normal(0, 0.1, len(table)), 0, 1), "Float64"))
    row = scoreboard(table, draws=399).set_index("claim").loc["H10"]
    assert row["n"] == 40 and abs(row["difference"]) < 0.01
    assert row["finding"] == "inconclusive" and row["p_holm"] > 0.05


def corrected_table(gains, ended=()):
    """Six cases in each of two data sets, corrected in two loops; gains by new information and loop."""
    return as_table(list(rows_of_loops(made_up_cases(cases=6), np.random.default_rng(3), gains, ended)))


def test_h8_is_supported_where_only_masks_help_and_contradicted_where_prompts_do():
    still = {"one_point": 0.0, "one_box": 0.01, "mask": 0.1}
    found = verdicts(scoreboard(corrected_table(still), draws=99))
    assert found["H8a"] == found["H8b"] == "supported" + TWO_SETS
    helping = {"one_point": 0.0, "one_box": 0.1, "mask": 0.0}
    board = scoreboard(corrected_table(helping), draws=99)
    found = verdicts(board)
    assert found["H8a"] == "contradicted" + TWO_SETS and found["H8b"] == "inconclusive"
    tests = board[board["claim"] == "H8a"].set_index("test")["finding"]
    assert {name for name, what in tests.items() if what == "contradicted"} == {
        f"after against before, {strategy} with one box" for strategy in ("correction", "reinitialisation")
    }


def test_h8_compares_the_last_loop_with_the_first_on_the_same_slices():
    table = check_table(
        corrected_table({"one_point": 0.0, "one_box": 0.0, "mask": 0.1}, ended={("MRI-Heart", 2)})
    )
    models = {"sam2": "miniature_sam2"}
    for strategy, after in (("correction", "correction_reinitialised"), ("reinitialisation",) * 2):
        found = claim_values.after_corrections(strategy, "mask")(table, models).set_index("patient_id")
        rows = table[(table["new_information"] == "mask") & (table["case_id"] == "MRI-Heart_04")]
        rows = rows.astype({"value": float})
        last = rows[(rows["strategy"] == after) & (rows["loop"] == 2)]["value"].mean()
        first = rows[(rows["strategy"] == strategy) & (rows["loop"] == 0)]["value"].mean()
        assert found.loc["MRI-Heart_04", ["a", "b"]].tolist() == pytest.approx([last, first])
        assert found.loc["MRI-Heart_02", "a"] == found.loc["MRI-Heart_02", "b"]  # could not be corrected
        assert len(found) == 12
