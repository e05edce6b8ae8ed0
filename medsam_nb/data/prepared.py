"""Prepared cases as they lie on disk: a folder each, a table of all, read back only if nothing changed."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medsam_nb.data import formats
from medsam_nb.data.names import require_component
from medsam_nb.errors import InputError
from medsam_nb.files import read_json, remove_made, unfinished, write_atomically
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.volume import Case, Volume

IMAGE, LABELS, COLOURS = "image.nii.gz", "labels.nii.gz", "colours.nii.gz"
MOSAIC, RECORD = "mosaic.png", "case.json"
CASE_FILES = (IMAGE, LABELS, COLOURS, MOSAIC, RECORD)
TABLE = "cases.parquet"
CASE_COLUMNS = [
    "data_set", "case_id", "patient_id", "modality", "accuracy", "status", "error", "shape", "n_slices",
    "labelled_slices", "spacing_mm", "orientation", "plane", "objects", "warnings", "doubts",
    "data_set_notes", "data_sha256", "files_sha256", "image_sha256", "labels_sha256",
]  # fmt: skip
COLUMN_TYPES = dict.fromkeys(CASE_COLUMNS, "string") | {
    "accuracy": "bool", "n_slices": "Int64", "labelled_slices": "Int64"
}  # fmt: skip
RECORD_FIELDS = {
    "data_set", "case_id", "modality", "objects", "intensity", "affine_zyx_to_ras_mm", "source",
    "data_sha256", "fingerprint", "files", "line",
}  # fmt: skip


def write_case(folder: Path, case: Case, record: dict, mosaic: bytes) -> None:
    """Write a case's folder beside its place and move it there when it is whole.

    Parameters
    ----------
    folder : Path
        Of the data set.
    case : Case
    record : dict
        What is written as `case.json`; it gets the hashes of the files under "files".
    mosaic : bytes
        A PNG file.

    Raises
    ------
    InputError
        If the disk is full or read-only, or something that is not ours lies in the case's place.
    """
    target = folder / case.case_id
    partial = unfinished(folder)
    try:
        partial.mkdir()
        formats.write_nifti(partial / IMAGE, case.image)
        formats.write_nifti(partial / LABELS, Volume(case.labels, case.image.affine))
        if case.colours is not None:
            formats.write_nifti(partial / COLOURS, Volume(case.colours, case.image.affine))
        record["files"] = {path.name: _file_sha256(path) for path in sorted(partial.iterdir())}
        write_atomically(partial / MOSAIC, mosaic)
        write_record(partial, record)
        remove_made(target, folder, CASE_FILES)
        os.replace(partial, target)
    except ValueError as error:
        raise InputError(target, f"{error}.", "Move it away.") from error
    except OSError as error:
        raise InputError(
            target, f"cannot be written ({error.strerror}).", "Free space or choose another folder."
        ) from error
    finally:
        remove_made(partial, folder)


def write_record(folder: Path, record: dict) -> None:
    """Write the record of a prepared case into its folder."""
    write_atomically(folder / RECORD, json.dumps(record, indent=1).encode())


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_record(folder: Path) -> dict | None:
    """Return the record of a prepared case, or None where it is missing, damaged, or of another case."""
    try:
        record = read_json(folder / RECORD)
    except InputError:
        return None
    if not set(record) >= RECORD_FIELDS or not isinstance(record["line"], dict):
        return None
    needed = (IMAGE, LABELS, COLOURS) if record.get("coloured") else (IMAGE, LABELS)
    if not all((folder / name).exists() for name in needed):
        return None
    return record if record["case_id"] == folder.name else None


def is_unchanged(folder: Path, record: dict) -> bool:
    """Whether the files of a prepared case are, byte by byte, those that its record was written with."""
    try:
        same = all(_file_sha256(folder / name) == digest for name, digest in record["files"].items())
        return same and (folder / MOSAIC).exists()
    except (OSError, AttributeError):
        return False


def load_case(folder: Path) -> Case:
    """Read a prepared case.

    Raises
    ------
    InputError
        If a file is missing, damaged, or no longer what was prepared.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is None:
        raise InputError(folder, "is no prepared case.", "Prepare the data set again.")
    affine = np.array(record["affine_zyx_to_ras_mm"])  # exact; the image file rounds it to 32 bits
    image = formats.read_volume(folder / IMAGE, checked=False).array.astype(np.float32)
    labels = formats.as_labels(formats.read_volume(folder / LABELS, labels=True, checked=False), folder).array
    colours = None
    if record.get("coloured"):
        colours = formats.read_volume(folder / COLOURS, colour=True, checked=False).array
    settings = {key: record["intensity"][key] for key in ("policy", "low", "high")}
    case = Case(
        record["data_set"],
        record["case_id"],
        record["modality"],
        Volume(image, affine),
        labels,
        {name: tuple(values) for name, values in record["objects"].items()},
        Intensity(**settings),
        record.get("patient_id", ""),
        colours,
    )
    if case.sha256() != record["data_sha256"]:
        raise InputError(folder, "has changed since it was prepared.", "Prepare the data set again.")
    return case


