"""Slurm on this one machine, with two slots: the real daemons, in a folder of their own."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "sinfo")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={place}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES State=UP
"""


def lacking() -> str:
    """Return why Slurm cannot be started here; "" if it can."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)}): on Debian, apt install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


@contextmanager
def running(place: Path) -> Iterator[dict[str, str]]:
    """Yield the environment in which `sbatch` and its like reach two slots, there while the block runs."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (place / name).mkdir()
    place.chmod(0o755)
    key = place / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    configuration = place / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, ports=_free_ports(2), place=place))
    environment = {
        **os.environ,
        "SLURM_CONF": str(configuration),
        "PATH": os.pathsep.join([os.environ["PATH"], "/usr/sbin"]),
    }
    munge = [f"--socket={place}/munge.socket"]
    munge += [f"--{name}-file={place}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--force", "--foreground", *munge],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
    ]
    with open(place / "output", "w") as output:
        options = {"env": environment, "cwd": place, "stdout": output, "stderr": output}
        daemons = [subprocess.Popen(command, **options) for command in commands]
        try:
            _wait_until_idle(environment)
            yield environment
        finally:
            subprocess.run(["scancel", "--user=root"], env=environment, check=False)
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(30)


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def _wait_until_idle(environment: dict[str, str]) -> None:
    said = ""
    for _ in range(120):
        asked = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True
        )
        said = asked.stdout + asked.stderr
        if said.strip() == "idle":
            return
        time.sleep(0.25)
    raise TimeoutError(f"Slurm's node is not idle after 30 s: {said}")
