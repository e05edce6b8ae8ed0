"""Cases whose files are named one by one, where no pattern fits: by folders, or by how names begin."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from medsam_nb.data.names import clean_name
from medsam_nb.data.reading import DICOM, suffix_of
from medsam_nb.data.segments import find_segments
from medsam_nb.errors import InputError
from medsam_nb.workbook.describing.survey import MASK_WORD, ImageFile, Survey

MOST_GROUPED = 2000  # files that are sorted into cases
MOST_LISTED = 200  # cases
SHOWN = 6  # files in a comment
Group = tuple[ImageFile, list[ImageFile]]  # an image and its masks


@dataclass
class Draft:
    """A layout and what is known with it.

    Attributes
    ----------
    layout : dict
        As in the manifest.
    objects : dict of str to list of int
        Where names say it; else empty, and labels are looked for in the masks.
    questions : list of str
        What only the user knows.
    notes : list of str
        What was found.
    kind : str
        Of the images, see `ImageFile`.
    words : str
        Where the modality may be named: paths, names of channels.
    ignored : list of int
        Labels that are no object.
    """

    layout: dict
    objects: dict[str, list[int]] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kind: str = "volume"
    words: str = ""
    ignored: list[int] = field(default_factory=list)


def cases_one_by_one(images: Sequence[ImageFile], masks: Sequence[ImageFile]) -> list[Group]:
    """Return images with their masks: by folders or by names, whichever finds more cases."""
    images, masks = images[:MOST_GROUPED], masks[:MOST_GROUPED]
    return max(_by_folder(images, masks), _by_name(images, masks), key=len)


def _by_folder(images: Sequence[ImageFile], masks: Sequence[ImageFile]) -> list[Group]:
    """Return images with the masks that lie in the same folder or below it, from the innermost out."""
    folders = {str(parent) for one in images for parent in PurePosixPath(one.path).parents}
    left, found = dict.fromkeys((*images, *masks)), []
    of_masks = set(masks)
    for folder in sorted(folders, key=lambda one: (-len(PurePosixPath(one).parts), one)):
        inside = [one for one in left if folder == "." or one.path.startswith(f"{folder}/")]
        image = [one for one in inside if one not in of_masks]
        if len(image) == 1 < len(inside):
            found.append((image[0], [one for one in inside if one in of_masks]))
            for one in inside:
                left.pop(one)
    return sorted(found, key=lambda pair: pair[0].path)


def _by_name(images: Sequence[ImageFile], masks: Sequence[ImageFile]) -> list[Group]:
    """Return images with the masks whose names begin like theirs; the longest beginning wins."""
    stems = {_stem(one): one for one in images}
    found: dict[ImageFile, list[ImageFile]] = {}
    for mask in masks if len(stems) == len(images) else ():
        stem = _stem(mask)
        ends = [number for number in range(len(stem), 0, -1) if not stem[number - 1 : number + 1].isalnum()]
        image = next((stems[stem[:end]] for end in (len(stem), *ends) if stem[:end] in stems), None)
        if image is not None:
            found.setdefault(image, []).append(mask)
    return sorted(found.items(), key=lambda pair: pair[0].path)


def _stem(file: ImageFile) -> str:
    name = PurePosixPath(file.path).name
    return name if file.kind == "dicom" else name[: len(name) - len(suffix_of(Path(name)))]


def draft_list(survey: Survey, grouped: Sequence[Group], files: Sequence[ImageFile]) -> Draft:
    """Return the draft that names the files of every case; of all files, those left over are named."""
    draft = Draft({"name": "listed", "cases": []}, kind=grouped[0][0].kind)
    draft.words = " ".join(image.path for image, _ in grouped[:SHOWN])
    numbers: dict[str, int] = {}
    names: set[str] = set()
    alone = Counter(str(PurePosixPath(image.path).parent) for image, _ in grouped)
    for image, masks in grouped[:MOST_LISTED]:
        place = PurePosixPath(image.path)
        own = place.parent.name if alone[str(place.parent)] == 1 and image.path != place.name else place.name
        if image.path == place.name and len(grouped) == 1:
            own = survey.folder.name
        own = own.removesuffix(suffix_of(Path(own))) if own == place.name and image.kind != "dicom" else own
        case: dict = {"case_id": _case_name(own, names), "image": image.path}
        case |= _masks(survey, image, masks, draft, numbers, case["case_id"])
        draft.layout["cases"].append(case)
    draft.objects = {name: [number] for name, number in numbers.items()}
    if len(grouped) > MOST_LISTED:
        draft.questions.append(f"{len(grouped)} cases were found; the first {MOST_LISTED} are listed.")
    used = {one for image, masks in grouped for one in (image, *masks)}
    left = [one.path for one in files if one not in used]
    if left:
        shown = ", ".join(left[:SHOWN]) + (", ..." if len(left) > SHOWN else "")
        draft.notes.append(f"{len(left)} files belong to no case: {shown}")
    return draft


def _masks(
    survey: Survey, image: ImageFile, masks: list[ImageFile], draft: Draft, numbers: dict, case: str
) -> dict:
    """Return the fields of a case that say its masks; which of several were taken is a question."""
    folder = PurePosixPath(image.path).parent
    segmentations = [one for one in masks if one.kind == "segmentation"]
    beside = [one for one in masks if PurePosixPath(one.path).parent == folder]
    chosen = masks
    if segmentations:
        chosen = segmentations[:1]
    elif len(beside) == 1 < len(masks):
        chosen = beside
    if len(chosen) < len(masks):
        others = ", ".join(one.path for one in masks if one not in chosen[:1])
        draft.questions.append(f"{case}: {chosen[0].path} was taken as its mask; there are also {others}.")
    if segmentations:
        return _segments(survey, chosen[0], draft, numbers)
    called = _called(image, chosen[0]) if len(chosen) == 1 else ""
    if called:
        numbers.setdefault(called, len(numbers) + 1)
        return {"masks": {called: [chosen[0].path]}}
    if len(chosen) == 1:
        return {"mask": chosen[0].path}
    return {"masks": _by_object([one.path for one in chosen], numbers)}


def _called(image: ImageFile, mask: ImageFile) -> str:
    """Return what a mask's name adds to its image's, as "liver" in "s1_liver_0", but no word like "mask"."""
    added = _stem(mask).removeprefix(_stem(image))
    if added == _stem(mask) or MASK_WORD.search(added.lower()):
        return ""
    name = _without_number(added.strip("_-. "))
    return object_name(name, {}) if any(map(str.isalpha, name)) else ""


def _without_number(name: str) -> str:
    """Return a name without what counts several files of one object; these are united."""
    return re.sub(r"[-_. ]+\d+$", "", name) or name


def _case_name(text: str, taken: set[str]) -> str:
    """Return a case's name in ASCII that is not taken."""
    base = object_name(clean_name(text), {})[:80]
    name, number = base, 1
    while name.casefold() in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name.casefold())
    return name


