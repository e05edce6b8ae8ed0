"""The finished units of work: rows written unit by unit under a key of everything that decides them.

The rows of a unit are one Parquet file named by its key's digest. A JSON file beside it holds the whole key,
the provenance, and size and SHA-256 of the Parquet file, so that rows which were edited, cut or exchanged are
noticed. Both are written atomically. A study that is started again finds what is there and computes the rest.
"""

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pandas as pd

from medsam_nb.errors import InputError
from medsam_nb.files import read_json, write_atomically
from medsam_nb.protocol.table import COLUMNS, RunKey, as_table, sort_table

REMEDY = "Run again: it is computed anew."


class Store:
    """The finished units of work of one study, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def _rows_path(self, key: RunKey) -> Path:
        return self.folder / f"{key.digest}.parquet"

    def _record_path(self, key: RunKey) -> Path:
        return self.folder / f"{key.digest}.json"

    def _record(self, key: RunKey) -> dict:
        """Return what stands beside a unit's rows; InputError if it is not of this key, or not whole."""
        path = self._record_path(key)
        record = read_json(path)
        if record.get("key") != key.determining:
            raise InputError(path, "is the record of another unit of work.", REMEDY)
        rows = record.get("rows")
        of_rows = isinstance(rows, dict) and isinstance(rows.get("bytes"), int) and "sha256" in rows
        if not of_rows or not isinstance(record.get("provenance"), dict):
            raise InputError(path, "says nothing of the rows, or of where they come from.", REMEDY)
        return record

    def _table(self, key: RunKey) -> pd.DataFrame:
        """Return a unit's rows; InputError unless they are those that were written for this key."""
        path, record = self._rows_path(key), self._record(key)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(path, f"cannot be read ({error.strerror or error}).", REMEDY) from error
        if sha256(data).hexdigest() != record["rows"]["sha256"]:
            raise InputError(path, "is not as it was written (its SHA-256 is another).", REMEDY)
        try:
            table = pd.read_parquet(io.BytesIO(data))
        except Exception as error:  # of any kind, as damage is
            raise InputError(path, f"cannot be read ({error}).", REMEDY) from error
        if list(table.columns) != list(COLUMNS) or not table["run_key"].eq(key.digest).all():
            raise InputError(path, "has not the columns or the key of this unit of work.", REMEDY)
        return table

    def has(self, key: RunKey) -> bool:
        """Whether a unit's record and as many bytes of rows are there; `damage` and `read` see each byte."""
        try:
            return self._record(key)["rows"]["bytes"] == self._rows_path(key).stat().st_size
        except (InputError, OSError):
            return False

    def damage(self, key: RunKey) -> InputError | None:
        """Return what is wrong with the rows of a unit; None if nothing is, or there are none.

        A record without rows is what a run leaves that was stopped between the two: no damage.
        """
        if not self._rows_path(key).exists():
            return None
        try:
            self._table(key)
        except InputError as error:
            return error
        return None

    def forget(self, key: RunKey) -> None:
        """Remove what there is of a unit, as far as that is possible."""
        for path in (self._rows_path(key), self._record_path(key)):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def write(self, key: RunKey, rows: list[Mapping] | pd.DataFrame, provenance: Mapping) -> None:
        """Store the rows of a finished unit; the record goes first, so rows never lack one."""
        table = as_table(rows).assign(run_key=key.digest).astype({"run_key": "string"})
        data = sort_table(table).to_parquet(index=False)
        of_rows = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
        record = {"key": key.determining, "provenance": dict(provenance), "rows": of_rows}
        text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
        write_atomically(self._record_path(key), text.encode())
        write_atomically(self._rows_path(key), data)

    def read(self, keys: list[RunKey]) -> pd.DataFrame:
        """Return the rows of the given units as one table in canonical order.

        Whose images they are is what the keys say now, whatever it was when the rows were computed.

        Raises
        ------
        InputError
            If rows are not those that were written for their key; it names the file.
        """
        tables = [self._table(key).assign(patient_id=key.patient_id or key.case_id) for key in keys]
        return sort_table(as_table(pd.concat(tables, ignore_index=True))) if tables else as_table([])

    def records(self, keys: list[RunKey]) -> list[dict]:
        """Return key and provenance of the given units, and size and SHA-256 of their rows."""
        return [self._record(key) for key in keys]
