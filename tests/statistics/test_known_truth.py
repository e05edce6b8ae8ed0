"""Tables whose truth is known, through the functions that notebooks call: the finding, and why it is so."""

import numpy as np
import pandas as pd
import pytest

from medsam_nb.protocol.table import as_table
from medsam_nb.statistics.findings import outcome
from medsam_nb.statistics.paired import compare
from medsam_nb.statistics.scoreboard import scoreboard
from medsam_nb.statistics.signs import signed_rank

BOX = {"name": "box against point", "task": "2d", "vary": "prompt", "a": "one_box", "b": "one_point"}


def table_of(effects, sets, patients=None, slices=2):
    """2D rows of a box and a point, `effects` apart in every case (over two slices that differ).

    Parameters are arrays with an entry per case: difference, data set, and patient (each its own by default).
    """
    effects = np.asarray(effects, float)
    cases = pd.DataFrame({"data_set": np.asarray(sets, str), "d": effects})
    cases["case_id"] = [f"c{n}" for n in range(len(cases))]
    if patients is not None:
        cases["patient_id"] = np.asarray(patients, str)
    rows = []
    for prompt, sign in (("one_box", 0.5), ("one_point", -0.5)):
        for z in range(slices):
            shift = 0.1 * (z - (slices - 1) / 2)
            rows.append(
                cases.assign(prompt=prompt, slice_index=z, value=0.5 + shift + sign * cases["d"]).drop(
                    columns="d"
                )
            )
    fixed = {"task": "2d", "object": "organ", "model": "sam2_x", "mask_choice": "first_mask", "metric": "iou"}
    return as_table(pd.concat(rows).assign(**fixed))


def found(table, **more):
    return compare(table, [BOX | more]).iloc[0]


def of_board(table, claim="H2"):
    return scoreboard(table, draws=99).set_index("claim").loc[[claim]].iloc[0]


def centred(rng, n, mean, sd):
    """Values with exactly this mean and standard deviation."""
    values = rng.normal(0, 1, n)
    return mean + sd * (values - values.mean()) / values.std()


def test_no_effect():
    """Sides that are exchangeable: nothing is found, in one data set or in eight."""
    rng = np.random.default_rng(0)
    one = found(table_of(rng.normal(0, 0.1, 40), ["s"] * 40))
    assert one["finding"] == "inconclusive" and one["note"] == "the interval holds 0"
    assert one["ci_low"] < 0 < one["ci_high"] and one["p"] > 0.05
    eight = found(table_of(rng.normal(0, 0.1, 80), np.repeat(np.arange(8), 10)))
    assert eight["finding"] == "inconclusive" and eight["generalises_to"] == "data sets like these"


@pytest.mark.parametrize("data_sets", [1, 8])
def test_a_tiny_effect_with_huge_n(data_sets):
    """0.004 IoU, known to a thousandth: certain, and of no practical weight; in tables and claims alike."""
    rng = np.random.default_rng(1)
    n = 1600 // data_sets
    means = 0.004 + np.linspace(-0.001, 0.001, data_sets) * (data_sets > 1)
    d = np.concatenate([centred(rng, n, mean, 0.03) for mean in means])
    table = table_of(d, np.repeat(np.arange(data_sets), n), slices=1)
    row = found(table)
    assert row["p_holm"] < 1e-4 and row["difference"] == pytest.approx(0.004, abs=1e-4)
    assert row["finding"] == "of no practical weight" and row["note"] == "certain, but smaller than 0.01"
    claim = of_board(table)
    assert claim["finding"] == "of no practical weight"
    assert claim["verdict"].startswith("of no practical weight")


def test_a_small_estimate_with_a_wide_interval_is_left_open():
    row = {"p_holm": 0.03, "holm_low": 0.0001, "holm_high": 0.019, "difference": 0.007}
    row |= {"median_difference": 0.004, "rank_biserial": 0.8}
    why = "its direction is certain, but not whether it reaches 0.01"
    assert outcome("!=", row) == ("inconclusive", why)
    assert outcome("!=", row | {"holm_high": 0.0099})[0] == "of no practical weight"
    assert outcome("!=", row | {"difference": 0.0101})[0] == "shown"


def test_a_reversed_effect():
    rng = np.random.default_rng(2)
    row = found(table_of(rng.normal(-0.05, 0.03, 30), ["s"] * 30))
    assert row["finding"] == "b is higher" and row["holm_high"] < 0 and row["rank_biserial"] < -0.8
    claim = of_board(table_of(rng.normal(-0.05, 0.03, 96), np.repeat(np.arange(12), 8)))
    assert claim["finding"] == "contradicted" and claim["verdict"] == "contradicted"


