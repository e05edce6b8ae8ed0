"""A case as it lies on disk: its files, and how several mask files become one label map."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby
from pathlib import Path

import nibabel as nib
import numpy as np

from medsam_nb.data.arrays import read_arrays
from medsam_nb.data.formats import as_labels, one_volume, read_volume, with_data
from medsam_nb.data.label_maps import combine_masks, majority
from medsam_nb.data.names import digest_of, folded, with_digest
from medsam_nb.data.pictures import is_lossy, luminance, read_colour_mask, read_mask_picture
from medsam_nb.data.reading import MISSING_FILE, PICTURES, ReadVolume, guarded, suffix_of
from medsam_nb.data.segments import find_segments
from medsam_nb.errors import InputError
from medsam_nb.manifest.layouts import ArraysLayout
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.volume import Volume, require_same_grid


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
        pairs, where an object may have several, one after the other.
    problem : (str, str, str), optional
        Item, problem and remedy, where finding the files already showed that the case cannot be read.
    patient : str
        Whose images these are, where the layout says it; else empty.
    """

    case_id: str
    image: Path
    masks: tuple[Path, ...]
    rule: str = "labels"
    names: tuple[tuple[str, str], ...] = ()
    problem: tuple[str, str, str] | None = None
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
    lossy : bool
        Whether masks come from a format that changes values.
    colours : Volume or None
        RGB on the image's grid, uint8 (z, y, x, 3), where the row shows colours and the image has some.
    """

    image: Volume
    labels: Volume
    objects: Mapping[str, tuple[int, ...]]
    remarks: tuple[str, ...] = ()
    lossy: bool = False
    colours: Volume | None = None


def require_found(sources: list[Source], folder: Path, pattern: str) -> list[Source]:
    """Return the sources, or raise InputError with what was looked for.

    Sources of one name, however that came about, get a hash of where their files lie and stay apart. Names
    that some systems take for one ("A" and "a") count as one.
    """
    if not sources:
        raise InputError(folder, f"no case found; looked for {pattern}.", "Put the unpacked download there.")
    names = [source.case_id for source in sources]
    for digits in (8, 16, 64):
        counts = Counter(map(folded, names))
        if max(counts.values()) == 1:
            return [replace(source, case_id=name) for source, name in zip(sources, names, strict=True)]
        names = [
            with_digest(source.case_id, digest_of(_places(source, folder), digits))
            if counts[folded(name)] > 1
            else name
            for source, name in zip(sources, names, strict=True)
        ]
    raise InputError(folder, "two cases are the same files.", "Keep one of them.")


def several(folder: Path, case: str, paths: Sequence[Path]) -> tuple[str, str, str] | None:
    """Return the problem of a case for which several files could be meant, or None where one is there."""
    if len(paths) < 2:
        return None
    names = " and ".join(path.relative_to(folder).as_posix() for path in paths)
    return case, f"several files could be meant: {names}.", "Keep one, or make the pattern narrower."


def _places(source: Source, folder: Path) -> str:
    """Return what tells a source from all others of its data set, wherever that lies."""
    paths = [
        path.relative_to(folder) if path.is_relative_to(folder) else path
        for path in (source.image, *source.masks)
    ]
    return "\0".join([source.case_id, *(path.as_posix() for path in paths)])


def read_source(source: Source, row: DataSet) -> RawCase:
    """Read image and masks of a case, checked against each other.

    Raises
    ------
    InputError
        If a file is missing or damaged, a mask is soft, image and mask do not fit, or the row cannot say what
        the masks' values mean.
    """
    if source.problem is not None:
        raise InputError(*source.problem)
    objects = {name: tuple(values) for name, values in row.objects.items()}
    unknown = sorted({name for name, _ in source.names} - set(objects))
    if unknown:
        problem = f"its masks are of {', '.join(unknown)}; the row {row.name} has {', '.join(objects)}."
        raise InputError(source.case_id, problem, "Correct the name, or add it to `objects`.")
    colours, colour = None, row.colour == "rgb"
    if isinstance(row.layout, ArraysLayout):
        image = guarded(read_arrays, source.image, row.layout, row.dimension, colour)
    else:
        image = read_volume(source.image, frame=getattr(row.layout, "frame", None), colour=colour)
    if image.array.ndim == 4:
        colours, image = Volume(image.array, image.affine), replace(image, array=luminance(image.array))
    _require_shown_unit(source.image, image, row)
    remarks = list(image.remarks)
    if source.rule == "segments":
        array, objects = combine_masks(_chosen_segments(source, image, remarks), objects)
    elif source.rule == "by_object":
        array, objects = combine_masks(_masks_by_object(source, row, image, remarks), objects)
    else:
        masks = (_read_mask(path, row, image, remarks) for path in source.masks)
        if source.rule == "labels":
            array = next(masks)
        elif source.rule == "any":
            united = reduce(np.logical_or, (mask > 0 for mask in masks))
            array = united.astype(np.uint8) * np.uint8(next(iter(objects.values()))[0])
        else:
            array = majority(list(masks))
    if source.rule in ("segments", "by_object") and sum(map(len, objects.values())) > len(objects):
        remarks.append("masks overlap: every overlap has a label of its own")
    lossy = row.mask_threshold is None and any(is_lossy(path) for path in source.masks)
    said = tuple(dict.fromkeys(remarks))
    return RawCase(image, Volume(array, image.affine), objects, said, lossy, colours)


def _require_shown_unit(path: Path, image: ReadVolume, row: DataSet) -> None:
    """Raise InputError for PET in Bq/ml under a window: limits are meant in SUV, which nothing computes."""
    if image.unit and image.unit != "GML" and row.intensity.policy == "window":
        raise InputError(
            path,
            f"its values are {image.unit}, no SUV, and the row {row.name} has a window of fixed values.",
            "Turn it into SUV first (by weight, dose and time), or choose `policy: percentile`, which no "
            "factor changes.",
        )


def _masks_by_object(
    source: Source, row: DataSet, image: ReadVolume, remarks: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the mask of each object, its files united."""
    for name, files in groupby(zip(source.names, source.masks, strict=True), key=lambda pair: pair[0][0]):
        masks = (_read_mask(path, row, image, remarks, by_object=True) > 0 for _, path in files)
        yield name, reduce(np.logical_or, masks)


