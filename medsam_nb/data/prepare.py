"""From downloads to prepared cases: verified, in display order, each in a folder of its own.

A case is written whole or not at all. Preparing again does only what is missing or has changed; a
bad case is recorded in the table and skipped.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from medsam_nb.data import patients
from medsam_nb.data.build import done_case, line_of, prepare_case, remove_case
from medsam_nb.data.chosen_cases import chosen_cases
from medsam_nb.data.fetch import fetch
from medsam_nb.data.layouts.readers import find_cases, notes
from medsam_nb.data.locks import locked
from medsam_nb.data.prepared import TABLE, case_table, write_table
from medsam_nb.data.workers import ProcessKilled, run_each
from medsam_nb.errors import InputError, StudyError, WorkbookError
from medsam_nb.files import PARTIAL, remove_made
from medsam_nb.manifest.rows import DataSet

STALE_SECONDS = 3600  # a half-written folder of this age belongs to nobody any more
SHOWN = 3  # reasons in a message


def prepare(
    data_set: DataSet, raw_root: Path, prepared_root: Path, *, workers: int = 0, progress: bool = True
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
        Processes; a decoder that crashes costs its case only. 0 prepares here.
    progress : bool
        Whether to show a bar on standard error.

    Returns
    -------
    DataFrame
        One line per case, columns `CASE_COLUMNS`; `objects` is JSON, see `object_table`; `doubts` is JSON,
        see `quality.plausibility`.

    Raises
    ------
    InputError
        If the download is not there, the target cannot be written, or the table of patients is wrong. A bad
        case does not raise:
        its `status` is "failed" and `error` says why ("no_object" for a healthy patient of a data set
        that has some).
    """
    (found,) = _prepare_rows([data_set], raw_root, prepared_root, workers, progress).values()
    if isinstance(found, Exception):
        raise found
    return found


def prepare_data_sets(
    data_sets: Sequence[DataSet],
    raw_dir: Path,
    prepared_dir: Path,
    *,
    workers: int = 0,
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
        with an empty `case_id`, status "failed" and the reason; it has no prepared cases any more.
    """
    found = _prepare_rows(data_sets, raw_dir, prepared_dir, workers, True, download)
    tables = [
        _failed_set(row, found[row.name]) if isinstance(found[row.name], Exception) else found[row.name]
        for row in data_sets
    ]
    return pd.concat(tables, ignore_index=True)


def _failed_set(row: DataSet, error: Exception) -> pd.DataFrame:
    """Return the table of a data set that could not be prepared at all."""
    return case_table([line_of(row, "") | {"status": "failed", "error": str(error)}])


def _prepare_rows(
    rows: Sequence[DataSet],
    raw_root: Path,
    prepared_root: Path,
    workers: int,
    progress: bool,
    download: bool = False,
) -> dict[str, pd.DataFrame | Exception]:
    """Return the case table of each data set by name, or why it could not be prepared.

    All cases of all data sets are shared among the workers; each folder is locked meanwhile, as another study
    may prepare the same data.
    """
    found: dict[str, pd.DataFrame | Exception] = {}
    jobs, lines, said = [], [], {}
    with ExitStack() as held:
        for row in sorted({row.name: row for row in rows}.values(), key=lambda row: row.name):
            folder = Path(prepared_root) / row.name
            try:
                if download and row.files:
                    fetch(row, raw_root)
                found_cases = find_cases(row, raw_root)
                cases = chosen_cases(row, found_cases)
                said[row.name] = notes(row, raw_root, found_cases)
                named = patients.patient_table(row, raw_root)
                _open(folder)
                held.enter_context(locked(folder / ".lock", f"prepare {row.name}", wait=True))
                for case_id, source in cases.items():
                    try:
                        patient = patients.patient_of(row, case_id, source, named)
                        jobs.append((row, case_id, source, folder, patient))
                    except WorkbookError as error:
                        remove_case(folder, case_id)
                        lines.append(line_of(row, case_id) | {"status": "failed", "error": str(error)})
            except Exception as error:
                found[row.name] = _as_input_error(row, folder, error)
                if (folder / TABLE).exists():  # what was prepared before is not what there is now
                    with suppress(OSError):
                        write_table(folder, _failed_set(row, found[row.name]))
        desc = "prepare" if len(rows) > 1 else f"prepare {rows[0].name}"
        lines += tqdm(_run(jobs, workers), total=len(jobs), desc=desc, disable=not progress)
        for row in rows:
            if row.name in found:
                continue
            folder = Path(prepared_root) / row.name
            own = _in_one_plane(row, folder, [line for line in lines if line["data_set"] == row.name])
            said_of_all = "; ".join(filter(None, [said[row.name], _missing_objects(row, own)]))
            table = case_table([line | {"data_set_notes": said_of_all} for line in own])
            table = table.sort_values("case_id", ignore_index=True)
            try:
                write_table(folder, table)
                found[row.name] = table
            except OSError as error:
                found[row.name] = _as_input_error(row, folder, error)
    return found


def _missing_objects(row: DataSet, lines: list[dict]) -> str:
    """Return in words which objects of the row no case holds; nothing where no case could be read."""
    found = [{fact["name"] for fact in json.loads(line["objects"])} for line in lines if "objects" in line]
    missing = [name for name in row.objects if found and name not in set.union(*found)]
    return f"no case holds {', '.join(missing)}" if missing else ""


def _open(folder: Path) -> None:
    """Make the folder of a data set, and remove what killed runs left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"{PARTIAL}*"):
        if time.time() - stale.stat().st_mtime > STALE_SECONDS:
            with suppress(ValueError, OSError):
                remove_made(stale, folder)


