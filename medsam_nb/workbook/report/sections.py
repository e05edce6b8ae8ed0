"""What notebooks leave for the report: sections and the record of where numbers come from, as JSON files."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medsam_nb.errors import InputError
from medsam_nb.files import read_json, write_study_file

RUNS = "runs.json"


@dataclass(frozen=True)
class NotebookRun:
    """How one notebook ended: its executed copy (None if not begun), seconds, and its error, if any.

    `started` is when it began, in seconds since 1970; 0 if that is not known.
    """

    name: str
    executed: Path | None
    seconds: float
    error: str | None
    started: float = 0.0


def elapsed(runs: Sequence[NotebookRun]) -> float:
    """Return the seconds in which notebooks ran; those that ran side by side count once.

    Examples
    --------
    >>> runs = [NotebookRun("a", None, 10.0, None, 100.0), NotebookRun("b", None, 5.0, None, 108.0)]
    >>> elapsed(runs), elapsed([*runs, NotebookRun("c", None, 2.0, None)])
    (13.0, 15.0)
    """
    total = sum(run.seconds for run in runs if not run.started)
    end = 0.0
    for run in sorted((run for run in runs if run.started), key=lambda run: run.started):
        total += max(0.0, run.started + run.seconds - max(run.started, end))
        end = max(end, run.started + run.seconds)
    return total


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
    lead: str = ""


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
    lead: str = "",
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
    lead : str
        The figure that answers the notebook's question; it stands in the open, the others are folded.

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
        lead=lead,
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


def keep_runs(
    runs: Sequence[NotebookRun], run_dir: Path, planned: Sequence[str] | None = None
) -> list[NotebookRun]:
    """Keep how notebooks ended, for a page that is written later.

    Parameters
    ----------
    runs : sequence of NotebookRun
    run_dir : Path
    planned : sequence of str, optional
        All notebooks of the study, where `runs` are only some of them: how the others ended before is kept.

    Returns
    -------
    list of NotebookRun
        All that are kept, in the order of the study.
    """
    kept = list(runs)
    if planned is not None:
        found = {run.name: run for run in (*read_runs(run_dir), *runs)}
        kept = [found[name] for name in planned if name in found]
    records = [asdict(run) | {"executed": run.executed and run.executed.name} for run in kept]
    write_study_file(Path(run_dir) / "notebooks" / RUNS, json.dumps(records, indent=1).encode())
    return kept


def read_runs(run_dir: Path) -> list[NotebookRun]:
    """Return how the notebooks of a run ended; without a record, those whose executed copies lie there."""
    folder = Path(run_dir) / "notebooks"
    try:
        records = json.loads((folder / RUNS).read_text(encoding="utf-8"))
        return [
            NotebookRun(
                str(record["name"]),
                folder / str(record["executed"]) if record["executed"] else None,
                float(record["seconds"]),
                record["error"] and str(record["error"]),
                float(record.get("started", 0.0)),  # pages of before did not say it
            )
            for record in records
        ]
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or damaged
        return [NotebookRun(path.stem, path, 0.0, None) for path in sorted(folder.glob("*.ipynb"))]


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
