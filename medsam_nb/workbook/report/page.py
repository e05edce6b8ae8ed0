"""The page of a study: `index.html`, from the answers down to the sections that its notebooks left.

First what was found, in sentences; then what must be known before a number is quoted; then a figure or a
board for every notebook that answers something. All else is folded below it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
import pandas as pd

from medsam_nb.errors import WorkbookError, printable
from medsam_nb.figures.words import counted, label
from medsam_nb.files import write_study_file
from medsam_nb.workbook.progress import words
from medsam_nb.workbook.report import boards
from medsam_nb.workbook.report.executed import export_html
from medsam_nb.workbook.report.failures import failures
from medsam_nb.workbook.report.pictures import printed_width, within
from medsam_nb.workbook.report.sections import (
    NotebookRun,
    Section,
    elapsed,
    read_provenance,
    read_section,
)
from medsam_nb.workbook.report.tables import read_table, shown
from medsam_nb.workbook.report.words import GLOSSARY, Terms, anchor

# Tables that stand in the open as a board: the one that a notebook shows, and the one with all columns.
BOARDS = {"comparisons_brief": "comparisons", "claims_tests": "claims"}
SINGLE = "report.html"  # the page in one file, beside index.html


def _counted(number: int, noun: str) -> str:
    first, *rest = noun.split(" ")
    return " ".join([counted(number, first), *rest])


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text.strip())


def _not_said(text: str, said: str) -> list[str]:
    """Return the paragraphs of a text without the sentences that the summary has word for word."""
    known = set(_sentences(said))
    parts = [[line for line in _sentences(part) if line not in known] for part in text.split("\n\n")]
    return [found for part in parts if (found := " ".join(part))]


def _picture(path: str, caption: str) -> dict[str, str]:
    """Return a picture of a case, which its path names: its caption may be empty."""
    file = PurePosixPath(path)
    of = f" of {label(file.parent.name)}" if file.parent.name else ""
    alt = f"Case {file.stem}{of}" + (f": {caption}" if caption else "")
    return {"path": path, "caption": caption, "alt": alt}


def _computed(provenance: Mapping[str, Mapping]) -> str:
    """Return the day on which the last of a run's results was computed; "" if no record tells."""
    days: list[date] = []
    for record in provenance.values():
        try:
            days.append(datetime.fromisoformat(str(record.get("created"))).date())
        except ValueError:  # a record of another kind
            continue
    return f"{max(days).day} {max(days):%B %Y}" if days else ""


class _Page:
    """What a page is made of; what is damaged is left out and named in a line."""

    def __init__(self, run_dir: Path, single: bool) -> None:
        self.run_dir, self.single = run_dir, single
        self.damaged: list[str] = []

    def whole(self, read: Callable[..., Any], *arguments: object) -> Any:
        """Return what a call reads; None, with a line for the page, where a file is damaged."""
        try:
            return read(*arguments)
        except WorkbookError as error:
            self.damaged.append(str(error))
            return None

    def notebook(self, run: NotebookRun) -> dict:
        """Return the line of a notebook in the list at the page's end."""
        copy = run.executed if run.executed and run.executed.is_file() else None
        html = self.whole(export_html, copy) if copy else None
        link = html.relative_to(self.run_dir).as_posix() if html else None
        return {"name": run.name, "duration": words(run.seconds), "error": run.error, "link": link}

    def section(self, run: NotebookRun) -> dict | None:
        """Return what the page says of a notebook; None if it left nothing."""
        path = self.run_dir / "sections" / f"{run.name}.json"
        left = self.whole(read_section, self.run_dir, run.name) if path.is_file() else None
        if run.error or left is None:
            return None
        found = left.model_dump() | {
            "figures": self._figures(left),
            "tables": self._tables(left),
            "galleries": {
                label(heading): [_picture(*picture) for picture in pictures]
                for heading, pictures in left.galleries.items()
            },
        }
        found["boards"], found["said"] = self._boards(left)
        # A board stands in the open in place of a figure of the same.
        found["lead"] = left.lead if left.lead in found["figures"] and not found["boards"] else ""
        found["short"] = left.in_short
        found["paragraphs"] = _not_said(left.text, "" if found["said"] else left.in_short)
        number = len(found["figures"]) - bool(found["lead"])
        galleries = 0 if self.single else len(left.galleries)
        held = ((number, "figure"), (len(found["tables"]), "table"), (galleries, "set of pictures"))
        written = [name for name, part in (("text", found["paragraphs"]), ("facts", left.facts)) if part]
        found["holds"] = ", ".join([*written, *(_counted(n, noun) for n, noun in held if n)])
        return found

    def _figures(self, left: Section) -> dict[str, dict]:
        found = {}
        for name, caption in left.figures.items():
            path = self.run_dir / "figures" / f"{name}.png"
            width = self.whole(printed_width, path) if path.is_file() else None
            if width:
                source = within(path) if self.single else f"figures/{name}.png"
                found[name] = {"caption": caption, "width": width, "source": source}
        return found

    def _tables(self, left: Section) -> dict[str, dict]:
        files = {name: self.run_dir / "tables" / f"{name}.parquet" for name in left.tables}
        tables = {name: self.whole(shown, path) for name, path in files.items() if path.is_file()}
        return {name: {"caption": left.tables[name]} | table for name, table in tables.items() if table}

    def _boards(self, left: Section) -> tuple[list[boards.Board], list[str]]:
        """Return the boards that stand in the open for a notebook's tables, and what they say."""
        found, said = [], []
        for shown_table, made in BOARDS.items():
            path = self.run_dir / "tables" / f"{made}.parquet"
            table = self.whole(read_table, path) if shown_table in left.tables and path.is_file() else None
            if table is None or not {"difference", "holm_low", "finding", "family"} <= set(table.columns):
                continue
            if made == "claims":
                found.append(boards.claims_board(table))
                continue
            said += boards.sentences(table)
            for family, rows in table.groupby("family", sort=False):
                found.append(boards.comparisons_board(rows, boards.family_words(family)))
        return found, said


