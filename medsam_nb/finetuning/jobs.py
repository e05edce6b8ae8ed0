"""Jobs of fine-tuning on disk: begun, interrupted, resumed to the same bits, finished, found again."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from medsam_nb.data.cluster import LOCAL, run_on_cluster
from medsam_nb.data.locks import locked
from medsam_nb.data.prepared import load_case
from medsam_nb.data.workers import ProcessKilled, run_each
from medsam_nb.errors import WorkbookError, printable
from medsam_nb.files import write_study_file
from medsam_nb.finetuning.batches import ImageAndLabel, TrainingCases
from medsam_nb.finetuning.loop import Training
from medsam_nb.finetuning.plan import Job, PreparedCase
from medsam_nb.manifest.fine_tuned import FOLDER, row_path, write_row
from medsam_nb.models.checkpoints import load_model
from medsam_nb.models.features import one_thread
from medsam_nb.provenance import file_sha256

CHUNK_S = 60.0  # after which a job saves its state: no more is lost if it is killed
MEASURED_S = 10.0  # of steps, to know what the others will take


def weights_file(job: Job, weights_dir: Path) -> Path:
    """Return where the finished checkpoint lies."""
    return Path(weights_dir) / FOLDER / f"{job.name}.pt"


def state_file(job: Job, weights_dir: Path) -> Path:
    """Return where the state of an unfinished job lies."""
    return Path(weights_dir) / FOLDER / f".{job.name}.state"


@dataclass(frozen=True)
class Trainings:
    """What a notebook trains.

    Attributes
    ----------
    jobs : list of Job
    weights_dir : Path
        Where their checkpoints go, below `manifest.fine_tuned.FOLDER`.
    device : str
    """

    jobs: list[Job]
    weights_dir: Path
    device: str

    @property
    def distinct(self) -> list[Job]:
        """Every job once: one checkpoint may serve several folds."""
        return list({job.name: job for job in self.jobs}.values())

    @property
    def waiting(self) -> list[Job]:
        """The jobs that are not finished."""
        return [job for job in self.distinct if not is_finished(job, self.weights_dir)]


def is_finished(job: Job, weights_dir: Path) -> bool:
    """Whether the checkpoint and its row are there; the row is written last."""
    return weights_file(job, weights_dir).is_file() and row_path(weights_dir, job.name).is_file()


def loaders(cases: Sequence[PreparedCase], objects: Sequence[str]):
    """Return what `TrainingCases` reads: every object of every case on its own, as objects may overlap."""
    pairs = []
    for case in cases:
        there = [name for name in load_case(case.folder).objects if not objects or name in objects]
        pairs += [(case.folder, name) for name in there]
    return [partial(_image_and_label, folder, name) for folder, name in pairs]


def _image_and_label(folder: Path, name: str) -> ImageAndLabel:
    case = load_case(folder)
    return case.slices_uint8().astype(np.float32) / 255, case.mask(name).astype(np.uint8)


def advance(job: Job, weights_dir: Path, device: str = "auto", seconds: float = CHUNK_S) -> int:
    """Go on with a job for some time, at least one step; return how many steps are done.

    On a CPU the checkpoint is the same bit for bit, wherever it was interrupted: it is computed with one
    thread, and every step has random numbers of its own.

    Parameters
    ----------
    job : Job
    weights_dir : Path
    device : str
    seconds : float
        After which the state is saved.

    Raises
    ------
    WorkbookError
        If parent, cases or settings cannot be used, or nothing can be written.
    """
    return _advance(job, weights_dir, device, seconds)[0]


def seconds_per_step(job: Job, weights_dir: Path, device: str = "auto") -> tuple[float, str]:
    """Return what a step takes here, the mean of the job's next ones, which are kept; and why it failed.

    Returns
    -------
    seconds : float
        NaN if the job is finished, or failed.
    error : str
        Empty if it did not fail.
    """
    try:
        return _advance(job, weights_dir, device, MEASURED_S)[1], ""
    except Exception as error:  # what a training needs and the machine lacks is of any kind
        return np.nan, _reason(error)


def _advance(job: Job, weights_dir: Path, device: str, seconds: float) -> tuple[int, float]:
    folder = Path(weights_dir) / FOLDER
    with locked(folder / f".{job.name}.lock", "fine-tuning", wait=True), one_thread():
        if is_finished(job, weights_dir):
            return job.settings.steps, np.nan
        network = load_model(job.parent, Path(weights_dir), device=device, dtype="float32").network
        cases = TrainingCases(loaders(job.cases, job.objects), network.image_size)
        training = Training(network, cases, job.settings)
        state = state_file(job, weights_dir)
        if state.is_file():
            training.load(state)
        first, began = training.done, time.monotonic()
        whole = training.run(lambda: training.done > first and time.monotonic() >= began + seconds)
        each = (time.monotonic() - began) / max(1, training.done - first)
        if whole:
            _finish(job, training, Path(weights_dir))
            state.unlink(missing_ok=True)
        else:
            training.save(state)
    return training.done, each


def _finish(job: Job, training: Training, weights_dir: Path) -> None:
    weights = {name: tensor.cpu() for name, tensor in training.finish().state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"model": weights}, buffer)
    path = weights_file(job, weights_dir)
    write_study_file(path, buffer.getvalue())
    write_row(weights_dir, job.row(file_sha256(path), path.stat().st_size))


@dataclass(frozen=True)
class Progress:
    """How far a job is: its steps, and why it failed if it did."""

    job: Job
    steps: int
    error: str = ""


def train_all(
    jobs: Sequence[Job],
    weights_dir: Path,
    *,
    workers: int = 2,
    device: str = "auto",
    seconds: float = CHUNK_S,
    cluster: str = LOCAL,
) -> Iterator[Progress]:
    """Make the checkpoints that are not there yet; one that fails stops no other.

    Parameters
    ----------
    jobs : sequence of Job
    weights_dir : Path
    workers : int
        Processes, each with one thread; 0 trains here. Use 1 with a GPU.
    device : str
    seconds : float
        See `advance`.
    cluster : str
        "local" for processes of this machine; or see `cluster.check_cluster`.

    Yields
    ------
    Progress
        Whenever a job has advanced: first of those that are finished already.
    """
    trainings = Trainings(list(jobs), Path(weights_dir), device)
    waiting = trainings.waiting
    for job in trainings.distinct:
        if job not in waiting:
            yield Progress(job, job.settings.steps)
    do = partial(advance, weights_dir=Path(weights_dir), device=device, seconds=seconds)
    while waiting:
        ended = []
        with closing(_results(do, waiting, workers, cluster)) as results:
            for job, result in results:
                found = _progress(job, result)
                if found.error or found.steps >= job.settings.steps:
                    ended.append(job)
                yield found
        waiting = [job for job in waiting if job not in ended]


def _results(do, jobs: Sequence[Job], workers: int, cluster: str):
    if cluster == LOCAL and workers == 0:
        for job in jobs:
            yield job, partial(do, job)
        return
    each = run_each if cluster == LOCAL else partial(run_on_cluster, cluster=cluster)
    with closing(each(do, jobs, workers)) as running:
        for job, future in running:
            yield job, future.result


def _progress(job: Job, result) -> Progress:
    try:
        return Progress(job, result())
    except Exception as error:  # one job must not stop the others, whatever went wrong with it
        return Progress(job, 0, _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, ProcessKilled):
        return "its process was killed twice: the system ran out of memory, or a library crashed"
    return str(error) if isinstance(error, WorkbookError) else printable(f"{type(error).__name__}: {error}")
