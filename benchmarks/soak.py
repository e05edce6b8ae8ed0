"""A small study that is killed, stopped, starved of disk, damaged and run twice at once, again and again.

    python -m benchmarks.soak --minutes 30

Each trial runs a real study (simulated cases, the miniature model, 2D and 3D, rows and parts of them, encoded
slices, tables, report) and does it harm. It survived if the study then comes to the same table, by being run
again or by what its own message says is to be done; if no process of it is left; and if nothing but sentences
was printed. The last line counts: tried, survived, lost. On Linux.
"""

import argparse
import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random

import pandas as pd
import psutil
import torch

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.errors import StudyError, WorkbookError
from medsam_nb.evaluation import parts, units
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.designs import Design
from medsam_nb.provenance import project_root
from medsam_nb.workbook import report

NOTEBOOK = "02_evaluate_2d"
PATIENCE_S = 300  # of one run
TRIES = 6  # of a study after its harm, one for every damaged file that it names
DESIGNS = [
    Design("centre_slice", "one_box", "bidirectional", "first_mask"),
    Design("first_slice", "one_point", "bidirectional", "first_mask"),
]


def simulated(name: str, modality: str, dimension: int, cases: int) -> DataSet:
    """Return a data set of a few small simulated cases."""
    shape = [8, 64, 64]
    return DataSet.model_validate(
        {
            "name": name,
            "title": name,
            "modality": modality,
            "dimension": dimension,
            "objects": {"organ": [4, 5], "lesion": [5], "paired_organ": [6], "vessel": [7], "shell": [8]},
            "ignored_labels": [1, 2, 3, 9],
            "slice_axis": "stored" if dimension == 2 else "axial",
            "intensity": {"policy": "min_max"},
            "layout": {
                "name": "simulated",
                "modality": modality,
                "cases": [
                    {"seed": seed, "shape": shape, "spacing_mm": [4, 2, 2]} for seed in range(1, cases + 1)
                ],
            },
            "access": "embedded",
        }
    )


DATA_SETS = [(simulated("flat", "xray", 2, 4), "2d"), (simulated("deep", "ct", 3, 1), "3d")]
UNITS = 5


def study(place: Path, workers: int) -> pd.DataFrame:
    """Run the study in a folder, as its notebooks do; return its table."""
    model = load_manifest(project_root() / "data_manifest.yaml").checkpoint("miniature_sam2")
    store, planned, features = Store(place / "run" / "rows"), [], (place / "run" / "features", 0.05)
    for data_set, task in DATA_SETS:
        cases = prepare(data_set, place / "raw", place / "prepared", progress=False)
        report.save_table(cases, place / "run", f"cases_{data_set.name}")
        own = {"prompts": ["one_point"]} if task == "2d" else {"designs": DESIGNS}
        own["objects"] = ["organ"]
        planned += units.plan_units(
            task,
            case_folders(place / "prepared", data_set.name),
            [model],
            weights_dir=place,
            seed=1,
            device="cpu",
            features=features,
            **own,
        )
    outcome = units.run_units(planned, store, workers=workers, label="soak")
    report.save_table(outcome, place / "run", "units")
    if (outcome["status"] == "failed").any():
        failed = outcome.loc[outcome["status"] == "failed", "error"].iloc[0]
        raise StudyError(failed, f"{units.counts(outcome)['failed']} units failed.", "See above.")
    keys = units.finished(planned, store)
    if len(keys) != UNITS:
        raise StudyError("study", f"{len(keys)} of {UNITS} units are whole.", "Look at the cases.")
    table = store.read(keys)
    report.save_table(table, place / "run", "results_2d")
    report.add_provenance(place / "run", NOTEBOOK, units.provenance(store, keys, {}, outcome))
    report.add_section(place / "run", NOTEBOOK, "Soak", "Text.", tables={"results_2d": "Values."})
    executed = place / "run" / "notebooks" / f"{NOTEBOOK}.ipynb"
    report.write_report(
        {"title": "Soak", "question": "?", "caveats": []},
        [report.NotebookRun(NOTEBOOK, executed, 0.0, None)],
        place / "run",
    )
    return report.read_results(place / "run")


def digest(table: pd.DataFrame) -> str:
    """Return the hash of a table's values."""
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def _child(place: Path, workers: int, output: int, most_bytes: int | None, divided: bool) -> None:
    """Be the process of a study: exit 0 with its table's hash as last line, 2 with a sentence, else 1."""
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(stream), "w", buffering=1) for stream in (1, 2))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(1)
    if divided:  # as if the volumes were long; not in workers, so that trials differ in this, too
        parts.STEPS_OF_A_PART = 1
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    try:
        print(f"\ndigest {digest(study(place, workers))}")
        code = 0
    except WorkbookError as error:
        print(f"\nerror: {error}")
        code = 2
    except KeyboardInterrupt:
        print("\nstopped")
        code = 3
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


