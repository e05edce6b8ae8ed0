"""Rows of many checkpoints become arms whose gains are those that were put in."""

import numpy as np
import pandas as pd
import pytest
from helpers.fine_tuned import GAIN, OTHER, PARENT, SEED_SPREAD, SIZES, jobs, made_up

from medsam_nb.statistics import fine_tuning
from medsam_nb.statistics.paired import compare

MEAN = 1 + 0.1 * np.sin(np.arange(8)).mean()


def test_an_arm_is_the_mean_of_its_seeds_value_by_value():
    table = made_up()
    arms = fine_tuning.of_arms(table, jobs())
    assert len(arms) == len(table[table.model == PARENT]) * (1 + len(GAIN) * len(SIZES))
    assert list(arms.columns) == list(table.columns) and arms.dtypes.equals(table.dtypes)
    direct = arms[arms.model == fine_tuning.DIRECT]
    pd.testing.assert_series_equal(
        direct.value.reset_index(drop=True), table[table.model == PARENT].value.reset_index(drop=True)
    )
    one = arms[
        (arms.model == "encoder (LoRA), 5 patients") & (arms.case_id == "c2") & (arms.slice_index == 3)
    ]
    seeds = table[
        table.model.isin(["lora-5-0", "lora-5-1"]) & (table.case_id == "c2") & (table.slice_index == 3)
    ]
    assert len(one) == 1 and len(seeds) == 2 and one.value.iloc[0] == pytest.approx(seeds.value.mean())


def test_learning_curves_begin_with_the_parent_and_hold_every_seed():
    table = made_up()
    curves = fine_tuning.learning_curves(table, jobs())
    assert len(curves) == len(GAIN) * (1 + len(SIZES) * 3)
    direct = table[table.model == PARENT].value.mean()
    for learns, gain in GAIN.items():
        some = curves[curves.learns == learns]
        assert list(some[some["repeat"].isna()].patients) == ["0", *SIZES]
        assert some[some.patients == "0"]["mean"].iloc[0] == pytest.approx(direct)
        for size, share in SIZES.items():
            of_size = some[some.patients == size].set_index("repeat")["mean"]
            assert of_size[np.nan] == pytest.approx(direct + gain * share * MEAN)
            assert of_size[1] - of_size[0] == pytest.approx(2 * SEED_SPREAD * MEAN)
    assert curves[curves["repeat"].isna()].ci_low.notna().all()


def test_declared_comparisons_find_the_gains_and_correct_within_a_number_of_patients():
    declared = fine_tuning.against_direct(jobs(), {"task": "3d"}, "3D")
    result = compare(fine_tuning.of_arms(made_up(), jobs()), declared).set_index("comparison")
    assert len(result) == 9 and set(result.family) == {f"3D, {size} patients" for size in SIZES}
    for learns, gain in GAIN.items():
        row = result.loc[f"3D: {fine_tuning.arm_name(learns, 'all')}"]
        assert row.difference == pytest.approx(gain * MEAN) and row.n == 8 and row.n_tests == 3
        assert row.p == pytest.approx(2 / 2**8) and row.p_holm == pytest.approx(3 * 2 / 2**8)


def test_gains_are_paired_by_patient_and_averaged_by_data_set():
    most = fine_tuning.largest(jobs())
    assert most == [fine_tuning.arm_name(learns, "all") for learns in GAIN]
    tables = [made_up(), *(made_up(name, patients=3, sign=-1.0) for name in OTHER)]
    changes = pd.concat([fine_tuning.gains(fine_tuning.of_arms(t, jobs()), most) for t in tables])
    assert len(changes) == 3 * (8 + 3 + 3)
    means = fine_tuning.mean_gains(changes).set_index(["arm", "data_set"])
    assert means.loc[(most[0], "sweeps")].difference == pytest.approx(GAIN["mask_decoder"] * MEAN)
    assert means.loc[(most[0], "other_ct")].difference < 0 and means.ci_low.notna().sum() == 3
    pooled = fine_tuning.mean_gains(changes[changes.data_set != "sweeps"], ["arm"]).set_index("arm")
    assert pooled.n_data_sets.eq(2).all() and pooled.n_patients.eq(6).all()
    assert pooled.loc[most[0]].ci_high < 0 < pooled.loc[most[2]].ci_low


def test_a_checkpoint_of_several_folds_counts_once():
    lines = jobs()
    shared = pd.concat([lines, lines.assign(fold=1)])
    table = made_up()
    expected = fine_tuning.learning_curves(table, lines)
    pd.testing.assert_frame_equal(fine_tuning.learning_curves(table, shared), expected)
    arms = fine_tuning.of_arms(table, shared)
    pd.testing.assert_frame_equal(arms, fine_tuning.of_arms(table, lines))


def test_of_folds_every_patient_counts_once():
    """One left out at a time: a checkpoint that two folds share is measured on two patients."""
    table = made_up(patients=3)
    names = ["mask_decoder-1-0", "mask_decoder-1-1"]
    lines = jobs()[lambda t: t.model.isin(names)].assign(repeat=0)
    shown = {names[0]: ["c0", "c1"], names[1]: ["c2"]}
    held_out = [table[(table.model == name) & table.case_id.isin(cases)] for name, cases in shown.items()]
    rows = pd.concat([table[table.model == PARENT], *held_out])
    curves = fine_tuning.learning_curves(rows, lines)
    alone, together = (curves[curves.patients == "1"].set_index("repeat")["mean"][key] for key in (0, np.nan))
    assert alone == pytest.approx(together)
