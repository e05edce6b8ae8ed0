"""What processes and workers of a cluster are given to do; light to import."""

import os
import signal
import subprocess
import time
from importlib import import_module
from pathlib import Path


def work(item):
    """Square a number; or do as told: die, once or always; cancel its Slurm job once; raise; wait."""
    if not isinstance(item, tuple):
        return item * item
    what, place = item
    if what == "raise":
        raise ValueError("no")
    if what == "lose the device":
        raise import_module("torch").AcceleratorError("an illegal memory access was encountered")
    if what == "sleep":
        Path(place, f"pid {os.getpid()}").touch()
        time.sleep(60)
    if what == "cancel once" and not (mark := Path(place) / "died").exists():
        mark.touch()
        subprocess.run(["scancel", os.environ["SLURM_JOB_ID"]], check=True)
        time.sleep(60)
    if what == "die" or not (mark := Path(place) / "died").exists():
        if what == "die once":
            mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return what


def meet(place):
    """Return how many calls of this process are under way, this one with them."""
    mark = Path(place, f"{os.getpid()} {time.monotonic_ns()}")
    mark.touch()
    time.sleep(0.3)
    here = [other for other in Path(place).iterdir() if other.name.split()[0] == str(os.getpid())]
    mark.unlink()
    return len(here)


def train(job, folder):
    """Train step by step, saving after each, until somebody ends the process."""
    jobs = import_module("medsam_nb.finetuning.jobs")
    while jobs.advance(job, folder, "cpu", seconds=0.0) < job.settings.steps:
        pass


def begin_beside_a_killer():
    """Begin a process of a pool in which reading the case "killer" ends the process, as the system may."""
    import_module("medsam_nb.data.workers")._begin()
    build = import_module("medsam_nb.data.build")
    read = build.read_case

    def read_or_die(row, case, source):
        if case == "killer":
            os.kill(os.getpid(), signal.SIGKILL)
        return read(row, case, source)

    build.read_case = read_or_die
