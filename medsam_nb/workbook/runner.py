"""Runs a study: its notebooks, each in a process of its own; told to stop, it ends them and says so.

Papermill injects the parameters and keeps the executed copies.
"""

import logging
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from medsam_nb.errors import StudyError, WorkbookError
from medsam_nb.figures import choices
from medsam_nb.provenance import project_root
from medsam_nb.workbook.kernels import Kernel, kernel
from medsam_nb.workbook.owner import owned
from medsam_nb.workbook.progress import Progress, say, words
from medsam_nb.workbook.report import NotebookRun, keep_runs, read_runs, write_report
from medsam_nb.workbook.resolve import labels_of, opened_study, resolve_parameters
from medsam_nb.workbook.schedule import Schedule, at_once, schedule
from medsam_nb.workbook.study import (
    Study,
    data_sets_of,
    find_study,
    load_study,
    notebook_path,
    run_folder,
)
from medsam_nb.workbook.summary import expected, seconds_before

STOPS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C; the end of a job; a closed terminal
LOOK_S = 0.2


@dataclass(frozen=True)
class Outcome:
    """How a study ended.

    Attributes
    ----------
    report : Path or None
        The report, `runs/<name>/index.html`; None if the study was stopped before a notebook had ended.
    runs : list of NotebookRun
        The notebooks that were begun. One that fails is kept with its traceback and named in the report;
        others still run on what there is, but for those of which all that they need has failed.
    planned : list of str
        All notebooks of the study.
    stopped : signal.Signals or None
        The signal that stopped it.
    """

    report: Path | None
    runs: list[NotebookRun]
    planned: list[str]
    stopped: signal.Signals | None

    @property
    def exit_code(self) -> int:
        """0 if all went well, 1 if a notebook failed, 128 + the signal's number if the study was stopped."""
        if self.stopped is not None:
            return 128 + self.stopped
        return int(any(run.error for run in self.runs))


class _Stop:
    """Takes note of a signal that asks to stop, while it is entered; the first one counts.

    Signals that the process was started to ignore (`nohup`, a job in the background) stay ignored.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_Stop":
        if threading.current_thread() is threading.main_thread():  # no other can have handlers
            for number in (getattr(signal, name) for name in STOPS if hasattr(signal, name)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._noted)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _noted(self, number: int, _: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number)


def run_notebook(
    name: str, executed: Path, parameters: Mapping[str, Any], place: Kernel | None = None
) -> NotebookRun:
    """Execute one notebook and keep its copy, also if it fails (with the traceback in it).

    Parameters
    ----------
    name : str
    executed : Path
        Where the copy goes.
    parameters : mapping
    place : Kernel, optional
        Where its kernel runs, for those who may want to end it.
    """
    if place is None:
        with kernel() as own:
            return run_notebook(name, executed, parameters, own)
    executed.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would say is said below
    began, started = time.time(), time.monotonic()
    error = None
    try:
        papermill.execute_notebook(
            _literal(notebook_path(name)),
            _literal(executed),
            parameters=dict(parameters),
            cwd=str(project_root()),
            kernel_name="python3",
            progress_bar=False,
            stdout_file=Progress(name),
            stderr_file=Progress(name, sys.stderr, bars_only=False),
            shutdown_kernel="immediate",  # it holds nothing that is not written
            **place.options(),
        )
    except PapermillExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    except DeadKernelError:
        error = "its kernel was ended"
        if place.killed_by:
            error += f" by {place.killed_by}"
        if place.killed_by == "SIGKILL":
            error += ", perhaps by the system for want of memory: try fewer `workers`"
    except (RuntimeError, OSError) as failure:  # the kernel did not start, or the copy cannot be written
        error = f"{type(failure).__name__}: {failure}"
    return NotebookRun(name, executed, round(time.monotonic() - started, 1), error, round(began, 1))


def _literal(path: Path) -> str:
    """Return a path as papermill takes it, which reads `{name}` as a parameter."""
    return str(path).replace("{", "{{").replace("}", "}}")


def run_study(path: Path, overrides: Mapping[str, Any] | None = None, only: Sequence[str] = ()) -> Outcome:
    """Run a study's notebooks and write its report.

    A notebook starts when those that it needs have ended, two at a time where there are cores for them
    (`schedule`). Ctrl-C and SIGTERM end those that are running with all their processes; the report of
    what is finished is still written. A study that is stopped before any notebook is finished leaves the
    report of an earlier run alone.

    Parameters
    ----------
    path : Path
        The study's YAML file.
    overrides : mapping
        Parameters that replace those of the file.
    only : sequence of str
        Notebooks of the study to run, by name or number ("05"); all if empty. The others' results stay.

    Raises
    ------
    WorkbookError
        If the study cannot be done as it is written (`resolve.resolve_parameters`), if weights are missing,
        or if its folder belongs to another study or process (`owner.owned`): before the first notebook.
    """
    path, study, chosen = opened_study(path, overrides, only)
    plan = schedule(chosen, at_once())
    run_dir = run_folder(study)
    with _Stop() as stop, owned(run_dir, path) as remark:
        if remark:
            say(remark)
        say(expected(list(chosen), run_dir, path))
        study = study.model_copy(update={"style": choices.with_names(study.style, labels_of(chosen))})
        choices.keep(study.style, run_dir, data_sets_of(study, overrides))
        runs = _run_all(plan, chosen, run_dir / "notebooks", stop)
        if stop.signal and all(run.error for run in runs):
            report = None
        else:
            kept = keep_runs(runs, run_dir, list(study.notebooks) if only else None)
            report = _page(study, kept, run_dir)
    return Outcome(report, runs, list(chosen), stop.signal)


def rewrite_report(path: Path, *, single: bool = False) -> Path:
    """Write the page of a study again from what its notebooks left; nothing is computed.

    Parameters
    ----------
    path : Path
        The study's YAML file.
    single : bool
        Write one file that holds its figures instead (`page.write_report`).

    Raises
    ------
    StudyError
        If the study has not been run.
    """
    path = find_study(path)
    study = load_study(path)
    run_dir = run_folder(study)
    if not (run_dir / "sections").is_dir():
        raise StudyError(path, "has not been run.", f"Run it: medsam-nb run {path}.")
    runs = {run.name: run for run in read_runs(run_dir)}
    of_study = [runs[name] for name in study.notebooks if name in runs]
    with suppress(WorkbookError):  # a manifest that is gone costs the page its labels only
        names = labels_of(resolve_parameters(study, path))
        study = study.model_copy(update={"style": choices.with_names(study.style, names)})
    return _page(study, of_study, run_dir, single=single)


def _page(study: Study, runs: Sequence[NotebookRun], run_dir: Path, *, single: bool = False) -> Path:
    """Write a study's page with the names and colours that it chooses."""
    with choices.holding(study.style):
        return write_report(study.model_dump(), runs, run_dir, single=single)


