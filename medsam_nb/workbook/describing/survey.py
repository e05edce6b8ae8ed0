"""Which image files lie in a folder, and which of them are masks, as far as names and a few headers say."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medsam_nb.data.names import natural
from medsam_nb.data.reading import ARRAYS, DICOM, ITK, NIFTI, PICTURES, suffix_of
from medsam_nb.errors import InputError

MOST_ENTRIES = 100_000  # files and folders; a look at more takes too long
MOST_HEADERS = 24  # of DICOM files in one folder
MOST_LOOKED_INTO = 40  # files that are read to tell an image from a mask
FEW_VALUES = 64  # of a mask
MASK_WORD = re.compile(
    r"mask|label|annot|ground.?truth"
    r"|(?<![a-z])(?:[a-z]{0,4}seg|gts?|rois?|truth|contours?|segm\w*|msk)s?(?![a-z])"
)
NAMELESS = ("", *(f".{number}" for number in range(10)))  # DICOM files often have no ending


@dataclass(frozen=True)
class ImageFile:
    """A file, or a folder with a DICOM series.

    Attributes
    ----------
    path : str
        Below the folder that was looked at, with "/".
    kind : {"volume", "picture", "dicom", "segmentation", "arrays"}
        "segmentation" is a DICOM segmentation or a `.seg.nrrd`, whose segments have names.
    """

    path: str
    kind: str


@dataclass(frozen=True)
class Survey:
    """What lies in a folder.

    Attributes
    ----------
    folder : Path
    files : tuple of ImageFile
        In natural order.
    descriptions : tuple of str
        Paths of `dataset.json`.
    modalities : dict of str to str
        Of DICOM series and files, by path, as their headers state it ("CT").
    notes : tuple of str
        What was not looked at, and why.
    """

    folder: Path
    files: tuple[ImageFile, ...]
    descriptions: tuple[str, ...]
    modalities: dict[str, str]
    notes: tuple[str, ...]


def survey_folder(folder: Path) -> Survey:
    """Look at the names in a folder, and at headers of DICOM files.

    Links to folders are not followed, hidden files and what is no regular file are left out.

    Raises
    ------
    InputError
        If it is no folder, or cannot be opened.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(folder, "is no folder.", "Give the folder that holds your images and masks.")
    notes: list[str] = []
    found: list[ImageFile] = []
    descriptions: list[str] = []
    modalities: dict[str, str] = {}
    for place, names in _folders(folder, notes):
        series: list[Path] = []
        for name in names:
            path, suffix = place / name, suffix_of(Path(name))
            below = path.relative_to(folder).as_posix()
            if name == "dataset.json":
                descriptions.append(below)
            elif name.lower().endswith((".seg.nrrd", ".seg.nhdr")):
                found.append(ImageFile(below, "segmentation"))
            elif suffix in NIFTI + ITK:
                found.append(ImageFile(below, "volume"))
            elif suffix in PICTURES:
                found.append(ImageFile(below, "picture"))
            elif suffix in ARRAYS:
                found.append(ImageFile(below, "arrays"))
            elif suffix in DICOM or (suffix[:2] in NAMELESS and _is_dicom(path)):
                series.append(path)
        found += _dicom_entries(folder, place, series, modalities, notes)
    found.sort(key=lambda one: natural(one.path))
    return Survey(folder, tuple(found), tuple(sorted(descriptions)), modalities, tuple(notes))


