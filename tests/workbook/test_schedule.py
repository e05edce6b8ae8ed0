"""Notebooks side by side, in an order that suits what they need; and what of them stands in the terminal."""

import io
import json
from pathlib import Path

import nbformat
import pytest
from helpers.projects import ROOT, as_project, write_notebook, write_study

from medsam_nb.errors import StudyError
from medsam_nb.workbook import runner
from medsam_nb.workbook.progress import Progress
from medsam_nb.workbook.schedule import Schedule, schedule

PARAMETERS = 'run_dir = "runs/small"  # where results go\n'
# Ends only if the other notebook runs at the same time.
MEETS = """\
import time
from pathlib import Path
Path(run_dir, "{here}").touch()
deadline = time.monotonic() + 60
while not Path(run_dir, "{there}").exists():
    assert time.monotonic() < deadline, "the other one is not there"
    time.sleep(0.05)
"""


def say_needs(folder, name, needs):
    path = folder / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["medsam_nb"] = {"needs": needs}
    nbformat.write(notebook, path)


@pytest.fixture
def project(tmp_path):
    with as_project(tmp_path / "workbook") as folder:
        yield folder


def test_notebooks_that_do_not_need_each_other_run_side_by_side(project, monkeypatch):
    monkeypatch.setattr(runner, "at_once", lambda: 2)
    for name, other in (("00_first", "01_second"), ("01_second", "00_first")):
        write_notebook(project, name, PARAMETERS, MEETS.format(here=name, there=other))
        say_needs(project, name, [])
    write_notebook(
        project,
        "02_after",
        PARAMETERS,
        "from pathlib import Path\nassert Path(run_dir, '01_second').exists()",
    )
    outcome = runner.run_study(write_study(project))
    assert [run.error for run in outcome.runs] == [None] * 3
    assert [run.name for run in outcome.runs] == ["00_first", "01_second", "02_after"]


def test_a_notebook_is_left_out_if_all_that_it_needs_failed(project, capsys):
    write_notebook(project, "00_data", PARAMETERS, "raise ValueError('no data')")
    write_notebook(project, "01_other", PARAMETERS, "1 + 1")
    for name, needs in (
        ("02_evaluate", ["00_data"]),
        ("03_test", ["02_evaluate"]),
        ("04_all", ["02_evaluate", "01_other"]),
    ):
        write_notebook(project, name, PARAMETERS, "1 + 1")
        say_needs(project, name, needs)
    say_needs(project, "01_other", [])
    outcome = runner.run_study(write_study(project))
    errors = {run.name: run.error for run in outcome.runs}
    assert errors == {
        "00_data": "ValueError: no data",
        "01_other": None,
        "02_evaluate": "not run, as 00_data failed",
        "03_test": "not run, as 02_evaluate failed",
        "04_all": None,
    }
    assert outcome.exit_code == 1
    page = outcome.report.read_text(encoding="utf-8")
    assert "02_evaluate failed: not run, as 00_data failed" in page
    assert "02_evaluate failed: not run" in capsys.readouterr().out


def test_no_more_run_than_there_is_room_for():
    plan = Schedule(dict.fromkeys("abcd", ()), most=2)
    assert plan.ready() == ["a", "b"]
    plan.running, plan.done = {"b"}, {"a"}
    assert plan.ready() == ["c"]
    plan.running = {"b", "c"}
    assert plan.ready() == []
    assert Schedule(dict.fromkeys("abcd", ()), most=1).ready() == ["a"]


COMPUTES = """\
import time
from pathlib import Path
from medsam_nb.workbook.owner import computing
with computing(Path(run_dir), cluster):
    begun = time.time()
    time.sleep({seconds})
Path(run_dir, "{here}").write_text(f"{{begun}} {{time.time()}}")
"""


@pytest.mark.parametrize("cluster", ["local", "tcp://elsewhere:1"])
def test_on_this_machine_notebooks_take_turns_at_computing(project, monkeypatch, cluster):
    monkeypatch.setattr(runner, "at_once", lambda: 2)
    own = PARAMETERS + f'cluster = "{cluster}"  # where\n'
    for name in ("00_first", "01_second"):
        write_notebook(project, name, own, COMPUTES.format(here=name, seconds=2))
        say_needs(project, name, [])
    assert runner.run_study(write_study(project)).exit_code == 0
    times = [(project / "runs" / "small" / name).read_text().split() for name in ("00_first", "01_second")]
    first, second = sorted([float(begun), float(ended)] for begun, ended in times)
    assert (second[0] >= first[1] - 0.1) == (cluster == "local")


def test_only_notebooks_of_the_study_are_waited_for(project):
    for name in ("00_data", "01_2d", "02_3d", "03_test"):
        write_notebook(project, name, PARAMETERS)
    say_needs(project, "03_test", ["02_3d", "01_2d", "11_elsewhere"])
    plan = schedule(["00_data", "01_2d", "03_test"], 2)
    assert plan.needs == {"00_data": (), "01_2d": ("00_data",), "03_test": ("01_2d",)}
    say_needs(project, "03_test", "02_3d")
    with pytest.raises(StudyError, match="needs` are no list of notebooks"):
        schedule(["03_test"], 2)


def test_what_the_notebooks_need_exists_and_stands_before_them_in_the_studies():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        needs = json.loads(path.read_text(encoding="utf-8"))["metadata"]["medsam_nb"]["needs"]
        assert all(Path(ROOT, "notebooks", f"{name}.ipynb").is_file() for name in needs), path


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_bars_and_nothing_else_that_a_notebook_prints():
    stream = Terminal()
    progress = Progress("03_propagate_3d", stream)
    progress.write("a long paragraph\nabout methods\n")
    progress.write("\r3D:  10%|█  | 1/10\r3D:  20%|██ | 2/10")
    progress.write("\n")
    assert stream.getvalue() == "\r\033[K3D:  20%|██ | 2/10"


def test_warnings_are_passed_on():
    stream = io.StringIO()
    Progress("03_propagate_3d", stream, bars_only=False).write("UserWarning: damaged\n")
    assert stream.getvalue() == "UserWarning: damaged\n"


def test_a_log_file_gets_a_line_a_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("medsam_nb.workbook.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress("03_propagate_3d", stream)
    for second in range(150):
        now[0] = second
        progress.write(f"\r3D: {second}/150")
    assert stream.getvalue() == "    03_propagate_3d: 3D: 60/150\n    03_propagate_3d: 3D: 120/150\n"
