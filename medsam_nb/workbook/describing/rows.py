"""From a folder to a row of the manifest, as YAML text with what was seen and what is left to ask."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medsam_nb.data.build import build_case
from medsam_nb.data.layouts.readers import find_cases, read_case
from medsam_nb.data.quality import case_doubts
from medsam_nb.data.sources import Source
from medsam_nb.errors import InputError, WorkbookError, printable
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import DataSet
from medsam_nb.workbook.describing.contents import (
    MANY_COLOURS,
    Contents,
    like_hounsfield,
    read_any,
    read_contents,
    spread,
)
from medsam_nb.workbook.describing.drafts import draft_layout
from medsam_nb.workbook.describing.listing import Draft, object_name
from medsam_nb.workbook.describing.survey import ImageFile, Survey, images_and_masks, survey_folder
from medsam_nb.workbook.describing.writing import row_as_yaml

MOST_TRIED = 3  # cases that are read as a study would read them
MOST_NAMED = 8  # things in a comment
MODALITIES = {"CT": "CT", "MR": "MRI", "PT": "PET", "US": "ultrasound", "CR": "X-ray", "DX": "X-ray",
              "MG": "mammography", "NM": "SPECT", "XA": "X-ray", "OP": "fundus photography"}  # fmt: skip
WORDS = {
    "CT": "ct|cect|ncct|ldct|hounsfield", "PET": "pet|suv|fdg",
    "MRI": r"mri|mr|t1\w?|t1ce|t1gd|t1post|t2\w?|flair|dwi|adc|bold|swi|mprage",
    "ultrasound": "us|ultrasound|sono|echo|busi", "X-ray": "xray|cxr|dx|radiograph",
    "mammography": "mammo|mammogram", "endoscopy": "endoscopy|colonoscopy|polyp", "OCT": "oct",
    "fundus photography": "fundus|retina", "dermoscopy": "dermoscopy|isic|skin",
    "microscopy": "microscopy|histology|he|wsi|cells?",
}  # fmt: skip


@dataclass(frozen=True)
class Description:
    """What `describe_folder` found.

    Attributes
    ----------
    name : str
        Of the row.
    text : str
        A manifest file with the row, which `load_manifest` reads.
    cases : int
    questions : tuple of str
        What is left to the user; they stand in the text as comments.
    """

    name: str
    text: str
    cases: int
    questions: tuple[str, ...]


def describe_folder(folder: Path) -> Description:
    """Look at a folder of images and masks, and write the row of the manifest that fits.

    Names decide most; headers and a few images and masks the rest. Nothing in the folder is changed.

    Raises
    ------
    InputError
        If there is no folder, no image with a mask in it, or its name cannot stand in a manifest.
    """
    folder = Path(folder).resolve()
    survey = survey_folder(folder)
    if not folder.name or "\\" in folder.name or not folder.name.isprintable():
        raise InputError(folder, "its name cannot stand in a manifest.", "Rename or move it.")

    def values(file: ImageFile):
        try:
            return read_any(folder / file.path).array
        except WorkbookError:
            return None

    images, masks = images_and_masks(survey, values)
    draft = draft_layout(survey, images, masks)
    name = object_name(folder.name, {})
    fields = {
        "title": printable(folder.name), "modality": "not stated", "dimension": 3,
        "objects": draft.objects or {"object": [1]}, "intensity": {"policy": "percentile"},
        "layout": draft.layout,
    }  # fmt: skip
    if folder.name != name:
        fields["folder"] = folder.name
    sources = _sources(name, fields, folder)
    if draft.kind == "arrays":
        fields["dimension"] = _dimension_of_arrays(name, fields, sources)
    seen = read_contents(_row(name, fields), sources)
    comments = _fill_in(fields, draft, seen, survey)
    questions = list(draft.questions)
    questions += _tried(name, fields, sources)
    said = [f"{len(sources)} cases were found in {folder.name}."]
    said += [f"QUESTION: {question}" for question in questions]
    said += [f"Seen: {note}." for note in (*draft.notes, *survey.notes)]
    said.append(
        f"The folder lies in (or is linked from) data/raw, or a study says `raw_dir: {folder.parent}`."
    )
    text = row_as_yaml(name, fields, comments, said)
    _loaded(text, name)  # it is what a study will read
    return Description(name, text, len(sources), tuple(questions))


def _row(name: str, fields: dict) -> DataSet:
    return DataSet.model_validate({"name": name} | fields)


def _sources(name: str, fields: dict, folder: Path) -> list[Source]:
    """Return the cases as the study itself would find them."""
    return list(find_cases(_row(name, fields), folder.parent).values())


def _dimension_of_arrays(name: str, fields: dict, sources: Sequence[Source]) -> int:
    """Return 3 if the first file's arrays are volumes, else 2."""
    for dimension in (3, 2):
        try:
            read_any(sources[0].image, _row(name, fields | {"dimension": dimension}), labels=True)
            return dimension
        except InputError:
            continue
    return 3


