"""A study's file: what it says, where its run lies, whether all of it can be done. Nothing is run here."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medsam_nb.errors import StudyError, WorkbookError, require_known
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import Manifest
from medsam_nb.protocol.designs import chosen_designs
from medsam_nb.provenance import project_root
from medsam_nb.workbook import comparisons, parameters
from medsam_nb.workbook.yaml_text import line_of, read_yaml

MANIFEST = "data_manifest.yaml"
LONGEST_NAME = 100  # bytes; a file system allows 255, and names are put together
GIVEN_BY_THE_RUN = "study_file"


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
        Declared statistical comparisons (`pooling.Comparison`). The file names sets of them
        (`comparisons.expanded`); here they are written out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    question: str
    caveats: list[str] = []
    parameters: dict[str, Any] = {}
    notebooks: dict[str, dict[str, Any] | None] = Field(min_length=1)
    comparisons: list[str | dict[str, Any]] = []

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
    content, tree = read_yaml(path)
    if not isinstance(content, dict):
        raise StudyError(path, "is no study.", f"Write the fields {', '.join(Study.model_fields)}.")
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise StudyError(
            f"{path}, line {line_of(tree, first['loc'])}",
            f"field {field!r}: {first['msg'].removeprefix('Value error, ')}.",
            f"Known fields: {', '.join(Study.model_fields)}.",
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


def resolve_parameters(
    study: Study, path: Path, overrides: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Return every notebook's parameters: the study's, then its own, then the overrides; all checked.

    Raises
    ------
    StudyError
        If a parameter is declared by no notebook (or one of a notebook's own not by it), or a value has the
        wrong type, is out of range or unknown, or does not go with others; if a comparison cannot be made.
    ManifestError
        If a manifest cannot be read, or does not have a data set or model.
    """
    overrides = overrides or {}
    known = {name: defaults(name) for name in dict.fromkeys((*notebooks(), *study.notebooks))}
    everywhere = dict.fromkeys(parameter for declared in known.values() for parameter in declared)
    _check_names_and_forms(path, study.parameters, everywhere, known)
    _check_names_and_forms("--set", overrides, everywhere, known)
    resolved, sources = {}, {}
    always = {"run_dir": f"runs/{study.name}", GIVEN_BY_THE_RUN: below_root(path)}
    for name, own in study.notebooks.items():
        place = f"{path}, notebook {name}"
        _check_names_and_forms(place, own or {}, known[name], {name: known[name]})
        resolved[name], sources[name] = {}, {}
        for source, given in (
            ("", always),
            (path, study.parameters),
            (place, own or {}),
            ("--set", overrides),
        ):
            mine = {parameter: value for parameter, value in given.items() if parameter in known[name]}
            resolved[name] |= mine
            sources[name] |= dict.fromkeys(mine, source)
    effective = {name: known[name] | given for name, given in resolved.items()}
    manifests = _Manifests()
    _check_meanings(study, effective, sources, manifests)
    _check_comparisons(path, effective, manifests)
    return resolved


def _check_names_and_forms(
    source: object, given: Mapping[str, Any], names: Mapping, declared: Mapping[str, Mapping[str, Any]]
) -> None:
    """Check that parameters exist, and that their values have the types of every notebook's defaults."""
    for parameter, value in given.items():
        require_known(source, parameter, names, what="parameter")
        where = f"{source}, parameter {parameter}"
        if parameter == GIVEN_BY_THE_RUN:
            raise StudyError(where, "is filled in when a study runs.", "Remove it.")
        for notebook in declared.values():
            if parameter in notebook:
                try:
                    parameters.check_form(parameter, value, notebook[parameter])
                except WorkbookError as error:
                    raise parameters.named(where, error) from error