def write_report(
    study: Mapping[str, Any], runs: Sequence[NotebookRun], run_dir: Path, *, single: bool = False
) -> Path:
    """Write `index.html` from the sections that the notebooks left; damaged files are named on it.

    Parameters
    ----------
    study : mapping
        Title, question and caveats of the study.
    runs : sequence of NotebookRun
        How each notebook ended. A failed one is named, with a link to its copy and traceback.
    run_dir : Path
    single : bool
        Write `report.html`, which holds its figures and needs no other file, instead; without the galleries
        of cases and links to files.

    Returns
    -------
    Path
        Of the page.
    """
    run_dir = Path(run_dir)
    page = _Page(run_dir, single)
    notebooks = [page.notebook(run) for run in runs]
    sections = [section for run in runs if (section := page.section(run))]
    provenance = page.whole(read_provenance, run_dir) or {}
    failed, number = failures(run_dir)
    terms = Terms()
    text = _template("report.html", terms).render(
        study=study,
        notebooks=notebooks,
        sections=sections,
        provenance=provenance,
        damaged=page.damaged,
        failed=failed,
        failed_count=f"{number} {'case or unit' if number == 1 else 'cases or units'} of work",
        duration=words(elapsed(runs)),
        computed=_computed(provenance),
        glossary=GLOSSARY,
        single=single,
    )
    path = run_dir / (SINGLE if single else "index.html")
    write_study_file(path, printable(text).encode())
    return path


def _template(name: str, terms: Terms) -> jinja2.Template:
    """Return a template of one page, on which `terms` keeps what is linked already."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"linked": terms.linked, "anchor": anchor}
    environment.globals["terms"] = terms
    return environment.get_template(name)


def write_comparison_page(
    names: Sequence[str], said: Sequence[str], differences: pd.DataFrame, folder: Path
) -> Path:
    """Write the page of two runs compared (`comparing`), whose tables and figure lie in `folder`."""
    tables = Path(folder) / "tables"
    text = _template("comparison.html", Terms()).render(
        title=f"{names[0]} and {names[1]} compared",
        said=said,
        board=boards.comparisons_board(differences, "Second less first", "the second run"),
        record=shown(tables / "record.parquet", most=500),
        counts=shown(tables / "rows.parquet"),
        width=printed_width(Path(folder) / "figures" / "cases.png"),
        glossary=GLOSSARY,
    )
    write_study_file(Path(folder) / "index.html", printable(text).encode())
    return Path(folder) / "index.html"
