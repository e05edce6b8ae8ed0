"""How the runner talks to the kernels of notebooks, and how it ends them with all that they started.

A message that arrives between two looks at a socket can go unnoticed when it is waited for without a
limit: seen in runs that stood still for ever between two cells, with kernel and runner both idle and
the reply sent. Here an unlimited wait is many short ones, each of which looks at the socket anew.

A kernel leads a process group of its own, in which its worker processes are too. The group ends with the
kernel, however that ends: a worker whose kernel was killed would otherwise wait for work for ever.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager
from traitlets import Type
from traitlets.config import Config

LOOK_S = 2.0
GRACE_S = 5.0  # between asking a kernel's processes to end and ending them
LONGEST_SOCKET_PATH = 90  # bytes; a system allows 104 to 108, and a number is added
SOCKETS = "k"  # begin of the sockets' names


class LookingChannel(AsyncZMQSocketChannel):
    """A channel that looks at its socket every `LOOK_S` seconds while it waits."""

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """Return the next message; raise `queue.Empty` after `timeout` seconds, if given."""
        while timeout is None:
            with suppress(Empty):
                return await super().get_msg(timeout=LOOK_S)
        return await super().get_msg(timeout=timeout)


class LookingClient(AsyncKernelClient):
    """A kernel client whose channels never wait for a socket's signal alone."""

    shell_channel_class = Type(LookingChannel)
    iopub_channel_class = Type(LookingChannel)
    control_channel_class = Type(LookingChannel)


class Kernel:
    """The kernel of one notebook: how it is reached, and how it ends.

    Parameters
    ----------
    folder : Path
        Of its sockets, for nobody else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen | None = None
        self._group: int | None = None
        self._ended = False

    def options(self) -> dict[str, Any]:
        """Return what papermill passes on to its client of kernels."""
        kernel = self

        class Manager(AsyncKernelManager):
            """A manager that tells which processes it started."""

            async def start_kernel(self, **options: Any) -> None:
                await super().start_kernel(**options)
                kernel._started(self.provisioner)

        return {"kernel_manager_class": Manager, "config": self._configuration()}

    def _configuration(self) -> Config:
        manager: dict[str, Any] = {
            "client_factory": f"{__name__}.LookingClient",
            "connection_file": str(self.folder / "kernel.json"),
        }
        sockets = str(self.folder / SOCKETS)
        if os.name == "posix" and len(sockets.encode()) <= LONGEST_SOCKET_PATH:
            manager |= {"transport": "ipc", "ip": sockets}  # no network port
        return Config({"KernelManager": manager})

    def _started(self, provisioner: Any) -> None:
        self._process, self._group = provisioner.process, provisioner.pgid
        if self._ended:  # while it was starting
            self.end()

    @property
    def killed_by(self) -> str:
        """Name of the signal that ended the kernel, such as "SIGKILL"; "" if it was none."""
        code = self._process.returncode if self._process is not None else None
        return signal.Signals(-code).name if code is not None and code < 0 else ""

    def end(self) -> None:
        """End the kernel and all that it started, also one that has yet to start."""
        self._ended = True
        if self._group is None or not hasattr(os, "killpg"):
            if self._process is not None:
                self._process.kill()
            return
        if self._group == os.getpgrp():
            return  # it has no group of its own
        for way in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + GRACE_S
            there = self._signalled(way)
            while there and time.monotonic() < until:
                time.sleep(0.05)
                there = self._signalled(0)
            if not there:
                return

    def _signalled(self, way: int) -> bool:
        """Send a signal (0 for none) to the group; return whether there was anyone to get it."""
        self._process.poll()  # a process that has ended is there until its parent has asked
        try:
            os.killpg(self._group, way)
        except OSError:
            return False
        return True


@contextmanager
def kernel() -> Iterator[Kernel]:
    """Provide a kernel's place; at the end nothing of it is left, neither processes nor files."""
    folder = Path(tempfile.mkdtemp(prefix="medsam-nb-", dir=_short_folder()))
    place = Kernel(folder)
    try:
        yield place
    finally:
        place.end()
        shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> str | None:
    """Return a folder for temporary files with paths short enough for sockets; None for the usual one."""
    for folder in (tempfile.gettempdir(), "/tmp"):
        path = os.path.join(folder, "medsam-nb-12345678", SOCKETS)
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH and os.access(folder, os.W_OK):
            return folder
    return None