class _Manifests(dict[tuple[Path, ...], Manifest]):
    """Manifests by the files that they are read from, each read once."""

    def __missing__(self, paths: tuple[Path, ...]) -> Manifest:
        self[paths] = load_manifest(*paths)
        return self[paths]

    def of(self, values: Mapping[str, Any]) -> Manifest:
        """Return the rows of the files that a notebook's parameters name."""
        names = values.get("manifest", MANIFEST), values.get("extra_manifest")
        return self[tuple(project_root() / name for name in names if name)]


def _check_meanings(
    study: Study, effective: Mapping[str, Mapping], sources: Mapping[str, Mapping], manifests: _Manifests
) -> None:
    """Check what the values mean, each notebook's together with what the study evaluates."""
    run_dir = run_folder(study).resolve()
    evaluated, prompts, designs = set(), set(), set()
    for values in effective.values():
        prompts |= set(values.get("prompts", []))
        if "prompts" in values or "designs" in values:
            evaluated |= set(values.get("models", []))
    for name, values in effective.items():
        rows = manifests.of(values)
        for parameter in values:  # what a study does not give is the notebook's default, checked with it
            source = sources[name].get(parameter, f"notebook {name}")
            if parameter in ("sam2", "sam", "rival") and parameter not in sources[name]:
                continue  # a study may do without them
            where = f"{source}, parameter {parameter}"
            given = parameters.Given(
                values, rows, frozenset(evaluated), frozenset(prompts), frozenset(designs)
            )
            if parameter == "run_dir" and (project_root() / values[parameter]).resolve() != run_dir:
                raise StudyError(
                    where,
                    f"is {values[parameter]!r}, but the study's name is {study.name!r}.",
                    f"Leave run_dir out (it is runs/{study.name}), or change `name`.",
                )
            try:
                parameters.check_meaning(parameter, given)
            except WorkbookError as error:
                raise parameters.named(where, error) from error
        if "designs" in values:
            designs |= {design.name for design in chosen_designs(values["designs"])}


def _check_comparisons(path: Path, effective: Mapping[str, Mapping], manifests: _Manifests) -> None:
    """Check the comparisons against what the study's table will hold, with the roles as they are now."""
    roles, known = {}, {"model": {}, "data_set": {}, "object": {}, "modality": {}}
    for values in effective.values():
        roles |= {role: values[role] for role in comparisons.ROLES if role in values}
        if "prompts" not in values and "designs" not in values:
            continue
        rows = [manifests.of(values).data_set(name) for name in values.get("data_sets", [])]
        known["model"] |= dict.fromkeys(values.get("models", []))
        known["data_set"] |= dict.fromkeys(row.name for row in rows)
        known["modality"] |= dict.fromkeys(row.modality for row in rows)
        known["object"] |= dict.fromkeys(name for row in rows for name in row.objects)
    comparisons.check(load_study(path, roles).comparisons, path, known)


def require_ready(resolved: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise where this machine lacks what the parameters ask for: a device, or the weights of a model.

    Raises
    ------
    StudyError
        If the device is not there.
    CheckpointError
        If weights are missing or not what the manifest says, with the command that gets them.
    """
    from medsam_nb.models.checkpoints import require_device, verified_sha256, weights_path

    root, manifests = project_root(), _Manifests()
    for name, given in resolved.items():
        values = defaults(name) | given
        if "device" in values:
            require_device(values["device"])
        if "weights_dir" not in values:
            continue
        rows = manifests.of(values)
        models = [*values.get("models", []), *(values[role] for role in parameters.ROLES if role in values)]
        for row in map(rows.checkpoint, dict.fromkeys(models)):
            path = weights_path(row, root / values["weights_dir"])
            command = row.name
            if row.name not in manifests[(root / MANIFEST,)].checkpoints:
                command += f" --manifest {values.get('extra_manifest') or values['manifest']}"
            try:
                verified_sha256(path, row.sha256, command)
            except WorkbookError as error:
                if (root / values["weights_dir"]).resolve() == (root / "weights").resolve():
                    raise
                raise type(error)(
                    path, error.problem, f"{error.remedy} It writes to weights/: move the file from there."
                ) from error
