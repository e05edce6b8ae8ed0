"""A study: its YAML file, its units of work, and how they are run, resumed and counted.

A unit is one task on one case with one model. Units run in worker processes with one thread each,
so a result does not depend on how many workers there are.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from medsam_nb.evaluation import rows as evaluate
from medsam_nb.protocol.designs import DESIGN_SETS
from medsam_nb.errors import StudyError, WorkbookError
from medsam_nb.models.features import SliceFeatures
from medsam_nb.data.fetch import fetch
from medsam_nb.manifest.rows import Checkpoint, DataSet
from medsam_nb.models.checkpoints import Model, choose_device, choose_dtype, load_model, verified_sha256, weights_path
from medsam_nb.data.prepare import case_table, load_case, prepare
from medsam_nb.provenance import COMPUTING_PACKAGES, code_sha256, git_commit, package_versions
from medsam_nb.evaluation.store import RunKey, Store


def prepare_data_sets(
    data_sets: Sequence[DataSet],
    raw_dir: Path,
    prepared_dir: Path,
    *,
    workers: int = 1,
    download: bool = False,
) -> pd.DataFrame:
    """Prepare several data sets; one that is not there or cannot be read does not stop the others.

    Parameters
    ----------
    data_sets : sequence of DataSet
    raw_dir, prepared_dir : Path
        See `prepare.prepare`.
    workers : int
    download : bool
        First fetch the open files that are missing, checked by SHA-256.

    Returns
    -------
    DataFrame
        The case tables of all, one below the other. A data set that failed as a whole is one line
        with an empty `case_id`, status "failed" and the reason.
    """
    tables = []
    for row in data_sets:
        try:
            if download and row.files:
                fetch(row, raw_dir)
            tables.append(prepare(row, raw_dir, prepared_dir, workers=workers))
        except WorkbookError as error:
            line = {"data_set": row.name, "modality": row.modality, "accuracy": row.accuracy}
            tables.append(case_table([line | {"status": "failed", "error": str(error)}]))
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Unit:
    """One task on one case with one model: everything a worker process needs.

    Attributes
    ----------
    task : {"2d", "3d"}
    case_folder : Path
        Of the prepared case.
    checkpoint : Checkpoint
    weights_dir : Path
    parameters : tuple of (str, value)
        Keyword arguments of `evaluate.evaluate_2d` or `evaluate_3d`; `designs` by the name of a set.
    key : RunKey
    features : (Path, int) or None
        Folder where encoded slices are kept for later units, and how many bytes it may hold.
    """

    task: str
    case_folder: Path
    checkpoint: Checkpoint
    weights_dir: Path
    parameters: tuple[tuple[str, object], ...]
    key: RunKey
    features: tuple[Path, int] | None = None


def plan_units(
    task: str,
    case_folders: Sequence[Path],
    checkpoints: Sequence[Checkpoint],
    *,
    weights_dir: Path,
    seed: int,
    device: str = "auto",
    dtype: str = "auto",
    features: tuple[Path, float] | None = None,
    **parameters: object,
) -> list[Unit]:
    """Return the units of a task: every case with every model.

    With `features`, a folder and how many GB it may hold, units on a CPU keep encoded slices in that folder
    and find them there: 3D after 2D, or other designs later, encode nothing again. Results are bit for
    bit the same, so neither is a part of the key. On a GPU an encode is taken to be as fast as a read.

    Raises
    ------
    CheckpointError
        If the weights of a model are missing or not what the manifest says.
    """
    place = choose_device(device)
    units = []
    keeps = features is not None and features[1] > 0 and place.type == "cpu"
    kept = (features[0], int(features[1] * 1e9)) if keeps else None
    for checkpoint in checkpoints:
        weights_sha256 = verified_sha256(weights_path(checkpoint, weights_dir), checkpoint.sha256)
        for folder in case_folders:
            case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
            key = RunKey(
                task=task,
                data_set=case["data_set"],
                case_id=case["case_id"],
                data_sha256=case["data_sha256"],
                model=checkpoint.name,
                checkpoint_sha256=weights_sha256,
                device=place.type,
                dtype=str(choose_dtype(place, dtype)).removeprefix("torch."),
                seed=seed,
                parameters=json.dumps(parameters, sort_keys=True),
                code_sha256=code_sha256(),
                packages=json.dumps(package_versions(COMPUTING_PACKAGES), sort_keys=True),
            )
            values = tuple(parameters.items())
            units.append(Unit(task, folder, checkpoint, weights_dir, values, key, kept))
    return units


@cache
def loaded_model(
    checkpoint: Checkpoint, weights_dir: Path, device: str = "auto", dtype: str = "auto"
) -> Model:
    """Return a model, loaded once per process; see `models.load_model`."""
    return load_model(checkpoint, weights_dir, device=device, dtype=dtype)


def run_unit(unit: Unit) -> tuple[list[dict], dict]:
    """Compute one unit; return its rows and its provenance."""
    started = datetime.now(UTC)
    case = load_case(unit.case_folder)
    model = loaded_model(unit.checkpoint, unit.weights_dir, unit.key.device, unit.key.dtype)
    arguments = dict(unit.parameters) | {"seed": unit.key.seed}
    if unit.features is not None:
        place, limit = unit.features
        kept = SliceFeatures(model, case.slices_uint8(), folder=place, folder_bytes=limit)
        arguments["features"] = kept
    if unit.task == "2d":
        rows = evaluate.evaluate_2d(model, case, **arguments)
    else:
        arguments["designs"] = DESIGN_SETS[arguments["designs"]]
        rows = evaluate.evaluate_3d(model, case, **arguments)
    provenance = {
        "git_commit": git_commit(),
        "python": sys.version.split()[0],
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 2),
        "device_name": torch.cuda.get_device_name() if model.device.type == "cuda" else model.device.type,
        "hole_filling": has_cuda_extension(),
    }
    return rows, provenance


def has_cuda_extension() -> bool:
    """Return whether sam2's CUDA extension is built: without it the predictor skips filling small holes."""
    try:
        from sam2 import _C  # noqa: F401
    except ImportError:
        return False
    return True


