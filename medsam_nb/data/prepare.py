"""From downloads to prepared cases: verified, in display order, each in a folder of its own.

A case is written whole or not at all. Preparing again does only what is missing or has changed; a
bad case is recorded in the table and skipped.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from medsam_nb.data import formats, mosaics, patients, quality
from medsam_nb.data.fetch import fetch
from medsam_nb.data.layouts.readers import find_cases, read_case
from medsam_nb.data.locks import locked
from medsam_nb.data.sources import RawCase, Source, require_component
from medsam_nb.data.workers import ProcessKilled, run_each
from medsam_nb.errors import InputError, StudyError, WorkbookError
from medsam_nb.files import remove_made, unfinished, write_atomically
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol import intensity
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.volume import Case, Volume, canonical, reoriented
from medsam_nb.provenance import PREPARED_CASES, READING_PACKAGES, code_sha256, package_versions

# What decides a prepared case besides its files; the rest of a row may be edited freely.
DECIDING_FIELDS = {
    "name", "modality", "dimension", "objects", "ignored_labels", "slice_axis", "intensity",
    "mask_threshold", "mask_geometry", "may_be_empty", "colour",
}  # fmt: skip
MANY_LABELS = 40  # more that no row names are rather the grey levels of an image
COLOURS = "colours.nii.gz"
STALE_SECONDS = 3600  # a half-written folder of this age belongs to nobody any more
CASE_FILES = ("image.nii.gz", "labels.nii.gz", COLOURS, "mosaic.png", "case.json")
CASE_COLUMNS = [
    "data_set", "case_id", "patient_id", "modality", "accuracy", "status", "error", "shape", "n_slices",
    "labelled_slices", "spacing_mm", "orientation", "objects", "warnings", "data_sha256", "files_sha256",
]  # fmt: skip
COLUMN_TYPES = dict.fromkeys(CASE_COLUMNS, "string") | {
    "accuracy": "bool", "n_slices": "Int64", "labelled_slices": "Int64"
}  # fmt: skip


class NoObject(InputError):
    """A case of a data set in which cases without an object belong; it is not a failure."""


def build_case(row: DataSet, case_id: str, raw: RawCase, patient_id: str = "") -> Case:
    """Return a case in display order, checked against its row; without a patient it is its own.

    Raises
    ------
    InputError
        If a label is not named by the row, no object is there (`NoObject` where the row allows it),
        or the dimension is another.
    """
    present = [int(v) for v in np.unique(raw.labels.array) if v]
    if not present and row.may_be_empty:
        raise NoObject(case_id, "no object in this case.", "It is left out, as in the study.")
    known = {value for values in raw.objects.values() for value in values}
    unnamed = [value for value in present if value not in known and value not in row.ignored_labels]
    if unnamed:
        counts = ", ".join(f"{v} ({int((raw.labels.array == v).sum())} voxels)" for v in unnamed[:8])
        raise InputError(
            case_id,
            f"the mask has labels that the manifest row {row.name} does not name: {counts}.",
            "Add them to `objects`, or to `ignored_labels`."
            + (f" {formats.SWAPPED}" if len(unnamed) > MANY_LABELS else ""),
        )
    few = _few_values(raw.image.array, len(known) + 1)
    if few:
        raise InputError(
            case_id,
            f"the image holds only the values {', '.join(f'{value:g}' for value in few)}, like a mask.",
            "Look whether image and mask have changed places.",
        )
    objects = {name: values for name, values in raw.objects.items() if set(values) & set(present)}
    if present and not objects:
        raise InputError(case_id, "the mask holds none of the row's objects.", "Remove the case.")
    image = canonical(raw.image, row.slice_axis)
    labels, colours = raw.labels, raw.colours
    if image.orientation != raw.image.orientation:
        labels = reoriented(labels, image.orientation)
        colours = reoriented(colours, image.orientation) if colours else None
    depth = image.array.shape[0]
    if (depth == 1) != (row.dimension == 2):
        raise InputError(
            case_id,
            f"has {depth} slice(s), but the manifest row {row.name} says dimension {row.dimension}.",
            "Correct `dimension` or `slice_axis` in the row.",
        )
    return Case(
        row.name,
        case_id,
        row.modality,
        Volume(np.ascontiguousarray(image.array, np.float32), image.affine),
        np.ascontiguousarray(formats.as_labels(labels, case_id).array),  # one number type, one hash
        objects,
        row.intensity,
        patient_id,
        None if colours is None else np.ascontiguousarray(colours.array),
    )


def _few_values(array: np.ndarray, most: int) -> list[float]:
    """Return the values of an array that holds 2 to `most` different ones, else nothing."""
    found = np.unique(array.ravel()[:: max(1, array.size // 4096)])  # most images are told by a few voxels
    if len(found) <= most:
        found = np.unique(array)
    return found.tolist() if 2 <= len(found) <= most else []


def _fingerprint(row: DataSet, case_id: str, source: Source | None) -> str:
    """Hash of all that decides a case: row, code, and its files by name, size and time."""
    parts: list = [row.model_dump(mode="json", include=DECIDING_FIELDS), case_id]
    parts += [code_sha256(*PREPARED_CASES), package_versions(READING_PACKAGES)]
    if source is None:
        parts.append(row.layout.model_dump(mode="json"))
    else:
        files = [path for path in source.files() if path.exists()]
        parts.append([source.rule, source.names, getattr(row.layout, "frame", None)])
        parts.append([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _files_sha256(source: Source | None) -> str:
    """Hash of the bytes of a case's files, or "" for an embedded one."""
    if source is None:
        return ""
    digest = hashlib.sha256()
    for path in source.files():
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _line(row: DataSet, case_id: str) -> dict:
    return {"data_set": row.name, "case_id": case_id, "modality": row.modality, "accuracy": row.accuracy}


