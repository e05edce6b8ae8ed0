"""What each notebook of a study is given, and whether all of it can be done: before the first one starts."""

from collections.abc import Collection, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

from medsam_nb.errors import CheckpointError, InputError, StudyError, WorkbookError, require_known
from medsam_nb.figures.choices import Choices
from medsam_nb.manifest.fine_tuned import TRAIN_AGAIN, with_fine_tuned
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import Checkpoint, Manifest
from medsam_nb.protocol.designs import chosen_designs
from medsam_nb.provenance import project_root
from medsam_nb.workbook import comparisons, parameters
from medsam_nb.workbook.study import (
    Study,
    below_root,
    defaults,
    find_study,
    load_study,
    notebooks,
    run_folder,
)

MANIFEST, WEIGHTS = "data_manifest.yaml", "weights"
MANIFESTS = ("manifest", "extra_manifest")
OPTIONAL = ("sam2", "sam", "rival")  # a study may do without them, whatever the notebook's default names
GIVEN_BY_THE_RUN = "study_file"


def opened_study(
    path: Path, overrides: Mapping[str, Any] | None = None, only: Sequence[str] = ()
) -> tuple[Path, Study, dict[str, dict[str, Any]]]:
    """Return a study's file, the study, and the parameters of its notebooks; all of it can be done.

    Parameters
    ----------
    path : Path
        The study's YAML file, or its name.
    overrides : mapping, optional
        Parameters that replace those of the file.
    only : sequence of str
        Notebooks of the study, by name or number ("05"); all if empty.

    Raises
    ------
    WorkbookError
        See `resolve_parameters` and `require_ready`; also if the study has no such notebook.
    """
    path = find_study(path)
    study = load_study(path)
    parameters = resolve_parameters(study, path, overrides)
    chosen = {name: parameters[name] for name in _chosen(only, list(parameters), path)}
    require_ready(chosen)
    return path, study, chosen


def _chosen(only: Sequence[str], names: Sequence[str], path: Path) -> list[str]:
    """Return the notebooks that are asked for, by name or number, in the order of the study."""
    wanted = set()
    for one in only:
        matching = [name for name in names if name == one or name.split("_")[0] == one]
        if not matching:
            require_known(f"{path}, --only", one, names, what="notebook of this study")
        wanted |= set(matching)
    return [name for name in names if not only or name in wanted]


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
    _check_style(path, study.style, effective.values())
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
        rows = self[tuple(project_root() / name for name in names if name)]
        return with_fine_tuned(rows, project_root() / values.get("weights_dir", WEIGHTS))


def _check_meanings(
    study: Study, effective: Mapping[str, Mapping], sources: Mapping[str, Mapping], manifests: _Manifests
) -> None:
    """Check what the values mean, each notebook's together with what the study evaluates."""
    run_dir = run_folder(study).resolve()
    evaluating = [values for values in effective.values() if "prompts" in values or "designs" in values]
    evaluated = frozenset(model for values in evaluating for model in values.get("models", []))
    prompts = frozenset(prompt for values in evaluating for prompt in values.get("prompts", []))
    designs: frozenset[str] = frozenset()

    def check(name: str, parameter: str, rows: Manifest) -> None:
        values = effective[name]
        where = f"{sources[name].get(parameter, f'notebook {name}')}, parameter {parameter}"
        if parameter == "run_dir" and (project_root() / values[parameter]).resolve() != run_dir:
            raise StudyError(
                where,
                f"is {values[parameter]!r}, but the study's name is {study.name!r}.",
                f"Leave run_dir out (it is runs/{study.name}), or change `name`.",
            )
        try:
            parameters.check_meaning(parameter, parameters.Given(values, rows, evaluated, prompts, designs))
        except WorkbookError as error:
            raise parameters.named(where, error) from error

    for name, values in effective.items():
        for parameter in MANIFESTS:  # they come first, for what they say is needed for the rest
            if parameter in values:
                check(name, parameter, Manifest())
        rows = manifests.of(values)
        for parameter in values:  # what a study does not give is the notebook's default, checked with it
            if parameter not in OPTIONAL or parameter in sources[name]:
                check(name, parameter, rows)
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
        known["model"] |= dict.fromkeys([*values.get("models", []), *values.get("label_maps", [])])
        known["data_set"] |= dict.fromkeys(row.name for row in rows)
        known["modality"] |= dict.fromkeys(row.modality for row in rows)
        known["object"] |= dict.fromkeys(name for row in rows for name in row.objects)
    comparisons.check(load_study(path, roles).comparisons, path, known)