def _read_mask(
    path: Path, row: DataSet, image: ReadVolume, remarks: list[str], *, by_object: bool = False
) -> np.ndarray:
    """Return one mask as labels on the image's grid; add to the remarks what reading had to decide."""
    if row.mask_threshold is not None and len(row.objects) > 1 and not by_object:
        raise InputError(
            path,
            f"`mask_threshold` makes one object of a mask, but the row {row.name} has {len(row.objects)}.",
            "Give a mask file for each object (`masks` of a listed case), or one row for each object.",
        )
    if not path.exists():
        raise InputError(path, "there is no such file.", MISSING_FILE)
    frame = getattr(row.layout, "frame", None)
    is_picture = suffix_of(path) in PICTURES
    if isinstance(row.layout, ArraysLayout):
        labels = guarded(read_arrays, path, row.layout, row.dimension, False, image)
    elif is_picture and row.mask_colours is not None:
        labels = one_volume(path, guarded(read_colour_mask, path, row.mask_colours), frame, True)
    elif is_picture and row.mask_threshold is not None:
        labels = one_volume(path, guarded(read_mask_picture, path, row.mask_threshold), frame, True)
    else:
        labels = read_volume(path, labels=True, frame=frame)
    if labels.volumes not in (1, image.volumes):
        problem = f"the mask holds {labels.volumes} volumes, the image {image.volumes}."
        raise InputError(path, problem, "Give one mask, or one for each volume of the image.")
    remarks += [f"mask: {remark}" for remark in labels.remarks if remark not in image.remarks]
    integers = as_labels(labels, path, None if is_picture else row.mask_threshold)
    if row.mask_geometry == "ignore":
        integers = Volume(integers.array, image.affine)
    elif sorted(integers.array.shape) == sorted(image.array.shape):
        integers = _same_order(integers, image)
    require_same_grid(image, integers, path)
    return integers.array


def _same_order(labels: Volume, image: Volume) -> Volume:
    """Return labels with their axes as the image has them, where only the order of storing differs.

    Axes are compared with the image's, not with those of the body: at 45 degrees a rounding error decides
    which of the body's axes is nearest.
    """
    between = np.eye(4)
    between[:3, :3] = np.linalg.solve(image.affine[:3, :3], labels.affine[:3, :3])
    change = nib.io_orientation(between)
    if np.isnan(change).any():
        return labels
    back = nib.orientations.inv_ornt_aff(change, labels.array.shape)
    return Volume(nib.orientations.apply_orientation(labels.array, change), labels.affine @ back)


def _chosen_segments(
    source: Source, image: ReadVolume, remarks: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the mask of each object of the source: the segments that its names, or numbers ("#2"), choose."""
    files = {path: find_segments(path) for path in source.masks}
    for name, wanted in groupby(source.names, key=lambda pair: pair[0]):
        words = [segment for _, segment in wanted]
        united, found = None, 0
        for path, segments in files.items():
            for segment in (one for one in segments if any(one.is_called(word) for word in words)):
                mask = segment.on(image, path)
                united, found = mask if united is None else united | mask, found + 1
        if united is None:
            there = "; ".join(f"#{one.number} {one.name}" for segments in files.values() for one in segments)
            raise InputError(
                ", ".join(path.name for path in source.masks),
                f"no segment for {name}; there are: {there}.",
                "Correct the segments' names in the manifest row.",
            )
        if found > len(words):
            remarks.append(f"{name}: {found} segments of one name united")
        yield name, united
