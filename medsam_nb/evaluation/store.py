"""The results: one tidy long table, written case by case under a key of everything that decides it.

A unit of work (one case, one model, one task with its parameters) has a `RunKey`. Its rows are one
Parquet file named by the key's digest, written atomically, with the whole key and the provenance
in a JSON file beside it. A study that is started again finds what is there and computes the rest.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from medsam_nb.errors import InputError

# The tidy table: one row per value. `slice_index` is missing where the value is of a whole volume.
COLUMNS = {
    "task": "string",  # "2d" (every slice prompted) or "3d" (propagated)
    "data_set": "string",
    "modality": "string",
    "case_id": "string",
    "object": "string",
    "model": "string",
    "prompt": "string",  # prompts.MODES_2D or prompts.KINDS_3D
    "mask_choice": "string",  # designs.MASK_CHOICES_2D or MASK_CHOICES_3D
    "frame_choice": "string",  # 3D only
    "direction": "string",  # 3D only
    "mask_scope": "string",  # 3D only: designs.MASK_SCOPES, where the mask choice applies
    "protocol": "string",  # "corrected" or "released"
    "slice_index": "Int64",
    "prompted_slices": "string",  # 3D only: ascending, joined by ";"
    "distance_slices": "Int64",  # 3D only: to the nearest prompted slice, negative before it
    "distance_mm": "Float64",
    "n_slices": "Int64",  # of the volume
    "spacing_z_mm": "Float64",
    "n_components": "Int64",  # of the object on this slice
    "neighbour_iou": "Float64",  # 3D only: of the truth here with that on the next slice towards the prompt
    "truth_px": "Int64",  # size of the object on this slice (voxels in the volume for volume metrics)
    "predicted_px": "Int64",  # size of the predicted mask on this slice
    "metric": "string",
    "value": "Float64",
    "score": "Float64",  # the model's own estimate of the IoU
    "backend": "string",  # library, version and options behind a value, where it is not this package
    "run_key": "string",
}
# What tells rows apart; the rest of the columns describe or measure.
KEY_COLUMNS = [
    *("task", "data_set", "modality", "case_id", "object", "model", "prompt", "mask_choice", "frame_choice"),
    *("direction", "mask_scope", "protocol", "slice_index", "prompted_slices", "metric", "run_key"),
]


@dataclass(frozen=True)
class RunKey:
    """Everything that determines the rows of one unit of work.

    Attributes
    ----------
    task : str
    data_set, case_id : str
    data_sha256 : str
        Of voxels, grid and object definitions (`Case.sha256`).
    model, checkpoint_sha256 : str
    device, dtype : str
        Type of device ("cpu", "cuda") and arithmetic ("float32", "bfloat16").
    seed : int
        Of the study.
    parameters : str
        JSON of the task's own parameters, keys sorted.
    code_sha256 : str
        Of the package's modules.
    packages : str
        JSON of the versions of the packages that compute values, keys sorted.
    """

    task: str
    data_set: str
    case_id: str
    data_sha256: str
    model: str
    checkpoint_sha256: str
    device: str
    dtype: str
    seed: int
    parameters: str
    code_sha256: str
    packages: str

    @property
    def digest(self) -> str:
        """A short name of the key: the first 20 digits of its SHA-256."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]


def as_table(rows: list[Mapping] | pd.DataFrame) -> pd.DataFrame:
    """Return rows as a table with the columns and types of `COLUMNS`, missing ones empty."""
    table = pd.DataFrame(rows)
    unknown = sorted(set(table.columns) - set(COLUMNS))
    if unknown:
        raise InputError(
            "results table", f"unknown columns {', '.join(unknown)}.", f"Known: {', '.join(COLUMNS)}."
        )
    return table.reindex(columns=list(COLUMNS)).astype(COLUMNS)


def sort_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table in its canonical order, which does not depend on the order of the work."""
    return table.sort_values(KEY_COLUMNS, kind="stable", na_position="last").reset_index(drop=True)


def unfinished(folder: Path) -> Path:
    """Return an unused name in a folder, for what moves to its place when it is whole.

    Unlike the files of `tempfile`, what is made there gets the usual permissions: colleagues who share
    a folder can read each other's results.
    """
    return folder / f".partial-{secrets.token_hex(8)}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader or a killed run sees either nothing or all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path.parent)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class Store:
    """The finished units of work of one study, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def _rows_path(self, key: RunKey) -> Path:
        return self.folder / f"{key.digest}.parquet"

    def has(self, key: RunKey) -> bool:
        """Whether this unit of work is finished."""
        return self._rows_path(key).exists() and self._rows_path(key).with_suffix(".json").exists()

    def write(self, key: RunKey, rows: list[Mapping], provenance: Mapping) -> None:
        """Store the rows of a finished unit; the record goes first, so rows never lack one."""
        table = as_table(rows).assign(run_key=key.digest).astype({"run_key": "string"})
        record = json.dumps({"key": asdict(key), "provenance": dict(provenance)}, indent=1, sort_keys=True)
        write_atomically(self._rows_path(key).with_suffix(".json"), record.encode())
        write_atomically(self._rows_path(key), sort_table(table).to_parquet(index=False))

    def read(self, keys: list[RunKey]) -> pd.DataFrame:
        """Return the rows of the given units as one table in canonical order.

        Raises
        ------
        InputError
            If a file is damaged; it says which, and that deleting it makes the next run redo it.
        """
        tables = []
        for path in map(self._rows_path, keys):
            try:
                tables.append(pd.read_parquet(path))
            except Exception as error:
                raise InputError(
                    path, f"cannot be read ({error}).", "Delete it; the next run computes it again."
                ) from error
        return sort_table(as_table(pd.concat(tables, ignore_index=True))) if tables else as_table([])

    def records(self, keys: list[RunKey]) -> list[dict]:
        """Return key and provenance of the given units."""
        return [
            json.loads(self._rows_path(key).with_suffix(".json").read_text(encoding="utf-8")) for key in keys
        ]
