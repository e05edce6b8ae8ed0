"""`medsam-nb finetune`: it trains what the notebook asks for, once, and says what cannot be done."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import typer
import yaml
from helpers.projects import ROOT, as_project, write_notebook, write_study

from medsam_nb import cli
from medsam_nb.data.fetch import fetch_checkpoint
from medsam_nb.data.prepare import prepare
from medsam_nb.errors import CheckpointError, StudyError
from medsam_nb.finetuning.jobs import state_file
from medsam_nb.manifest.fine_tuned import row_path, with_fine_tuned
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.workbook.fine_tuning import train_study
from medsam_nb.workbook.resolve import require_ready, resolve_parameters
from medsam_nb.workbook.run import open_run
from medsam_nb.workbook.study import load_study
from medsam_nb.workbook.work import work_of_study

CASES = [{"seed": seed, "shape": [8, 64, 64], "spacing_mm": [5.0, 3.0, 3.0]} for seed in range(4)]
GIVEN = {
    "data_sets": ["sweeps"],
    "other_data_sets": [],
    "training_patients": [1, "all"],
    "held_out_patients": 2,
    "learns": ["mask_decoder"],
    "repeats": 1,
    "training_slices": 4,
    "workers": 0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A workbook with four small prepared patients, and the notebook."""
    folder = tmp_path_factory.mktemp("workbook")
    rows = load_manifest(ROOT / "data_manifest.yaml")
    row = rows.data_set("simulated_ultrasound").model_dump(mode="json", exclude_defaults=True)
    row |= {
        "layout": {"name": "simulated", "modality": "ultrasound", "cases": CASES},
        "expected": {"cases": 4},
    }
    del row["name"]
    with as_project(folder):
        (folder / "own.yaml").write_text(yaml.safe_dump({"data_sets": {"sweeps": row}}), encoding="utf-8")
        (folder / "notebooks").mkdir()
        shutil.copy(ROOT / "notebooks" / "13_fine_tune.ipynb", folder / "notebooks")
        sweeps = load_manifest(folder / "own.yaml").data_set("sweeps")
        prepare(sweeps, folder / "data" / "raw", folder / "data" / "prepared", progress=False)
        yield folder


def study_of(project, **changes):
    return write_study(project, parameters=GIVEN | {"extra_manifest": "own.yaml"} | changes)


def test_the_command_trains_once_and_a_study_can_name_the_checkpoints_at_once(project, capsys):
    study = study_of(project)
    assert train_study(study) == 0
    said = capsys.readouterr().out
    assert "2 checkpoints of 4 slices each" in said and "2 of 2 steps" in said
    assert f"2 of 2 checkpoints and their rows are in {project}/weights/fine_tuned" in said
    names = re.findall(r"\] (\S+): 2 of 2 steps", said)
    files = [row_path(project / "weights", name).with_suffix(".pt") for name in names]
    before = [path.stat().st_mtime_ns for path in files]
    assert train_study(study) == 0 and [path.stat().st_mtime_ns for path in files] == before
    # a study that names one under `models` is checked against its row
    using = study_of(project, models=names[:1])
    resolved = resolve_parameters(load_study(using), using)
    assert resolved["13_fine_tune"]["models"] == names[:1]
    run = open_run("02_evaluate_2d", "runs/small", "data_manifest.yaml", "own.yaml")
    assert run.manifest.checkpoint(names[0]).fine_tuned.data_sets == ("sweeps",)
    (warning,) = run.seen_warnings(["sweeps"], names[:1])
    assert "was fine-tuned on other patients of sweeps" in warning


def units_said(study, capsys):
    with pytest.raises(typer.Exit) as ended:
        cli.units(study, "1/1", [])
    assert ended.value.exit_code == 0
    return capsys.readouterr().out


def test_a_plan_counts_trainings_and_what_is_measured_with_them_is_shared(project, capsys):
    study = study_of(project, seed=5, prompts=["one_box"])
    work = work_of_study(study)
    assert work.all_units == [] and work.untrained == 2
    cli.plan(study, [])
    said = capsys.readouterr().out
    assert "measuring steps of a training: miniature_sam2-sweeps-mask_decoder-1p-" in said
    assert "2 checkpoints to train, 1 of them finished. What is measured with the others is not" in (
        " ".join(said.split())
    )
    assert "Left on this machine: about" in said and work_of_study(study).untrained == 1
    assert f"not trained yet: 1. `medsam-nb finetune {study}`" in units_said(study, capsys)

    assert train_study(study) == 0
    work = work_of_study(study)
    assert work.untrained == 0 and {unit.key.data_set for unit in work.all_units} == {"sweeps"}
    assert len(work.all_units) == 3 * 2 * 2  # parent and checkpoints, on two patients, in 2D and in 3D
    cli.plan(study, [])
    said = capsys.readouterr().out
    assert len(re.findall(r"13_fine_tune +[23]d +miniature_sam2, fine-tuned +4 +2 ", said)) == 2
    assert "2 checkpoints to train, 2 of them finished." in said and "not counted" not in said
    assert "12 of 12 units" in (said := units_said(study, capsys)) and "not trained" not in said
    notebook = nbformat.read(project / "notebooks" / "13_fine_tune.ipynb", as_version=4)
    values: dict = {}
    for cell in notebook.cells:
        if set(cell.metadata.get("tags", [])) & {"parameters", "units"}:
            exec(cell.source, values)
            if "parameters" in cell.metadata.tags:
                values |= GIVEN | {"extra_manifest": "own.yaml", "run_dir": "runs/small", "seed": 5}
                values |= {"prompts": ["one_box"]}
    assert set(values["run"].outcome.status) == {"stored"}


