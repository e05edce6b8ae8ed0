"""The rows of the manifest: every data set and checkpoint, and what each of their fields means.

Those of masks from elsewhere are in `label_maps`.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from medsam_nb.errors import ManifestError, require_known
from medsam_nb.manifest.adaptation import FineTuning
from medsam_nb.manifest.label_maps import LabelMaps
from medsam_nb.manifest.layouts import Layout, Row
from medsam_nb.manifest.paths import FoundPath, MadePath, Name, require_apart, require_different
from medsam_nb.protocol.intensity import Intensity

MOST_FILE_BYTES = 1 << 50
MOST_OF_AN_EXPRESSION = 500  # characters
# Expressions that can take longer than a life to find that a name does not fit: a repeated group that holds a
# repetition or a choice, or more than four repetitions.
ENDLESS = re.compile(r"[*+}|][^(]*\)+[*+{]|([*+][^*+]*){5}")


def _with_host(url: str) -> str:
    """Refuse an address without a host, with a port that is none, or with a user's name or password."""
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0 or "@" in parts.netloc:
        raise ValueError(f"{url!r} is no address such as https://example.org/file (without a user's name)")
    return url


def _told_apart(labels: list[int]) -> list[int]:
    require_different(labels, "the label")
    return labels


def _with_numbers(settings: object) -> object:
    """Refuse truth values and text as grey-level limits; a dataclass would take them for numbers."""
    for name in ("low", "high"):
        value = settings.get(name, 0.0) if isinstance(settings, dict) else 0.0
        if isinstance(value, bool | str):
            raise ValueError(f"{name} must be a number, not {value!r}")
    return settings


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
LabelValue = Annotated[int, Field(ge=1, le=65535)]
MaskValue = Annotated[int, Field(ge=0, le=65535)]
Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]
Labels = Annotated[list[LabelValue], AfterValidator(_told_apart)]
Url = Annotated[str, Field(pattern=r"^https?://\S+$", max_length=2000), AfterValidator(_with_host)]
Words = Annotated[str, Field(pattern=r"\S")]  # not empty, not only blanks
Label = Annotated[str, Field(pattern=r"\S", max_length=40)]  # as figures print it
Config = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$")]


class File(Row):
    """A file to fetch.

    Attributes
    ----------
    url : where it is public.
    path : where it lies, below the data set's folder.
    sha256 : of its bytes; without it the download is reported as unverified.
    unpack : whether it is an archive (zip, tar) to be unpacked where it lies.
    """

    url: Url
    path: MadePath
    sha256: Sha256 | None = None
    size_bytes: int | None = Field(default=None, gt=0, le=MOST_FILE_BYTES)
    unpack: bool = False


class Expected(Row):
    """What a complete download holds; a difference is reported, not refused.

    Attributes
    ----------
    cases : that can be read, with or without an object.
    study_masks : slices the study counts, as far as known; see `unverified`.
    """

    cases: int | None = Field(default=None, ge=0)
    study_masks: int | None = Field(default=None, ge=0)