class Run:
    """A study in a process of its own; what it prints is kept."""

    def __init__(
        self, place: Path, *, workers: int = 0, most_bytes: int | None = None, divided: bool = True
    ) -> None:
        read, write = os.pipe()
        arguments = place, workers, write, most_bytes, divided
        self.process = get_context("fork").Process(target=_child, args=arguments)
        self.process.start()
        os.close(write)
        self._words: list[bytes] = []
        self._reader = threading.Thread(target=self._read, args=(read,), daemon=True)
        self._reader.start()
        self._family: set[psutil.Process] = set()

    def _read(self, read: int) -> None:
        with os.fdopen(read, "rb") as file:
            while piece := file.read1(4096):
                self._words.append(piece)

    def children(self) -> list[psutil.Process]:
        """Return the processes that the study has started, remembering them."""
        with suppress(psutil.Error):
            self._family |= set(psutil.Process(self.process.pid).children(recursive=True))
        return [one for one in self._family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    def alive(self) -> bool:
        return self.process.is_alive()

    def signal(self, number: int) -> None:
        """Send a signal to the study's process."""
        self.children()
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return exit code and words. A process that stays behind is a loss."""
        began = time.monotonic()
        while self.alive() and time.monotonic() - began < PATIENCE_S:
            self.children()
            self.process.join(0.2)
        hung = self.alive()
        if hung:
            self.process.kill()
            self.process.join()
        deadline = time.monotonic() + 15
        while (left := self.children()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for one in left:
            with suppress(psutil.Error):
                one.kill()
        self._reader.join(5)
        words = b"".join(self._words).decode(errors="replace")
        if hung:
            raise Lost(f"it hung for {PATIENCE_S} s", words)
        if left:
            raise Lost(f"{len(left)} processes stayed behind", words)
        if "Traceback (most recent" in words or self.process.exitcode == 1:
            raise Lost("a traceback", words)
        return self.process.exitcode, words


class Lost(Exception):
    """A trial that was not survived: why, and what was printed."""


@dataclass
class Trial:
    """What a harm needs: a folder, chance, and what may be mounted."""

    place: Path
    chance: Random
    finished: Path
    seconds: float  # that a whole run takes

    def begin(self, *, whole: bool) -> None:
        """Start from a finished study or, more or less, from nothing."""
        if whole or self.chance.random() < 0.3:
            shutil.copytree(self.finished, self.place, dirs_exist_ok=True)
        if not whole and self.place.exists():  # some of it
            for path in sorted(self.place.rglob("*.parquet")):
                if self.chance.random() < 0.6:
                    path.unlink()
        self.place.mkdir(exist_ok=True)

    def moment(self, workers: int) -> float:
        """Return a time within a run, seconds; worker processes begin slowly."""
        return self.chance.uniform(0, 1.1 * self.seconds * (6 if workers else 1))

    def workers(self) -> int:
        return 2 if self.chance.random() < 0.1 else 0


def kill(trial: Trial) -> None:
    """SIGKILL of the study at any moment, up to three times."""
    trial.begin(whole=False)
    for _ in range(trial.chance.randint(1, 3)):
        workers = trial.workers()
        run = Run(trial.place, workers=workers)
        run.process.join(trial.moment(workers))
        run.signal(signal.SIGKILL)
        run.end()


def stop(trial: Trial) -> None:
    """Ctrl-C or SIGTERM at any moment."""
    trial.begin(whole=False)
    workers = trial.workers()
    run = Run(trial.place, workers=workers)
    run.process.join(trial.moment(workers))
    run.signal(trial.chance.choice([signal.SIGINT, signal.SIGTERM]))
    code, words = run.end()
    if code not in (0, 3):
        raise Lost(f"stopped with code {code}", words)


def kill_worker(trial: Trial) -> None:
    """SIGKILL of a worker process, as by a system that is out of memory."""
    trial.begin(whole=False)
    run = Run(trial.place, workers=2)
    deadline = time.monotonic() + PATIENCE_S
    while run.alive() and time.monotonic() < deadline:
        workers = [one for one in run.children() if "spawn_main" in " ".join(_command(one))]
        if len(workers) >= 2:
            time.sleep(trial.chance.uniform(0, 4 * trial.seconds))
            with suppress(psutil.Error):
                trial.chance.choice(workers).kill()
            break
        time.sleep(0.05)
    code, words = run.end()
    if code != 0:
        raise Lost(f"ended with code {code} though only one worker was killed", words)


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def fill(trial: Trial) -> None:
    """No file may become larger than a limit, as where a quota or a disk is full."""
    trial.begin(whole=False)
    run = Run(trial.place, workers=trial.workers(), most_bytes=int(10 ** trial.chance.uniform(1, 5.5)))
    code, words = run.end()
    if code not in (0, 2):
        raise Lost(f"ended with code {code} on a full disk", words)


def fill_disk(trial: Trial) -> None:
    """A file system of its own that is full at some point, and then gets room."""
    trial.place.mkdir()
    size = int(10 ** trial.chance.uniform(4, 6.5))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(trial.place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return fill(trial)
    try:
        code, words = Run(trial.place, workers=trial.workers()).end()
        if code not in (0, 2):
            raise Lost(f"ended with code {code} on a full disk", words)
        more = ["mount", "-o", "remount,size=500m", str(trial.place)]
        subprocess.run(more, capture_output=True, check=True)
        kept = trial.place.with_name(f"{trial.place.name}-kept")
        shutil.copytree(trial.place, kept)
    finally:
        subprocess.run(["umount", str(trial.place)], capture_output=True, check=True)
    trial.place.rmdir()
    kept.rename(trial.place)
    return None


def damage(trial: Trial) -> None:
    """Up to six files of a finished study changed, cut, emptied, exchanged, removed or replaced."""
    trial.begin(whole=True)
    files = [path for path in trial.place.rglob("*") if path.is_file()]
    for path in trial.chance.sample(files, trial.chance.randint(1, 6)):
        what = trial.chance.choice(["turn", "cut", "zero", "add", "remove", "exchange", "text"])
        data = bytearray(path.read_bytes())
        if what == "turn" and data:
            data[trial.chance.randrange(len(data))] ^= 1 << trial.chance.randrange(8)
        elif what == "cut":
            del data[trial.chance.randrange(len(data) + 1) :]
        elif what == "zero":
            data = bytearray(len(data))
        elif what == "add":
            data += trial.chance.randbytes(9)
        elif what == "text":
            data = bytearray(b"Something else.\n")
        elif what == "exchange":
            other = trial.chance.choice([one for one in files if one.suffix == path.suffix])
            data = bytearray(other.read_bytes()) if other.exists() else data
        path.unlink(missing_ok=True)
        if what != "remove":
            path.write_bytes(data)


def race(trial: Trial) -> None:
    """Two runs of the study at once, in one folder."""
    trial.begin(whole=False)
    runs = [Run(trial.place, workers=trial.workers())]
    time.sleep(trial.chance.uniform(0, trial.seconds))
    runs.append(Run(trial.place, workers=trial.workers()))
    for code, words in [run.end() for run in runs]:
        if code not in (0, 2):
            raise Lost(f"ended with code {code} beside another run", words)


HARMS: list[Callable[[Trial], None]] = [
    *(kill, damage, stop, fill, race, damage, kill_worker, kill, fill_disk, damage)
]


def recover(place: Path, expected: str) -> None:
    """Run the study until it is whole, doing what its messages say; Lost if it does not come to its table."""
    for _ in range(TRIES):
        code, words = Run(place).end()
        if code == 0:
            found = re.findall(r"^digest (\w+)$", words, re.MULTILINE)
            if found != [expected]:
                raise Lost("another table", words)
            return
        named = re.search(r"^error: (.+?): .*[Dd]elete it", words, re.MULTILINE | re.DOTALL)
        bad = Path(named[1]) if named else None
        if bad is None or place not in bad.parents:
            continue
        shutil.rmtree(bad) if bad.is_dir() else bad.unlink()
    raise Lost(f"not whole after {TRIES} runs", words)


def main() -> None:
    """Try for as long as asked; the last line says what came of it, the exit code whether all survived."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--trials", type=int, default=sys.maxsize, help="Stop after so many, if not before.")
    parser.add_argument("--only", choices=sorted({harm.__name__ for harm in HARMS}))
    options = parser.parse_args()
    chance, tried, lost = Random(options.seed), Counter(), 0
    harms = [harm for harm in HARMS if options.only in (None, harm.__name__)]
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    began = time.monotonic()
    finished = root / "finished"
    finished.mkdir()
    code, words = Run(finished, divided=False).end()
    seconds = time.monotonic() - began
    if code:
        sys.exit(f"the study does not run without harm:\n{words}")
    (expected,) = re.findall(r"^digest (\w+)$", words, re.MULTILINE)
    while not tried or (
        time.monotonic() - began < 60 * options.minutes and sum(tried.values()) < options.trials
    ):
        number = sum(tried.values())
        harm = harms[number % len(harms)]
        place = root / f"{number:04d}-{harm.__name__}"
        try:
            harm(Trial(place, chance, finished, seconds))
            recover(place, expected)
            shutil.rmtree(place)
        except Lost as loss:
            lost += 1
            print(f"lost: {place}: {loss.args[0]}\n{loss.args[1][-3000:]}", flush=True)
        tried[harm.__name__] += 1
    if not lost:
        shutil.rmtree(root)
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(tried.items()))
    total = sum(tried.values())
    minutes = (time.monotonic() - began) / 60
    print(
        f"soak: {total} tried, {total - lost} survived, {lost} lost ({kinds}; {minutes:.1f} minutes, "
        f"seed {options.seed})"
    )
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
