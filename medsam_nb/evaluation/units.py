"""Many units of work: run in processes, resumed, counted, and traced to what they came from.

Units run in worker processes with one thread each, so a result does not depend on how many workers there are.
"""

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from medsam_nb.data.cluster import LOCAL, run_on_cluster
from medsam_nb.data.workers import ProcessKilled, run_each
from medsam_nb.errors import StudyError, WorkbookError, printable
from medsam_nb.evaluation.label_map_units import LabelMapUnit, plan_label_map_units, run_label_map_unit
from medsam_nb.evaluation.lost_devices import ending_with_the_device
from medsam_nb.evaluation.parts import PARTS, Parts, Unwritable, share_done, unwritable, watched
from medsam_nb.evaluation.store import Store
from medsam_nb.evaluation.unit import Unit, loaded_model, plan_units, run_unit
from medsam_nb.files import read_json, unfinished
from medsam_nb.protocol.table import RunKey
from medsam_nb.provenance import COMPUTING_PACKAGES, git_commit, package_versions

__all__ = [
    "PARTS",
    "LabelMapUnit",
    "Unit",
    "compute",
    "counts",
    "finished",
    "loaded_model",
    "longest_first",
    "missing_units",
    "plan_label_map_units",
    "plan_units",
    "provenance",
    "reason",
    "require_results",
    "require_writable",
    "run_units",
    "slices_to_do",
    "stored_result",
]


def run_units(
    units: Sequence[Unit | LabelMapUnit],
    store: Store,
    *,
    workers: int = 2,
    label: str = "",
    cluster: str = LOCAL,
) -> pd.DataFrame:
    """Compute the units that the store lacks; keep going when one fails.

    What the store holds is read byte by byte; damaged rows are named in a warning and computed again.

    Parameters
    ----------
    units : sequence of Unit or LabelMapUnit
    store : Store
    workers : int
        Processes; 0 computes here. Each computes with one thread, so that their number changes no bit.
        Use 1 with a GPU. A unit whose process is ended by the system is tried once more, alone.
    label : str
        Shown before the progress bar.
    cluster : str
        "local" for processes of this machine; or see `cluster.check_cluster`.

    Returns
    -------
    DataFrame
        One row per unit: data_set, case_id, model, task, status ("stored", "computed" or
        "failed") and the error of those that failed. `counts` adds them up.

    Raises
    ------
    StudyError
        At the first result that cannot be written: what else is computed could not be kept either.
    """
    status = {unit.key: ("stored", "") for unit in units}
    missing = longest_first(missing_units(units, store))
    if missing:
        require_writable(store)
    bar = tqdm(total=len(units), initial=len(units) - len(missing), desc=label, unit="case", file=sys.stdout)
    under_way = {unit.key.digest for unit in missing}

    def show(in_parts: float) -> None:
        bar.n = round(len(units) - len(under_way) + in_parts, 2)
        bar.refresh()

    with (
        bar,
        watched(store.folder / PARTS, under_way, show),
        _results(missing, store, workers, cluster) as results,
    ):
        for unit, result in results:
            status[unit.key] = stored_result(unit, result, store)
            under_way.discard(unit.key.digest)
            show(sum(share_done(store.folder / PARTS, key) for key in under_way))
    return pd.DataFrame(
        [
            {
                "data_set": unit.key.data_set,
                "case_id": unit.key.case_id,
                "model": unit.key.model,
                "task": unit.task,
                "status": status[unit.key][0],
                "error": status[unit.key][1],
            }
            for unit in units
        ],
        columns=["data_set", "case_id", "model", "task", "status", "error"],
    )


def missing_units(units: Sequence[Unit], store: Store) -> list[Unit]:
    """Return the units that are not stored; damaged rows are named in a warning and removed."""
    return [unit for unit in units if not _is_stored(unit, store)]


def longest_first(units: Sequence[Unit]) -> list[Unit]:
    """Return units in the order to compute them: a long one that is begun last would run alone at the end."""
    return sorted(units, key=slices_to_do, reverse=True)


def slices_to_do(unit: Unit) -> int:
    """Return over how many slices a unit's objects reach, added up: the time it takes grows with them."""
    try:
        lines = json.loads(read_json(unit.case_folder / "case.json")["line"]["objects"])
        wanted = dict(unit.parameters).get("objects") or [line["name"] for line in lines]
        return sum(line["last_slice"] - line["first_slice"] + 1 for line in lines if line["name"] in wanted)
    except (WorkbookError, KeyError, TypeError, ValueError):  # what is wrong with a case is told by its unit
        return 0


def _is_stored(unit: Unit, store: Store) -> bool:
    damage = store.damage(unit.key)
    if damage is None:
        return store.has(unit.key)
    warnings.warn(f"{damage.item}: {damage.problem} The unit is computed again.", stacklevel=4)
    store.forget(unit.key)
    return False


def require_writable(store: Store) -> None:
    """Raise StudyError before anything is computed if nothing could be kept."""
    trial = unfinished(store.folder)
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"rows")
    except OSError as error:
        raise unwritable(store.folder, error) from error
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)


