"""The runner's kernel client: real kernels, real sockets, and a wait that looks again by itself."""

import asyncio
from queue import Empty

import pytest
import zmq
import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session

from medsam_nb.workbook import kernels


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


@pytest.mark.parametrize("channel_class", [kernels.LookingChannel, AsyncZMQSocketChannel])
def test_a_message_is_found_although_its_signal_is_lost(channel_class, monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "LOOK_S", 0.05)

    async def run():
        context = zmq.asyncio.Context()
        ours, theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        theirs.bind(f"ipc://{tmp_path}/pair")
        ours.connect(f"ipc://{tmp_path}/pair")
        session = Session(key=b"")
        channel = channel_class(ours, session)
        waiting = asyncio.ensure_future(channel.get_msg())
        await asyncio.sleep(0.2)
        # From here on the event loop hears nothing of the socket.
        assert asyncio.get_running_loop().remove_reader(ours._fd)
        session.send(theirs, "execute_reply", {"status": "ok"})
        try:
            return (await asyncio.wait_for(waiting, 5))["msg_type"]
        finally:
            context.destroy(linger=0)

    if channel_class is kernels.LookingChannel:
        assert asyncio.run(run()) == "execute_reply"
    else:  # without the looking it is lost, as it was in runs that stood still
        with pytest.raises(TimeoutError):
            asyncio.run(run())


def test_a_limited_wait_ends():
    async def run():
        context = zmq.asyncio.Context()
        channel = kernels.LookingChannel(context.socket(zmq.PAIR), Session(key=b""))
        try:
            await channel.get_msg(timeout=0.05)
        finally:
            context.destroy(linger=0)

    with pytest.raises(Empty):
        asyncio.run(run())
