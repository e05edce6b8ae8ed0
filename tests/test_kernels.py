"""The runner's kernel client: real kernels, real sockets, and a wait that looks again by itself."""

import asyncio

import pytest
import zmq
import zmq.asyncio
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session

from medsam_nb import kernels


def test_the_configuration_reaches_the_client_that_talks_to_a_kernel():
    async def run():
        manager = AsyncKernelManager(kernel_name="python3", config=kernels.configuration())
        await manager.start_kernel()
        try:
            client = manager.client()
            client.start_channels()
            await client.wait_for_ready(timeout=60)
            replied = client.execute("6 * 7", reply=True, timeout=30)
            reply = await replied
            client.stop_channels()
            return type(client), type(client.shell_channel), reply["content"]["status"]
        finally:
            await manager.shutdown_kernel(now=True)

    assert asyncio.run(run()) == (kernels.LookingClient, kernels.LookingChannel, "ok")


def test_a_message_is_found_although_no_signal_announces_it(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "LOOK_S", 0.05)

    async def run():
        context = zmq.asyncio.Context()
        ours, theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        address = f"ipc://{tmp_path}/pair"
        theirs.bind(address)
        ours.connect(address)
        session = Session(key=b"")
        channel = kernels.LookingChannel(ours, session)
        # The signal is lost: the loop no longer watches the socket's descriptor.
        asyncio.get_running_loop().remove_reader(ours._fd)
        waiting = asyncio.ensure_future(channel.get_msg())
        await asyncio.sleep(0.2)
        session.send(theirs, "execute_reply", {"status": "ok"})
        found = await asyncio.wait_for(waiting, 10)
        with pytest.raises(kernels.Empty):
            await channel.get_msg(timeout=0.05)
        context.destroy(linger=0)
        return found["msg_type"]

    assert asyncio.run(run()) == "execute_reply"
