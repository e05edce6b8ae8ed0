"""What failed in a run, and why: cases that could not be used, units of work that ended with an error."""

from pathlib import Path

import pandas as pd

from medsam_nb.figures.words import counted, label
from medsam_nb.workbook.report.tables import read_table


def failures(run_dir: Path) -> tuple[list[str], int]:
    """Return what failed in sentences, alike reasons together, and how many cases and units that are.

    Parameters
    ----------
    run_dir : Path
        With the tables that notebooks wrote; those that are missing or damaged say nothing here.
    """
    tables = Path(run_dir) / "tables"
    found, total = [], 0
    cases = _failed(tables / "cases.parquet")
    for reason, group in cases.groupby("error", sort=False):
        found.append(f"{counted(len(group), 'case')} could not be used ({_names(group)}): {reason}")
    total += len(cases)
    for path in sorted(tables.glob("units_*.parquet")):
        units = _failed(path)
        for (reason, task), group in units.groupby(["error", "task"], sort=False):
            what = counted(len(group), "unit")
            found.append(f"{label(task)}: {what} of work failed ({_names(group)}): {reason}")
        total += len(units)
    return found, total


def _failed(path: Path) -> pd.DataFrame:
    empty = pd.DataFrame(columns=["data_set", "case_id", "error", "task"])
    if not path.is_file():
        return empty
    try:
        table = read_table(path)
        failed = table[table["status"] == "failed"]
        return failed.assign(error=failed["error"].fillna("no reason is given"))
    except Exception:  # damage of any kind; the page names the damaged tables that it shows
        return empty


def _names(group: pd.DataFrame, most: int = 4) -> str:
    names = [f"{label(row.data_set)} {row.case_id}" for row in group.itertuples()]
    names = list(dict.fromkeys(names))
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
