"""Reading manifest files: a mistake is reported with its line, its field and what would be allowed."""

import reprlib
from pathlib import Path

import yaml
from pydantic import ValidationError

from medsam_nb.errors import ManifestError, require_known
from medsam_nb.files import locate, read_yaml
from medsam_nb.manifest.adaptation import FineTuning
from medsam_nb.manifest.label_maps import LabelMaps
from medsam_nb.manifest.layouts import (
    ArraysLayout,
    AutopetLayout,
    BratsLayout,
    CommonLayout,
    DukeBreastLayout,
    ListedCase,
    ListedLayout,
    Mni152Layout,
    NnunetLayout,
    PairsLayout,
    SimulatedCase,
    SimulatedGridLayout,
    SimulatedLayout,
)
from medsam_nb.manifest.rows import Checkpoint, DataSet, Expected, File, Manifest
from medsam_nb.protocol.intensity import Intensity

MANY_MISTAKES = 20  # a message lists no more
UNKNOWN_FIELD = ("extra_forbidden", "unexpected_keyword_argument")  # of pydantic's models, dataclasses


def load_manifest(path: Path, *more: Path) -> Manifest:
    """Read one or several manifest files as one.

    Raises
    ------
    ManifestError
        With file, line, field and what is allowed, for every mistake found; also for a name that two
        files give, and for a `seen_by` that names no checkpoint (its warning would never be shown).
    """
    data_sets, checkpoints, label_maps, places = {}, {}, {}, {}
    for file in (path, *more):
        manifest = _load_one(Path(file))
        for rows, new, others in (
            (data_sets, manifest.data_sets, {}),
            (checkpoints, manifest.checkpoints, label_maps),
            (label_maps, manifest.label_maps, checkpoints),
        ):
            twice = sorted({*rows, *others} & set(new))
            if twice:
                raise ManifestError(
                    file, f"{', '.join(twice)} is already in another file.", "Rename the row."
                )
            rows.update(new)
            places |= dict.fromkeys(new, file)
    for row in data_sets.values() if checkpoints else ():
        for model in row.seen_by:
            item = f"{places[row.name]}, {row.name}.seen_by"
            known = [*checkpoints, *label_maps]
            require_known(item, model, known, what="checkpoint of the manifest", error=ManifestError)
    return Manifest(data_sets=data_sets, checkpoints=checkpoints, label_maps=label_maps)


def _load_one(path: Path) -> Manifest:
    content, tree = read_yaml(path, error=ManifestError)
    if not any(content.values()):
        raise ManifestError(
            path, "holds no rows.", "Begin with `data_sets:`, `checkpoints:` or `label_maps:`."
        )
    named = {kind: _with_names(path, tree, kind, rows) for kind, rows in content.items()}
    try:
        return Manifest.model_validate(named)
    except ValidationError as error:
        raise _readable(path, tree, error) from error


def _with_names(path: Path, tree: yaml.Node, kind: str, rows: object) -> object:
    """Return the rows of one kind with their keys as names; each is a new one, as aliases share theirs."""
    if not isinstance(rows, dict):
        return rows
    for name, row in rows.items():
        if isinstance(row, dict) and "name" in row:
            line, field = locate(tree, (kind, name, "name"))
            problem = f"{field}: the name of a row is its key, {name!r}."
            raise ManifestError(f"{path}, line {line}", problem, "Remove the field.")
    return {name: {**row, "name": name} if isinstance(row, dict) else row for name, row in rows.items()}


def _readable(path: Path, tree: yaml.Node, error: ValidationError) -> ManifestError:
    """Return pydantic's findings with the lines of the file."""
    findings = []
    for item in error.errors():
        line, field = locate(tree, item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] in UNKNOWN_FIELD:
            message = f"unknown field; known: {', '.join(_known_fields(item['loc']))}"
        elif item["type"] not in ("missing", "value_error", "union_tag_invalid", "union_tag_not_found"):
            message += f", not {reprlib.repr(item['input'])}"
            if item["type"] == "string_type" and isinstance(item["input"], bool | int | float):
                message += " (put it in quotes)"
        findings.append((line, f"{field}: {message}"))
    # A misspelt field is also a missing one: the misspelling is what the reader must see first.
    findings.sort(key=lambda finding: ("unknown field" not in finding[1], finding[0]))
    line, first = findings[0]
    others = "".join(f"\n  line {number}, {text}." for number, text in findings[1:MANY_MISTAKES])
    return ManifestError(
        f"{path}, line {line}",
        f"{first}.{others}",
        f"{len(findings)} mistake(s); mend the file and start again.",
    )


def _known_fields(location: tuple) -> list[str]:
    """Return the fields that the row at a location has."""
    if len(location) == 1:
        return list(Manifest.model_fields)
    model = {"data_sets": DataSet, "label_maps": LabelMaps}.get(location[0], Checkpoint)
    for part in location[2:-1]:
        model = {
            "files": File, "expected": Expected, "intensity": Intensity, "listed": ListedLayout,
            "mni152": Mni152Layout, "simulated": SimulatedLayout, "simulated_grid": SimulatedGridLayout,
            "nifti_pairs": PairsLayout, "picture_pairs": PairsLayout, "brats": BratsLayout,
            "autopet": AutopetLayout, "duke_breast": DukeBreastLayout, "nnunet": NnunetLayout,
            "npz": ArraysLayout, "hdf5": ArraysLayout, "fine_tuned": FineTuning,
        }.get(part, CommonLayout if part == "layout" else model)  # fmt: skip
        if "cases" in location[2:-1]:
            model = SimulatedCase if "simulated" in location else ListedCase
    fields = getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", {})
    return [field for field in fields if field not in ("name", "__pydantic_config__")]
