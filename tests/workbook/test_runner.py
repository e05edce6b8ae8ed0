"""Studies that run: reports, failed and killed notebooks, two at once, and stops, with the real command."""

import json
import os
import signal
import socket
import subprocess
import time

import nbformat
import pandas as pd
import psutil
import pytest
from helpers.projects import ROOT, as_project, command, started, write_notebook, write_study

from medsam_nb.errors import StudyError
from medsam_nb.workbook import report, runner

PARAMETERS = 'run_dir = "runs/small"  # where results go\ncolour = "red"  # of the line\n'
# A notebook that computes in two worker processes, as the study's do, until it is told to go on.
COMPUTE = """\
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
begun, go_on = Path(run_dir, "begun"), Path(run_dir, "go_on")
with ProcessPoolExecutor(2, get_context("spawn")) as pool:
    waiting = [pool.submit(time.sleep, 600) for _ in range(2)]
    while len(pool._processes) < 2:
        time.sleep(0.05)
    begun.write_text(str(os.getpid()))
    while not go_on.exists():
        time.sleep(0.05)
    for process in pool._processes.values():
        process.kill()
"""


@pytest.fixture
def project(tmp_path):
    """A workbook with two notebooks, the second of which can be told to fail."""
    with as_project(tmp_path / "workbook") as folder:
        write_notebook(
            folder,
            "00_first",
            PARAMETERS,
            "from pathlib import Path\nimport pandas as pd\nfrom medsam_nb.workbook import report",
            'scores = pd.DataFrame({"object": ["<b>liver</b>"], "iou": [0.5]})\n'
            'report.save_table(scores, Path(run_dir), "scores")\n'
            'text = f"The line is {colour}."\n'
            'report.add_section(Path(run_dir), "00_first", "First", text, tables={"scores": "All."})',
        )
        fails = 'if colour == "none":\n    raise ValueError("no colour")'
        write_notebook(folder, "01_second", PARAMETERS, fails)
        yield folder


@pytest.fixture
def busy(tmp_path):
    """A workbook with a quick notebook, one that computes for ever in processes of its own, and another."""
    with as_project(tmp_path / "workbook") as folder:
        write_notebook(folder, "00_quick", PARAMETERS, "1 + 1")
        write_notebook(folder, "01_long", PARAMETERS, COMPUTE)
        write_notebook(folder, "02_after", PARAMETERS, "2 + 2")
        yield folder


def computing(folder, name="small"):
    """Wait until the long notebook computes; return the kernel's process and its children."""
    begun, deadline = folder / "runs" / name / "begun", time.monotonic() + 90
    while not (begun.exists() and begun.read_text()):
        assert time.monotonic() < deadline, "the notebook has not begun"
        time.sleep(0.1)
    kernel = psutil.Process(int(begun.read_text()))
    return [kernel, *kernel.children(recursive=True)]


def ended(run, processes):
    """Return what a run printed, once it has ended with all the processes that it started."""
    printed, _ = run.communicate(timeout=60)
    _, alive = psutil.wait_procs(processes, timeout=10)
    left = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    for process in left:
        process.kill()
    assert not left and "Traceback" not in printed
    return printed


def test_a_study_runs_and_its_report_shows_the_sections(project):
    outcome = runner.run_study(
        write_study(project, notebooks={"00_first": {"colour": "blue"}, "01_second": None})
    )
    page = outcome.report.read_text(encoding="utf-8")
    assert [run.error for run in outcome.runs] == [None, None] and outcome.exit_code == 0
    assert "The line is blue." in page and "Does it run?" in page
    assert "&lt;b&gt;liver" in page  # a name from the data is text, never markup
    assert (outcome.report.parent / "notebooks" / "00_first.html").is_file()
    assert pd.read_parquet(outcome.report.parent / "tables" / "scores.parquet").iou[0] == 0.5


def test_a_failed_notebook_is_kept_and_named_and_the_others_run(project):
    write_notebook(project, "02_third", PARAMETERS, "print('still here')")
    notebooks = {"00_first": None, "01_second": {"colour": "none"}, "02_third": None}
    outcome = runner.run_study(write_study(project, notebooks=notebooks))
    assert [bool(run.error) for run in outcome.runs] == [False, True, False] and outcome.exit_code == 1
    assert "Notebook 01_second failed: ValueError: no colour" in outcome.report.read_text(encoding="utf-8")
    copy = nbformat.read(outcome.runs[1].executed, as_version=4)
    assert any(output.output_type == "error" for cell in copy.cells[2:] for output in cell.get("outputs", []))


def test_the_copy_of_a_study_leaves_the_first_ones_report_alone(project):
    outcome = runner.run_study(write_study(project))
    before = outcome.report.read_bytes()
    with pytest.raises(StudyError, match="copy.yaml: has the same `name` as studies/small.yaml"):
        runner.run_study(write_study(project, "copy.yaml", title="The copy"))
    assert outcome.report.read_bytes() == before


def test_a_folder_whose_name_has_brackets_is_a_folder(tmp_path):
    with as_project(tmp_path / "work {book} [1]") as folder:
        write_notebook(folder, "00_first", PARAMETERS, "1 + 1")
        assert runner.run_study(write_study(folder)).exit_code == 0