class DataSet(Row):
    """One data set: what it is, what may be done with it, and how it is read.

    Attributes
    ----------
    name : key of the row.
    label : what figures and tables call it; from its name where it has none.
    group : the study's rows, embedded, further public, real samples, format examples, or your own.
    objects : label values (of the original release) that make up each object.
    ignored_labels : values that may occur and are no object.
    slice_axis : the plane of the slices, one for all cases; "thickest" is the plane across the largest
        spacing, or, where two spacings are equal, the plane of these.
    intensity : how stored values become 8 bits for the models; `policy: stored` for pictures that have 8 bits
        already (PNG, JPEG), `window` in Hounsfield units for CT, `percentile` else.
    mask_threshold : masks are 1 where their value reaches it (grey, soft or coloured masks).
    mask_colours : the label of each colour ("#rrggbb", in quotes) of coloured pictures as masks; black is 0.
    mask_geometry : "ignore" where the masks' headers are known to be wrong.
    may_be_empty : whether cases without any object belong to the data set (healthy patients).
    colour : "rgb" shows coloured pictures to the models in colour; "grey" reduces them to luminance.
    patient : which cases are of one patient: a regular expression with one group, which is the patient in a
        case's name (or `{patient}` in the patterns of the layout, or `patient` of listed cases, or a table).
    cases : names of the cases that count, where not all of the folder are wanted; `*` stands for any text.
    left_out_cases : names of cases that do not count, in the same form.
    margin_mm : how much of a volume is kept before the first and after the last slice that holds an object;
        the rest is cut off, so that a sweep ends there. All of it is kept by default.
    patient_table : CSV file below the data set's folder with the columns case_id and patient.
    accuracy : whether the masks are a truth to measure against; otherwise a format example.
    seen_by : checkpoints that were trained on this data set, each with where that is published.
    unverified : facts of this row that nobody has checked against the source.
    tested : whether the layout is tested on faithful files from raw folder to prepared cases.
    """

    name: str = ""
    label: Label | None = None
    group: Literal["study", "embedded", "further", "sample", "example", "own"] = "own"
    title: Words
    paper_name: str | None = None
    modality: Words
    dimension: Literal[2, 3]
    objects: dict[Name, Annotated[Labels, Field(min_length=1)]] = Field(min_length=1)
    ignored_labels: Labels = []
    merged: str | None = None
    slice_axis: Literal["thickest", "axial", "coronal", "sagittal", "stored"] = "thickest"
    intensity: Annotated[Intensity, BeforeValidator(_with_numbers)]
    mask_threshold: float | None = None
    mask_colours: dict[Colour, MaskValue] | None = Field(default=None, min_length=1)
    mask_geometry: Literal["check", "ignore"] = "check"
    may_be_empty: bool = False
    colour: Literal["grey", "rgb"] = "grey"
    patient: str | None = None
    patient_table: FoundPath | None = None
    cases: Annotated[list[Words], Field(min_length=1)] | None = None
    left_out_cases: list[Words] = []
    margin_mm: float | None = Field(default=None, ge=0)
    layout: Layout
    folder: FoundPath | Literal[""] = ""
    access: Literal["open", "login", "agreement", "embedded", "own"] = "own"
    licence: str = "not stated"
    citation: str = ""
    home_page: Url | None = None
    files: list[File] = []
    steps: list[str] = []
    expected: Expected = Expected()
    seen_by: dict[Name, Annotated[str, Field(pattern=r"\S")]] = {}
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
        if self.margin_mm is not None and self.dimension == 2:
            raise ValueError("`margin_mm` cuts volumes; a picture has no slices before and after an object")
        require_apart(file.path for file in self.files)
        return self

    @model_validator(mode="after")
    def _masks_have_meaning(self) -> Self:
        if self.mask_colours is not None:
            if self.mask_threshold is not None:
                raise ValueError("give `mask_threshold` or `mask_colours`, not both")
            require_different((colour.lower() for colour in self.mask_colours), "the colour")
        unknown = sorted(getattr(self.layout, "names_objects", set()) - set(self.objects))
        if unknown:
            raise ValueError(f"the layout names masks of {', '.join(unknown)}, which `objects` does not")
        masks = getattr(self.layout, "masks", None) or ""
        if "{part}" in masks and "{object}" not in masks and len(self.objects) > 1:
            raise ValueError("files that `{part}` unites are masks of one object; use `{object}` too")
        return self

    @model_validator(mode="after")
    def _one_rule_for_patients(self) -> Self:
        rules = {
            "`patient`": self.patient is not None,
            "`patient_table`": self.patient_table is not None,
            "the layout": getattr(self.layout, "names_patients", False),
        }
        given = [name for name, is_given in rules.items() if is_given]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} all say which cases are of one patient; keep one rule")
        if self.patient is not None:
            try:
                groups = re.compile(self.patient).groups
            except re.error as error:
                raise ValueError(f"`patient` is no regular expression ({error})") from error
            if len(self.patient) > MOST_OF_AN_EXPRESSION or ENDLESS.search(self.patient):
                raise ValueError("`patient` repeats what repeats, which may never end; write it simpler")
            if groups != 1:
                raise ValueError(
                    f"`patient` has {groups} groups, not one group in brackets, such as ^(P[0-9]+)_"
                )
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
    label : what figures and tables call it; from its name where it has none.
    config : SAM 2's configuration name, or SAM's type ("vit_h").
    sha256 : None where no source states it; results then say "unverified".
    embedded : whether the file is part of the package.
    medical_images : whether it was trained on medical images: "none"; "listed" where all data sets are named
        by their rows' `seen_by`; "partly_listed"; or "unknown", where nothing is published or filled in.
    fine_tuned : how the program made it from another checkpoint, and with whose images.
    """

    name: str = ""
    label: Label | None = None
    family: Literal["sam2", "sam"]
    config: Config
    file: MadePath
    url: Url | None = None
    sha256: Sha256 | None = None
    size_bytes: int | None = Field(default=None, gt=0, le=MOST_FILE_BYTES)
    image_size: int = Field(default=1024, ge=64, le=4096, multiple_of=64)
    embedded: bool = False
    medical_images: Literal["none", "listed", "partly_listed", "unknown"] = "unknown"
    licence: str
    citation: str
    note: str = ""
    fine_tuned: FineTuning | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if not self.embedded and self.url is None and self.fine_tuned is None:
            raise ValueError("a checkpoint needs a `url`, or `embedded: true`")
        return self


class Manifest(Row):
    """All rows, by name."""

    data_sets: dict[Name, DataSet] = {}
    checkpoints: dict[Name, Checkpoint] = {}
    label_maps: dict[Name, LabelMaps] = {}

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        # Each has a folder of its own, and some file systems take "A" and "a" for one name.
        require_different((name.casefold() for name in self.data_sets), "the name")
        # In tables both are a model.
        require_different((*self.checkpoints, *self.label_maps), "the name of a model")
        return self

    @property
    def labels(self) -> dict[str, str]:
        """What data sets and checkpoints are called in figures, where their rows say so."""
        rows = {**self.data_sets, **self.checkpoints}
        return {name: row.label for name, row in rows.items() if row.label}

    def data_set(self, name: str) -> DataSet:
        """Return a row, or raise ManifestError with the names there are."""
        what = "data set of the manifest"
        require_known("data_sets", name, self.data_sets, what=what, error=ManifestError)
        return self.data_sets[name]

    def measured(self, names: Sequence[str]) -> list[str]:
        """Return those of the named data sets that count for accuracy; the others show formats only."""
        return [name for name in names if self.data_set(name).accuracy]

    def checkpoint(self, name: str) -> Checkpoint:
        """Return a row, or raise ManifestError with the names there are."""
        require_known(
            "models", name, self.checkpoints, what="checkpoint of the manifest", error=ManifestError
        )
        return self.checkpoints[name]

    def maps(self, name: str) -> LabelMaps:
        """Return a row of label maps, or raise ManifestError with the names there are."""
        what = "row of the manifest's label_maps"
        require_known("label_maps", name, self.label_maps, what=what, error=ManifestError)
        return self.label_maps[name]
