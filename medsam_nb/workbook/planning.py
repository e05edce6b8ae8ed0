"""What a study will take, said before it runs: units, work, hours, workers, disk.

Seconds are those of units of the study that are stored already, for each slice of an object that the others
hold; where a task has none with a model, one unit of middle length is computed for it, and kept. What a GPU
would take is modelled from published figures, for one network only, and called so.
"""

import heapq
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medsam_nb.data.prepared import load_case
from medsam_nb.evaluation.store import Store
from medsam_nb.evaluation.unit import Unit
from medsam_nb.evaluation.units import slices_to_do
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.tracks import Track, plan
from medsam_nb.workbook.progress import words

USEFUL = 0.8  # of their time workers are to be busy, on average
# Milliseconds for an encode and a tracked slice at 1024 pixels, modelled from the frame rates that the
# authors of SAM 2 published; measured by nobody here.
MODELLED_MS = {"sam2_hiera_large": {"A100": (24.0, 17.4)}}


@dataclass(frozen=True)
class Part:
    """The units of one task with one model in one notebook.

    Attributes
    ----------
    notebook, task, model : str
    units : list of Unit
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
    units: list[Unit]
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
            groups[unit.task, unit.key.model].append(unit)
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
    """Return what a unit of 3D takes at least and at most: encoded slices, and tracked slices from and to.

    Designs that differ in the kept mask only share tracked slices until their masks first differ, which
    nobody knows beforehand: the first number takes it that they never do, the second that they always do.
    """
    case, given = load_case(unit.case_folder), dict(unit.parameters)
    names = [name for name in case.objects if not given.get("objects") or name in given["objects"]]
    options = given.get("options", PropagationOptions())
    tracks = plan(
        {name: case.mask(name) for name in names},
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
    units = [unit for part in found for unit in part.units]
    cases = {(unit.key.data_set, unit.key.case_id) for unit in units}
    stored = sum(part.stored for part in found)
    said = [f"{len(cases)} cases, {len(units)} units of work, {stored} of them stored."]
    left = [seconds for part in found for seconds in part.seconds]
    if np.isnan(left).any():
        unknown = [f"{part.notebook} ({part.model})" for part in found if np.isnan(part.seconds).any()]
        said.append(f"How long it takes is not known: a unit failed of {', '.join(unknown)}.")
    elif left:
        together = words(makespan(left, max(workers, 1)))
        said.append(
            f"Left on this machine: about {words(sum(left))} of computing, {together} with {max(workers, 1)} "
            f"workers; the longest unit takes {words(max(left))}. More than {useful_workers(left)} workers "
            f"would be idle for more than {1 - USEFUL:.0%} of the time."
        )
    said += _work_in_3d(found)
    return [*said, *_memory(found, store), _disk(found, store)]


def _work_in_3d(found: Sequence[Part]) -> Iterator[str]:
    for part in found:
        if part.task != "3d":
            continue
        encodes, least, most = np.array([distinct_work(unit) for unit in part.units]).sum(axis=0)
        name = f"{part.notebook}, {part.model}"
        yield f"{name}: {encodes:,} encoded slices, {least:,} to {most:,} tracked slices."
        for gpu, (encode_ms, step_ms) in MODELLED_MS.get(part.model, {}).items():
            low, high = ((encodes * encode_ms + steps * step_ms) / 3.6e6 for steps in (least, most))
            yield f"{name}, {gpu}: {low:.1f} to {high:.1f} hours; modelled from published rates, not measured"


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