def test_a_section_replaces_the_earlier_one(tmp_path):
    for text in ("old", "new"):
        path = report.add_section(tmp_path, "02", "Heading", text, facts={"rows": 3})
    assert json.loads(path.read_text(encoding="utf-8"))["text"] == "new"
    assert json.loads(path.read_text(encoding="utf-8"))["facts"] == {"rows": "3"}


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_stop_ends_every_process_and_says_what_is_finished(busy, name, code):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would stay ignored, as it should
    run = started("run", write_study(busy), folder=busy)
    signal.signal(signal.SIGHUP, before)
    processes = computing(busy)
    assert len(processes) == 4  # the kernel, the resource tracker, two workers
    run.send_signal(getattr(signal, name))
    printed = ended(run, processes)
    assert run.returncode == code
    assert (
        f"stopped by {name}: 1 of 3 notebooks is finished (00_quick); run the same command again" in printed
    )
    page = (busy / "runs" / "small" / "index.html").read_text(encoding="utf-8")
    assert "00_quick" in page and f"01_long failed: stopped by {name}" in page and "02_after" not in page
    assert not list(busy.glob("kernel*"))


def test_a_stop_at_once_leaves_the_report_of_an_earlier_run(busy):
    (busy / "runs" / "small").mkdir(parents=True)
    earlier = busy / "runs" / "small" / "index.html"
    earlier.write_text("the earlier report", encoding="utf-8")
    run = started("run", write_study(busy, notebooks={"01_long": None}), folder=busy)
    processes = computing(busy)
    run.terminate()
    assert "0 of 1 notebooks are finished; run the same" in ended(run, processes)
    assert run.returncode == 143 and earlier.read_text(encoding="utf-8") == "the earlier report"


def test_a_stopped_study_whose_reader_is_gone_still_writes_its_report(busy):
    """Ctrl-C also ends `tee` in `medsam-nb run ... | tee log`: what is printed then reaches nobody."""
    run = started("run", write_study(busy), folder=busy)
    processes = computing(busy)
    run.stdout.close()
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=60) == 130
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive and "00_quick" in (busy / "runs" / "small" / "index.html").read_text(encoding="utf-8")


def test_a_killed_kernel_is_a_failed_notebook_and_its_workers_end(busy):
    run = started("run", write_study(busy), folder=busy)
    processes = computing(busy)
    processes[0].kill()
    printed = ended(run, processes)
    assert run.returncode == 1 and "[3/3] 02_after" in printed
    page = (busy / "runs" / "small" / "index.html").read_text(encoding="utf-8")
    assert "Notebook 01_long failed: its kernel was ended by SIGKILL, perhaps by the system" in page


def test_two_runs_of_one_study_and_of_another_at_once(busy):
    first = started("run", write_study(busy), folder=busy)
    processes = computing(busy)
    second = started("run", write_study(busy), folder=busy)
    other = started("run", write_study(busy, "other.yaml", name="other"), folder=busy)
    printed, _ = second.communicate(timeout=60)
    assert second.returncode == 2 and "Traceback" not in printed
    assert f"is being run already, by process {first.pid} on {socket.gethostname()} since" in printed
    others = computing(busy, "other")
    for name in ("small", "other"):
        (busy / "runs" / name / "go_on").touch()
    for run, belonging in ((first, processes), (other, others)):
        printed = ended(run, belonging)
        assert run.returncode == 0 and "[3/3] 02_after" in printed and "Signature" not in printed


def test_studies_are_found_from_outside_the_workbook(busy, tmp_path):
    """A folder that is no workbook: the one that the package lies in is used, and its studies are found."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        command("run", "studies/demo.yaml", "--set", "workers=many"),
        cwd=elsewhere, env=environment, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert run.returncode == 2 and "workers: is the word 'many', not a whole number" in run.stderr
    run = subprocess.run(
        command("run", "nowhere.yaml"), cwd=elsewhere, env=environment, capture_output=True, encoding="utf-8"
    )
    assert run.returncode == 2
    assert f"nowhere.yaml: there is no such file. Give the path of a study, such as {ROOT}" in run.stderr


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["models=miniature_sam2"], r"--set, parameter models: is the word 'miniature_sam2', not a list"),
        (["seed"], "--set seed: is not NAME=VALUE. Write, for example, --set workers=4."),
        (["=4"], "is not NAME=VALUE"),
        (["seed=[1"], "--set seed, line 1: is no YAML"),
        (["seed=1", "seed=2"], "seed is set twice"),
        (["seed="], "--set, parameter seed: is empty, not a whole number"),
    ],
)
def test_the_command_says_what_is_wrong_with_what_it_was_given(project, items, message, capsys, monkeypatch):
    from medsam_nb import cli

    write_notebook(
        project, "02_evaluate", 'run_dir = ""  # x\nseed = 1  # y\nmodels = ["miniature_sam2"]  # z\n'
    )
    arguments = [word for item in items for word in ("--set", item)]
    monkeypatch.setattr("sys.argv", ["medsam-nb", "run", str(write_study(project)), *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    assert message.replace("\\", "") in capsys.readouterr().err
