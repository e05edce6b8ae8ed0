"""The finished units of work: rows written unit by unit under a key of everything that decides them.

The rows of a unit are one Parquet file named by its key's digest, written atomically, with the whole key and
the provenance in a JSON file beside it. A study that is started again finds what is there and computes the
rest.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from medsam_nb.errors import InputError
from medsam_nb.files import write_atomically
from medsam_nb.protocol.table import RunKey, as_table, sort_table


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

        Whose images they are is what the keys say now, whatever it was when the rows were computed.

        Raises
        ------
        InputError
            If a file is damaged; it says which, and that deleting it makes the next run redo it.
        """
        tables = []
        for key in keys:
            path = self._rows_path(key)
            try:
                tables.append(pd.read_parquet(path).assign(patient_id=key.patient_id or key.case_id))
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
