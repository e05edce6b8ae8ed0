"""What a manifest row says of its layout: the name of a reader, and what that reader needs to know.

The readers themselves are in `layouts`.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medsam_nb.manifest.paths import CasePattern, FoundPath, Name, require_different

PATIENT = "{patient}"
MOST_VOXELS = 1 << 26  # of a simulated case; its drawing takes about 50 bytes a voxel


class Row(BaseModel):
    """What all parts of the manifest share.

    No unknown field, no change after loading, no value of another type (`true` is no label, "no" is not
    false), no NaN and no infinity.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CommonLayout(Row):
    """A layout that needs no more than its name; `frame` chooses a volume of 4D image files."""

    name: Literal[
        "msd", "lits", "ct_org", "scgm", "i2cvb", "saml", "kaggle_chest", "montgomery", "hip_xray", "busi",
        "ct2us", "marzola", "mmotu", "us_nerve",
    ]  # fmt: skip
    frame: int | None = Field(default=None, ge=0)


class BratsLayout(Row):
    """BraTS 2018 to 2021: which of the four sequences is shown to the model."""

    name: Literal["brats"]
    sequence: Literal["flair", "t1", "t1ce", "t2"] = "t1ce"


class AutopetLayout(Row):
    """autoPET study folders or its nnU-Net form: PET in SUV, or the CT resampled to it."""

    name: Literal["autopet"]
    image: Literal["pet", "ct"] = "pet"


class DukeBreastLayout(Row):
    """Duke breast MRI: which series, by a word in its folder's name, and which segments."""

    name: Literal["duke_breast"]
    series: str = Field(default="pre", min_length=1)
    segments: dict[Name, Annotated[list[str], Field(min_length=1)]] = Field(min_length=1)


class PairsLayout(Row):
    """Images and masks with matching names.

    Attributes
    ----------
    images, masks : paths below the data set's folder, in which `{case}` stands for the case's name. In both,
        `{patient}` may stand for the patient's name; a case is then called by both, as in "patient7_scan2".
        In `masks`, `{object}` stands for the name of an object, which then has a file of its own, and
        `{part}` for what tells several files of one mask apart, which are united. All else is literal.
    frame : which volume of files with several (4D, phases), from 0.
    """

    name: Literal["nifti_pairs", "picture_pairs"]
    images: CasePattern | None = None
    masks: CasePattern | None = None
    frame: int | None = Field(default=None, ge=0)

    @property
    def names_patients(self) -> bool:
        """Whether the patterns say which cases are of one patient."""
        return PATIENT in (self.images or "") and PATIENT in (self.masks or "")

    @model_validator(mode="after")
    def _same_placeholders(self) -> Self:
        if not self.names_patients and PATIENT in f"{self.images}{self.masks}":
            raise ValueError("`{patient}` must stand in both patterns, `images` and `masks`, or in neither")
        return self

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if self.images and self.images == self.masks:
            raise ValueError("`images` and `masks` name the same files")
        if self.images and ("{object}" in self.images or "{part}" in self.images):
            raise ValueError("`images` names one file for each case: only `{case}` may stand in it")
        return self


class NnunetLayout(Row):
    """nnU-Net's raw format, version 1 or 2: `dataset.json`, `imagesTr` and `labelsTr`.

    Regions (labels that overlap, as in BraTS) are objects of the row with all their label values.

    Attributes
    ----------
    channel : which input channel is shown to the models: its number, from 0, or its name in `dataset.json`;
        needed where there are several.
    """

    name: Literal["nnunet"]
    channel: Annotated[int, Field(ge=0, le=9999)] | Annotated[str, Field(pattern=r"\S")] | None = None


Axes = Literal["zyx", "xyz"]
Millimetres = Annotated[float, Field(gt=0, le=1000)]


class ArraysLayout(Row):
    """Arrays in NumPy's .npz or in HDF5 files: (z, y, x) or (y, x), the components of a colour last.

    The defaults are the names in the files of the interactive-segmentation challenges. Their boxes are not
    read: prompts come from the masks, as everywhere.

    Attributes
    ----------
    images : files below the data set's folder, in which `{case}` stands for the case's name, and `{patient}`
        perhaps for the patient's; as in `nifti_pairs`.
    masks : the same of files that hold the masks; by default they are in the images' files.
    image, mask : names of the arrays ("group/name" in HDF5).
    spacing : name of an array, or of an attribute of the image in HDF5, with the distance between voxels in
        mm; by default "spacing", if there is one.
    spacing_axes : the order of its numbers; "xyz" as SimpleITK states them.
    spacing_mm : or the distances themselves (z, y, x), the same for all cases.
    axes : the order of the arrays' axes; "xyz" where they were saved as nibabel reads them.
    """

    name: Literal["npz", "hdf5"]
    images: CasePattern
    masks: CasePattern | None = None
    image: str = Field(default="imgs", min_length=1)
    mask: str = Field(default="gts", min_length=1)
    spacing: str | None = Field(default=None, min_length=1)
    spacing_axes: Axes = "xyz"
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] | None = Field(default=None, strict=False)
    axes: Axes = "zyx"

    @property
    def names_patients(self) -> bool:
        """Whether the patterns say which cases are of one patient."""
        return PATIENT in self.images

    @model_validator(mode="after")
    def _plain(self) -> Self:
        if self.spacing and self.spacing_mm:
            raise ValueError("give `spacing`, a name in the files, or `spacing_mm`, the numbers; not both")
        if self.masks is not None and (PATIENT in self.masks) != (PATIENT in self.images):
            raise ValueError("`{patient}` must stand in both patterns, `images` and `masks`, or in neither")
        if any(word in f"{self.images}{self.masks}" for word in ("{object}", "{part}")):
            raise ValueError(
                "one file holds all masks of a case: only `{case}` and `{patient}` may stand here"
            )
        return self


