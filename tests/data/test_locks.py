"""Locks when processes end by force: real processes, really killed."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medsam_nb.data import locks
from medsam_nb.data.locks import Locked, locked
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.manifest.reading import load_manifest

ROOT = Path(__file__).parents[2]

HOLD = """
import sys, time
from pathlib import Path
from medsam_nb.data.locks import locked
with locked(Path(sys.argv[1]), "hold"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holding(tmp_path, *arguments):
    """Start a process that holds a lock, and return it once it does."""
    script = tmp_path / "script.py"
    script.write_text(HOLD, encoding="utf-8")
    paths = os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))
    started = subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout.readline().strip() == "held"
    return started


@pytest.mark.skipif(locks.fcntl is None, reason="this system has no locks of files")
def test_a_lock_is_one_process_and_free_when_that_is_killed(tmp_path):
    lock = tmp_path / "folder" / ".lock"
    holder = holding(tmp_path, lock, 600)
    try:
        message = f"process {holder.pid} on {socket.gethostname()} since 20"
        with pytest.raises(Locked, match=message) as busy, locked(lock):
            pass
        assert busy.value.owner["doing"] == "hold"
    finally:
        holder.kill()
        holder.wait()
    with locked(lock, "mine") as earlier:
        assert earlier["pid"] == holder.pid  # it ended without giving the lock back
        assert json.loads(lock.read_text(encoding="utf-8"))["doing"] == "mine"
    with locked(lock) as earlier:
        assert earlier == {}


@pytest.mark.skipif(locks.fcntl is None, reason="this system has no locks of files")
def test_waiting_for_a_lock_ends_when_it_is_given_back(tmp_path, capsys):
    lock = tmp_path / ".lock"
    holder = holding(tmp_path, lock, 1)
    begun = time.monotonic()
    with locked(lock, wait=True) as earlier:
        assert earlier == {} and time.monotonic() - begun > 0.3
    assert holder.wait() == 0
    assert f"waiting for process {holder.pid}" in capsys.readouterr().err


def test_a_lock_is_given_back_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path / ".lock"):
            raise ZeroDivisionError


def test_without_locks_of_the_file_system_the_named_process_is_looked_for(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    if locks.fcntl is not None:
        monkeypatch.setattr(locks.fcntl, "flock", refuse)
    lock = tmp_path / ".lock"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "doing": ""}
    lock.write_text(json.dumps(owner), encoding="utf-8")
    with pytest.raises(Locked), locked(lock):
        pass
    lock.write_text(json.dumps(owner | {"pid": gone.pid}), encoding="utf-8")
    with locked(lock) as earlier:
        assert earlier["pid"] == gone.pid
    lock.write_text(json.dumps(owner | {"host": "another", "pid": gone.pid}), encoding="utf-8")
    with pytest.raises(Locked, match="on another since"), locked(lock):
        pass
    lock.write_text('{"pid": ', encoding="utf-8")  # half written
    with locked(lock) as earlier:
        assert earlier == {}


def test_two_studies_prepare_the_same_data_one_after_the_other(tmp_path):
    row = load_manifest(ROOT / "data_manifest.yaml").data_set("simulated_xray")
    folder = tmp_path / "prepared" / row.name
    holder = holding(tmp_path, folder / ".lock", 1)
    begun = time.monotonic()
    table = prepare(row, tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert time.monotonic() - begun > 0.3 and holder.wait() == 0
    assert set(table.status) == {"ok"} and len(case_folders(tmp_path / "prepared", row.name)) == len(table)
