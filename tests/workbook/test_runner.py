"""Strict parameters, failed notebooks, and the report, with real papermill runs of small notebooks."""

import json

import nbformat
import pandas as pd
import pytest
import yaml

from medsam_nb.errors import StudyError, WorkbookError
from medsam_nb.workbook import report, runner

PARAMETERS = 'run_dir = "runs/small"  # where results go\ncolour = "red"  # of the line\n'


def write_notebook(folder, name, *cells):
    first = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    title = nbformat.v4.new_markdown_cell(f"# {name}")
    notebook = nbformat.v4.new_notebook(cells=[title, first, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with two notebooks, the second of which can be told to fail."""
    monkeypatch.setattr(runner, "project_root", lambda: tmp_path)
    write_notebook(
        tmp_path / "notebooks",
        "00_first",
        "from pathlib import Path\nimport pandas as pd\nfrom medsam_nb import report",
        'scores = pd.DataFrame({"object": ["<b>liver</b>"], "iou": [0.5]})\n'
        'report.save_table(scores, Path(run_dir), "scores")\n'
        'text = f"The line is {colour}."\n'
        'report.add_section(Path(run_dir), "00_first", "First", text, tables={"scores": "All."})',
    )
    write_notebook(
        tmp_path / "notebooks", "01_second", 'if colour == "none":\n    raise ValueError("no colour")'
    )
    return tmp_path


def write_study(folder, **changes):
    study = {
        "name": "small",
        "title": "Small",
        "question": "Does it run?",
        "notebooks": {"00_first": None, "01_second": {}},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(study | changes, sort_keys=False), encoding="utf-8")
    return path


def test_a_study_runs_and_its_report_shows_the_sections(project):
    path, runs = runner.run_study(
        write_study(project, notebooks={"00_first": {"colour": "blue"}, "01_second": None})
    )
    page = path.read_text(encoding="utf-8")
    assert [run.error for run in runs] == [None, None]
    assert "The line is blue." in page and "Does it run?" in page
    assert "&lt;b&gt;liver" in page  # a name from the data is text, never markup
    assert (path.parent / "notebooks" / "00_first.html").is_file()
    assert pd.read_parquet(path.parent / "tables" / "scores.parquet").iou[0] == 0.5


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"models": ["sam2_hiera_huge"]}, "sam2_hiera_huge.*no known checkpoint.*sam2_hiera_large"),
        ({"data_sets": ["ct_spleeen"]}, "ct_spleeen.*no known data set.*ct_spleen"),
        ({"extra_manifest": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_names_that_no_manifest_knows_are_refused_before_the_first_notebook(tmp_path, parameters, message):
    path = write_study(tmp_path, notebooks={"01_prepare_data": None, "02_evaluate_2d": None})
    with pytest.raises(WorkbookError, match=message):
        runner.resolve_parameters(runner.load_study(path), path, parameters)


def test_a_failed_notebook_is_kept_and_named_and_the_others_run(project):
    write_notebook(project / "notebooks", "02_third", "print('still here')")
    notebooks = {"00_first": None, "01_second": {"colour": "none"}, "02_third": None}
    path, runs = runner.run_study(write_study(project, notebooks=notebooks))
    assert [bool(run.error) for run in runs] == [False, True, False]
    assert "Notebook 01_second failed: ValueError: no colour" in path.read_text(encoding="utf-8")
    copy = nbformat.read(runs[1].executed, as_version=4)
    assert any(output.output_type == "error" for cell in copy.cells[2:] for output in cell.get("outputs", []))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {"color": "red"}}, "'color'.*Did you mean 'colour'.*run_dir"),
        ({"notebooks": {"00_first": {"colr": 1}}}, "00_first has no parameter 'colr'"),
        ({"notebooks": {"09_missing": None}}, "09_missing.*00_first"),
        ({"speed": 3}, "speed.*Known fields: name"),
    ],
)
def test_what_is_not_known_is_an_error_that_lists_what_is(project, changes, message):
    with pytest.raises(StudyError, match=message):
        runner.run_study(write_study(project, **changes))


def test_unreadable_studies_are_named(project):
    with pytest.raises(StudyError, match="missing.yaml"):
        runner.load_study(project / "missing.yaml")
    (project / "bad.yaml").write_text("name: [", encoding="utf-8")
    with pytest.raises(StudyError, match="bad.yaml.*no YAML"):
        runner.load_study(project / "bad.yaml")


def test_overrides_win(project):
    study = runner.load_study(write_study(project, parameters={"colour": "green"}))
    resolved = runner.resolve_parameters(study, project, {"colour": "grey"})
    assert resolved == {"00_first": {"colour": "grey"}, "01_second": {"colour": "grey"}}


def test_declared_parameters_carry_their_help(project):
    declared = runner.declared_parameters("00_first")
    assert declared["colour"]["default"] == '"red"' and declared["colour"]["help"] == "of the line"


def test_a_section_replaces_the_earlier_one(tmp_path):
    for text in ("old", "new"):
        path = report.add_section(tmp_path, "02", "Heading", text, facts={"rows": 3})
    assert json.loads(path.read_text(encoding="utf-8"))["text"] == "new"
    assert json.loads(path.read_text(encoding="utf-8"))["facts"] == {"rows": "3"}