def _folders(folder: Path, notes: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder with the names of its regular files, sorted; say what is left out."""
    refused: list[OSError] = []
    count = unreadable = 0
    for place, folders, names in os.walk(folder, onerror=refused.append):
        folders[:] = sorted(one for one in folders if not one.startswith(".") and one != "__MACOSX")
        count += len(folders) + len(names)
        kept = [one for one in names if not one.startswith(".") and _is_regular(Path(place, one))]
        plain = [one for one in kept if _is_text(one)]
        unreadable += len(kept) - len(plain)
        yield Path(place), sorted(plain)
        if count > MOST_ENTRIES:
            notes.append(f"only the first {count:,} files and folders were looked at")
            break
    if refused and not count:
        raise InputError(folder, f"cannot be opened ({refused[0].strerror}).", "Look at its rights.")
    notes += [f"{len(refused)} folders cannot be opened"] if refused else []
    notes += [f"{unreadable} names are no text and were left out"] if unreadable else []


def _is_regular(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name.isprintable()


def _is_dicom(path: Path) -> bool:
    """Whether a file without a known ending is DICOM, by the four letters after its preamble."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _dicom_entries(
    folder: Path, place: Path, files: Sequence[Path], modalities: dict[str, str], notes: list[str]
) -> Iterator[ImageFile]:
    """Yield the series of a folder, or its files one by one where they are several things."""
    if not files:
        return
    chosen = files if len(files) <= MOST_HEADERS else [files[n] for n in _spread(len(files), MOST_HEADERS)]
    headers = {path: _header(path) for path in chosen}
    images = {path: one for path, one in headers.items() if one[0] not in ("SEG", "RTSTRUCT", "?")}
    segmentations = [path for path, one in headers.items() if one[0] == "SEG"]
    for path in segmentations:
        yield ImageFile(path.relative_to(folder).as_posix(), "segmentation")
    kinds = {one[0] for one in headers.values()} - {one[0] for one in images.values()} - {"SEG"}
    below = place.relative_to(folder).as_posix()
    if kinds:
        notes.append(f"{below}: DICOM files without an image ({', '.join(sorted(kinds))})")
    if len({one[1] for one in images.values()}) > 1:
        notes.append(f"{below} holds several DICOM series: give each a folder of its own")
    elif images:
        one_file = len(images) == 1 and len(files) - len(segmentations) == 1
        path = next(iter(images)).relative_to(folder).as_posix() if one_file else below
        modalities[path] = next(iter(images.values()))[0]
        yield ImageFile(path, "dicom")


def _header(path: Path) -> tuple[str, str]:
    """Return modality and series of a DICOM file; "?" where it cannot be read."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = ["Modality", "SeriesInstanceUID"]
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        return str(header.get("Modality") or "?"), str(header.get("SeriesInstanceUID", ""))
    except Exception:  # a damaged file; reading it later says what is wrong
        return "?", ""


def _spread(count: int, most: int) -> list[int]:
    """Return at most so many indices, from the first to the last."""
    return sorted({round(n) for n in np.linspace(0, count - 1, min(count, most))})


def images_and_masks(survey: Survey, read) -> tuple[list[ImageFile], list[ImageFile]]:
    """Return a survey's images and masks: told by their names, or, where these say nothing, by their values.

    Parameters
    ----------
    survey : Survey
    read : callable
        Returns the values of a file as an array, or None where it cannot be read.
    """
    files = [one for one in survey.files if one.kind != "arrays"]
    named = set(_named_as_masks("", [one.path for one in files], False))
    masks = [one for one in files if one.kind == "segmentation" or one.path in named]
    if not masks or len(masks) == len(files):
        masks = _by_values(files, read)
    chosen = set(masks)
    return [one for one in files if one not in chosen], list(masks)


def _named_as_masks(folder: str, paths: Sequence[str], inside: bool) -> Iterator[str]:
    """Yield the paths that a word calls a mask, in the file's name or in that of a folder.

    A folder's word does not count where the names inside tell images from masks by themselves, as in
    "liver_seg/image.nii" and "liver_seg/mask.nii".
    """
    told = {bool(MASK_WORD.search(path[len(folder) :].lower())) for path in paths}
    inside = inside and len(told) < 2
    below: dict[str, list[str]] = {}
    for path in paths:
        name, slash, _ = path[len(folder) :].partition("/")
        if slash:
            below.setdefault(name, []).append(path)
        elif inside or MASK_WORD.search(name.lower()):
            yield path
    for name, held in below.items():
        yield from _named_as_masks(f"{folder}{name}/", held, inside or bool(MASK_WORD.search(name.lower())))


def _by_values(files: Sequence[ImageFile], read) -> list[ImageFile]:
    """Return the files whose like hold few values; files that differ in digits only are alike."""
    groups: dict[str, list[ImageFile]] = {}
    for one in files:
        groups.setdefault(re.sub(r"\d+", "#", one.path), []).append(one)
    looked_into = list(groups.values())[:MOST_LOOKED_INTO]
    if Counter(map(len, looked_into)).get(len(files)):  # all are alike, such as 1.png and 2.png
        looked_into = [[one] for one in files[:MOST_LOOKED_INTO]]
    found = []
    for group in looked_into:
        if group[0].kind == "segmentation" or looks_like_a_mask(read(group[0])):
            found += group
    return found


def looks_like_a_mask(array: np.ndarray | None) -> bool:
    """Whether an array holds a few whole numbers from 0, most of them 0."""
    if array is None or array.size == 0 or array.min() != 0:
        return False
    values, counts = np.unique(array, return_counts=True)
    return (
        2 <= len(values) <= FEW_VALUES
        and bool((values == np.rint(values)).all())
        and counts[0] == max(counts)
    )