def test_one_huge_contrary_data_set():
    """17 of 18 data sets gain 0.05, and one of 1,000 cases loses 0.05: data sets like these gain."""
    rng = np.random.default_rng(3)
    sizes = [20] * 17 + [1000]
    effects = np.repeat([0.05] * 17 + [-0.05], sizes)
    table = table_of(effects + rng.normal(0, 0.03, sum(sizes)), np.repeat(np.arange(18), sizes), slices=1)
    row = found(table)
    assert row["finding"] == "a is higher" and row["generalises_to"] == "data sets like these"
    assert row["difference"] == pytest.approx(16 / 18 * 0.05, abs=0.005)
    # what speaks against it stands beside: most cases lose, and three quarters of them are of one data set
    assert row["case_weighted"] < -0.02 and row["largest_share"] == pytest.approx(1000 / 1340)
    assert (row["sets_above"], row["sets_below"]) == (17, 1)
    assert of_board(table)["finding"] == "supported"
    # with too few data sets to be the unit, the mean of sets and most patients disagree: no finding, and why
    few = np.repeat(np.arange(4), [20, 20, 20, 1000])
    d = np.where(few == 3, -0.05, 0.05) + rng.normal(0, 0.03, len(few))
    row = found(table_of(d, few, slices=1))
    assert row["p_holm"] < 0.05 and row["difference"] > 0 > row["rank_biserial"]
    assert row["finding"] == "inconclusive" and "do not point in one direction" in row["note"]


def test_an_effect_that_varies_between_data_sets_with_mean_0():
    """Most data sets are certain of an effect of their own, and data sets like these have none."""
    rng = np.random.default_rng(4)
    effects = np.sort(centred(rng, 18, 0, 0.05))
    sizes = np.linspace(20, 200, 18).astype(int)  # the larger, the higher
    sets = np.repeat(np.arange(18), sizes)
    d = np.repeat(effects, sizes) + rng.normal(0, 0.05, sizes.sum())
    row = found(table_of(d, sets, slices=1))
    assert signed_rank(d)[0] < 1e-9  # as if cases were independent
    assert row["finding"] == "inconclusive" and row["p"] > 0.3
    assert row["ci_low"] < 0 < row["ci_high"]
    # of three of them alone something can be said, and it is said of them alone
    up = np.argsort(effects)[-3:]
    row = found(table_of(d[np.isin(sets, up)], sets[np.isin(sets, up)], slices=1))
    assert row["finding"] == "a is higher" and row["generalises_to"] == "these data sets"


def test_five_patients_with_ten_pictures_each():
    """What is common to the pictures of a patient is seen once, not ten times."""
    rng = np.random.default_rng(5)
    d = np.repeat([0.09, 0.05, 0.07, 0.02, 0.06], 10) + rng.normal(0, 0.02, 50)
    cases = found(table_of(d, ["s"] * 50))
    assert cases["p"] < 1e-10 and cases["finding"] == "a is higher" and cases["unit"] == "case"
    table = table_of(d, ["s"] * 50, np.repeat(np.arange(5), 10))
    row = found(table)
    assert (row["n"], row["n_cases"], row["unit"]) == (5, 50, "patient")
    assert row["finding"] == "inconclusive" and row["p"] == pytest.approx(2 / 2**5)
    assert row["note"] == "only 5 patients: a two-sided test cannot reach p < 0.05"
    assert row["difference"] == pytest.approx(cases["difference"])
    assert of_board(table)["verdict"] == "inconclusive"


def test_gains_that_are_many_and_small_and_losses_that_are_few_and_large():
    """33 gains of up to 0.01 and 27 losses of 0.1 to 0.3: the median gains, mean and ranks lose."""
    d = np.r_[np.linspace(0.001, 0.01, 33), -np.linspace(0.1, 0.3, 27)]
    table = table_of(d, ["s"] * 60)
    row = found(table)
    assert row["median_difference"] > 0 > row["difference"] and row["rank_biserial"] < -0.3
    assert row["p_holm"] < 0.05 and row["finding"] == "inconclusive"
    assert "mean (-0.087), median (+0.002) and ranks" in row["note"]
    claim = of_board(table)
    assert claim["finding"] == "inconclusive" and "do not point in one direction" in claim["note"]