@pytest.fixture
def beside(project):
    """Another notebook, for one test."""
    path = shutil.copy(ROOT / "notebooks" / "02_evaluate_2d.ipynb", project / "notebooks")
    yield Path(path).stem
    Path(path).unlink()


def test_a_notebook_that_cannot_be_planned_stops_no_other(project, beside, capsys):
    study = study_of(project, models=["miniature_sam2"], prompts=["one_point"], held_out_patients=4)
    work = work_of_study(study)
    (why,) = work.not_planned
    assert why.startswith("13_fine_tune is not planned: ") and "4 to measure on, of 4 patient" in why
    assert set(work.units) == {beside} and len(work.all_units) == 4
    with pytest.raises(typer.Exit) as ended:
        cli.units(study, "1/1", [])
    said = capsys.readouterr().out
    assert ended.value.exit_code == 1 and why in said and "4 of 4 units; 4 computed" in said
    cli.plan(study, [])
    assert why in capsys.readouterr().out


def test_a_training_that_fails_is_said_and_its_time_is_not_known(project, capsys):
    study = study_of(project, seed=6, prompts=["one_box"])
    (each,) = work_of_study(study).trainings["13_fine_tune"]
    state = state_file(each.jobs[0], each.weights_dir)
    state.parent.mkdir(exist_ok=True)
    state.write_bytes(b"no state")
    cli.plan(study, [])
    said = " ".join(capsys.readouterr().out.split())
    assert f"failed: {state}: cannot be read" in said
    assert "not known: a unit or training failed of 13_fine_tune (miniature_sam2, mask decoder)" in said


def test_a_checkpoint_whose_weights_are_gone_is_to_be_trained_again(project):
    assert train_study(study_of(project, seed=3)) == 0
    manifest = with_fine_tuned(load_manifest(project / "data_manifest.yaml"), project / "weights")
    row = next(row for row in manifest.checkpoints.values() if row.fine_tuned)
    (project / "weights" / row.file).unlink()
    using = study_of(project, models=[row.name])
    with pytest.raises(CheckpointError, match=r"is not there\. Train it again with `medsam-nb finetune`"):
        require_ready(resolve_parameters(load_study(using), using))
    with pytest.raises(CheckpointError, match="was made here, by fine-tuning"):
        fetch_checkpoint(row, project / "weights")


def test_a_damaged_row_beside_the_weights_is_named(project, tmp_path):
    (tmp_path / "fine_tuned").mkdir()
    path = row_path(tmp_path, "broken")
    path.write_text("checkpoints: {broken: {family: sam2}}", encoding="utf-8")
    with pytest.raises(Exception, match=r"broken\.yaml"):
        with_fine_tuned(load_manifest(ROOT / "data_manifest.yaml"), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_patients": [3]}, "3 are wanted, but 2 are left for training"),
        ({"training_patients": [0]}, "training_patients: trains on nobody"),
        ({"training_patients": ["every"]}, "Write numbers of patients, or all"),
        ({"training_patients": [True]}, "Write numbers of patients, or all"),
        ({"learns": ["encoder"]}, "'encoder' is no known part of a network"),
        ({"held_out_patients": 4}, "4 to measure on, of 4 patient"),
        ({"design": "first/one_box"}, "design"),
        ({"learning_rate": 0}, "learning_rate: is 0"),
        ({"models": ["miniature_sam"]}, "is of the family sam"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(project, changes, message):
    with pytest.raises(StudyError, match=message):
        train_study(study_of(project, **changes))


def test_a_study_without_the_notebook_is_named(project):
    write_notebook(project, "00_other", 'run_dir = "runs/small"  # where\n')
    path = write_study(project, "other.yaml", notebooks={"00_other": {}})
    with pytest.raises(StudyError, match="does not run 13_fine_tune"):
        train_study(Path(path))


def test_the_notebook_runs_from_its_first_cell_to_its_section(project):
    """In this process, on four small patients: what it plots, measures and says fits together."""
    notebook = nbformat.read(ROOT / "notebooks" / "13_fine_tune.ipynb", as_version=4)
    parameters, *cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    values: dict = {}
    exec(parameters, values)
    values |= GIVEN | {"extra_manifest": "own.yaml", "run_dir": "runs/small", "prompts": ["one_box"]}
    for cell in cells:
        exec(cell, values)
    section = json.loads((project / "runs" / "small" / "sections" / "13_fine_tune.json").read_text("utf-8"))
    assert section["in_short"].startswith(
        "With miniature SAM 2 on sweeps, fine-tuning changed the mean IoU of 2"
    )
    assert set(values["result"]["comparison"]) == {
        f"{task}: mask decoder, {many}" for task in ("2D", "3D") for many in ("1 patient", "all patients")
    }
    ended = pd.read_parquet(project / "runs" / "small" / "tables" / "units_fine_tuning.parquet")
    assert set(ended.status) == {"computed"} and set(ended.case_id) == set(values["done"].model)
    figures = project / "runs" / "small" / "figures"
    names = (
        "split_of_patients",
        "learning_curves",
        "fine_tuning_differences",
        "forgetting",
        "before_and_after",
    )
    assert all((figures / f"{name}.png").is_file() for name in names)