def compute(unit: Unit | LabelMapUnit, folder: Path) -> tuple[list[dict] | pd.DataFrame, dict]:
    """Compute a unit, of either kind, for the store of a folder; return its rows and its provenance.

    It goes on from the parts that are there of it; they stay until `stored_result` has stored the whole.
    """
    if isinstance(unit, LabelMapUnit):
        return run_label_map_unit(unit)
    return run_unit(unit, Parts(folder / PARTS, unit.key.digest))


@contextmanager
def _results(
    units: Sequence[Unit], store: Store, workers: int, cluster: str
) -> Iterator[Iterator[tuple[Unit, Callable[[], tuple]]]]:
    """Give an iterator over units, each with a call that returns or raises what `compute` did."""
    work = partial(compute, folder=store.folder)
    if cluster == LOCAL and workers == 0:
        yield ((unit, partial(work, unit)) for unit in units)
        return
    running = partial(run_on_cluster, cluster=cluster) if cluster != LOCAL else run_each
    with closing(running(partial(ending_with_the_device, work), units, workers)) as finished:
        yield ((unit, future.result) for unit, future in finished)


def stored_result(unit: Unit, result: Callable[[], tuple], store: Store) -> tuple[str, str]:
    """Store what a call gave that computed a unit; return its status ("computed" or "failed") and error.

    Raises
    ------
    StudyError
        If nothing can be written.
    """
    try:
        rows, provenance = result()
    except Unwritable:
        raise
    except Exception as error:  # a case must not stop a study, whatever went wrong with it
        return "failed", reason(unit, error)
    try:
        store.write(unit.key, rows, provenance)
    except OSError as error:
        raise unwritable(store.folder, error) from error
    except Exception as error:
        return "failed", printable(f"its rows have no form to be stored in: {type(error).__name__}: {error}")
    Parts(store.folder / PARTS, unit.key.digest).remove()
    return "computed", ""


def reason(unit: Unit, error: Exception) -> str:
    """Return in words why a unit failed."""
    if isinstance(error, WorkbookError):
        return str(error)
    if isinstance(error, ProcessKilled):
        return (
            f"{unit.key.data_set}/{unit.key.case_id}: its process was killed twice, the second time while it "
            "ran alone. The system ran out of memory, or a library crashed: free memory, or leave it out."
        )
    return printable(f"{type(error).__name__}: {error}")


def counts(outcome: pd.DataFrame) -> dict[str, int]:
    """Return how many units were stored before, computed now, and failed."""
    return {name: int((outcome["status"] == name).sum()) for name in ("stored", "computed", "failed")}


def require_results(outcome: pd.DataFrame) -> None:
    """Raise StudyError with the first reason if every unit failed, or there was none."""
    if len(outcome) == 0:
        raise StudyError("study", "there is no prepared case.", "Look at the cases in 01_prepare_data.")
    if (outcome["status"] == "failed").all():
        raise StudyError(
            "study", f"all {len(outcome)} units failed.", f"The first: {outcome['error'].iloc[0]}"
        )


def finished(units: Sequence[Unit], store: Store) -> list[RunKey]:
    """Return the keys of the units whose rows are stored."""
    return [unit.key for unit in units if store.has(unit.key)]


def provenance(
    store: Store,
    keys: Sequence[RunKey],
    parameters: Mapping[str, object],
    outcome: pd.DataFrame | None = None,
) -> dict:
    """Return what a reader needs to trace a table: code, packages, hashes, device, seed, parameters.

    `unverified_weights` names the models whose file no hash of the manifest vouches for; with the outcome
    of `run_units` the units that failed are counted and listed.
    """
    records = store.records(list(keys))
    networks = [record for record in records if record["key"]["network"]]
    unique = {
        field: sorted({str(record["key"][field]) for record in networks or records})
        for field in ("device", "dtype", "seed", "code_sha256")
    }
    unverified = {
        record["key"]["model"] for record in records if not record["provenance"]["weights_verified"]
    }
    if outcome is not None:
        failed = outcome.loc[outcome["status"] == "failed", ["data_set", "case_id", "model", "task", "error"]]
        unique |= {"units": counts(outcome), "failed_units": failed.to_dict("records")}
    return {
        "git_commit": git_commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": dict(parameters),
        "data": {f"{k.data_set}/{k.case_id}": k.data_sha256 for k in keys},
        "checkpoints": {k.model: k.checkpoint_sha256 for k in keys if k.network},
        "label_maps": _hashes_of_label_maps(keys),
        "unverified_weights": sorted(unverified),
        "hole_filling": sorted({record["provenance"]["hole_filling"] for record in networks}),
        "seconds": round(sum(record["provenance"]["seconds"] for record in records), 1),
        "packages": package_versions(
            sorted({*COMPUTING_PACKAGES, "pandas", "scipy", "statsmodels", "papermill"})
        ),
        **unique,
    }


def _hashes_of_label_maps(keys: Sequence[RunKey]) -> dict[str, str]:
    """Return one hash of all label maps of each source."""
    digests: dict[str, list[str]] = {}
    for key in keys:
        if not key.network:
            digests.setdefault(key.model, []).append(key.checkpoint_sha256)
    return {name: sha256("".join(sorted(each)).encode()).hexdigest() for name, each in digests.items()}
