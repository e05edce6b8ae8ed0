"""The data manifest: every data set and checkpoint as a validated row.

A mistake in the file is reported with its line, its field and what would be allowed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from medsam_nb.errors import ManifestError
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.manifest.layouts import (
    AutopetLayout,
    BratsLayout,
    CommonLayout,
    DukeBreastLayout,
    Layout,
    ListedCase,
    ListedLayout,
    Mni152Layout,
    Name,
    PairsLayout,
    RelativePath,
    Row,
    SimulatedCase,
    SimulatedLayout,
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
UNKNOWN_FIELD = ("extra_forbidden", "unexpected_keyword_argument")  # of pydantic's models, dataclasses
LabelValue = Annotated[int, Field(ge=1, le=65535)]


class File(Row):
    """A file to fetch.

    Attributes
    ----------
    url : where it is public.
    path : where it lies, below the data set's folder.
    sha256 : of its bytes; without it the download is reported as unverified.
    unpack : whether it is an archive (zip, tar) to be unpacked where it lies.
    """

    url: str = Field(pattern=r"^https?://\S+$")
    path: RelativePath
    sha256: Sha256 | None = None
    size_bytes: int | None = Field(default=None, gt=0)
    unpack: bool = False


class Expected(Row):
    """What a complete download holds; a difference is reported, not refused.

    Attributes
    ----------
    cases : that can be read, with or without an object.
    study_masks : slices the study counts, as far as known; see `unverified`.
    """

    cases: int | None = None
    study_masks: int | None = None


class DataSet(Row):
    """One data set: what it is, what may be done with it, and how it is read.

    Attributes
    ----------
    name : key of the row.
    objects : label values (of the original release) that make up each object.
    ignored_labels : values that may occur and are no object.
    mask_threshold : masks are 1 where their value reaches it (grey, soft or coloured masks).
    mask_geometry : "ignore" where the masks' headers are known to be wrong.
    may_be_empty : whether cases without any object belong to the data set (healthy patients).
    accuracy : whether the masks are a truth to measure against; otherwise a format example.
    unverified : facts of this row that nobody has checked against the source.
    tested : whether the layout is tested on faithful files from raw folder to prepared cases.
    """

    name: str = ""
    title: str
    paper_name: str | None = None
    modality: str
    dimension: Literal[2, 3]
    objects: dict[Name, list[LabelValue]] = Field(min_length=1)
    ignored_labels: list[LabelValue] = []
    merged: str | None = None
    slice_axis: Literal["thickest", "axial", "coronal", "sagittal", "stored"] = "thickest"
    intensity: Intensity
    mask_threshold: float | None = None
    mask_geometry: Literal["check", "ignore"] = "check"
    may_be_empty: bool = False
    layout: Layout
    folder: RelativePath = ""
    access: Literal["open", "login", "agreement", "embedded", "own"] = "own"
    licence: str = "not stated"
    citation: str = ""
    home_page: str | None = None
    files: list[File] = []
    steps: list[str] = []
    expected: Expected = Expected()
    seen_by: list[str] = []
    truth: str = "reference masks of the data set"
    accuracy: bool = True
    tested: bool = False
    unverified: list[str] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        named = {value for values in self.objects.values() for value in values}
        both = sorted(named & set(self.ignored_labels))
        if both:
            raise ValueError(f"labels {both} are both an object and ignored")
        if self.access in ("login", "agreement") and not self.steps:
            raise ValueError("access behind a login or agreement needs `steps` that say how to get it")
        return self

    @property
    def raw_folder(self) -> str:
        """Folder of the download below the raw root: `folder`, or the row's name."""
        return self.folder or self.name

    @property
    def ready(self) -> bool:
        """Whether its layout is tested end to end."""
        return self.tested or self.access == "embedded"


class Checkpoint(Row):
    """One model's weights.

    Attributes
    ----------
    config : SAM 2's configuration name, or SAM's type ("vit_h").
    sha256 : None where no source states it; results then say "unverified".
    embedded : whether the file is part of the package.
    """

    name: str = ""
    family: Literal["sam2", "sam"]
    config: str
    file: RelativePath
    url: str | None = None
    sha256: Sha256 | None = None
    size_bytes: int | None = Field(default=None, gt=0)
    image_size: int = Field(default=1024, gt=0)
    embedded: bool = False
    licence: str
    citation: str
    note: str = ""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if not self.embedded and self.url is None:
            raise ValueError("a checkpoint needs a `url`, or `embedded: true`")
        return self


class Manifest(Row):
    """All rows, by name."""

    data_sets: dict[Name, DataSet] = {}
    checkpoints: dict[Name, Checkpoint] = {}

    def data_set(self, name: str) -> DataSet:
        """Return a row, or raise ManifestError with the names there are."""
        return _row(self.data_sets, name, "data set")

    def measured(self, names: Sequence[str]) -> list[str]:
        """Return those of the named data sets that count for accuracy; the others show formats only."""
        return [name for name in names if self.data_set(name).accuracy]

    def checkpoint(self, name: str) -> Checkpoint:
        """Return a row, or raise ManifestError with the names there are."""
        return _row(self.checkpoints, name, "checkpoint")


def _row(rows: dict, name: str, kind: str):
    if name not in rows:
        raise ManifestError(name, f"the manifest has no such {kind}.", f"Known: {', '.join(sorted(rows))}.")
    return rows[name]


def load_manifest(path: Path, *more: Path) -> Manifest:
    """Read one or several manifest files as one.

    Raises
    ------
    ManifestError
        With file, line, field and what is allowed, for every mistake found; also for a name that two
        files give.
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
