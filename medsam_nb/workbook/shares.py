"""A share of a study's units, for jobs that run at the same time on machines with one disk.

A job computes what of its share is not stored. Each unit is computed under a lock, so that jobs whose shares
overlap do not compute it twice.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from medsam_nb.data.locks import Locked, locked
from medsam_nb.data.workers import ProcessKilled, run_each
from medsam_nb.evaluation.lost_devices import ending_with_the_device
from medsam_nb.evaluation.store import Store
from medsam_nb.evaluation.unit import Unit
from medsam_nb.evaluation.units import (
    compute,
    longest_first,
    missing_units,
    reason,
    require_writable,
    stored_result,
)

CLAIMS = "claims"  # below the store: a lock per unit


def share(units: Sequence[Unit], part: int, parts: int) -> list[Unit]:
    """Return a job's share: of the units, longest first, every `parts`-th, so that shares are about as long.

    Parameters
    ----------
    units : sequence of Unit
    part, parts : int
        Number of the job, from 1, and how many there are.
    """
    return longest_first(units)[part - 1 :: parts]


def run_share(units: Sequence[Unit], store: Store, workers: int) -> Iterator[tuple[Unit, str, str]]:
    """Compute and store units, those that another job is computing left to it.

    Parameters
    ----------
    units : sequence of Unit
    store : Store
    workers : int
        Processes; 0 computes here. See `units.run_units`.

    Yields
    ------
    unit : Unit
    status : {"stored", "computed", "failed", "elsewhere"}
    error : str
        Why it failed, or who computes it.

    Raises
    ------
    StudyError
        If nothing can be written.
    """
    missing = missing_units(units, store)
    yield from ((unit, "stored", "") for unit in units if unit not in missing)
    if missing:
        require_writable(store)
    work = partial(_under_lock, store.folder)
    if workers == 0:
        yield from ((unit, *work(unit)) for unit in missing)
        return
    with closing(run_each(work, missing, workers)) as ended:
        for unit, future in ended:
            try:
                yield unit, *future.result()
            except ProcessKilled as error:
                yield unit, "failed", reason(unit, error)


def _under_lock(folder: Path, unit: Unit) -> tuple[str, str]:
    store = Store(folder)
    try:
        with locked(folder / CLAIMS / f"{unit.key.digest}.lock", "medsam-nb units"):
            if store.has(unit.key):  # another job was faster
                return "stored", ""
            work = partial(compute, folder=folder)
            return stored_result(unit, partial(ending_with_the_device, work, unit), store)
    except Locked as busy:
        return "elsewhere", f"computed by {busy}"
