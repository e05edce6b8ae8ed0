"""Processes that the system ends: their items are tried once more alone, all others are computed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from helpers.jobs import work

from medsam_nb.data.workers import ProcessKilled, run_each
from medsam_nb.evaluation.lost_devices import ending_with_the_device

ROOT = Path(__file__).parents[2]


def outcomes(items, workers):
    found = {}
    for item, future in run_each(work, items, workers):
        assert item not in found
        found[item] = future.exception() or future.result()
    return found


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_process_costs_its_item_only(workers, tmp_path):
    items = [1, ("die", tmp_path), 2, 3, ("raise", tmp_path), 4]
    found = outcomes(items, workers)
    assert sorted(map(str, found)) == sorted(map(str, items))
    assert [found[number] for number in (1, 2, 3, 4)] == [1, 4, 9, 16]
    assert isinstance(found["die", tmp_path], ProcessKilled)
    assert isinstance(found["raise", tmp_path], ValueError)
    assert outcomes([("die once", tmp_path)], workers) == {("die once", tmp_path): "die once"}


def children():
    return [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]


@pytest.mark.parametrize("way", ["close", "interrupt"])
def test_leaving_ends_the_processes(way, tmp_path):
    if way == "close":
        with closing(run_each(work, [1, ("sleep", tmp_path), ("sleep", tmp_path)], 2)) as running:
            assert next(running)[1].result() == 1
    else:
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.alarm(2)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(run_each(work, [("sleep", tmp_path)] * 2, 2))
        assert time.monotonic() - started < 20
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert children() == []


PROGRAM = """
import sys
from helpers.jobs import work
from medsam_nb.data.workers import run_each
if __name__ == "__main__":
    list(run_each(work, [("sleep", sys.argv[1])] * 2, 2))
"""


def test_a_killed_parent_leaves_no_process_behind(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, tmp_path / "program.py", tmp_path]
    parent = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths})
    deadline = time.monotonic() + 60
    while len(pids := [int(path.name[4:]) for path in tmp_path.glob("pid *")]) < 2:
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_worker_that_has_lost_its_device_ends_and_costs_its_item_only(tmp_path):
    lost = ("lose the device", tmp_path)
    ended = run_each(partial(ending_with_the_device, work), [1, lost, 2, 3], 1)
    found = {item: future.exception() or future.result() for item, future in ended}
    assert [found[number] for number in (1, 2, 3)] == [1, 4, 9]
    assert isinstance(found[lost], ProcessKilled)
    with pytest.raises(torch.AcceleratorError):  # here is no worker to end
        ending_with_the_device(work, lost)
