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
from tqdm import tqdm

from medsam_nb.data.prepare import load_case
from medsam_nb.errors import StudyError, WorkbookError
from medsam_nb.evaluation.rows import evaluate_2d, evaluate_3d
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.rows import Checkpoint
from medsam_nb.models.checkpoints import (
    Model,
    choose_device,
    choose_dtype,
    device_facts,
    load_model,
    verified_sha256,
    weights_path,
)
from medsam_nb.models.features import SliceFeatures, device_name, one_thread
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.table import RunKey
from medsam_nb.provenance import COMPUTING_PACKAGES, ROWS, as_json, code_sha256, git_commit, package_versions


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
        Keyword arguments of `rows.evaluate_2d` or `rows.evaluate_3d`.
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
                network=as_json(checkpoint.model_dump(include={"family", "config", "image_size"})),
                device=place.type,
                dtype=str(choose_dtype(place, dtype)).removeprefix("torch."),
                device_facts=as_json(device_facts(place)),
                seed=seed,
                parameters=as_json({name: _plain(value) for name, value in parameters.items()}),
                code_sha256=code_sha256(*ROWS),
                packages=as_json(package_versions(COMPUTING_PACKAGES)),
                patient_id=case.get("patient_id", ""),
            )
            values = tuple(parameters.items())
            units.append(Unit(task, folder, checkpoint, weights_dir, values, key, kept))
    return units


def _plain(value: object) -> object:
    """Return a parameter of a task as plain values, as it stands in the key."""
    if isinstance(value, PropagationOptions):
        return value.as_dict()
    if isinstance(value, Design):
        return value.name
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


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
        frames = arguments["options"].frames if "options" in arguments else "image"
        arguments["features"] = SliceFeatures(
            model, case.slices_uint8(), frames=frames, folder=place, folder_bytes=limit
        )
    with one_thread():
        rows = {"2d": evaluate_2d, "3d": evaluate_3d}[unit.task](model, case, **arguments)
    provenance = {
        "git_commit": git_commit(),
        "python": sys.version.split()[0],
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 2),
        "device_name": device_name(model.device),
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


def run_units(units: Sequence[Unit], store: Store, *, workers: int = 2, label: str = "") -> pd.DataFrame:
    """Compute the units that the store lacks; keep going when one fails.

    Parameters
    ----------
    units : sequence of Unit
    store : Store
    workers : int
        Processes; 0 computes here. Each computes with one thread, so that their number changes no bit.
        Use 1 with a GPU.
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
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
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