def deep(values, sets, prompts=("one_point", "one_box", "mask", "point_per_component")):
    """3D rows of one slice per patient, a column of values for every prompt and direction."""
    rows = []
    cells = [(prompt, direction) for prompt in prompts for direction in ("front_to_end", "bidirectional")]
    for place, (prompt, direction) in enumerate(cells):
        cases = pd.DataFrame({"data_set": sets, "value": values[:, place].clip(0, 1)})
        cases["case_id"] = [f"c{n}" for n in range(len(cases))]
        rows.append(cases.assign(prompt=prompt, direction=direction, slice_index=1))
    fixed = {"task": "3d", "object": "organ", "model": "sam2_x", "metric": "iou", "mask_choice": "first_mask"}
    fixed |= {"frame_choice": "centre_slice", "distance_slices": 1, "truth_px": 9, "prompted_slices": "0"}
    return as_table(pd.concat(rows).assign(**fixed))


@pytest.mark.parametrize("data_sets", [1, 6])
def test_exchangeable_designs(data_sets):
    """Eight designs that are alike: neither is one better than their mean, nor above a bar at their mean."""
    rng = np.random.default_rng(6)
    values = 0.8 + rng.normal(0, 0.08, (24, 1)) + rng.normal(0, 0.04, (24, 8))
    table = deep(values, np.sort(np.arange(24) % data_sets).astype(str))
    board = scoreboard(table, draws=499).set_index("claim")
    for claim in ("H10", "H13", "H6", "H7"):
        assert (board.loc[[claim], "finding"] == "inconclusive").all(), claim
    assert board.loc["H10", "n"] == 24 and board.loc["H10", "p"] > 0.05
    # and a design that is better is found, and said to be so of whom it was tested on
    values[:, 3] += 0.12
    board = scoreboard(deep(values, table["data_set"].to_numpy()[:24]), draws=1999).set_index("claim")
    assert board.loc["H10", "finding"] == "supported"
    assert board.loc["H10", "verdict"] == (
        "supported" if data_sets == 6 else "supported within this data set"
    )
    high = board.loc[["H13"]]
    assert set(high["n"]) == {24 // data_sets}
    if data_sets == 1:
        assert high["verdict"].iloc[0] == "supported within these data sets"
        assert high["holm_low"].iloc[0] > 0


def test_missing_cells():
    """What lacks a side is left out and counted, and can cost the statement its reach."""
    rng = np.random.default_rng(7)
    sets = np.repeat(np.arange(6), 10)
    table = table_of(rng.normal(0.08, 0.02, 60), sets)
    whole = found(table)
    assert whole["generalises_to"] == "data sets like these" and whole["finding"] == "a is higher"
    # one slice of one side is missing: the other slice is matched
    gone = (table["case_id"] == "c0") & (table["slice_index"] == 0) & (table["prompt"] == "one_box")
    assert found(table[~gone])["n"] == 60
    assert found(table[~gone])["difference"] == pytest.approx(whole["difference"], abs=1e-9)
    # some cases lack a side
    gone = table["case_id"].isin(["c1", "c2"]) & (table["prompt"] == "one_box")
    row = found(table[~gone])
    assert (row["n"], row["n_unpaired"], row["n_data_sets"]) == (58, 2, 6)
    # a whole data set lacks a side: five are left, too few to speak of others like them
    gone = (table["data_set"] == "3") & (table["prompt"] == "one_point")
    row = found(table[~gone])
    assert (row["n"], row["n_unpaired"], row["n_data_sets"]) == (50, 10, 5)
    assert row["finding"] == "a is higher" and row["generalises_to"] == "these data sets"
    assert of_board(table[~gone])["verdict"] == "supported in part within these data sets"
    # masks that failed are zeros, and are counted
    lost = table.assign(
        value=table["value"].mask((table["case_id"] == "c5") & (table["prompt"] == "one_box"))
    )
    assert found(lost)["failed_a"] == 2 and found(lost)["n"] == 60


def test_a_table_of_another_program():
    """Four columns and a model: IoU per case, no slices, no modality, no key."""
    rng = np.random.default_rng(8)
    rows = [
        {"data_set": f"d{s}", "case_id": f"{s}-{n}", "model": model, "metric": "iou", "value": 0.6 + gain}
        for s in range(7)
        for n in range(4)
        for model, gain in (("ours", 0.05 + rng.normal(0, 0.01)), ("theirs", 0.0))
    ]
    row = compare(pd.DataFrame(rows), [{"name": "models", "vary": "model", "a": "ours", "b": "theirs"}]).iloc[
        0
    ]
    assert row["finding"] == "a is higher" and (row["n"], row["n_data_sets"]) == (28, 7)
    assert row["method"] == "t test of the means of 7 data sets, two-sided"