def write_result(path: Path, labels: np.ndarray, folder: Path) -> None:
    """Write a label map of a prepared case on the grid of the file its image came from.

    Parameters
    ----------
    path : Path
        Ends in ".nii.gz".
    labels : ndarray of integer, shape (z, y, x)
        In the prepared case's order.
    folder : Path
        Of the prepared case.
    """
    record = read_record(Path(folder))
    if record is None:
        raise InputError(folder, "is no prepared case.", "Prepare the data set again.")
    volume = Volume(labels, np.array(record["affine_zyx_to_ras_mm"]))
    source = record["source"]
    formats.write_on_source_grid(
        path, volume, tuple(source["shape"]), np.array(source["affine_zyx_to_ras_mm"])
    )


def case_table(lines: Sequence[dict]) -> pd.DataFrame:
    """Return lines as a case table: columns `CASE_COLUMNS`, empty text where a line has none."""
    table = pd.DataFrame(lines).reindex(columns=CASE_COLUMNS).astype(COLUMN_TYPES)
    texts = [column for column, kind in COLUMN_TYPES.items() if kind == "string"]
    table[texts] = table[texts].fillna("")
    return table


def write_table(folder: Path, table: pd.DataFrame) -> None:
    """Write the case table of a data set into its folder: what counts as prepared from now on."""
    write_atomically(folder / TABLE, table.to_parquet(index=False))


def prepared_cases(prepared_root: Path, data_set: str) -> pd.DataFrame:
    """Return the usable cases of a data set's last preparation, as lines of its case table.

    What else lies there, of cases that were renamed or removed since or came from another raw folder, does
    not count.

    Raises
    ------
    InputError
        If the table is damaged.
    """
    path = Path(prepared_root) / data_set / TABLE
    try:
        table = pd.read_parquet(path)
        usable = case_table(table[table["status"] == "ok"].to_dict("records"))
        for name in usable["case_id"]:
            require_component(name, "case name")
    except FileNotFoundError:
        return case_table([])
    except Exception as error:
        raise InputError(path, f"cannot be read ({error}).", "Prepare the data set again.") from error
    return usable


def case_folders(prepared_root: Path, data_set: str) -> list[Path]:
    """Return the folders of a data set's prepared cases, sorted by name; see `prepared_cases`."""
    folder = Path(prepared_root) / data_set
    return sorted(folder / name for name in prepared_cases(prepared_root, data_set)["case_id"])


def object_table(cases: pd.DataFrame) -> pd.DataFrame:
    """Return one line per object of every prepared case: voxels, components, first and last slice."""
    lines = [
        {"data_set": line.data_set, "case_id": line.case_id}
        | {("object" if k == "name" else k): v for k, v in fact.items()}
        for line in cases[cases.status == "ok"].itertuples()
        for fact in json.loads(line.objects)
    ]
    columns = [
        "data_set",
        "case_id",
        "object",
        "voxels",
        "components",
        "first_slice",
        "last_slice",
        "largest_area",
    ]
    return pd.DataFrame(lines, columns=columns)
