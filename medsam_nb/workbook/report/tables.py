"""Tables of a run: saved by notebooks, read by later ones, printed on the page."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd

from medsam_nb.errors import StudyError
from medsam_nb.figures.words import as_csv, label
from medsam_nb.files import write_study_file
from medsam_nb.protocol.table import FACTORS
from medsam_nb.workbook.report.words import column_words

ROWS_SHOWN = 40
LONG_TEXT = 30  # characters of a cell
_FIRST_CELL = re.compile(r"<tr>(\s*)<td>(.*?)</td>", re.DOTALL)  # text of cells is escaped: the tags are ours
# Columns with names of this workbook, printed as in figures; names of cases and files stay as they are.
NAMES = {
    *FACTORS,
    "data_set",
    "object",
    "model",
    "comparison",
    "level",
    "reference",
    "factor",
    "unit",
    "task",
    "metric",
    "test",
    "family",
    "source",
}


def save_table(table: pd.DataFrame, run_dir: Path, name: str) -> Path:
    """Save a table as Parquet and CSV under `tables/`; return the path of the CSV."""
    path = Path(run_dir) / "tables" / f"{name}.csv"
    write_study_file(path.with_suffix(".parquet"), table.to_parquet(index=False))
    write_study_file(path, as_csv(table))
    return path


def read_results(run_dir: Path, tasks: Sequence[str] = ("2d", "3d")) -> pd.DataFrame:
    """Return the tidy tables of tasks that a study has, one below the other.

    Raises
    ------
    StudyError
        If there is none, or one is damaged.
    """
    folder = Path(run_dir) / "tables"
    paths = [folder / f"results_{task}.parquet" for task in tasks]
    found = [read_table(path) for path in paths if path.is_file()]
    if not found:
        raise StudyError(
            folder,
            "there are no results yet.",
            "Run 02_evaluate_2d or 03_propagate_3d first, and see why they end.",
        )
    return pd.concat(found, ignore_index=True)


def read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except Exception as error:  # of any kind, as damage is
        raise StudyError(
            path, f"cannot be read ({error}).", "Run the notebook that wrote it again."
        ) from error


def _number(value: float) -> str:
    """Return a number as it is read: three decimals; more would pretend, fewer would hide."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def _p_value(value: object) -> str:
    if not isinstance(value, float) or pd.isna(value):
        return _text(value)
    return "&lt;0.001" if value < 0.001 else f"{value:.3f}"


def _text(value: object) -> str:
    """Return a cell's text as HTML; long text gets a width at which it can be read."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    text = escape(str(value))
    return f'<div class="long">{text}</div>' if len(text) > LONG_TEXT else text


def _name(value: object) -> str:
    return _text(value if pd.api.types.is_scalar(value) and pd.isna(value) else label(value))


def shown(path: Path, most: int = ROWS_SHOWN) -> dict:
    """Return a table's first rows as HTML (what a `table` element holds), and how many rows there are.

    Headings are those of their columns, and the first cell of a row is its heading, for those who listen.
    """
    table = read_table(path)
    formats = {
        name: _p_value if name == "p" or name.startswith("p_") else _name if name in NAMES else _text
        for name in table.columns
        if name == "p" or name.startswith("p_") or not pd.api.types.is_numeric_dtype(table[name])
    }
    headings = {name: escape(column_words(name)) for name in table.columns}
    headings = {
        name: text if list(headings.values()).count(text) == 1 else escape(label(name))
        for name, text in headings.items()
    }
    styled = (
        table.head(most)
        .rename(columns=headings)
        .to_html(
            index=False,
            na_rep="",
            escape=False,
            float_format=_number,
            formatters={headings[name]: format_ for name, format_ in formats.items()},
        )
    )
    inner = styled[styled.index("<thead>") : styled.index("</table>")].replace("<th>", '<th scope="col">')
    html = _FIRST_CELL.sub(r'<tr>\1<th scope="row">\2</th>', inner)
    return {"html": html, "rows": len(table), "shown": min(len(table), most)}
