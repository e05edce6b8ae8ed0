"""The runner's kernel client: real kernels, real sockets, and a wait that looks again by itself."""

import asyncio
import tempfile
from queue import Empty

import psutil
import pytest
import zmq
import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.session import Session

from medsam_nb.workbook import kernels


async def started(place):
    """Start a kernel at a place; return its manager and a client that has heard of it."""
    options = place.options()
    manager = options["kernel_manager_class"](kernel_name="python3", config=options["config"])
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    return manager, client


def test_the_configuration_reaches_the_client_that_talks_to_a_kernel():
    async def run(place):
        manager, client = await started(place)
        try:
            reply = await client.execute("6 * 7", reply=True, timeout=30)
            return type(client), type(client.shell_channel), reply["content"]["status"]
        finally:
            client.stop_channels()
            await manager.shutdown_kernel(now=True)

    with kernels.kernel() as place:
        assert asyncio.run(run(place)) == (kernels.LookingClient, kernels.LookingChannel, "ok")


def test_kernels_started_in_one_folder_have_sockets_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    async def run(*places):
        pairs = [await started(place) for place in places]
        try:
            for number, (_, client) in enumerate(pairs):
                await client.execute(f"mine = {number}", reply=True, timeout=30)
            heard = []
            for _, client in pairs:
                reply = await client.execute("", user_expressions={"mine": "mine"}, reply=True, timeout=30)
                heard.append(reply["content"]["user_expressions"]["mine"]["data"]["text/plain"])
            return heard
        finally:
            for manager, client in pairs:
                client.stop_channels()
                await manager.shutdown_kernel(now=True)

    with kernels.kernel() as one, kernels.kernel() as other:
        assert asyncio.run(run(one, other)) == ["0", "1"]
        assert one.folder != other.folder and not list(tmp_path.iterdir())
    assert not one.folder.exists() and not other.folder.exists()


def test_a_kernel_ends_with_all_that_it_started():
    code = "import subprocess, sys\n"
    code += "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"

    async def run(place):
        manager, client = await started(place)
        await client.execute(code, reply=True, timeout=30)
        client.stop_channels()
        kernel = psutil.Process(manager.provisioner.pid)
        return [kernel, *kernel.children()]

    with kernels.kernel() as place:
        processes = asyncio.run(run(place))
        assert len(processes) == 2 and all(process.is_running() for process in processes)
        place.end()
        assert place.killed_by == "SIGTERM"
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_kernel_that_starts_after_it_was_ended_does_not_stay():
    async def run(place):
        options = place.options()
        manager = options["kernel_manager_class"](kernel_name="python3", config=options["config"])
        await manager.start_kernel()
        return await manager.is_alive()

    with kernels.kernel() as place:
        place.end()
        assert asyncio.run(run(place)) is False


def test_sockets_find_a_short_path_or_the_network(monkeypatch, tmp_path):
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with kernels.kernel() as place:
        assert len(str(place.folder)) < 90  # not below the long one
    long = kernels.Kernel(deep).options()["config"]["KernelManager"]
    assert "ip" not in long and "transport" not in long  # a port of this machine then
    short = kernels.Kernel(place.folder).options()["config"]["KernelManager"]
    assert short["transport"] == "ipc" and short["ip"].startswith(str(place.folder))


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