def _segments(survey: Survey, mask: ImageFile, draft: Draft, numbers: dict[str, int]) -> dict:
    """Return the fields of a case whose mask is a segmentation with named segments."""
    path = survey.folder / mask.path
    if suffix_of(path) not in DICOM and path.suffix.lower() not in (".nrrd", ".nhdr"):
        return {"mask": mask.path}
    try:
        segments = find_segments(path)
    except InputError as error:
        draft.questions.append(str(error))
        return {"mask": mask.path}
    calls = [one.name.strip() for one in segments]
    fields: dict[str, str] = {}
    for one, called in zip(segments, calls, strict=True):
        twice = not called or [name.lower() for name in calls].count(called.lower()) > 1
        word = f"#{one.number}" if twice else called
        fields[object_name(called or f"segment_{one.number}", fields)] = word
    for name in fields:
        numbers.setdefault(name, len(numbers) + 1)
    return {"mask": mask.path, "segments": fields}


def _by_object(paths: Sequence[str], numbers: dict[str, int]) -> dict[str, list[str]]:
    """Return mask files by object: what their names do not share is the object's name."""
    stems = [PurePosixPath(path).name.removesuffix(suffix_of(Path(path))) for path in paths]
    first, last = _shared(stems), _shared([stem[::-1] for stem in stems])
    fields: dict[str, list[str]] = {}
    for path, stem in zip(paths, stems, strict=True):
        name = stem[first : len(stem) - last].strip("_-. ") or stem
        fields.setdefault(object_name(_without_number(name), {}), []).append(path)
    for name in fields:
        numbers.setdefault(name, len(numbers) + 1)
    return fields


def _shared(texts: Sequence[str]) -> int:
    """Return how many characters all texts begin with, up to the end of a word."""
    count = 0
    while all(len(text) > count for text in texts) and len({text[count] for text in texts}) == 1:
        count += 1
    while count and texts[0][count - 1].isalnum():
        count -= 1
    return count


def object_name(text: str, taken: Mapping[str, object]) -> str:
    """Return a name that the manifest allows for an object, made from any text, and not taken.

    Examples
    --------
    >>> object_name("left atrium", {}), object_name("left atrium", {"left_atrium": [1]})
    ('left_atrium', 'left_atrium_2')
    """
    base = re.sub(r"[^A-Za-z0-9_+-]+", "_", text).strip("_")[:90] or "object"
    base = base if re.match(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d)$", base) is None else f"{base}_"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name