def _prepare_one(
    row: DataSet, case_id: str, source: Source | None, folder: Path, table: Mapping[str, str] | None
) -> dict:
    """Prepare one case unless it is there already; return its line of the table.

    A prepared case of which only the patient has become another is not made again.
    """
    line = _line(row, case_id)
    try:
        require_component(case_id, "case name")
        line["patient_id"] = patient_id = patients.patient_of(row, case_id, source, table)
        fingerprint = _fingerprint(row, case_id, source)
        done = _read_record(folder / case_id)
        seen = (folder / case_id / "mosaic.png").exists()
        if done is None or not seen or done["fingerprint"] != fingerprint:
            raw = read_case(row, case_id, source)
            case = build_case(row, case_id, raw, patient_id)
            done = _record(case, raw, source, fingerprint)
            _write_case(folder, case, done)
        elif done.get("patient_id") != patient_id:
            done["patient_id"] = patient_id
            write_atomically(folder / case_id / "case.json", json.dumps(done, indent=1).encode())
        return line | {"status": "ok", "error": ""} | done["line"]
    except WorkbookError as error:
        reason, status = str(error), "no_object" if isinstance(error, NoObject) else "failed"
    except Exception as error:  # a case must not stop the others, whatever is wrong with it
        words = " ".join(str(error).split())[:200]
        reason, status = f"{case_id}: cannot be prepared ({type(error).__name__}: {words}).", "failed"
    with suppress(ValueError, OSError):  # an older state must not pass for this one; the table leaves it out
        remove_made(folder / case_id, folder, CASE_FILES)
    return line | {"status": status, "error": reason}


