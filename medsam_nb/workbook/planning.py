"""What a study will take, said before it runs: units, trainings, work, hours, workers, disk.

Seconds are those of units of the study that are stored already, for each slice of an object that the others
hold; where a task has none with a model, one unit of middle length is computed for it, and kept. Those of
trainings are measured on some steps of one for each of what learns, which are kept, too. What a GPU would
take is modelled from published figures, for one network only, and called so.
"""

import heapq
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from medsam_nb.data.prepared import load_case
from medsam_nb.errors import WorkbookError
from medsam_nb.evaluation.store import Store
from medsam_nb.evaluation.unit import Unit
from medsam_nb.evaluation.units import slices_to_do
from medsam_nb.figures.words import counted, label
from medsam_nb.finetuning.jobs import Trainings
from medsam_nb.finetuning.plan import Job
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.tracks import Track, plan
from medsam_nb.statistics.fine_tuning import WORDS
from medsam_nb.workbook.progress import words

TRAINING = "training"
USEFUL = 0.8  # of their time workers are to be busy, on average
# Milliseconds for an encode and a tracked slice at 1024 pixels, modelled from the frame rates that the
# authors of SAM 2 published; measured by nobody here.
MODELLED_MS = {"sam2_hiera_large": {"A100": (24.0, 17.4)}}


@dataclass(frozen=True)
class Part:
    """The units of one task with one model in one notebook, or its trainings of one kind.

    Attributes
    ----------
    notebook, task, model : str
        Of trainings the task is `TRAINING`, the model what it starts from and what learns. What was
        fine-tuned from one model is together.
    units : list of Unit or Job
    stored : int
        How many of them are finished.
    seconds : list of float
        What each of the others will take, as far as that is known; NaN where nothing is.
    rows_bytes : float
        Of a unit, on average; NaN where no unit is stored.
    """

    notebook: str
    task: str
    model: str
    units: list[Unit] | list[Job]
    stored: int
    seconds: list[float]
    rows_bytes: float


