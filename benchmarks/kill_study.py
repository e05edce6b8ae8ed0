"""A small study, run by its notebooks on two workers, killed at random points: the same table in the end?

    python -m benchmarks.kill_study [--kills 20] [--seed 1]

Each trial starts `medsam-nb run` from nothing in a folder of its own, and kills one of these at a random
moment: the command with all its processes, the command alone, a notebook's kernel, a worker, or the Dask
scheduler that gives out the work. Then the command is run, on this machine alone, until it says that all is
well. On Linux.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random

import pandas as pd
import psutil
import yaml

from medsam_nb.provenance import project_root
from medsam_nb.workbook.report import read_results

NOTEBOOKS = ("01_prepare_data", "02_evaluate_2d")
STUDY = {
    "name": "killed",
    "title": "Killed",
    "question": "Is its table the same?",
    "parameters": {"data_sets": ["simulated_xray", "simulated_ct"], "models": ["miniature_sam2"]},
    "notebooks": {
        "01_prepare_data": {},
        "02_evaluate_2d": {"prompts": ["one_point"]},
    },
}
RUNS_AFTER = 3  # of the command, until all is well
PATIENCE_S = 600


def project(folder: Path) -> Path:
    """Make a workbook with the notebooks and the study; return the study's file."""
    root = project_root()
    for name in ("notebooks", "studies"):
        (folder / name).mkdir(parents=True)
    for name in NOTEBOOKS:
        shutil.copy(root / "notebooks" / f"{name}.ipynb", folder / "notebooks")
    shutil.copy(root / "data_manifest.yaml", folder)
    path = folder / "studies" / "killed.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False), encoding="utf-8")
    return path


def start(study: Path, *more: str) -> subprocess.Popen:
    """Start the command in its own session; what it prints goes to a file beside the study."""
    call = [sys.executable, "-c", "from medsam_nb.cli import main; main()", "run", str(study), *more]
    environment = os.environ | {"PYTHONPATH": str(project_root())}
    with open(study.with_suffix(".log"), "a") as log:
        options = {"stdout": log, "stderr": log, "start_new_session": True}
        return subprocess.Popen(call, cwd=study.parents[1], env=environment, **options)


def family(process: subprocess.Popen) -> list[psutil.Process]:
    """Return the processes that the command has started."""
    with suppress(psutil.Error):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def having(words: str) -> Callable[[subprocess.Popen], list[psutil.Process]]:
    """Return what finds those of a command's processes whose command line holds some words."""

    def found(process: subprocess.Popen) -> list[psutil.Process]:
        chosen = []
        for one in family(process):
            with suppress(psutil.Error):
                if words in " ".join(one.cmdline()):
                    chosen.append(one)
        return chosen

    return found


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Start a Dask scheduler and two workers; give its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"PYTHONPATH": str(project_root())}
    host, port = address.removeprefix("tcp://").split(":")
    commands = [["scheduler", "--host", host, "--port", port, "--no-dashboard"]]
    commands += [["worker", address, "--nthreads", "1", "--no-dashboard"]] * 2
    with open(folder / "dask.log", "w") as log:
        options = {"cwd": folder, "env": environment, "stdout": log, "stderr": log}
        running = [subprocess.Popen([sys.executable, "-m", "dask", *one], **options) for one in commands]
        try:
            yield address, psutil.Process(running[0].pid)
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait(PATIENCE_S)


SCHEDULER = "the scheduler"
VICTIMS: dict[str, Callable[[subprocess.Popen], list[psutil.Process]]] = {
    "everything": lambda process: [psutil.Process(process.pid), *family(process)],
    "the command": lambda process: [psutil.Process(process.pid)],
    "a kernel": having("ipykernel"),
    "a worker": having("spawn_main"),
    SCHEDULER: lambda process: [],  # it is no process of the command
}


def killed(study: Path, victim: str, moment: float, chance: Random) -> bool:
    """Run the study and kill a victim after some seconds, or as soon as there is one; False if none came."""
    with ExitStack() as stack:
        more, find = (), VICTIMS[victim]
        if victim == SCHEDULER:
            address, process = stack.enter_context(scheduler(study.parents[1]))
            more, find = ("--set", f"cluster={address}"), lambda _: [process]
        running = start(study, *more)
        time.sleep(moment)
        while running.poll() is None:
            with suppress(psutil.Error):
                if there := find(running):
                    for one in there if victim == "everything" else [chance.choice(there)]:
                        with suppress(psutil.NoSuchProcess):
                            one.send_signal(signal.SIGKILL)
                    ended(running)
                    return True
            time.sleep(0.05)
    return False


def ended(running: subprocess.Popen) -> int:
    """Wait for the end of a command and of all of its session; raise if a process stays behind."""
    code, deadline = running.wait(PATIENCE_S), time.monotonic() + 20
    while left := [one for one in psutil.process_iter() if _session(one) == running.pid]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(left)} processes stayed behind: {[one.cmdline() for one in left]}")
        time.sleep(0.2)
    return code


def _session(process: psutil.Process) -> int | None:
    with suppress(psutil.Error, ProcessLookupError):
        if process.status() != psutil.STATUS_ZOMBIE:
            return os.getsid(process.pid)
    return None


def completed(study: Path) -> pd.DataFrame:
    """Run the study until it says that all is well; return its table."""
    codes = []
    for _ in range(RUNS_AFTER):
        codes.append(ended(start(study)))
        if codes[-1] == 0:
            return read_results(study.parents[1] / "runs" / "killed")
    raise RuntimeError(f"it ended with {codes}: see {study.with_suffix('.log')}")


def main() -> None:
    """Kill as often as asked; the last line says what came of it, the exit code whether all is the same."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance, tried, other = Random(options.seed), Counter(), 0
    root = Path(tempfile.mkdtemp(prefix="kill-study-"))
    began = time.monotonic()
    expected = completed(project(root / "whole"))
    whole_s = time.monotonic() - began
    while sum(tried.values()) < options.kills:
        victim = list(VICTIMS)[sum(tried.values()) % len(VICTIMS)]
        study = project(root / f"{sum(tried.values()):02d}")
        if not killed(study, victim, chance.uniform(0, whole_s), chance):
            shutil.rmtree(study.parents[1])
            continue
        found = completed(study)
        tried[victim] += 1
        same = found.equals(expected)
        other += not same
        print(
            f"{victim} killed: {'the same table' if same else f'ANOTHER TABLE in {study.parents[1]}'}",
            flush=True,
        )
        if same:
            shutil.rmtree(study.parents[1])
    if not other:
        shutil.rmtree(root)
    kinds = ", ".join(f"{name} {count}" for name, count in tried.items())
    print(f"kills: {sum(tried.values())} tried, {other} with another table ({kinds}; seed {options.seed})")
    sys.exit(other > 0)


if __name__ == "__main__":
    main()