def _record(case: Case, raw: RawCase, source: Source | None, fingerprint: str) -> dict:
    """Return what is written beside the images: provenance, geometry and facts."""
    facts = [quality.object_facts(name, case.mask(name)) for name in case.objects]
    low, high = intensity.limits(case.image.array, case.intensity, case.case_id)
    digest = case.sha256()
    placed = source is None or formats.suffix_of(source.image) not in formats.PICTURES  # in space, in mm
    return {
        "data_set": case.data_set,
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "modality": case.modality,
        "coloured": case.colours is not None,
        "objects": {name: list(values) for name, values in case.objects.items()},
        "intensity": asdict(case.intensity) | {"black": low, "white": high},
        "affine_zyx_to_ras_mm": case.image.affine.tolist(),
        "source": {
            "files": [path.name for path in source.files()] if source else [],
            "shape": list(raw.image.array.shape),
            "affine_zyx_to_ras_mm": raw.image.affine.tolist(),
            "orientation": raw.image.orientation[::-1],  # as (x, y, z), the usual way
        },
        "data_sha256": digest,
        "fingerprint": fingerprint,
        "line": {
            "shape": " x ".join(map(str, case.labels.shape)),
            "n_slices": case.labels.shape[0],
            "labelled_slices": int((case.labels > 0).any(axis=(1, 2)).sum()),
            "spacing_mm": " x ".join(f"{s:.4g}" for s in case.image.spacing_mm) if placed else "",
            "orientation": raw.image.orientation[::-1] if placed else "",  # as (x, y, z), the usual way
            "objects": json.dumps([asdict(fact) for fact in facts]),
            "warnings": "; ".join([*raw.remarks, *quality.case_warnings(case, facts)]),
            "data_sha256": digest,
            "files_sha256": _files_sha256(source),
        },
    }


def _write_case(folder: Path, case: Case, record: dict) -> None:
    """Write a case's folder beside its place and move it there when it is whole."""
    target = folder / case.case_id
    partial = unfinished(folder)
    try:
        partial.mkdir()
        formats.write_nifti(partial / "image.nii.gz", case.image)
        formats.write_nifti(partial / "labels.nii.gz", Volume(case.labels, case.image.affine))
        if case.colours is not None:
            formats.write_nifti(partial / COLOURS, Volume(case.colours, case.image.affine))
        write_atomically(partial / "mosaic.png", mosaics.mosaic_png(case))
        write_atomically(partial / "case.json", json.dumps(record, indent=1).encode())
        remove_made(target, folder, CASE_FILES)
        os.replace(partial, target)
    except ValueError as error:
        raise InputError(target, f"{error}.", "Move it away.") from error
    except OSError as error:
        raise InputError(
            target, f"cannot be written ({error.strerror}).", "Free space or choose another folder."
        ) from error
    finally:
        remove_made(partial, folder, CASE_FILES)


def _read_record(folder: Path) -> dict | None:
    """Return the record of a prepared case, or None where it is missing or damaged."""
    try:
        record = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        needed = ["image.nii.gz", "labels.nii.gz", *([COLOURS] if record.get("coloured") else [])]
        return record if all((folder / name).exists() for name in needed) else None
    except (OSError, ValueError):
        return None


def load_case(folder: Path) -> Case:
    """Read a prepared case.

    Raises
    ------
    InputError
        If a file is missing, damaged, or no longer what was prepared.
    """
    folder = Path(folder)
    record = _read_record(folder)
    if record is None:
        raise InputError(folder, "is no prepared case.", "Prepare the data set again.")
    affine = np.array(record["affine_zyx_to_ras_mm"])  # exact; the image file rounds it to 32 bits
    image = formats.read_volume(folder / "image.nii.gz").array.astype(np.float32)
    labels = formats.as_labels(formats.read_volume(folder / "labels.nii.gz", labels=True), folder).array
    colours = None
    if record.get("coloured"):
        colours = formats.read_volume(folder / COLOURS, colour=True).array
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
        raise InputError(folder, "has changed since it was prepared.", "Delete it and prepare it again.")
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
    record = _read_record(Path(folder))
    if record is None:
        raise InputError(folder, "is no prepared case.", "Prepare the data set again.")
    volume = Volume(labels, np.array(record["affine_zyx_to_ras_mm"]))
    source = record["source"]
    formats.write_on_source_grid(
        path, volume, tuple(source["shape"]), np.array(source["affine_zyx_to_ras_mm"])
    )


