"""A study's file: what it says, and where its run and its notebooks lie. Nothing is run here."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medsam_nb.errors import StudyError, require_known
from medsam_nb.figures.choices import Choices, Order
from medsam_nb.files import locate, read_yaml
from medsam_nb.provenance import project_root
from medsam_nb.workbook import comparisons

LONGEST_NAME = 100  # bytes; a file system allows 255, and names are put together
FIELDS = (("style.order.", Order.model_fields), ("style.", Choices.model_fields))  # within a study's own


class Study(BaseModel):
    """The content of a study's YAML file.

    Attributes
    ----------
    name : str
        Also the folder of its results, `runs/<name>` (`run_folder`).
    title, question : str
        For the report.
    caveats : list of str
        What a reader must know before quoting a number; on top of the report.
    parameters : dict
        Given to every notebook that declares them. Those of notebooks that the study leaves out may stay.
    notebooks : dict of str to dict
        The notebooks to run, in order, with parameters of their own.
    comparisons : list of dict
        Declared statistical comparisons (`statistics.declarations.Comparison`). The file names sets of them
        (`comparisons.expanded`); here they are written out.
    style : Choices
        Names, colours, order, widths and font of its figures, and which designs and prompts they show.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    question: str
    caveats: list[str] = []
    parameters: dict[str, Any] = {}
    notebooks: dict[str, dict[str, Any] | None] = Field(min_length=1)
    comparisons: list[str | dict[str, Any]] = []
    style: Choices = Choices()

    @field_validator("name")
    @classmethod
    def _one_safe_part(cls, name: str) -> str:
        if name != name.strip() or name.startswith(".") or not name:
            raise ValueError("must not be empty, begin with a dot, or begin or end with a space")
        if any(letter in "/\\" or ord(letter) < 32 or ord(letter) == 127 for letter in name):
            raise ValueError("is the name of a folder: no slash, backslash or control character")
        if len(name.encode()) > LONGEST_NAME:
            raise ValueError(f"is longer than {LONGEST_NAME} bytes")
        return name


def load_study(path: Path, roles: Mapping[str, str] | None = None) -> Study:
    """Read a study file; included comparisons are written out.

    Parameters
    ----------
    path : Path
    roles : mapping
        Models that play "sam2" and "sam" in included comparisons; by default the study's parameters of these
        names.

    Raises
    ------
    StudyError
        If the file is missing, is not YAML, has an unknown or missing field, or includes an unknown set of
        comparisons. The message names the line.
    """
    content, tree = read_yaml(path, error=StudyError)
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        line, field = locate(tree, first["loc"])
        within, fields = next((one for one in FIELDS if field.startswith(one[0])), ("", Study.model_fields))
        if first["type"] == "extra_forbidden":
            what = f"field of {within.rstrip('.') or 'a study'}"
            require_known(f"{path}, line {line}", field.removeprefix(within), fields, what=what)
        raise StudyError(
            f"{path}, line {line}",
            f"field {field!r}: {first['msg'].removeprefix('Value error, ').rstrip('.')}.",
            f"Known fields: {', '.join(fields)}.",
        ) from error
    players = {}
    for given in (study.parameters, *study.notebooks.values(), roles or {}):
        players |= {role: name for role, name in (given or {}).items() if role in comparisons.ROLES}
    sets_file = project_root() / "studies" / "comparisons.yaml"
    found = comparisons.expanded(study.comparisons, players, sets_file, path)
    return study.model_copy(update={"comparisons": found})


def find_study(path: Path) -> Path:
    """Return the absolute path of a study file, looked for here and then in the workbook's folder.

    Raises
    ------
    StudyError
        If there is none; the message lists those of the workbook.
    """
    root = project_root()
    for place in (Path(path), root / path):
        if place.is_file():
            return place.resolve()
    known = ", ".join(
        str(found)
        for found in sorted((root / "studies").glob("*.yaml"))
        if "\nnotebooks:" in found.read_text(encoding="utf-8", errors="replace")
    )
    raise StudyError(
        path, "there is no such file.", f"Give the path of a study{f', such as {known}' if known else ''}."
    )


def run_folder(study: Study | str) -> Path:
    """Return the folder of a study's results: `runs/<name>` in the workbook's folder.

    To keep results on another disk, let `runs` be a link to it.
    """
    return project_root() / "runs" / (study if isinstance(study, str) else study.name)


def below_root(path: Path) -> str:
    """Return a path as it is recorded: relative to the workbook's folder where it lies in it."""
    path, root = Path(path).resolve(), project_root().resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def notebook_path(name: str) -> Path:
    """Return a notebook of the workbook, or raise StudyError with the names there are."""
    folder = project_root() / "notebooks"
    require_known(name, name, notebooks(), what="notebook")
    return folder / f"{name}.ipynb"


def notebooks() -> list[str]:
    """Return the names of the workbook's notebooks, in the order of their reading."""
    return sorted(path.stem for path in (project_root() / "notebooks").glob("*.ipynb"))


def data_sets_of(study: Study, overrides: Mapping[str, Any] | None = None) -> list[str]:
    """Return the data sets that a study names, in its order; those of the overrides count alone."""
    if overrides and "data_sets" in overrides:
        return list(overrides["data_sets"])
    named = [study.parameters, *(own or {} for own in study.notebooks.values())]
    return list(dict.fromkeys(name for given in named for name in given.get("data_sets", ())))


def declared_parameters(name: str) -> dict[str, Any]:
    """Return the parameters that a notebook declares, with default and help as it writes them."""
    import papermill

    path = str(notebook_path(name))
    return papermill.inspect_notebook(path.replace("{", "{{").replace("}", "}}"))


def defaults(name: str) -> dict[str, Any]:
    """Return the default values of a notebook's parameters.

    Raises
    ------
    StudyError
        If one is no plain literal.
    """
    values = {}
    for parameter, entry in declared_parameters(name).items():
        try:
            values[parameter] = ast.literal_eval(entry["default"])
        except (ValueError, SyntaxError) as error:
            raise StudyError(
                f"notebook {name}, parameter {parameter}",
                f"its default {entry['default']} is no plain value.",
                "Write a literal, such as 4 or [one, two] with quotation marks.",
            ) from error
    return values
