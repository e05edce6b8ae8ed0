"""Locks between processes: two runs that would write in one folder."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TextIO

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

LOOK_AGAIN_S = 0.2


class Locked(Exception):
    """Another process holds a lock.

    Attributes
    ----------
    owner : dict
        `pid`, `host`, `since` (seconds since 1970) and `doing`; empty if the owner has not yet said.
    """

    def __init__(self, owner: dict) -> None:
        super().__init__(owner)
        self.owner = owner

    def __str__(self) -> str:
        if not self.owner:
            return "another process"
        minutes = (time.time() - self.owner["since"]) / 60
        since = datetime.fromtimestamp(self.owner["since"], UTC).astimezone().strftime("%Y-%m-%d %H:%M")
        return f"process {self.owner['pid']} on {self.owner['host']} since {since} ({minutes:.0f} minutes)"


@contextmanager
def locked(path: Path, doing: str = "", *, wait: bool = False, tell: TextIO | None = None) -> Iterator[dict]:
    """Hold a lock while the block runs: one process at a time, on all machines that share the disk.

    The system takes the lock from a process that ends, however it ends, so none is ever left behind. Where a
    file system has no locks, the process that the file names is looked for instead.

    Parameters
    ----------
    path : Path
        A file that says who holds the lock; it stays, empty, when the lock is free.
    doing : str
        What the owner does, for those who find the lock taken.
    wait : bool
        Say so and wait until the lock is free; otherwise raise `Locked`.
    tell : TextIO, optional
        Where it says that it waits; standard error, unless given.

    Yields
    ------
    dict
        The earlier owner, if it ended without giving the lock back (it was killed); else empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        waited = False
        while not _take(file):
            if not wait:
                raise Locked(_owner(file))
            if not waited:
                print(f"{path.parent}: waiting for {Locked(_owner(file))}", file=tell or sys.stderr)
            waited = True
            time.sleep(LOOK_AGAIN_S)
        earlier = _owner(file)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "doing": doing}
        _write(file, json.dumps(owner))
        try:
            yield earlier
        finally:
            _write(file, "")


def _take(file: IO[str]) -> bool:
    """Take a lock if it is free."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        pass
    owner = _owner(file)
    return not owner or (owner["host"] == socket.gethostname() and not _lives(owner["pid"]))


def _lives(pid: int) -> bool:
    if os.name != "posix":  # there signal 0 would end the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def _owner(file: IO[str]) -> dict:
    """Return what a lock's file says of its owner; nothing where it is empty or half written."""
    file.seek(0)
    try:
        owner = json.loads(file.read())
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) and {"pid", "host", "since"} <= set(owner) else {}


def _write(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
