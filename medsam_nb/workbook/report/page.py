"""The page of a study: `index.html`, from the sections that its notebooks left."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from nbconvert import HTMLExporter
from PIL import Image
from traitlets.config import Config

from medsam_nb.errors import InputError, WorkbookError
from medsam_nb.files import write_study_file
from medsam_nb.workbook.report.sections import NotebookRun, read_provenance, read_section
from medsam_nb.workbook.report.tables import shown

# A figure's letters have 7 points; a third more makes them as large on a screen as the captions.
CSS_PIXELS_PER_INCH = 130


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
        tables = {name: whole(shown, path) for name, path in files.items() if path.is_file()}
        section["tables"] = {
            name: {"caption": caption} | tables[name]
            for name, caption in section["tables"].items()
            if tables.get(name)
        }
        sections.append(section)
    provenance = whole(read_provenance, run_dir) or {}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
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
