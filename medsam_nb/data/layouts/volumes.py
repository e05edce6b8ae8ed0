"""On-disk layouts of the study's volumetric data sets, as their downloads unpack.

Each function looks below the data set's folder, at any depth: archives differ in their outermost
folder. Nothing is read but lists of names.
"""

import re
from pathlib import Path

from medsam_nb.data.sources import Source, clean_name, visible
from medsam_nb.errors import InputError
from medsam_nb.files import read_json
from medsam_nb.manifest.rows import DataSet


def find_msd(folder: Path, row: DataSet) -> list[Source]:
    """Medical Segmentation Decathlon: a task folder whose `dataset.json` lists the training cases."""
    lists = visible(folder.rglob("dataset.json"))
    if len(lists) != 1:
        raise InputError(
            folder, f"holds {len(lists)} files dataset.json.", "Put one task's unpacked archive there."
        )
    described = read_json(lists[0])
    try:
        pairs = [
            (lists[0].parent / item["image"], lists[0].parent / item["label"])
            for item in described["training"]
        ]
        labels = {int(value) for value in described["labels"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            lists[0], f"is no task description ({error}).", "Unpack the archive again."
        ) from error
    absent = sorted({value for values in row.objects.values() for value in values} - labels)
    if absent:
        raise InputError(
            lists[0],
            f"it has the labels {described['labels']}, not {', '.join(map(str, absent))}.",
            f"This is not the task of {row.name}, or the row's objects are wrong.",
        )
    return [
        Source(image.name.removesuffix(".gz").removesuffix(".nii"), image, (label,))
        for image, label in pairs
        if not image.name.startswith(".")
    ]


def _numbered(folder: Path, image_stem: str, mask_stem: str) -> list[Source]:
    """Pair `<image_stem>-N.nii[.gz]` with `<mask_stem>-N.nii[.gz]`, wherever they lie."""

    def by_number(stem: str) -> dict[int, Path]:
        pattern = re.compile(rf"{stem}-(\d+)\.nii(\.gz)?")
        found = ((pattern.fullmatch(path.name), path) for path in visible(folder.rglob(f"{stem}-*.nii*")))
        return {int(match[1]): path for match, path in found if match}

    images, masks = by_number(image_stem), by_number(mask_stem)
    return [
        Source(f"{image_stem}-{n}", images[n], (masks.get(n, images[n].with_name(f"{mask_stem}-{n}.nii")),))
        for n in sorted(images)
        if n in masks or not _is_test_case(images[n])
    ]


def _is_test_case(path: Path) -> bool:
    """Whether an image lies in a folder of test cases, which have no public masks."""
    return any(part.lower().startswith("test") for part in path.parts)


def find_lits(folder: Path, row: DataSet) -> list[Source]:
    """LiTS: `Training Batch 1|2/volume-N.nii` with `segmentation-N.nii`."""
    return _numbered(folder, "volume", "segmentation")


def find_ct_org(folder: Path, row: DataSet) -> list[Source]:
    """CT-ORG: `volume-N.nii.gz` with `labels-N.nii.gz`, in one folder or in `volumes` and `labels`."""
    return _numbered(folder, "volume", "labels")


def find_brats(folder: Path, row: DataSet) -> list[Source]:
    """BraTS 2018 to 2021: `<case>/<case>_{flair,t1,t1ce,t2,seg}.nii[.gz]`, with or without HGG/LGG."""
    sources = []
    for mask in visible(folder.rglob("*_seg.nii*")):
        case = mask.name[: mask.name.index("_seg.nii")]
        image = mask.with_name(mask.name.replace("_seg.nii", f"_{row.layout.sequence}.nii"))
        sources.append(Source(clean_name(case), image, (mask,)))
    return sources


def find_scgm(folder: Path, row: DataSet) -> list[Source]:
    """Grey matter challenge: `siteS-scNN-image.nii.gz` with four raters `-mask-r1` to `-mask-r4`."""
    sources = []
    for image in visible(folder.rglob("site*-sc*-image.nii.gz")):
        stem = image.name.removesuffix("-image.nii.gz")
        masks = tuple(image.with_name(f"{stem}-mask-r{rater}.nii.gz") for rater in (1, 2, 3, 4))
        if any(mask.exists() for mask in masks):  # the challenge's test cases have none
            sources.append(Source(stem, image, masks, "majority"))
    return sources


def find_i2cvb(folder: Path, row: DataSet) -> list[Source]:
    """I2CVB prostate: `<scanner>/<patient>/T2W` and `.../GT/prostate`, one DICOM series each.

    The names of the inner folders have not been seen in an original download.
    """
    sources = []
    for image in visible(path for path in folder.rglob("*") if path.is_dir() and path.name.upper() == "T2W"):
        patient = image.parent
        scanner = "" if patient.parent == folder else f"{patient.parent.name}_"
        sources.append(Source(clean_name(scanner + patient.name), image, (patient / "GT" / "prostate",)))
    return sources


def find_saml(folder: Path, row: DataSet) -> list[Source]:
    """SAML prostate: `<site>/Case00.nii.gz` with `Case00_Segmentation.nii.gz` (either case of S)."""
    sources = []
    for image in visible(folder.rglob("Case*.nii.gz")):
        if "_segmentation" in image.name.lower():
            continue
        stem = image.name.removesuffix(".nii.gz")
        names = [image.with_name(f"{stem}_{word}.nii.gz") for word in ("Segmentation", "segmentation")]
        mask = next((name for name in names if name.exists()), names[0])
        sources.append(Source(clean_name(f"{image.parent.name}_{stem}"), image, (mask,)))
    return sources


def find_autopet(folder: Path, row: DataSet) -> list[Source]:
    """autoPET: `PETCT_<id>/<study>/{SUV,CTres,SEG}.nii.gz`, or `imagesTr/<case>_000N` with `labelsTr`.

    In the second form channel 0000 is the CT on the PET's grid and 0001 the PET in SUV.
    """
    file, channel = {"pet": ("SUV", "0001"), "ct": ("CTres", "0000")}[row.layout.image]
    sources = []
    for mask in visible(folder.rglob("PETCT_*/*/SEG.nii.gz")):
        study, patient = mask.parent, mask.parent.parent
        sources.append(
            Source(clean_name(f"{patient.name}_{study.name}"), mask.with_name(f"{file}.nii.gz"), (mask,))
        )
    for mask in visible(folder.rglob("labelsTr/*.nii.gz")):
        case = mask.name.removesuffix(".nii.gz")
        image = mask.parent.parent / "imagesTr" / f"{case}_{channel}.nii.gz"
        sources.append(Source(clean_name(case), image, (mask,)))
    return sources


def find_duke_breast(folder: Path, row: DataSet) -> list[Source]:
    """Duke breast MRI: DICOM `Breast_MRI_NNN/<study>/<series>`, masks as `.seg.nrrd` of their own.

    The masks are `Segmentation_Masks_NRRD/Breast_MRI_NNN/Segmentation_Breast_MRI_NNN_{Breast,
    Dense_and_Vessels}.seg.nrrd`; their label values differ from file to file, so segments are found
    by name. The series is the one whose folder's name has the row's word in it.
    """
    names = tuple((name, segment) for name, found in row.layout.segments.items() for segment in found)
    sources = []
    for first in visible(folder.rglob("Segmentation_Breast_MRI_*_Breast.seg.nrrd")):
        case = first.parent.name
        series = [
            path
            for path in visible(folder.rglob(f"{case}/*/*"))
            if path.is_dir() and re.search(rf"\b{re.escape(row.layout.series)}\b", path.name, re.IGNORECASE)
        ]
        if len(series) != 1:
            image = folder / f"{case} ({len(series)} series with {row.layout.series!r} in the name)"
        else:
            image = series[0]
        masks = tuple(visible(first.parent.glob(f"Segmentation_{case}_*.seg.nrrd")))
        sources.append(Source(case, image, masks, "segments", names))
    return sources
