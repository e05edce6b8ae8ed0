"""A case as it lies on disk: its files, and how several mask files become one label map."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medsam_nb.data.formats import (
    PICTURES,
    as_labels,
    is_coloured,
    luminance,
    read_mask_picture,
    read_volume,
    suffix_of,
    with_data,
)
from medsam_nb.data.segments import read_segments
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.volume import Volume, reoriented, require_same_grid

MOST_BYTES = 100  # of a name that is a part of a path
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class Source:
    """The files of one case.

    Attributes
    ----------
    case_id : str
    image : Path
        A file, or a folder with one DICOM series.
    masks : tuple of Path
    rule : {"labels", "any", "majority", "by_object", "segments"}
        How masks become labels. "labels": one label map. "any": a voxel counts where any mask is
        not 0 (several lesions, left and right). "majority": most raters' label. "by_object": each
        file is the mask of the object `names` gives. "segments": a `.seg.nrrd` or DICOM
        segmentation, whose segments `names` are the objects.
    names : tuple of (str, str)
        For "by_object" one (object, "") per mask file; for "segments" (object, name of a segment)
        pairs, where an object may have several.
    patient : str
        Whose images these are, where the layout says it; else empty.
    """

    case_id: str
    image: Path
    masks: tuple[Path, ...]
    rule: str = "labels"
    names: tuple[tuple[str, str], ...] = ()
    patient: str = ""

    def files(self) -> list[Path]:
        """Return every file that decides the case, sorted."""
        found = []
        for path in (self.image, *self.masks):
            found += sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else with_data(path)
        return found


@dataclass(frozen=True, eq=False)
class RawCase:
    """Image and labels of a case in the file's own orientation.

    Attributes
    ----------
    image, labels : Volume
    objects : mapping of str to tuple of int
    remarks : tuple of str
        What reading had to decide.
    colours : Volume or None
        RGB on the image's grid, uint8 (z, y, x, 3), where the row shows colours and the image has some.
    """

    image: Volume
    labels: Volume
    objects: Mapping[str, tuple[int, ...]]
    remarks: tuple[str, ...] = ()
    colours: Volume | None = None


def clean_name(text: str) -> str:
    """Return a text as a case's name, which is also a folder's: letters of any script, digits, and "_.+-".

    A name of which nothing is left, that a system reserves, or that is too long, gets the first digits of its
    hash, so that different texts stay different.

    Examples
    --------
    >>> clean_name("benign (12)"), clean_name("患者 3"), clean_name("(?)")
    ('benign_12', '患者_3', 'case-9a5d6a09')
    """
    text = unicodedata.normalize("NFC", text)
    name = re.sub(r"[^\w.+-]+", "_", text).strip("_.")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    if not name:
        return f"case-{digest}"
    if name.split(".")[0].lower() in RESERVED:
        return f"{name}-{digest}"
    if len(name.encode()) > MOST_BYTES:
        start = name.encode()[: MOST_BYTES - len(digest) - 1].decode(errors="ignore")
        return f"{start}-{digest}"
    return name


def require_component(name: str, what: str) -> str:
    """Return a name that is one safe part of a path, or raise InputError.

    No separator, no leading dot, no control character, not empty, at most `MOST_BYTES` bytes.
    """
    safe = re.fullmatch(r"[\w+-][\w.+-]*", name) and len(name.encode()) <= MOST_BYTES
    if not safe:
        raise InputError(repr(name), f"is no {what}.", "Use letters, digits, '_', '-', '+', and '.' inside.")
    return name


def visible(paths: Iterable[Path]) -> list[Path]:
    """Return paths in natural order without what archives made on a Mac add ("._name")."""
    kept = (path for path in paths if not path.name.startswith(".") and "__MACOSX" not in path.parts)
    return sorted(kept, key=lambda p: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", str(p))])


def require_found(sources: list[Source], folder: Path, pattern: str) -> list[Source]:
    """Return the sources, or raise InputError with what was looked for.

    Sources of one name, however that came about, get the hash of their image's place and stay apart.
    """
    if not sources:
        raise InputError(folder, f"no case found; looked for {pattern}.", "Put the unpacked download there.")
    counts = Counter(source.case_id.lower() for source in sources)  # on some systems "A" is "a"
    found = []
    for source in sources:
        if counts[source.case_id.lower()] > 1:
            place = source.image.relative_to(folder) if source.image.is_relative_to(folder) else source.image
            digest = hashlib.sha256(place.as_posix().encode()).hexdigest()[:8]
            source = replace(source, case_id=f"{source.case_id}-{digest}")
        found.append(source)
    return found


def combine_masks(
    masks: Mapping[str, np.ndarray], values: Mapping[str, tuple[int, ...]]
) -> tuple[np.ndarray, dict[str, tuple[int, ...]]]:
    """Return masks that may overlap as one label map: every overlap gets a label of its own.

    Parameters
    ----------
    masks : mapping of str to ndarray of bool, one shape
    values : mapping of str to tuple of int
        Label of each object where it lies alone (its first one).

    Returns
    -------
    labels : ndarray of uint16
    objects : dict of str to tuple of int
        All labels of each object, overlaps included.

    Examples
    --------
    >>> a, b = np.array([1, 1, 0], bool), np.array([0, 1, 1], bool)
    >>> labels, objects = combine_masks({"a": a, "b": b}, {"a": (1,), "b": (2,)})
    >>> labels.tolist(), objects
    ([1, 3, 2], {'a': (1, 3), 'b': (2, 3)})
    """
    names = list(masks)
    objects = {name: [values[name][0]] for name in names}
    stack = np.stack([np.asarray(masks[name], bool) for name in names])
    labels = np.zeros(stack.shape[1:], np.uint16)
    labelled = np.flatnonzero(stack.any(axis=0))
    patterns, inverse = np.unique(stack.reshape(len(names), -1)[:, labelled], axis=1, return_inverse=True)
    free = max(value for group in values.values() for value in group) + 1
    codes = np.zeros(patterns.shape[1], np.uint16)
    for column in range(patterns.shape[1]):
        members = [names[row] for row in np.flatnonzero(patterns[:, column])]
        if len(members) == 1:
            codes[column] = objects[members[0]][0]
        else:
            codes[column], free = free, free + 1
            for name in members:
                objects[name].append(int(codes[column]))
    labels.ravel()[labelled] = codes[inverse.ravel()]
    return labels, {name: tuple(group) for name, group in objects.items()}


def majority(raters: list[np.ndarray]) -> np.ndarray:
    """Return the raters' consensus: foreground where more than half of them mark any label.

    The label is then the most frequent one, the lowest of equally frequent ones. Voting on each label
    alone would leave holes where raters agree on the whole but not on its parts.

    Examples
    --------
    >>> majority([np.array(labels) for labels in ([1, 1, 2], [1, 2, 2], [1, 0, 0], [0, 1, 0])]).tolist()
    [1, 1, 0]
    """
    stack = np.stack(raters)
    values = np.unique(stack[stack > 0])
    if not len(values):
        return stack[0]
    votes = np.stack([(stack == value).sum(axis=0) for value in values])
    agreed = (stack > 0).sum(axis=0) * 2 > len(raters)
    return np.where(agreed, values[votes.argmax(axis=0)], 0).astype(stack.dtype)


def read_source(source: Source, row: DataSet) -> RawCase:
    """Read image and masks of a case, checked against each other.

    Raises
    ------
    InputError
        If a file is missing or damaged, a mask is soft, or image and mask do not fit.
    """
    colour = row.colour == "rgb"
    image = read_volume(source.image, frame=getattr(row.layout, "frame", None), colour=colour)
    remarks, colours = [], None
    if image.array.ndim == 4:
        colours, image = image, Volume(luminance(image.array), image.affine)
    elif not colour and suffix_of(source.image) in PICTURES and is_coloured(source.image):
        remarks.append("colour image reduced to luminance (`colour: rgb` in the row shows the colours)")
    objects = {name: tuple(values) for name, values in row.objects.items()}
    if source.rule == "segments":
        masks = _chosen_segments(source, image)
        array, objects = combine_masks(masks, objects)
        overlap = sum(len(group) for group in objects.values()) > len(objects)
        if overlap:
            remarks.append("segments overlap: every overlap has a label of its own")
        return RawCase(image, Volume(array, image.affine), objects, tuple(remarks), colours)
    masks = [_read_mask(path, row, image, source.rule == "by_object") for path in source.masks]
    if source.rule == "labels":
        array = masks[0]
    elif source.rule == "any":
        value = next(iter(objects.values()))[0]
        array = np.any([mask > 0 for mask in masks], axis=0).astype(np.uint8) * np.uint8(value)
    elif source.rule == "majority":
        array = majority(masks)
    else:
        united: dict[str, np.ndarray] = {}
        for (name, _), mask in zip(source.names, masks, strict=True):
            united[name] = united.get(name, False) | (mask > 0)
        array, objects = combine_masks(united, objects)
    return RawCase(image, Volume(array, image.affine), objects, tuple(remarks), colours)


def _read_mask(path: Path, row: DataSet, image: Volume, by_object: bool) -> np.ndarray:
    """Return one mask as labels on the image's grid."""
    if row.mask_threshold is not None and len(row.objects) > 1 and not by_object:
        raise InputError(
            path,
            f"`mask_threshold` makes one object of a mask, but the row {row.name} has {len(row.objects)}.",
            "Give a mask file for each object (`masks` of a listed case), or one row for each object.",
        )
    if suffix_of(path) in PICTURES and row.mask_threshold is not None:
        labels = read_mask_picture(path, row.mask_threshold)
    else:
        labels = as_labels(read_volume(path, labels=True), path, row.mask_threshold)
    if row.mask_geometry == "ignore":
        labels = Volume(labels.array, image.affine)
    elif sorted(labels.array.shape) == sorted(image.array.shape):
        labels = _same_order(labels, image)
    require_same_grid(image, labels, path)
    return labels.array


def _same_order(labels: Volume, image: Volume) -> Volume:
    """Return labels in the image's storage order where only that differs."""
    if labels.orientation == image.orientation:
        return labels
    return reoriented(labels, image.orientation)


def _chosen_segments(source: Source, image: Volume) -> dict[str, np.ndarray]:
    """Return the segments that the source names, by object."""
    masks: dict[str, np.ndarray] = {}
    seen = []
    for path in source.masks:
        found = {name.lower(): mask for name, mask in read_segments(path, image).items()}
        seen += found
        for name, segment in source.names:
            if segment.lower() in found:
                masks[name] = masks.get(name, False) | found[segment.lower()]
    missing = sorted({name for name, _ in source.names if name not in masks})
    if missing:
        raise InputError(
            ", ".join(path.name for path in source.masks),
            f"no segment for {', '.join(missing)}; there are: {', '.join(seen)}.",
            "Correct the segments' names in the manifest row.",
        )
    return masks