def _fill_in(fields: dict, draft: Draft, seen: Contents, survey: Survey) -> dict[str, str]:
    """Set the fields that values decide; return what is to be said of each field."""
    comments: dict[str, str] = {}
    if seen.several_volumes > 1 and draft.layout["name"] in ("nifti_pairs", "picture_pairs", "listed"):
        draft.layout["frame"] = 0
        draft.questions.append(f"files hold {seen.several_volumes} volumes: is the first meant (`frame`)?")
    if seen.images and seen.flat == seen.images:
        fields["dimension"] = 2
    fields["modality"], comments["modality"] = _modality(draft, seen, survey)
    if comments["modality"].startswith("QUESTION"):
        draft.questions.append("which modality is it?")
    fields["intensity"], comments["intensity"] = _intensity(fields["modality"], seen)
    planes = seen.planes
    if set(planes) == {"stored"}:
        fields["slice_axis"] = "stored"
    elif len(planes) > 1:
        fields["slice_axis"] = planes.most_common(1)[0][0]
        named = ", ".join(f"{count} {plane}" for plane, count in planes.most_common())
        comments["slice_axis"] = f"the slices of some cases are thickest in another plane ({named})"
        draft.questions.append(
            f"in which plane are the images cut (`slice_axis`)? By their spacing: {named}."
        )
    elif fields["dimension"] == 3 and planes:
        draft.notes.append(f"slices are {next(iter(planes))}: the plane across the largest spacing")
    if seen.coloured:
        comments["intensity"] = "`colour: rgb` in a line of its own shows colours to the model"
    _fill_in_objects(fields, draft, seen, comments)
    draft.notes += sorted(seen.remarks)
    return comments


def _modality(draft: Draft, seen: Contents, survey: Survey) -> tuple[str, str]:
    stated = {MODALITIES.get(value, value) for value in survey.modalities.values()}
    if len(stated) == 1 and draft.kind in ("dicom", "volume"):
        return stated.pop(), "as the DICOM headers state"
    words = set(re.findall(r"[a-z]+\d?[a-z]*", f"{survey.folder.name} {draft.words}".lower()))
    fitting = {
        name: found
        for name, known in WORDS.items()
        if (found := sorted(word for word in words if re.fullmatch(known, word)))
    }
    if len(fitting) > 1:
        named = ", ".join(f"{name} ({found[0]!r})" for name, found in fitting.items())
        return "not stated", f"QUESTION: names speak of {named}"
    for name, found in fitting.items():
        return name, f"guessed from the name {found[0]!r}"
    if like_hounsfield(seen):
        return "CT", f"guessed from the values ({seen.least:g} to {seen.most:g}, like Hounsfield units)"
    return "not stated", "QUESTION: which is it?"


def _intensity(modality: str, seen: Contents) -> tuple[dict, str]:
    values = f"values from {seen.least:g} to {seen.most:g}" if seen.images else "no image could be read"
    if seen.whole_bytes and seen.images:
        return {"policy": "stored"}, f"8-bit {values}"
    if modality == "CT" and like_hounsfield(seen):
        return {
            "policy": "window",
            "low": -160,
            "high": 240,
        }, f"{values}; a window of soft tissue: change it?"
    return {"policy": "percentile", "low": 0.5, "high": 99.5}, values