def parts(units: dict[str, list[Unit]], store: Store, sample: Callable[[Unit], None]) -> Iterator[Part]:
    """Yield the parts of a study.

    Parameters
    ----------
    units : dict of str to list of Unit
        By notebook.
    store : Store
    sample : callable of a Unit
        Computes a unit and stores it, for a part of which nothing is stored.
    """
    for notebook, planned in units.items():
        groups: dict[tuple[str, str], list[Unit]] = defaultdict(list)
        for unit in planned:
            groups[unit.task, _model_of(unit)].append(unit)
        for (task, model), group in groups.items():
            if not any(store.has(unit.key) for unit in group):
                sample(sorted(group, key=slices_to_do)[len(group) // 2])
            stored = [unit for unit in group if store.has(unit.key)]
            records = store.records([unit.key for unit in stored])
            took = sum(record["provenance"]["seconds"] for record in records)
            rate = took / max(1, sum(map(slices_to_do, stored))) if stored else np.nan
            seconds = [rate * slices_to_do(unit) for unit in group if unit not in stored]
            size = np.mean([record["rows"]["bytes"] for record in records]) if records else np.nan
            yield Part(notebook, task, model, group, len(stored), seconds, float(size))


def _model_of(unit: Unit) -> str:
    made = unit.checkpoint.fine_tuned
    return f"{made.parent}, fine-tuned" if made else unit.key.model


def training_parts(
    trainings: dict[str, list[Trainings]], measure: Callable[[Trainings, Job], float]
) -> Iterator[Part]:
    """Yield the trainings of a study.

    Parameters
    ----------
    trainings : dict of str to list of Trainings
        By notebook.
    measure : callable of Trainings and one of their jobs that is not finished
        Returns the seconds of a step, NaN if that cannot be known; its steps may be the job's last.
    """
    for notebook, of_notebook in trainings.items():
        for each in of_notebook:
            for learns in dict.fromkeys(job.settings.learns for job in each.distinct):
                arm = replace(each, jobs=[job for job in each.distinct if job.settings.learns == learns])
                rate = measure(arm, arm.waiting[0]) if arm.waiting else np.nan
                left = [job.settings.steps * rate for job in arm.waiting]
                name = f"{arm.jobs[0].parent.name}, {WORDS[learns]}"
                yield Part(notebook, TRAINING, name, arm.jobs, len(arm.jobs) - len(left), left, np.nan)


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return when the last of some workers ends, each of which takes the longest unit that is left.

    Examples
    --------
    >>> makespan([4, 3, 2, 2, 1], 2), makespan([4, 3, 2, 2, 1], 8), makespan([], 2)
    (6, 4, 0)
    """
    ends = [0] * workers
    for each in sorted(seconds, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + each)
    return max(ends)


def useful_workers(seconds: Sequence[float]) -> int:
    """Return the largest number of workers that together are busy for `USEFUL` of the time.

    Examples
    --------
    >>> useful_workers([60.0] * 10), useful_workers([600.0, 1.0, 1.0]), useful_workers([])
    (10, 1, 0)
    """
    total, most = sum(seconds), max(seconds, default=0)
    workers = min(len(seconds), int(total / (USEFUL * most))) if most else 0  # more cannot be, by the longest
    while workers > 1 and total < USEFUL * workers * makespan(seconds, workers):
        workers -= 1
    return workers


def distinct_work(unit: Unit) -> tuple[int, int, int]:
    """Return what a unit takes: encoded slices, and tracked slices at least and at most, none in 2D.

    In 2D the slices that hold an object are encoded (fewer where a file prompts some of them only). In 3D
    designs that differ in the kept mask only share tracked slices until their masks first differ, which
    nobody knows beforehand: the first number takes it that they never do, the second that they always do.

    Raises
    ------
    InputError
        If the case cannot be read.
    """
    case, given = load_case(unit.case_folder), dict(unit.parameters)
    masks = {n: case.mask(n) for n in case.objects if not given.get("objects") or n in given["objects"]}
    if unit.task == "2d":
        return len({index for mask in masks.values() for index in np.flatnonzero(mask.any((1, 2)))}), 0, 0
    options = given.get("options", PropagationOptions())
    tracks = plan(
        masks,
        given["designs"],
        options.protocol,
        options.until,
        each_alone=options.window.remembered == "nothing",
    )
    encoded = {index for track in tracks for one in track.passes for index in one.slices}
    encoded |= {index for track in tracks for index in track.prompted}
    return (
        len(encoded),
        _tracked(tracks, lambda design: ""),
        _tracked(tracks, lambda design: design.mask_choice),
    )


def _tracked(tracks: Sequence[Track], differing: Callable[[Design], str]) -> int:
    reach: dict[tuple, int] = {}
    for track in tracks:
        for one in track.passes:
            state = (track.object_name, track.prompted, track.design.prompt, one.first, one.reverse)
            state += (differing(track.design),)
            reach[state] = max(reach.get(state, 0), len(set(one.slices) - set(track.prompted)))
    return sum(reach.values())


def table(found: Sequence[Part]) -> pd.DataFrame:
    """Return a line per part."""
    return pd.DataFrame(
        [
            {
                "notebook": part.notebook,
                "task": part.task,
                "model": part.model,
                "units": len(part.units),
                "stored": part.stored,
                "hours left": sum(part.seconds) / 3600,
                "longest, min": max(part.seconds, default=0.0) / 60,
            }
            for part in found
        ]
    )


def sentences(found: Sequence[Part], store: Store, workers: int) -> list[str]:
    """Return what the parts add up to, a sentence each.

    Parameters
    ----------
    found : sequence of Part
    store : Store
    workers : int
        Processes that the study asks for.
    """
    of_units = [part for part in found if part.task != TRAINING]
    units = [unit for part in of_units for unit in part.units]
    cases = {(unit.key.data_set, unit.key.case_id) for unit in units}
    stored = sum(part.stored for part in of_units)
    said = [
        f"{counted(len(cases), 'case')}, {counted(len(units), 'unit')} of work, {stored} of them stored.",
        *_trainings(found),
    ]
    left = [seconds for part in found for seconds in part.seconds]
    if np.isnan(left).any():
        unknown = [f"{part.notebook} ({part.model})" for part in found if np.isnan(part.seconds).any()]
        said.append(f"How long it takes is not known: a unit or training failed of {', '.join(unknown)}.")
    elif left:
        together = words(makespan(left, max(workers, 1)))
        said.append(
            f"Left on this machine: about {words(sum(left))} of computing, {together} with {max(workers, 1)} "
            f"workers; the longest piece takes {words(max(left))}. More than {useful_workers(left)} workers "
            f"would be idle for more than {1 - USEFUL:.0%} of the time."
        )
    said += _work(of_units)
    return [*said, *_memory(of_units, store), _disk(of_units, store)]


def _trainings(found: Sequence[Part]) -> Iterator[str]:
    some = [part for part in found if part.task == TRAINING]
    if not some:
        return
    total, finished = sum(len(part.units) for part in some), sum(part.stored for part in some)
    yield f"{counted(total, 'checkpoint')} to train, {finished} of them finished."
    if finished < total:
        yield (
            "What is measured with the others is not counted before they are trained: `medsam-nb finetune` "
            "does it without the notebooks."
        )


def _work(found: Sequence[Part]) -> Iterator[str]:
    for part in found:
        if part.task not in ("2d", "3d"):  # what is tracked again after a correction, nobody knows beforehand
            continue
        name = f"{part.notebook}, {label(part.task)}, {part.model}"
        (encodes, least, most), unread = _added_up(part.units)
        tracked = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        slices = f"{encodes:,} encoded slices" + (f", {tracked} tracked slices" if part.task == "3d" else "")
        left_out = f"; {counted(unread, 'unit')} whose case cannot be read not counted" if unread else ""
        yield f"{name}: {slices}{left_out}."
        for gpu, (encode_ms, step_ms) in MODELLED_MS.get(part.model, {}).items():
            low, high = ((encodes * encode_ms + steps * step_ms) / 3.6e6 for steps in (least, most))
            hours = f"{low:.1f}" if low == high else f"{low:.1f} to {high:.1f}"
            yield f"{name}, {gpu}: {hours} hours; modelled from published rates, not measured"


def _added_up(units: Sequence[Unit]) -> tuple[np.ndarray, int]:
    """Return the `distinct_work` of all units, and how many are of cases that cannot be read."""
    known: dict[tuple[Path, str], tuple[int, int, int] | None] = {}  # checkpoints differ, their work does not
    total, unread = np.zeros(3, int), 0
    for unit in units:
        alike = unit.case_folder, unit.key.parameters
        if alike not in known:
            try:
                known[alike] = distinct_work(unit)
            except WorkbookError:  # what is wrong with a case is told by its unit
                known[alike] = None
        if (work := known[alike]) is None:
            unread += 1
        else:
            total += work
    return total, unread


def _memory(found: Sequence[Part], store: Store) -> Iterator[str]:
    keys = [unit.key for part in found for unit in part.units if store.has(unit.key)]
    peaks = [record["provenance"].get("peak_memory_mb") for record in store.records(keys)]
    if known := [peak for peak in peaks if peak]:
        yield f"Memory: a worker has needed up to {max(known):,} MB in the units that are stored."


def _disk(found: Sequence[Part], store: Store) -> str:
    rows = np.nansum([len(part.units) * part.rows_bytes for part in found])
    limits = {unit.features for part in found for unit in part.units if unit.features}
    slices = sum(limit for _, limit in limits)
    there = next(place for place in (store.folder, *store.folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    return (
        f"Disk: rows {rows / 1e6:.0f} MB, encoded slices at most {slices / 1e9:.1f} GB; "
        f"{free / 1e9:.0f} GB are free."
    )