def case_folders(prepared_root: Path, data_set: str) -> list[Path]:
    """Return the folders of the cases that the last preparation of a data set found usable, sorted by name.

    What else lies there, of cases that were renamed or removed since, is no longer measured.
    """
    folder = Path(prepared_root) / data_set
    try:
        table = pd.read_parquet(folder / "cases.parquet", columns=["case_id", "status"])
    except FileNotFoundError:
        return []
    except Exception as error:
        raise InputError(
            folder / "cases.parquet", f"cannot be read ({error}).", "Prepare the data set again."
        ) from error
    return sorted(folder / name for name in table.loc[table["status"] == "ok", "case_id"])


def prepare(
    data_set: DataSet, raw_root: Path, prepared_root: Path, *, workers: int = 1, progress: bool = True
) -> pd.DataFrame:
    """Prepare all cases of a data set.

    Parameters
    ----------
    data_set : DataSet
    raw_root : Path
        Holds the downloads, a folder per data set.
    prepared_root : Path
        Gets `<data set>/<case>/{image.nii.gz, labels.nii.gz, case.json, mosaic.png}` (and `colours.nii.gz`,
        RGB, of an image that is shown in colour) and `<data set>/cases.parquet`.
    workers : int
        Processes.
    progress : bool
        Whether to show a bar on standard error.

    Returns
    -------
    DataFrame
        One line per case, columns `CASE_COLUMNS`; `objects` is JSON, see `object_table`.

    Raises
    ------
    InputError
        If the download is not there, the target cannot be written, or the table of patients is wrong. A bad
        case does not raise:
        its `status` is "failed" and `error` says why ("no_object" for a healthy patient of a data set
        that has some).
    """
    cases = find_cases(data_set, raw_root)
    folder = Path(prepared_root) / data_set.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".partial-*"):
            if time.time() - stale.stat().st_mtime > STALE_SECONDS:
                with suppress(ValueError, OSError):
                    remove_made(stale, folder, CASE_FILES)
        named = patients.patient_table(data_set, raw_root)
        jobs = [(data_set, case_id, source, folder, named) for case_id, source in cases.items()]
        with locked(folder / ".lock", f"prepare {data_set.name}", wait=True):  # another study may do so too
            done = _run(jobs, workers)
            lines = list(tqdm(done, total=len(jobs), desc=f"prepare {data_set.name}", disable=not progress))
            table = case_table(lines).sort_values("case_id", ignore_index=True)
            write_atomically(folder / "cases.parquet", table.to_parquet(index=False))
    except OSError as error:
        raise InputError(
            folder, f"cannot be written ({error.strerror or error}).", "Free space or choose another folder."
        ) from error
    return table


def _job(job: tuple) -> dict:
    return _prepare_one(*job)


def _run(jobs: list[tuple], workers: int) -> Iterator[dict]:
    """Yield the lines of the table as cases are finished."""
    if workers <= 1 or len(jobs) <= 1:
        yield from map(_job, jobs)
        return
    for (row, case_id, *_), done in run_each(_job, jobs, min(workers, len(jobs))):
        try:
            yield done.result()
        except ProcessKilled:
            line = {
                "data_set": row.name,
                "case_id": case_id,
                "modality": row.modality,
                "accuracy": row.accuracy,
            }
            reason = f"{case_id}: its process was ended, for lack of memory or by a crash of a decoder."
            yield line | {"status": "failed", "error": f"{reason} Look at its files, or give more memory."}


def case_table(lines: Sequence[dict]) -> pd.DataFrame:
    """Return lines as a case table: columns `CASE_COLUMNS`, empty text where a line has none."""
    table = pd.DataFrame(lines).reindex(columns=CASE_COLUMNS).astype(COLUMN_TYPES)
    texts = [column for column, kind in COLUMN_TYPES.items() if kind == "string"]
    table[texts] = table[texts].fillna("")
    return table


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
        See `prepare`.
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


def require_cases(cases: pd.DataFrame) -> None:
    """Raise StudyError with the first reasons if no case of a case table can be used."""
    if (cases["status"] == "ok").any():
        return
    reasons = cases.loc[cases["status"] == "failed", "error"].head(3)
    raise StudyError(
        "data", f"none of {len(cases)} cases can be used: {' | '.join(reasons)}", "Mend the files or the row."
    )
