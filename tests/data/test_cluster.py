"""Work on a Dask cluster: a real scheduler and real workers, some of which the system ends."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pandas as pd
import pytest
from helpers.jobs import meet, work
from helpers.projects import ROOT

from medsam_nb.data.cluster import check_cluster, run_on_cluster
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.data.workers import ProcessKilled
from medsam_nb.errors import StudyError
from medsam_nb.evaluation import units
from medsam_nb.evaluation.store import Store
from medsam_nb.finetuning import jobs, plan
from medsam_nb.manifest.reading import load_manifest


@contextmanager
def started(place):
    """Start a scheduler and a worker of two threads as a user does; give the address and the scheduler."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    dask = [sys.executable, "-m", "dask"]
    commands = [
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", address.split(":")[-1], "--no-dashboard"],
        [*dask, "worker", address, "--nthreads", "2", "--no-dashboard"],
    ]
    with open(place / "log", "w") as log:
        options = {"cwd": place, "env": environment, "stdout": log, "stderr": log}
        running = [subprocess.Popen(command, **options) for command in commands]
        try:
            yield address, running[0]
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait(30)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """Address of a scheduler with a worker."""
    with started(tmp_path_factory.mktemp("dask")) as (address, _):
        yield address


def test_the_table_is_that_of_local_workers(scheduler, tmp_path):
    rows = load_manifest(ROOT / "data_manifest.yaml")
    prepare(rows.data_set("simulated_xray"), tmp_path, tmp_path, progress=False)
    chosen = units.plan_units(
        "2d",
        case_folders(tmp_path, "simulated_xray"),
        [rows.checkpoint("miniature_sam2")],
        weights_dir=ROOT / "weights",
        seed=1,
        device="cpu",
        prompts=["one_point"],
        protocol="corrected",
    )
    tables = []
    for name, cluster in (("here", "local"), ("there", scheduler)):
        store = Store(tmp_path / name)
        assert set(units.run_units(chosen, store, workers=0, cluster=cluster).status) == {"computed"}
        tables.append(store.read([unit.key for unit in chosen]))
    pd.testing.assert_frame_equal(*tables)


def test_a_checkpoint_is_that_of_a_training_here(scheduler, tmp_path):
    rows = load_manifest(ROOT / "data_manifest.yaml")
    prepare(rows.data_set("simulated_ultrasound"), tmp_path, tmp_path, progress=False)
    cases = plan.usable_cases(case_folders(tmp_path, "simulated_ultrasound"), ["organ"])
    parent, given = rows.checkpoint("miniature_sam2"), {"learns": ["mask_decoder"], "training_patients": [1]}
    given |= {"held_out_patients": 1, "repeats": 1, "seed": 3, "slices": 8, "objects": ["organ"]}
    job = plan.plan(parent, parent.sha256, cases, **given)[0]
    made = []
    for name, cluster in (("here", "local"), ("there", scheduler)):
        *_, last = jobs.train_all([job], tmp_path / name, workers=0, device="cpu", cluster=cluster)
        assert last == jobs.Progress(job, job.settings.steps)
        made.append(jobs.weights_file(job, tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_an_ended_worker_costs_its_item_only(scheduler, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    once, always = ("die once", tmp_path / "a"), ("die", tmp_path / "b")
    items = [
        1,
        once,
        2,
        always,
        3,
        ("raise", tmp_path),
        4,
        5,
    ]  # two at a time: each can wait beside one that dies
    ended = run_on_cluster(work, items, 2, scheduler)
    found = {item: future.exception() or future.result() for item, future in ended}
    assert [found[number] for number in (1, 2, 3, 4, 5)] == [1, 4, 9, 16, 25] and found[once] == "die once"
    assert isinstance(found[always], ProcessKilled)
    assert isinstance(found["raise", tmp_path], ValueError)


def test_a_process_does_one_item_at_a_time(scheduler, tmp_path):
    ended = [future.result() for _, future in run_on_cluster(meet, [tmp_path] * 6, 2, scheduler)]
    assert ended == [1] * 6


def test_a_scheduler_that_ends_is_named_and_another_one_goes_on(tmp_path):
    finished = {}
    with (
        started(tmp_path) as (address, process),
        pytest.raises(StudyError, match="scheduler has ended.*start the scheduler.*goes on"),
    ):
        for item, future in run_on_cluster(work, [1, 2, ("sleep", tmp_path), 3], 1, address):
            finished[item] = future.result()
            if len(finished) == 2:
                process.kill()
    assert finished == {1: 1, 2: 4}
    with started(tmp_path) as (address, _):
        finished |= {item: future.result() for item, future in run_on_cluster(work, [3], 1, address)}
    assert finished == {1: 1, 2: 4, 3: 9}


def test_what_is_no_cluster_is_named():
    for name in ("local", "slurm", "tcp://host:8786"):
        check_cluster(name)
    with pytest.raises(StudyError, match="'slrum' is no known queue, and no address .* Did you mean 'slurm'"):
        check_cluster("slrum")


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("medsam_nb.data.cluster.ANSWER_S", 1)
    with pytest.raises(StudyError, match="cluster tcp://127.0.0.1:9: cannot be reached or started"):
        list(run_on_cluster(work, [1], 1, "tcp://127.0.0.1:9"))


def test_without_dask_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("medsam_nb.data.cluster.find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"dask_jobqueue cannot be found.*medsam-nb\[cluster\]"):
        check_cluster("slurm")
    check_cluster("local")


def test_a_queue_without_a_configuration_is_named_and_an_interrupt_stays_one():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(StudyError, match="cluster slurm: cannot be reached or started"):
        list(run_on_cluster(work, [1], 1, "slurm"))
    assert signal.getsignal(signal.SIGINT) is before