def _run_all(
    plan: Schedule, parameters: Mapping[str, Mapping[str, Any]], folder: Path, stop: _Stop
) -> list[NotebookRun]:
    """Run the notebooks of a schedule; return how those that were begun or left out ended, in their order."""
    ended: dict[str, NotebookRun] = {}
    running: dict[Future[NotebookRun], Kernel] = {}
    started, told = time.monotonic(), False
    took = seconds_before(list(parameters), folder.parent)

    def begin(name: str) -> None:
        before = f" (last time {words(took[name])})" if name in took else ""
        say(f"[{list(parameters).index(name) + 1}/{len(parameters)}] {name}{before}")
        plan.running.add(name)
        place = kernels.enter_context(kernel())
        work = pool.submit(run_notebook, name, folder / f"{name}.ipynb", parameters[name], place)
        running[work] = place

    def end(run: NotebookRun) -> None:
        if stop.signal and run.error:
            run = replace(run, error=f"stopped by {stop.signal.name}")
        plan.running.discard(run.name)
        (plan.failed if run.error else plan.done).add(run.name)
        ended[run.name] = run
        how = f"failed: {run.error}" if run.error else "done"
        say(f"    {run.name} {how} ({words(run.seconds)}; {words(time.monotonic() - started)} in all)")

    # Kernels end before the pool is left, which waits for their notebooks.
    with ThreadPoolExecutor(plan.most) as pool, ExitStack() as kernels:
        while running or not (stop.signal or plan.finished):
            for name in () if stop.signal else plan.ready():
                begin(name)
            for work in wait(running, LOOK_S, FIRST_COMPLETED).done:
                running.pop(work).end()
                end(work.result())
            if stop.signal and not told:
                told = True
                for place in running.values():
                    place.end()
            for name in () if stop.signal else plan.in_vain():
                needed = " and ".join(plan.needs[name])
                end(NotebookRun(name, None, 0.0, f"not run, as {needed} failed"))
    return [ended[name] for name in parameters if name in ended]


def how_it_was_stopped(outcome: Outcome) -> str:
    """Return in a sentence what of a stopped study is finished, and how to go on."""
    done = [run.name for run in outcome.runs if not run.error]
    finished = f"{len(done)} of {len(outcome.planned)} notebooks"
    return (
        f"stopped by {outcome.stopped.name}: {finished} {'is' if len(done) == 1 else 'are'} finished"
        f"{_listed(done)}; run the same command again to go on, what is stored is not computed again."
    )


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""
