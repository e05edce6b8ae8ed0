"""The mixed model against lme4, and what it says where it cannot be fitted."""

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table

from medsam_nb.protocol.table import as_table
from medsam_nb.statistics.mixed import mixed_model

SIZES = (3, 4, 5, 6, 7, 8, 9, 10)


def table_of_r(sets=SIZES, cases=1):
    """The data of benchmarks/reference_values.R; every patient may have several cases of the same values."""
    rows = []
    for s, size in enumerate(sets, start=1):
        for p in range(1, size + 1):
            base = 0.5 + 0.04 * np.cos(2 * s) + 0.06 * np.sin(3 * p + s)
            effect = 0.05 + 0.03 * np.sin(5 * s) + 0.03 * np.cos(7 * p + 2 * s)
            rows += [
                {
                    "task": "3d",
                    "data_set": f"s{s}",
                    "patient_id": f"s{s}p{p}",
                    "case_id": f"s{s}p{p}c{c}",
                    "object": "organ",
                    "model": "m",
                    "prompt": prompt,
                    "metric": "iou",
                    "value": value,
                }
                for c in range(cases)
                for prompt, value in (("a", base), ("b", base + effect))
            ]
    return as_table(rows)


def test_the_estimate_and_its_error_are_those_of_lme4():
    """lmer(value ~ level + (1 | data_set) + (1 | data_set:level) + (1 | patient)), which R fits in full."""
    row = mixed_model(table_of_r(), "prompt").iloc[0]
    assert row["estimate"] == pytest.approx(0.0460778001510356, abs=2e-7)
    half = (row["ci_high"] - row["ci_low"]) / 2
    assert half == pytest.approx(2.364624251592785 * 0.00912065425433498, rel=1e-3)  # t, 7 degrees of freedom
    assert row["sd_between"] == pytest.approx(0.0242317216273191, rel=1e-3)
    assert (row["degrees_of_freedom"], row["n_patients"], row["n_data_sets"]) == (7, 52, 8)
    assert row["converged"] and row["generalises_to"] == "data sets like these"


def test_several_cases_of_a_patient_count_once():
    one, three = (mixed_model(table_of_r(cases=n), "prompt").iloc[0] for n in (1, 3))
    assert three["n_cases"] == 3 * one["n_cases"] and three["n_patients"] == one["n_patients"]
    assert three[["estimate", "ci_low", "p"]].to_numpy(float) == pytest.approx(
        one[["estimate", "ci_low", "p"]].to_numpy(float)
    )


def test_too_few_data_sets_for_slopes_are_fixed_effects_and_it_is_said():
    row = mixed_model(table_of_r(SIZES[:3]), "prompt").iloc[0]
    assert row["estimate"] == pytest.approx(0.0380683977485225)
    assert row["p"] == pytest.approx(5.72037980327805e-05, rel=1e-6) and row["degrees_of_freedom"] == 9
    assert row["note"].startswith("too few data sets (3) for a slope") and np.isnan(row["sd_between"])
    assert row["generalises_to"] == "these data sets"
    alone = mixed_model(table_of_r((1, 1, 1)), "prompt").iloc[0]
    assert not alone["converged"] and "no data set has two patients" in alone["note"]
    assert np.isnan(alone["p"]) and np.isnan(alone["ci_low"])


def test_one_patient_per_data_set_is_a_t_test():
    row = mixed_model(table_of_r((1,) * 7), "prompt").iloc[0]
    assert row["degrees_of_freedom"] == 6 and "one patient per data set" in row["note"]


def test_no_variation_between_data_sets_is_said():
    """Effects that are alike in all data sets: the variance between them is at its boundary."""
    rng = np.random.default_rng(0)
    table = table_of_r((6,) * 8)
    values = table["value"].astype(float).to_numpy().copy()
    d = rng.normal(0.05, 0.02, (8, 6))
    d += 0.05 - d.mean(axis=1, keepdims=True)
    values[1::2] = values[::2] + d.ravel()
    row = mixed_model(table.assign(value=pd.array(values, "Float64")), "prompt").iloc[0]
    assert row["sd_between"] == pytest.approx(0, abs=1e-3) and "boundary" in row["note"]
    assert row["estimate"] == pytest.approx(0.05, abs=1e-6)


def test_it_finds_the_effect_of_a_factor():
    of_model = made_up_table()
    of_model = of_model[of_model["model"] == "miniature_sam2"]
    row = mixed_model(of_model, "direction").iloc[0]
    assert row["estimate"] == pytest.approx(-0.04, abs=0.005) and row["converged"]
    assert mixed_model(of_model, "prompt")["level"].tolist() == [
        "one_box",
        "one_point",
        "point_per_component",
    ]
    assert mixed_model(of_model[:0], "direction").empty
