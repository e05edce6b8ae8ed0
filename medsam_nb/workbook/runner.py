"""Runs a study: its notebooks in order, each in a process of its own, with strict parameters.

Papermill injects the parameters and keeps the executed copies. What it only warns about is an
error here: a parameter that a notebook does not declare.
"""

import difflib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import papermill
from papermill.exceptions import PapermillExecutionError
from pydantic import BaseModel, ConfigDict, ValidationError

from medsam_nb.errors import StudyError
from medsam_nb.files import read_yaml
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.provenance import project_root
from medsam_nb.workbook import kernels
from medsam_nb.workbook.report import NotebookRun, write_report


class Study(BaseModel):
    """The content of a study's YAML file.

    Attributes
    ----------
    name : str
        Also the folder of its results, `runs/<name>`.
    title, question : str
        For the report.
    caveats : list of str
        What a reader must know before quoting a number; on top of the report.
    parameters : dict
        Given to every notebook that declares them.
    notebooks : dict of str to dict
        The notebooks to run, in order, with parameters of their own.
    comparisons : list of dict
        Declared statistical comparisons (`pooling.Comparison`); a notebook that has a parameter
        `study_file` is given the study's path and reads them there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    question: str
    caveats: list[str] = []
    parameters: dict[str, Any] = {}
    notebooks: dict[str, dict[str, Any] | None]
    comparisons: list[dict[str, Any]] = []


def load_study(path: Path) -> Study:
    """Read a study file.

    Raises
    ------
    StudyError
        If the file is missing, is not YAML, or has an unknown or missing field.
    """
    try:
        content, _ = read_yaml(Path(path), error=StudyError)
        return Study.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise StudyError(
            path, f"field {field!r}: {first['msg']}.", f"Known fields: {', '.join(Study.model_fields)}."
        ) from error


def _notebook_path(name: str) -> Path:
    folder = project_root() / "notebooks"
    path = folder / f"{name}.ipynb"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.ipynb")))
        raise StudyError(name, "there is no such notebook.", f"Known: {known}.")
    return path


def declared_parameters(name: str) -> dict[str, Any]:
    """Return the parameters that a notebook declares, with their help."""
    return papermill.inspect_notebook(str(_notebook_path(name)))


def _unknown(path: Path | str, where: str, given: set[str], known: set[str]) -> None:
    for parameter in sorted(given - known):
        near = difflib.get_close_matches(parameter, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise StudyError(
            path, f"{where} has no parameter {parameter!r}.", f"{hint}Known: {', '.join(sorted(known))}."
        )


def _check_rows(given: Mapping[str, Any]) -> None:
    """Raise if a notebook is given a data set or model that its manifests do not name.

    A study may run for hours: what can be known to be wrong is said before it begins.
    """
    extra = given.get("extra_manifest")
    paths = [given.get("manifest", "data_manifest.yaml"), *([extra] if extra else [])]
    rows = load_manifest(*(project_root() / path for path in paths))
    for name in given.get("data_sets", []):
        rows.data_set(name)
    for name in given.get("models", []):
        rows.checkpoint(name)


def resolve_parameters(
    study: Study, path: Path, overrides: Mapping[str, Any] = {}
) -> dict[str, dict[str, Any]]:
    """Return every notebook's parameters: the study's, then its own, then the overrides.

    Raises
    ------
    StudyError
        If a parameter is not declared by its notebook (or a common one by none); the message lists
        the known ones.
    ManifestError
        If a data set or model is not in the manifests.
    """
    declared = {name: set(declared_parameters(name)) for name in study.notebooks}
    everywhere = set().union(*declared.values())
    _unknown(path, "The study", set(study.parameters), everywhere)
    _unknown("--set", "The study", set(overrides), everywhere)
    resolved = {}
    for name, own in study.notebooks.items():
        _unknown(path, f"Notebook {name}", set(own or {}), declared[name])
        merged = {"study_file": str(path)} | study.parameters | (own or {}) | dict(overrides)
        resolved[name] = {key: value for key, value in merged.items() if key in declared[name]}
        if "manifest" in declared[name]:
            _check_rows(resolved[name])
    return resolved


def run_notebook(name: str, executed: Path, parameters: Mapping[str, Any]) -> NotebookRun:
    """Execute one notebook and keep its copy, also if it fails (with the traceback in it)."""
    executed.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    error = None
    try:
        papermill.execute_notebook(
            str(_notebook_path(name)),
            str(executed),
            parameters=dict(parameters),
            cwd=str(project_root()),
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,  # progress bars, while they move
            stderr_file=sys.stderr,
            config=kernels.configuration(),
        )
    except PapermillExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    return NotebookRun(name, executed, round(time.monotonic() - started, 1), error)


def run_study(path: Path, overrides: Mapping[str, Any] = {}) -> tuple[Path, list[NotebookRun]]:
    """Run a study's notebooks in order and write its report.

    Parameters
    ----------
    path : Path
        The study's YAML file.
    overrides : mapping
        Parameters that replace those of the file.

    Returns
    -------
    Path
        The report, `runs/<name>/index.html`.
    list of NotebookRun
        A notebook that fails is kept with its traceback and named in the report; those after it
        still run, on what there is.
    """
    study = load_study(path)
    parameters = resolve_parameters(study, path, overrides)
    run_dir = project_root() / "runs" / study.name
    runs = []
    for name, given in parameters.items():
        print(f"[{len(runs) + 1}/{len(parameters)}] {name}", flush=True)
        runs.append(run_notebook(name, run_dir / "notebooks" / f"{name}.ipynb", given))
        print(f"    {'failed: ' + runs[-1].error if runs[-1].error else 'done'} ({runs[-1].seconds:.0f} s)")
    return write_report(study.model_dump(), runs, run_dir), runs
