"""The report of a study: every notebook leaves a section, and `index.html` leads through them."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Annotated, Any

import jinja2
import nbformat
import pandas as pd
from nbconvert import HTMLExporter
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from traitlets.config import Config

from medsam_nb.errors import InputError, StudyError, WorkbookError
from medsam_nb.figures.words import as_csv, label
from medsam_nb.files import read_json, write_study_file
from medsam_nb.protocol.table import FACTORS

ROWS_SHOWN = 40
LONG_TEXT = 30  # characters of a cell
# Columns with names of this workbook, printed as in figures; names of cases and files stay as they are.
NAMES = {
    *FACTORS,
    "data_set",
    "object",
    "model",
    "comparison",
    "level",
    "reference",
    "test",
    "factor",
    "unit",
}
# A figure's letters have 7 points; a third more makes them as large on a screen as the captions.
CSS_PIXELS_PER_INCH = 130


@dataclass(frozen=True)
class NotebookRun:
    """How one notebook ended: its executed copy (None if not begun), seconds, and its error, if any."""

    name: str
    executed: Path | None
    seconds: float
    error: str | None


FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]
# Below the study's folder: no address of another kind, and no way out.
PicturePath = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][^/:\\]*/)*[A-Za-z0-9_][^/:\\]*$")]


class Section(BaseModel):
    """What a notebook leaves for the report, as `add_section` takes it."""

    model_config = ConfigDict(extra="forbid")

    notebook: FileName
    heading: str
    text: str
    figures: dict[FileName, str] = {}
    tables: dict[FileName, str] = {}
    facts: dict[str, str] = {}
    in_short: str = ""
    galleries: dict[str, list[tuple[PicturePath, str]]] = {}


def add_section(
    run_dir: Path,
    notebook: str,
    heading: str,
    text: str,
    *,
    figures: Mapping[str, str] | None = None,
    tables: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
    in_short: str = "",
    galleries: Mapping[str, Sequence[tuple[str, str]]] | None = None,
) -> Path:
    """Leave a notebook's section for the report.

    Parameters
    ----------
    run_dir : Path
        The study's folder, with `figures/` and `tables/`.
    notebook : str
        Name of the notebook; a section replaces an earlier one of the same notebook.
    heading, text : str
        What the section is about, and what was found; paragraphs are divided by an empty line.
    figures, tables : mapping of str to str
        File name without ending, and caption. Files are looked up in `figures/` and `tables/`.
    facts : mapping
        Name and value of what the report should state in plain sight (counts, versions).
    in_short : str
        The finding in a sentence, for the list at the top of the report.
    galleries : mapping of str to sequence of (str, str)
        Heading, and its pictures: path below `run_dir`, and caption. Folded until they are asked for.

    Returns
    -------
    Path
        Of the section's JSON file.
    """
    section = Section(
        notebook=notebook,
        heading=heading,
        text=text,
        figures=dict(figures or {}),
        tables=dict(tables or {}),
        facts={key: str(value) for key, value in (facts or {}).items()},
        in_short=in_short,
        galleries={heading: list(pictures) for heading, pictures in (galleries or {}).items()},
    )
    path = Path(run_dir) / "sections" / f"{notebook}.json"
    write_study_file(path, json.dumps(section.model_dump(), indent=1).encode())
    return path


def read_section(run_dir: Path, notebook: str) -> Section:
    """Return a notebook's section.

    Raises
    ------
    InputError
        If its file is missing, damaged, or of another notebook.
    """
    path = Path(run_dir) / "sections" / f"{notebook}.json"
    try:
        section = Section.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(
            path, f"is no section ({field}: {first['msg']}).", f"Run {notebook} again."
        ) from error
    if section.notebook != notebook:
        raise InputError(path, f"is the section of {section.notebook}.", f"Run {notebook} again.")
    return section


def add_provenance(run_dir: Path, notebook: str, record: Mapping[str, Any]) -> Path:
    """Put a notebook's record into `provenance.json`, beside those of the others; return its path.

    A damaged file is named in a warning and begun anew: what other notebooks recorded comes back when
    they run again.
    """
    path = Path(run_dir) / "provenance.json"
    try:
        records = read_provenance(run_dir)
    except InputError as error:
        warnings.warn(
            f"{error.item}: {error.problem} It is begun anew; run all notebooks again.", stacklevel=2
        )
        records = {}
    text = json.dumps(records | {notebook: dict(record)}, indent=1, allow_nan=False)
    write_study_file(path, text.encode())
    return path


def read_provenance(run_dir: Path) -> dict[str, dict]:
    """Return the records that notebooks left, by notebook; none before the first.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    path = Path(run_dir) / "provenance.json"
    records = read_json(path) if path.exists() else {}
    if not all(isinstance(record, dict) for record in records.values()):
        raise InputError(path, "holds something else than records.", "Delete it and run the notebooks again.")
    return records


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
    found = [_table(path) for path in paths if path.is_file()]
    if not found:
        raise StudyError(
            folder,
            "there are no results yet.",
            "Run 02_evaluate_2d or 03_propagate_3d first, and see why they end.",
        )
    return pd.concat(found, ignore_index=True)


