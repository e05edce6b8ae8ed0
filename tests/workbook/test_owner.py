"""Whose a run's folder is: one process at a time, and one study file."""

import json
import os
import socket

import pytest
from helpers.projects import as_project, write_notebook, write_study

from medsam_nb.errors import StudyError
from medsam_nb.workbook.owner import owned


@pytest.fixture
def project(tmp_path):
    with as_project(tmp_path / "workbook") as folder:
        write_notebook(folder, "00_first", 'run_dir = "runs/small"  # where\n')
        yield folder


def test_the_second_who_runs_a_study_is_told_who_runs_it(project):
    path, folder = write_study(project), project / "runs" / "small"
    where = f"process {os.getpid()} on {socket.gethostname()}"
    with owned(folder, path) as remark:
        assert remark == ""
        message = f"small.yaml: is being run already, by {where} since"
        with pytest.raises(StudyError, match=message), owned(folder, path):
            pass
        with owned(project / "runs" / "other", write_study(project, "other.yaml")):
            pass  # another study runs beside it
    with owned(folder, path) as remark:
        assert remark == ""


def test_a_run_that_was_killed_is_taken_over_with_a_word(project):
    path, folder = write_study(project), project / "runs" / "small"
    folder.mkdir(parents=True)
    record = {"pid": 4711, "host": "node7", "since": 1_700_000_000.0, "doing": ""}
    (folder / ".lock").write_text(json.dumps(record), encoding="utf-8")
    with owned(folder, path) as remark:
        assert "ended by force (process 4711 on node7 since 2023-11" in remark


def test_a_copied_study_with_the_old_name_does_not_take_the_others_folder(project):
    first, copy, folder = write_study(project), write_study(project, "copy.yaml"), project / "runs" / "small"
    with owned(folder, first):
        pass
    (folder / "index.html").write_text("the first one's report", encoding="utf-8")
    message = "studies/copy.yaml: has the same `name` as studies/small.yaml.*a `name` of its own"
    with pytest.raises(StudyError, match=message), owned(folder, copy):
        pass
    assert (
        json.loads((folder / "study.json").read_text(encoding="utf-8"))["study_file"] == "studies/small.yaml"
    )
    first.rename(project / "studies" / "renamed.yaml")  # then it is no copy but the study under another name
    with owned(folder, project / "studies" / "renamed.yaml"):
        pass


def test_a_copied_workbook_keeps_its_runs(project, tmp_path):
    with owned(project / "runs" / "small", write_study(project)):
        pass
    project.rename(tmp_path / "moved")
    with as_project(tmp_path / "moved") as folder, owned(folder / "runs" / "small", write_study(folder)):
        pass
    project.mkdir()  # so that the fixture can return to it


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"study_file": 3}'])
def test_a_damaged_record_is_written_anew(project, record):
    folder = project / "runs" / "small"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(record, encoding="utf-8")
    with owned(folder, write_study(project)):
        pass
    assert json.loads((folder / "study.json").read_text(encoding="utf-8")) == {
        "study_file": "studies/small.yaml"
    }


def test_a_folder_that_cannot_be_written_is_named(project):
    (project / "runs").write_text("a file", encoding="utf-8")
    with (
        pytest.raises(StudyError, match="runs/small: cannot be written"),
        owned(project / "runs" / "small", write_study(project)),
    ):
        pass