def _fill_in_objects(fields: dict, draft: Draft, seen: Contents, comments: dict[str, str]) -> None:
    """Set objects, and what says which values of a mask mean which."""
    by_files = bool(draft.objects) and draft.layout["name"] not in ("nnunet", "msd")
    where = f"in {seen.masks} masks that were read"
    if seen.colours:
        _colours(fields, draft, seen)
    elif seen.soft is not None and 2 * seen.n_soft < seen.masks:
        low, high = seen.soft
        draft.questions.append(
            f"{seen.n_soft} of {seen.masks} masks are soft or grey ({low:g} to {high:g}) and cannot be used "
            "with the others: give them a row of their own with `mask_threshold`."
        )
    elif seen.soft is not None and (by_files or not draft.objects):
        low, high = seen.soft
        fields["mask_threshold"] = 0.5 if high <= 1.5 else 128 if high <= 255 else (low + high) / 2
        draft.questions.append(
            f"masks are soft or grey ({low:g} to {high:g}): from which value on is it the object "
            "(`mask_threshold`)?"
        )
    if by_files or draft.layout["name"] in ("nnunet", "msd"):
        fields["objects"] = draft.objects
        known = {value for values in draft.objects.values() for value in values}
        unknown = sorted(set(seen.voxels) - known) if not by_files else []
        if draft.ignored or unknown:
            fields["ignored_labels"] = sorted({*draft.ignored, *unknown} - known)
        maps = [case for case in draft.layout.get("cases", ()) if "mask" in case and "segments" not in case]
        if maps and seen.voxels:
            named = ", ".join(case["case_id"] for case in maps[:MOST_NAMED])
            draft.questions.append(
                f"objects are called as in other cases; do labels {sorted(seen.voxels)[:MOST_NAMED]} of "
                f"{named} mean the same? If not, give these cases a row of their own."
            )
        elif by_files and seen.label_maps:
            draft.questions.append(
                f"{seen.label_maps} masks hold several labels, and each file counts as one object: is that "
                "meant?"
            )
        if unknown:
            draft.questions.append(f"masks hold labels that dataset.json does not name: {unknown}.")
        return
    if seen.colours or "mask_threshold" in fields:
        return
    one = len(seen.voxels) == 1
    fields["objects"] = {("object" if one else f"label_{value}"): [value] for value in sorted(seen.voxels)}
    fields["objects"] = fields["objects"] or {"object": [1]}
    for name, (value,) in fields["objects"].items():
        comments[f"objects.{name}"] = (
            f"{seen.voxels[value]:,} voxels in {seen.cases[value]} of {seen.masks} masks"
        )
    if not seen.voxels:
        draft.questions.append(f"no label was found {where}: are these the masks?")
    else:
        names = ", ".join(list(fields["objects"])[:MOST_NAMED])
        draft.questions.append(f"what are the objects called ({names})? Give them their names.")


def _colours(fields: dict, draft: Draft, seen: Contents) -> None:
    shown = [colour for colour, _ in seen.colours.most_common(MANY_COLOURS)]
    if seen.lossy or len(seen.colours) > MANY_COLOURS:
        fields["mask_threshold"] = 128
        draft.questions.append(
            f"masks have {len(seen.colours)} colours: `mask_threshold` makes one object of what is bright. "
            "Is that meant? Otherwise give PNG with a colour per object."
        )
        return
    fields["mask_colours"] = {colour: number for number, colour in enumerate(sorted(shown), start=1)}
    fields["objects"] = {f"label_{number}": [number] for number in range(1, len(shown) + 1)}
    draft.questions.append("which object is which colour? A colour that is background gets the value 0.")


def _tried(name: str, fields: dict, sources: Sequence[Source]) -> list[str]:
    """Return what keeps a few cases from being prepared, or puts them in question."""
    row, found = _row(name, fields), []
    for source in spread(sources, MOST_TRIED):
        try:
            case = build_case(row, source.case_id, read_case(row, source.case_id, source))
            found += [f"{source.case_id}: {words}" for words in case_doubts(case).values()]
        except Exception as error:  # of any kind: what it says is what a study would say of the case
            found.append(f"{source.case_id} cannot be prepared: {printable(' '.join(str(error).split()))}")
    return found


def _loaded(text: str, name: str) -> DataSet:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "manifest.yaml"
        path.write_text(text, encoding="utf-8")
        return load_manifest(path).data_set(name)