def _as_input_error(row: DataSet, folder: Path, error: Exception) -> Exception:
    """Return what kept a data set from being prepared, with what to do about it."""
    if isinstance(error, WorkbookError):
        return error
    if isinstance(error, OSError):
        problem = f"cannot be written ({error.strerror or error})."
        if error.filename and not Path(error.filename).is_relative_to(folder.parent):
            return InputError(error.filename, f"cannot be read ({error.strerror}).", "Look at its rights.")
        return InputError(folder, problem, "Free space or choose another folder.")
    problem = f"cannot be prepared ({type(error).__name__}: {' '.join(str(error).split())[:200]})."
    return InputError(row.name, problem, "Look at its files.")


def _in_one_plane(row: DataSet, folder: Path, lines: list[dict]) -> list[dict]:
    """Return lines in which no case is cut in another plane than most of its data set.

    Slices of several planes are different pictures; which one is meant, the row must say.
    """
    planes = Counter(line["plane"] for line in lines if line.get("plane"))
    if row.slice_axis != "thickest" or len(planes) < 2:
        return lines
    (plane, count), total = planes.most_common(1)[0], sum(planes.values())
    listed = ", ".join(f"{n} {one}" for one, n in planes.most_common())
    made = []
    for line in lines:
        if line.get("plane") and (line["plane"] != plane or 2 * count <= total):
            remove_case(folder, line["case_id"])
            error = (
                f"{line['case_id']}: its slices would be {line['plane']}, but a data set is cut in one plane "
                f"(by their spacing its cases are {listed}). Write `slice_axis: axial` (or coronal, or "
                f"sagittal) in the row {row.name}, or give these cases a row of their own."
            )
            line = line_of(row, line["case_id"]) | {"status": "failed", "error": error}
        made.append(line)
    return made


def _job(job: tuple) -> dict:
    return prepare_case(*job)


def _run(jobs: list[tuple], workers: int) -> Iterator[dict]:
    """Yield the lines of the table as cases are finished.

    Decoders run in other processes. What needs none is done here: cases that are there already, and, with one
    worker, those that are computed.
    """
    waiting = []
    for job in jobs:
        _, _, source, _, _ = job
        line = _done_here(job) if workers else None
        if line is not None:
            yield line
        elif workers > 1 or (workers and source is not None):
            waiting.append(job)
        else:
            yield _job(job)
    results = run_each(_job, waiting, min(workers, len(waiting))) if waiting else ()
    for (row, case_id, _, folder, _), done in results:
        try:
            yield done.result()
        except ProcessKilled:
            remove_case(folder, case_id)
            reason = f"{case_id}: its process was ended, for lack of memory or by a crash of a decoder."
            error = f"{reason} Look at its files, or give more memory."
            yield line_of(row, case_id) | {"status": "failed", "error": error}


def _done_here(job: tuple) -> dict | None:
    """Return the line of a case that is there already; what is wrong with it, its preparation will say."""
    with suppress(Exception):
        return done_case(*job)
    return None


def require_cases(cases: pd.DataFrame) -> None:
    """Raise StudyError with the first reasons if no case of a case table can be used."""
    if (cases["status"] == "ok").any():
        return
    reasons = cases.loc[cases["status"] == "failed", "error"].head(SHOWN)
    raise StudyError(
        "data", f"none of {len(cases)} cases can be used: {' | '.join(reasons)}", "Mend the files or the row."
    )
