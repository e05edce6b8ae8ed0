"""Two runs compared: equal ones are found equal, a change is found where it was made and nowhere else."""

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table

from medsam_nb.errors import StudyError
from medsam_nb.protocol.designs import ALL_DESIGNS
from medsam_nb.workbook import comparing, report

RECORD = {"seed": [1], "checkpoints": {"miniature_sam2": "ab"}, "parameters": {"prompts": ["one_box"]}}


def kept(folder, table, record):
    for task, rows in table.groupby("task"):
        report.save_table(rows, folder, f"results_{task}")
    report.add_provenance(folder, "02_evaluate_2d", record)
    return folder


@pytest.fixture(scope="module")
def table():
    return made_up_table(("MRI-Heart", "CT-Spleen"), 6, designs=ALL_DESIGNS[:4])


@pytest.fixture
def first(table, tmp_path):
    return kept(tmp_path / "first", table, RECORD)


def test_a_run_equals_its_copy(first, table, tmp_path):
    sides = comparing.compare_runs(first, kept(tmp_path / "copy", table.sample(frac=1), RECORD))
    assert sides.record.empty
    assert sides.rows["rows in both"].sum() == sides.rows["equal values"].sum() == len(table)
    assert (sides.differences["difference"] == 0).all()


def test_a_change_is_found_where_it_was_made(first, table, tmp_path):
    changed = table["prompt"].eq("one_box") & table["task"].eq("2d") & table["model"].eq("miniature_sam2")
    value = np.where(changed, table["value"].astype(float).clip(0, 0.9) + 0.05, table["value"].astype(float))
    other = table.assign(value=pd.array(value, "Float64"))
    gone = other["case_id"].eq(other["case_id"].iloc[0])
    record = RECORD | {"seed": [2]}
    sides = comparing.compare_runs(first, kept(tmp_path / "second", other[~gone], record))
    assert sides.rows["in the first only"].sum() == gone.sum()
    assert sides.record.to_dict("records") == [
        {"notebook": "02_evaluate_2d", "what": "seed", "first": "1", "second": "2"}
    ]
    found = sides.differences.set_index(["comparison", "level"])
    one = found.loc[("2D, one box", "miniature_sam2")]
    expected = (
        sides.pairs[sides.pairs["prompt"].eq("one_box") & sides.pairs["task"].eq("2d")]
        .loc[lambda rows: rows["model"] == "miniature_sam2"]
        .assign(d=lambda rows: (rows["value_b"] - rows["value_a"]).astype(float))
        .groupby(["data_set", "case_id"])["d"].mean().groupby("data_set").mean().mean()
    )  # fmt: skip
    assert one["difference"] == pytest.approx(expected) and one["finding"] == "second is higher"
    others = found.drop(index=("2D, one box", "miniature_sam2"))
    assert (others["difference"] == 0).all() and set(others["finding"]) == {"inconclusive"}
    page = comparing.write_comparison(sides, tmp_path / "both").read_text(encoding="utf-8")
    assert f"{one['difference']:.3f} ({one['holm_low']:.3f} to {one['holm_high']:.3f})" in page
    assert "second is higher" in page and "first and second compared" in page
    assert (tmp_path / "both" / "figures" / "cases.pdf").is_file()


def test_two_models_are_paired_where_each_run_has_one(first, table, tmp_path):
    deep = table[table["task"] == "3d"]
    a = kept(tmp_path / "a", deep, RECORD)
    b = kept(tmp_path / "b", deep.assign(model="large"), RECORD)
    sides = comparing.compare_runs(a, b)
    assert set(sides.differences["level"]) == {"miniature SAM 2, then large"}
    flat = table[table["task"] == "2d"]
    other = kept(tmp_path / "c", flat.assign(model=flat["model"] + "x"), RECORD)
    none = comparing.compare_runs(other, first)
    assert comparing.sentences(none) == ["The runs share no model, so no value can be compared."]
    page = comparing.write_comparison(none, tmp_path / "d").read_text(encoding="utf-8")
    assert "nothing to compare" in page


def test_runs_that_share_no_row_are_told_so_without_a_number(first, table, tmp_path):
    other = kept(tmp_path / "other", table.assign(protocol="released"), RECORD)
    said = comparing.sentences(comparing.compare_runs(first, other))
    assert said[0].startswith("2D") and " 0 rows in both; " in said[0] and "nan" not in " ".join(said)


def test_a_folder_that_is_no_run_is_named(first, tmp_path):
    with pytest.raises(StudyError, match="is no folder of a run"):
        comparing.compare_runs(first, tmp_path / "nothing")