def _table(path: Path) -> pd.DataFrame:
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


def _shown(path: Path) -> dict:
    """Return a table's first rows as HTML, and how many rows there are."""
    table = _table(path)
    formats = {
        name: _p_value if name == "p" or name.startswith("p_") else _name if name in NAMES else _text
        for name in table.columns
        if name == "p" or name.startswith("p_") or not pd.api.types.is_numeric_dtype(table[name])
    }
    headings = {name: escape(name.replace("_", " ")) for name in table.columns}
    styled = (
        table.head(ROWS_SHOWN)
        .rename(columns=headings)
        .to_html(
            index=False,
            border=0,
            na_rep="",
            escape=False,
            float_format=_number,
            formatters={headings[name]: format_ for name, format_ in formats.items()},
        )
    )
    return {"html": styled, "rows": len(table), "shown": min(len(table), ROWS_SHOWN)}


def _printed_width(path: Path) -> int:
    """Return the width at which a figure's letters are as large as the page's, in CSS pixels."""
    try:
        with Image.open(path) as picture:
            inches = picture.width / picture.info.get("dpi", (300, 300))[0]
    except Exception as error:  # of any kind, as damage is
        raise InputError(path, f"is no picture ({error}).", "Run the notebook that drew it again.") from error
    return round(inches * CSS_PIXELS_PER_INCH)


def export_html(executed: Path) -> Path:
    """Convert an executed notebook to HTML beside it; cells tagged "hide-input" show output only."""
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = ("hide-input",)
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.TagRemovePreprocessor"]
    try:
        notebook = nbformat.read(executed, as_version=4)
        body, _ = HTMLExporter(config=config).from_notebook_node(notebook)
    except Exception as error:  # of any kind, as damage is
        raise InputError(executed, f"is no notebook ({error}).", "Run it again.") from error
    write_study_file(executed.with_suffix(".html"), body.encode())
    return executed.with_suffix(".html")


def write_report(study: Mapping[str, Any], runs: Sequence[NotebookRun], run_dir: Path) -> Path:
    """Write `index.html` from the sections that the notebooks left; damaged files are named on it.

    Parameters
    ----------
    study : mapping
        Title, question and caveats of the study.
    runs : sequence of NotebookRun
        How each notebook ended. A failed one is named, with a link to its copy and traceback.
    run_dir : Path

    Returns
    -------
    Path
        Of `index.html`.
    """
    run_dir = Path(run_dir)
    damaged: list[str] = []

    def whole(read: Callable[..., Any], *arguments: object) -> Any:
        """Return what a call reads; None, with a line for the page, where a file is damaged."""
        try:
            return read(*arguments)
        except WorkbookError as error:
            damaged.append(str(error))
            return None

    notebooks = []
    for run in runs:
        html = whole(export_html, run.executed) if run.executed and run.executed.is_file() else None
        notebooks.append(
            {
                "name": run.name,
                "seconds": run.seconds,
                "error": run.error,
                "link": html.relative_to(run_dir).as_posix() if html else None,
            }
        )
    sections = []
    for run in runs:
        if run.error or not (run_dir / "sections" / f"{run.name}.json").is_file():
            continue
        left = whole(read_section, run_dir, run.name)
        if left is None:
            continue
        section = left.model_dump()
        section["paragraphs"] = [part for part in section["text"].split("\n\n") if part.strip()]
        pictures = {name: run_dir / "figures" / f"{name}.png" for name in section["figures"]}
        widths = {name: whole(_printed_width, path) for name, path in pictures.items() if path.is_file()}
        section["figures"] = {
            name: {"caption": caption, "width": widths[name]}
            for name, caption in section["figures"].items()
            if widths.get(name)
        }
        files = {name: run_dir / "tables" / f"{name}.parquet" for name in section["tables"]}
        tables = {name: whole(_shown, path) for name, path in files.items() if path.is_file()}
        section["tables"] = {
            name: {"caption": caption} | tables[name]
            for name, caption in section["tables"].items()
            if tables.get(name)
        }
        sections.append(section)
    provenance = whole(read_provenance, run_dir) or {}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        study=study,
        notebooks=notebooks,
        sections=sections,
        provenance=provenance,
        damaged=damaged,
        total=sum(run.seconds for run in runs),
    )
    write_study_file(run_dir / "index.html", page.encode())
    return run_dir / "index.html"
