"""How the runner talks to the kernels of notebooks.

A message that arrives between two looks at a socket can go unnoticed when it is waited for without a
limit: seen in runs that stood still for ever between two cells, with kernel and runner both idle and
the reply sent. Here an unlimited wait is many short ones, each of which looks at the socket anew.
"""

import os
from contextlib import suppress
from queue import Empty
from typing import Any

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type
from traitlets.config import Config

LOOK_S = 2.0


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


def configuration() -> Config:
    """Return the configuration of kernels on this machine.

    They need no network port where the system has file sockets.
    """
    manager: dict[str, Any] = {"client_factory": f"{__name__}.LookingClient"}
    if os.name == "posix":
        manager["transport"] = "ipc"
    return Config({"KernelManager": manager})
