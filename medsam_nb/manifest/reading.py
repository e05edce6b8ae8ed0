"""Reading manifest files: a mistake is reported with its line, its field and what would be allowed."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from medsam_nb.errors import ManifestError, require_known
from medsam_nb.manifest.layouts import (
    AutopetLayout,
    BratsLayout,
    CommonLayout,
    DukeBreastLayout,
    ListedCase,
    ListedLayout,
    Mni152Layout,
    PairsLayout,
    SimulatedCase,
    SimulatedLayout,
)
from medsam_nb.manifest.rows import Checkpoint, DataSet, Expected, File, Manifest
from medsam_nb.protocol.intensity import Intensity

UNKNOWN_FIELD = ("extra_forbidden", "unexpected_keyword_argument")  # of pydantic's models, dataclasses


def load_manifest(path: Path, *more: Path) -> Manifest:
    """Read one or several manifest files as one.

    Raises
    ------
    ManifestError
        With file, line, field and what is allowed, for every mistake found; also for a name that two
        files give, and for a `seen_by` that names no checkpoint (its warning would never be shown).
    """
    data_sets, checkpoints = {}, {}
    for file in (path, *more):
        manifest = _load_one(Path(file))
        for rows, new in ((data_sets, manifest.data_sets), (checkpoints, manifest.checkpoints)):
            twice = sorted(set(rows) & set(new))
            if twice:
                raise ManifestError(
                    file, f"{', '.join(twice)} is already in another file.", "Rename the row."
                )
            rows.update(new)
    for row in data_sets.values() if checkpoints else ():
        for model in row.seen_by:
            item = f"{row.name}, seen_by"
            require_known(item, model, checkpoints, what="checkpoint of the manifest", error=ManifestError)
    return Manifest(data_sets=data_sets, checkpoints=checkpoints)


def _load_one(path: Path) -> Manifest:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(path, f"cannot be read ({error.strerror}).", "Check the path.") from error
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_repeated_keys(path, tree)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ManifestError(
            f"{path}, line {line}", f"is no YAML: {error.problem}.", "Mend the line."
        ) from error
    if not isinstance(content, dict):
        raise ManifestError(path, "holds no rows.", "Begin with `data_sets:` or `checkpoints:`.")
    for rows in content.values():
        for name, row in rows.items() if isinstance(rows, dict) else ():
            if isinstance(row, dict):
                row["name"] = name
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise _readable(path, tree, error) from error


def _refuse_repeated_keys(path: Path, node: yaml.Node | None) -> None:
    """Raise ManifestError where a mapping has one key twice; YAML itself would keep the last."""
    if isinstance(node, yaml.MappingNode):
        seen = {}
        for key, value in node.value:
            if key.value in seen:
                raise ManifestError(
                    f"{path}, line {key.start_mark.line + 1}",
                    f"{key.value!r} stands here again (first in line {seen[key.value]}).",
                    "Keep one of the two.",
                )
            seen[key.value] = key.start_mark.line + 1
            _refuse_repeated_keys(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated_keys(path, value)


def _readable(path: Path, tree: yaml.Node, error: ValidationError) -> ManifestError:
    """Return pydantic's findings with the lines of the file."""
    findings = []
    for item in error.errors():
        line, field = _locate(tree, item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] in UNKNOWN_FIELD:
            message = f"unknown field; known: {', '.join(_known_fields(item['loc']))}"
        elif item["type"] not in ("missing", "value_error", "union_tag_invalid", "union_tag_not_found"):
            message += f", not {item['input']!r}"
        findings.append((line, f"{field}: {message}"))
    # A misspelt field is also a missing one: the misspelling is what the reader must see first.
    findings.sort(key=lambda finding: ("unknown field" not in finding[1], finding[0]))
    line, first = findings[0]
    others = "".join(f"\n  line {number}, {text}." for number, text in findings[1:])
    return ManifestError(
        f"{path}, line {line}",
        f"{first}.{others}",
        f"{len(findings)} mistake(s); mend the file and start again.",
    )


def _locate(node: yaml.Node, location: tuple) -> tuple[int, str]:
    """Return line and dotted name of pydantic's location; names of union members are skipped."""
    line, names = node.start_mark.line + 1, []
    for part in location:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line + 1, value
                    names.append(str(part))
                    break
            else:
                if part == location[-1]:
                    names.append(str(part))
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
            names.append(str(part))
    return line, ".".join(names)


def _known_fields(location: tuple) -> list[str]:
    """Return the fields that the row at a location has."""
    if len(location) == 1:
        return list(Manifest.model_fields)
    model = DataSet if location[0] == "data_sets" else Checkpoint
    for part in location[2:-1]:
        model = {
            "files": File, "expected": Expected, "intensity": Intensity, "listed": ListedLayout,
            "mni152": Mni152Layout, "simulated": SimulatedLayout, "nifti_pairs": PairsLayout,
            "picture_pairs": PairsLayout, "brats": BratsLayout, "autopet": AutopetLayout,
            "duke_breast": DukeBreastLayout,
        }.get(part, CommonLayout if part == "layout" else model)  # fmt: skip
        if "cases" in location[2:-1]:
            model = SimulatedCase if "simulated" in location else ListedCase
    fields = getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", {})
    return [field for field in fields if field not in ("name", "__pydantic_config__")]