def _start_worker() -> None:
    torch.set_num_threads(1)


def run_units(units: Sequence[Unit], store: Store, *, workers: int = 2, label: str = "") -> pd.DataFrame:
    """Compute the units that the store lacks; keep going when one fails.

    Parameters
    ----------
    units : sequence of Unit
    store : Store
    workers : int
        Processes; 0 computes here, with PyTorch's threads as they are. Use 1 with a GPU.
    label : str
        Shown before the progress bar.

    Returns
    -------
    DataFrame
        One row per unit: data_set, case_id, model, task, status ("stored", "computed" or
        "failed") and the error of those that failed.
    """
    status = {unit.key: ("stored", "") for unit in units}
    missing = [unit for unit in units if not store.has(unit.key)]
    bar = tqdm(total=len(units), initial=len(units) - len(missing), desc=label, unit="case", file=sys.stdout)

    def finish(unit: Unit, outcome) -> None:
        try:
            rows, provenance = outcome()
            store.write(unit.key, rows, provenance)
            status[unit.key] = ("computed", "")
        except WorkbookError as error:
            status[unit.key] = ("failed", str(error))
        except Exception as error:  # a case must not stop a study, whatever went wrong with it
            status[unit.key] = ("failed", f"{type(error).__name__}: {error}")
        bar.update()

    if workers == 0 or not missing:
        for unit in missing:
            finish(unit, lambda unit=unit: run_unit(unit))
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker) as pool:
            futures = {pool.submit(run_unit, unit): unit for unit in missing}
            for future in as_completed(futures):
                finish(futures[future], future.result)
    bar.close()
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


def require_cases(cases: pd.DataFrame) -> None:
    """Raise StudyError with the first reasons if no case of a case table can be used."""
    if (cases["status"] == "ok").any():
        return
    reasons = cases.loc[cases["status"] == "failed", "error"].head(3)
    raise StudyError(
        "data", f"none of {len(cases)} cases can be used: {' | '.join(reasons)}", "Mend the files or the row."
    )


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


def provenance(store: Store, keys: Sequence[RunKey], parameters: Mapping[str, object]) -> dict:
    """Return what a reader needs to trace a table: code, packages, hashes, device, seed, parameters."""
    records = store.records(list(keys))
    unique = {
        field: sorted({str(record["key"][field]) for record in records})
        for field in ("device", "dtype", "seed", "code_sha256")
    }
    return {
        "git_commit": git_commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": dict(parameters),
        "data": {f"{k.data_set}/{k.case_id}": k.data_sha256 for k in keys},
        "checkpoints": {k.model: k.checkpoint_sha256 for k in keys},
        "hole_filling": sorted({record["provenance"]["hole_filling"] for record in records}),
        "seconds": round(sum(record["provenance"]["seconds"] for record in records), 1),
        "packages": package_versions(
            sorted({*COMPUTING_PACKAGES, "pandas", "scipy", "statsmodels", "papermill"})
        ),
        **unique,
    }
