"""One study, computed in every way that there is: the same table. Slurm is real, with two slots."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time

import dask
import pandas as pd
import pytest
from helpers import slurm
from helpers.jobs import work
from helpers.projects import ROOT, as_project, command, write_study

from medsam_nb.data.cluster import run_on_cluster
from medsam_nb.data.prepare import prepare
from medsam_nb.evaluation import units
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.workbook.shares import run_share, share
from medsam_nb.workbook.work import work_of_study

PATHS = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
REQUIRED = os.environ.get("MEDSAM_NB_REQUIRE_SLURM")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of three units, prepared, with its table as one process computes it."""
    with as_project(tmp_path_factory.mktemp("project")) as folder:
        (folder / "notebooks").mkdir()
        shutil.copy(ROOT / "notebooks" / "02_evaluate_2d.ipynb", folder / "notebooks")
        given = {"data_sets": ["simulated_xray"], "models": ["miniature_sam2"], "prompts": ["one_point"]}
        path = write_study(folder, parameters=given)
        row = load_manifest(folder / "data_manifest.yaml").data_set("simulated_xray")
        prepare(row, folder / "data" / "raw", folder / "data" / "prepared", progress=False)
        planned = work_of_study(path).all_units
        assert len(planned) == 3
        yield path, planned, computed(planned, folder / "here", workers=0)


def computed(planned, place, **how):
    """Compute all units; return their table."""
    store = Store(place)
    assert set(units.run_units(planned, store, **how).status) == {"computed"}
    return store.read([unit.key for unit in planned])


@pytest.fixture(scope="module")
def two_slots(tmp_path_factory):
    """Environment of Slurm's commands; this process can use them, too."""
    if reason := slurm.lacking():
        if REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)
    with (
        slurm.running(tmp_path_factory.mktemp("slurm")) as environment,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in ("SLURM_CONF", "PATH"):
            patch.setenv(name, environment[name])
        yield environment


@pytest.fixture
def jobs(two_slots, tmp_path):
    """Dask's own configuration, as a user writes it into jobqueue.yaml."""
    interrupt = signal.getsignal(signal.SIGINT)
    importlib.import_module("dask_jobqueue")  # brings its defaults, and a handler of its own
    signal.signal(signal.SIGINT, interrupt)
    job = {
        "cores": 1,
        "processes": 1,
        "memory": "4GB",
        "walltime": "00:10:00",
        "job-mem": None,
        "job-directives-skip": ["--mem"],  # these slots have no memory to give out
        "python": sys.executable,
        "interface": "lo",
        "local-directory": str(tmp_path),
        "log-directory": str(tmp_path),
        "job-script-prologue": [f"export PYTHONPATH={PATHS}"],
    }
    with dask.config.set({f"jobqueue.slurm.{name}": value for name, value in job.items()}):
        yield


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_of_this_machine(study, tmp_path, workers):
    _, planned, table = study
    pd.testing.assert_frame_equal(computed(planned, tmp_path, workers=workers), table)


def test_shares(study, tmp_path):
    _, planned, table = study
    store = Store(tmp_path)
    for part in (2, 3, 1):
        assert [status for _, status, _ in run_share(share(planned, part, 3), store, workers=0)] == [
            "computed"
        ]
    pd.testing.assert_frame_equal(store.read([unit.key for unit in planned]), table)


def test_jobs_of_a_queue(study, jobs, tmp_path):
    _, planned, table = study
    pd.testing.assert_frame_equal(computed(planned, tmp_path, workers=2, cluster="slurm"), table)


def test_a_cancelled_job_costs_no_item(jobs, tmp_path):
    items = [1, 2, ("cancel once", tmp_path), 3, 4]
    ended = {item: future.result() for item, future in run_on_cluster(work, items, 2, "slurm")}
    assert ended == {1: 1, 2: 4, 3: 9, 4: 16, items[2]: "cancel once"}
    assert (tmp_path / "died").exists()


def test_an_array_of_shares_one_of_which_is_killed(study, two_slots, tmp_path):
    path, planned, table = study
    script = tmp_path / "units.sh"
    call = " ".join(f"'{word}'" for word in command("units", path, "--part")) + " $SLURM_ARRAY_TASK_ID/3"
    script.write_text(f"#!/bin/bash\nexport PYTHONPATH={PATHS}\ncd {path.parents[1]}\n{call}\n")
    first = submitted(script, "1-3", two_slots, tmp_path)
    subprocess.run(["scancel", f"{first}_2"], env=two_slots, check=True)
    wait_for(first, two_slots)
    store = work_of_study(path).store
    stored = [store.has(unit.key) for unit in planned]
    assert stored.count(True) == 2
    wait_for(submitted(script, "2", two_slots, tmp_path), two_slots)
    pd.testing.assert_frame_equal(store.read([unit.key for unit in planned]), table)


def submitted(script, array, environment, place):
    asked = ["sbatch", "--parsable", f"--array={array}", "--cpus-per-task=1", f"--output={place}/%A_%a.out"]
    said = subprocess.run([*asked, str(script)], env=environment, check=True, capture_output=True, text=True)
    return said.stdout.strip()


def wait_for(job, environment):
    for _ in range(240):
        asked = ["squeue", "--noheader", f"--jobs={job}"]
        left = subprocess.run(asked, env=environment, capture_output=True, text=True)
        if not left.stdout.strip():
            return
        time.sleep(0.5)
    raise TimeoutError(f"job {job} has not ended: {left.stdout}")
