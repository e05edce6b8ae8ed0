"""Whose images a case holds: the rule of a manifest row, applied to the names of its cases.

Without a rule every case counts as of a patient of its own. With one, a case that the rule does not cover is
refused: several pictures of one patient, taken for several patients, would make every interval too narrow.
"""

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from medsam_nb.data.names import clean_name
from medsam_nb.data.sources import Source
from medsam_nb.errors import InputError
from medsam_nb.files import read_text
from medsam_nb.manifest.rows import DataSet

COLUMNS = ("case_id", "patient")


def read_patient_table(path: Path) -> dict[str, str]:
    """Return the patients of a CSV file with the columns case_id and patient (others are not looked at).

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column or a value, or names a case twice.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        columns, lines = reader.fieldnames or (), list(reader)
    except csv.Error as error:
        raise InputError(path, f"cannot be read ({error}).", "Give a CSV file in UTF-8.") from error
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise InputError(
            path, f"has no column {' and no column '.join(missing)}.", "Its first line is case_id,patient."
        )
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        case, patient = (clean_name(line["case_id"] or ""), (line["patient"] or "").strip())
        if not case or not patient:
            raise InputError(f"{path}, line {number}", "a case or patient is empty.", "Fill it in.")
        if case in found:
            said = "again" if found[case] == patient else f"as of {found[case]} and of {patient}"
            raise InputError(
                f"{path}, line {number}", f"{case} stands here {said}.", "Keep one of the lines."
            )
        found[case] = patient
    return found


def patient_table(row: DataSet, raw_root: Path) -> dict[str, str] | None:
    """Return the patients that a row's table names, or None for a row without one."""
    if row.patient_table is None:
        return None
    return read_patient_table(Path(raw_root) / row.raw_folder / row.patient_table)


def patient_of(
    row: DataSet, case_id: str, source: Source | None, table: Mapping[str, str] | None = None
) -> str:
    """Return the patient of a case: by the row's rule, or the case's own id where there is none.

    Parameters
    ----------
    row : DataSet
    case_id : str
    source : Source or None
        Of the case; a layout may have found the patient in the names of its files.
    table : mapping of case_id to patient, optional
        See `patient_table`.

    Raises
    ------
    InputError
        If the rule does not cover the case.
    """
    if table is not None:
        if case_id not in table:
            raise InputError(
                case_id, f"the table {row.patient_table} names no patient for it.", "Add a line for the case."
            )
        return table[case_id]
    if row.patient is not None:
        match = re.search(row.patient, case_id)
        if match is None or not match[1]:
            raise InputError(
                case_id,
                f"the row's `patient` ({row.patient}) does not fit it: no patient is found in the name.",
                "Correct the expression; it must fit every case.",
            )
        return match[1]
    return (source.patient if source else "") or case_id
