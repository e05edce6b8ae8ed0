"""Corrections in the workbook: parameters are checked, pictures are of the rows, words of the table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.made_up import made_up_cases, rows_of_clicks, rows_of_loops
from helpers.volumes import disc_case, shipped

from medsam_nb.data.prepare import prepare
from medsam_nb.errors import StudyError
from medsam_nb.evaluation.correction_rows import evaluate_clicks, evaluate_loops
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.protocol.table import as_table
from medsam_nb.provenance import project_root
from medsam_nb.statistics import effort
from medsam_nb.workbook import correction_pictures, findings, report
from medsam_nb.workbook.resolve import resolve_parameters
from medsam_nb.workbook.run import Run
from medsam_nb.workbook.study import load_study

SECONDS = {"one_point": 2.0, "one_box": 7.0, "mask": 80.0}


def resolved(tmp_path, overrides=None, **given):
    path = tmp_path / "own.yaml"
    study = {"name": "own", "title": "t", "question": "q", "notebooks": {"11_correct_masks": given}}
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return resolve_parameters(load_study(path), path, overrides)["11_correct_masks"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"clicks": 0}, "Use 1 to 100"),
        ({"loops": 2.5}, "whole number"),
        ({"strategies": ["corection"]}, "correction"),
        ({"strategies": []}, "empty list"),
        ({"new_information": ["one_pint"]}, "one_point"),
        ({"initial_prompts": ["box_per_component"]}, "initial prompt"),
        ({"frame_choice": "center_slice"}, "centre_slice"),
        ({"mask_choice": "oracle_mask"}, "mask choice"),
        ({"seconds_per_prompt": {"one_point": 2.0}}, "says nothing of mask, one_box"),
        ({"seconds_per_prompt": SECONDS | {"mask": 0}}, "more than 0"),
        ({"seconds_per_prompt": SECONDS | {"msk": 1}}, "mask"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_values_are_found_before_anything_runs(tmp_path, wrong, says):
    with pytest.raises(StudyError, match=says):
        resolved(tmp_path, **wrong)


def test_a_number_names_no_prompt(tmp_path):
    with pytest.raises(StudyError, match="names 1"):
        resolved(tmp_path, overrides={"seconds_per_prompt": SECONDS | {1: 1}})


def test_right_values_pass(tmp_path):
    given = {"clicks": 19, "loops": 1, "new_information": ["mask"], "seconds_per_prompt": {"mask": 30}}
    given |= {"strategies": ["reinitialisation"], "initial_prompts": ["one_box"]}
    given["seconds_per_prompt"]["one_box"] = 5
    assert resolved(tmp_path, **given).items() >= given.items()


def test_the_pictures_of_a_click_are_those_of_the_rows():
    case, model = disc_case(), shipped()
    panels = correction_pictures.panels_of_click(model, [(case, "discs")], "one_point", seed=5)
    before, error, click, after = panels
    rows = as_table(evaluate_clicks(model, case, ["one_point"], seed=5, clicks=1, objects=["discs"]))
    rows = rows[rows["slice_index"] == int(case.mask("discs").sum((1, 2)).argmax())].sort_values("loop")
    assert [before.iou, after.iou] == rows["value"].tolist()
    assert error.errors and click.errors and not before.errors
    ((x, y),) = click.prompt.points
    assert click.truth[y, x] != click.prediction[y, x]


def test_the_pictures_of_loops_are_those_of_the_rows():
    case, model = disc_case(), shipped()
    steps = correction_pictures.corrected_loops(
        model, case, "discs", "one_point", "correction", "mask", seed=5, loops=2
    )
    rows = as_table(evaluate_loops(model, case, ["one_point"], seed=5, loops=2, objects=["discs"]))
    rows = rows[(rows["strategy"] == "correction") & (rows["new_information"] == "mask")]
    panels = correction_pictures.panels_of_loops(case, "discs", steps, count=4)
    assert len(panels) == 4 * len(steps) and panels[3] is None  # three slices hold the object
    for number, loop in enumerate(range(len(steps))):
        values = rows[rows["loop"] == loop].sort_values("slice_index")["value"].tolist()
        assert [panel.iou for panel in panels[4 * number : 4 * number + 3]] == values
    assert sum(panel.prompt is not None for panel in panels[-4:-1]) == 3


def test_what_was_found_is_said_from_the_table():
    cases, draw = made_up_cases(cases=4), np.random.default_rng(0)
    clicks = as_table(list(rows_of_clicks(cases, draw)))
    curves, reached = (
        effort.curves(clicks, ["model", "prompt"]),
        effort.clicks_to_reach(clicks, ["model", "prompt"]),
    )
    said = findings.clicks_help(curves, reached, "miniature_sam2")
    first = curves[curves["prompt"] == "one_box"]["mean"]
    assert (
        f"after one box the mean IoU goes from {first.iloc[0]:.2f} to {first.iloc[-1]:.2f} with 4 clicks"
        in said
    )
    assert "(0.9 is reached on 0 of 40 objects on slices)" in said
    some = findings.clicks_help(
        curves, reached.assign(reached=30, noc_reached=1.5, noc=2.1), "miniature_sam2"
    )
    assert (
        "(0.9 is reached on 30 of 40 objects on slices, there with 1.5 prompts on average; 2.1 over all, if "
        "those that never reach it count 5)"
    ) in some
    gains = {"one_point": 0.0, "one_box": -0.01, "mask": 0.1}
    only = effort.gains(as_table(list(rows_of_loops(cases, draw, gains))), SECONDS)
    said = findings.corrections_help(only)
    assert said.endswith("Shown to raise it, corrected for their number: mask.")
    fresh = only["strategy"].eq("reinitialisation") & only["new_information"].eq("mask")
    partly = findings.corrections_help(only.assign(corrected_low=only["corrected_low"].where(~fresh, -0.1)))
    assert partly.endswith("their number: mask (only with the running predictor).")
    masks = only[only["new_information"] == "mask"].iloc[0]
    assert f"{masks['gain']:+.2f} ({masks['corrected_low']:+.2f} to {masks['corrected_high']:+.2f})" in said
    assert f"from {masks['before']:.2f} after one point" in said
    both = effort.gains(as_table(list(rows_of_loops(cases, draw, gains | {"one_box": 0.1}))), SECONDS)
    assert findings.corrections_help(both).endswith("number: mask, one box.")
    few = findings.corrections_help(only.assign(corrected_low=np.nan, corrected_high=np.nan))
    assert "Shown" not in few and "nan" not in few
    assert findings.corrections_help(pd.DataFrame()) == "No volume was corrected."


def test_the_demo_tests_the_claim_after_the_corrections_are_made():
    root = Path(__file__).parents[2]
    order = list(load_study(root / "studies" / "demo.yaml").notebooks)
    assert (
        order.index("03_propagate_3d")
        < order.index("11_correct_masks")
        < order.index("05_compare_with_paper")
    )


def test_each_task_of_a_notebook_leaves_its_own_record_and_table(tmp_path):
    manifest = load_manifest(project_root() / "data_manifest.yaml")
    row = manifest.data_set("simulated_xray")
    prepare(row, tmp_path, tmp_path / "prepared", progress=False)
    cases = tmp_path / "prepared" / row.name / "cases.parquet"
    pd.read_parquet(cases).head(1).to_parquet(cases)
    run = Run("11_correct_masks", tmp_path, tmp_path / "out", manifest)
    given = {"prepared_dir": "prepared", "weights_dir": "weights", "workers": 0, "features_gb": 0.0}
    given |= {"seed": 3, "device": "cpu", "initial_prompts": ["one_box"], "objects": ["organ"]}
    clicked = run.evaluate("2d_clicks", [row.name], ["miniature_sam2"], clicks=1, **given)
    looped = run.evaluate("3d_loops", [row.name], ["miniature_sam2"], loops=1, **given)
    records = report.read_provenance(run.folder)
    assert records["11_correct_masks"]["parameters"]["clicks"] == 1
    assert records["11_correct_masks, 3D loops"]["parameters"]["loops"] == 1
    assert set(run.results("2d_clicks")["task"]) == {"2d_clicks"}
    assert len(run.results("2d_clicks", "3d_loops")) == len(clicked) + len(looped)
    with pytest.raises(StudyError, match="no results yet"):
        run.results()