class ListedCase(Row):
    """One case with its files named one by one.

    Attributes
    ----------
    mask : a label map; or, with `segments` (object to segment name), a segmentation file.
    masks : or one binary mask per object (several files are united).
    patient : whose images these are; the case is a patient of its own if not given.
    """

    case_id: Name
    image: FoundPath
    mask: FoundPath | None = None
    segments: dict[Name, str] | None = Field(default=None, min_length=1)
    masks: dict[Name, Annotated[list[FoundPath], Field(min_length=1)]] | None = Field(
        default=None, min_length=1
    )
    patient: Annotated[str, Field(pattern=r"\S")] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.mask is None) == (self.masks is None):
            raise ValueError("give either `mask` or `masks`")
        if self.image in (self.mask, *(path for paths in (self.masks or {}).values() for path in paths)):
            raise ValueError("the image and a mask are the same file")
        if self.segments and not self.mask:
            raise ValueError("`segments` are those of one `mask` file")
        return self


class ListedLayout(Row):
    """Cases whose files are named in the manifest itself."""

    name: Literal["listed"]
    cases: list[ListedCase] = Field(min_length=1)
    frame: int | None = Field(default=None, ge=0)

    @property
    def names_objects(self) -> set[str]:
        """The objects whose masks the cases name one by one."""
        return {name for case in self.cases for name in (case.segments or case.masks or ())}

    @property
    def names_patients(self) -> bool:
        """Whether any case says whose images it holds."""
        return any(case.patient for case in self.cases)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        # Some file systems take "A" and "a" for one name.
        require_different((case.case_id.casefold() for case in self.cases), "the case_id")
        return self


class Mni152Layout(Row):
    """A slab of the MNI152 template that comes with nilearn."""

    name: Literal["mni152"]
    resolution_mm: int = Field(default=2, ge=1, le=4)
    first_slice: int = Field(default=0, ge=0, le=180)
    slice_count: int | None = Field(default=None, ge=1)


Side = Annotated[int, Field(ge=16, le=2048)]  # of a slice, pixels
Spacing = Annotated[float, Field(ge=0.001, le=100)]  # mm


class SimulatedCase(Row):
    """One simulated case: everything that decides it."""

    seed: int = Field(ge=0, lt=1_000_000)
    shape: tuple[Annotated[int, Field(ge=6, le=2048)], Side, Side] = Field(strict=False)
    spacing_mm: tuple[Spacing, Spacing, Spacing] = Field(strict=False)

    @model_validator(mode="after")
    def _can_be_allocated(self) -> Self:
        voxels = self.shape[0] * self.shape[1] * self.shape[2]
        if voxels > MOST_VOXELS:
            raise ValueError(f"shape has {voxels:,} voxels; at most {MOST_VOXELS:,} are allowed")
        return self


class SimulatedLayout(Row):
    """Cases computed by `simulated.anatomy.simulate_case`; seed and slice thickness name them."""

    name: Literal["simulated"]
    modality: Literal["ct", "mri", "pet", "ultrasound", "xray"]
    cases: list[SimulatedCase] = Field(min_length=1)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [(case.seed, f"{case.spacing_mm[0]:g} mm") for case in self.cases]
        require_different(names, "the case of seed and slice thickness")
        return self


class SimulatedGridLayout(Row):
    """Cases that differ in one thing only (`simulated.controlled`): every seed at every depth and distance.

    Attributes
    ----------
    slices : numbers of slices; odd ones have a slice at height 0 in common.
    slice_mm : distances between slices.
    pixels, pixel_mm : of a square slice.
    """

    name: Literal["simulated_grid"]
    anatomy: Literal["torso", "column"]
    modality: Literal["ct", "mri", "pet", "ultrasound", "xray"]
    seeds: list[Annotated[int, Field(ge=0, lt=1_000_000)]] = Field(min_length=1)
    slices: list[Annotated[int, Field(ge=6, le=2048)]] = Field(min_length=1)
    slice_mm: list[Spacing] = Field(min_length=1)
    pixels: Side = 160
    pixel_mm: Spacing = 2.0

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        for what in ("seeds", "slices", "slice_mm"):
            require_different(getattr(self, what), f"of `{what}`,")
        if max(self.slices) * self.pixels**2 > MOST_VOXELS:
            raise ValueError(f"a case would have more than {MOST_VOXELS:,} voxels")
        if self.anatomy == "column" and self.modality not in ("ct", "pet"):
            raise ValueError("a column is rendered as ct or pet; its slices are drawn one by one")
        return self

    @property
    def cases(self) -> dict[str, tuple[int, int, float]]:
        """Seed, number of slices and their distance (mm) of every case, by name, like "seed3_21x5mm"."""
        return {
            f"seed{seed}_{count}x{spacing:g}mm": (seed, count, spacing)
            for seed in self.seeds
            for spacing in self.slice_mm
            for count in self.slices
        }


Layout = Annotated[
    CommonLayout
    | BratsLayout
    | AutopetLayout
    | DukeBreastLayout
    | PairsLayout
    | NnunetLayout
    | ArraysLayout
    | ListedLayout
    | Mni152Layout
    | SimulatedLayout
    | SimulatedGridLayout,
    Field(discriminator="name"),
]