def _check_style(path: Path, style: Choices, effective: Collection[Mapping]) -> None:
    """Check that figures of designs and of prompts will show something of what the study evaluates."""
    asked = [chosen_designs(values["designs"]) for values in effective if "designs" in values]
    designs, prompts = set().union(*asked), set().union(*(values.get("prompts", ()) for values in effective))
    for field, measured, drawn in (
        ("designs", designs, designs.intersection(chosen_designs(style.designs))),
        ("prompts", prompts, prompts.intersection(style.prompts)),
    ):
        if measured and not drawn:
            where = f"{path}, field style.{field}"
            raise StudyError(where, f"this study evaluates none of these {field}.", "Name some that it does.")


def labels_of(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return what the manifests that notebooks read call their data sets and checkpoints in figures."""
    manifests, found = _Manifests(), {}
    for values in parameters.values():
        found |= manifests.of(values).labels
    return found


def require_ready(resolved: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise where this machine lacks what the parameters ask for: a device, weights, label maps.

    Raises
    ------
    CheckpointError
        If the device is not there, or weights are missing or not what the manifest says; the message names
        all of them, with the commands that get them.
    InputError
        If there is no label map of a data set.
    """
    asked = [defaults(name) | given for name, given in resolved.items()]
    if not any("device" in values or "weights_dir" in values for values in asked):
        return
    from medsam_nb.models.checkpoints import require_device  # imports torch

    manifests, lacking = _Manifests(), {}
    for values in asked:
        if "device" in values:
            require_device(values["device"])
        if "weights_dir" not in values:
            continue
        rows = manifests.of(values)
        _require_label_maps(rows, values)
        models = [*values.get("models", []), *(values[role] for role in parameters.ROLES if role in values)]
        for row in map(rows.checkpoint, dict.fromkeys(models)):
            own = row.name not in manifests.of({}).checkpoints
            manifest = (values.get("extra_manifest") or values["manifest"]) if own else ""
            error = _weights_error(row, values["weights_dir"], manifest)
            if error:
                lacking[row.name] = error
    if len(lacking) == 1:
        raise next(iter(lacking.values()))
    if lacking:
        listed = "".join(f"\n  {error}" for error in lacking.values())
        raise CheckpointError("weights", f"of {len(lacking)} models cannot be used:", listed)


def _require_label_maps(rows: Manifest, values: Mapping[str, Any]) -> None:
    """Raise InputError for label maps of which not one is there."""
    for row in map(rows.maps, values.get("label_maps", [])):
        for name in filter(row.covers, values.get("data_sets", [])):
            pattern = row.files.replace("{data_set}", escape(name)).replace("{case}", "*")
            if not any(project_root().glob(pattern)):
                raise InputError(
                    f"label maps {row.name}",
                    f"there is no file {row.files.replace('{data_set}', name)}.",
                    f"Put them there; if there are none of {name}, name in `data_sets` those there are.",
                )


def _weights_error(row: Checkpoint, weights_dir: str, manifest: str) -> WorkbookError | None:
    """Return what is wrong with a model's weights; `manifest` names the own manifest that its row is in."""
    from medsam_nb.models.checkpoints import verified_sha256, weights_path

    root = project_root()
    command = f"{row.name} --manifest {manifest}" if manifest else row.name
    try:
        verified_sha256(weights_path(row, root / weights_dir), row.sha256, command)
    except WorkbookError as error:
        if row.fine_tuned:
            return type(error)(error.item, error.problem, TRAIN_AGAIN)
        if (root / weights_dir).resolve() == (root / "weights").resolve():
            return error
        remedy = f"{error.remedy} It writes to weights/: move the file from there."
        return type(error)(error.item, error.problem, remedy)
    return None
