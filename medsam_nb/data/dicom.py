"""DICOM images: a folder with one series, or a file of one or many frames, as a volume in space.

Pixels are decoded by SimpleITK, which knows the compressed forms, file by file. Where they lie is read from
the headers with pydicom and judged here.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from medsam_nb.data.dicom_headers import (
    GET_AGAIN,
    has_position,
    scale,
    slice_of_file,
    slice_of_frame,
    thickness_mm,
    whole_headers,
)
from medsam_nb.data.itk import from_itk
from medsam_nb.data.pictures import REDUCED, luminance
from medsam_nb.data.reading import ReadVolume, require_memory, volume_number
from medsam_nb.data.stacks import find_stacks, listed, stack_affine
from medsam_nb.errors import InputError
from medsam_nb.protocol.volume import Volume

NO_IMAGES = {
    "RTSTRUCT": (
        "is an RT structure set: contours, no voxels.",
        "Turn it into a DICOM segmentation or a label map (3D Slicer and plastimatch do), and give that.",
    ),
    "SEG": (
        "is a DICOM segmentation.",
        "Say which of its segments is which object: `segments` of a listed case in the manifest row.",
    ),
}
NAMED = 6  # series in a message
ORDERED_KINDS = ("NM", "RTDOSE")  # frames lie evenly, in order; GDCM works out where


def read_dicom(
    path: Path, frame: int | None = None, labels: bool = False, colour: bool = False
) -> ReadVolume:
    """Read one DICOM volume.

    Parameters
    ----------
    path : Path
        A file, or a folder that holds the slices of one series; objects without an image beside them are
        left out.
    frame : int, optional
        Which of several volumes (phases, echoes, stacks; the frames of a film), from 0.
    labels : bool
        Whether these are masks: one volume then serves for every frame of an image.
    colour : bool
        Whether colours are kept, as the first of four axes.

    Raises
    ------
    InputError
        If a file is damaged, there is no image or more than one series, slices are missing, doubled, askew
        or without a position, or several volumes are there and none is chosen.
    """
    headers = whole_headers(path)
    images = {file: one for file, one in headers if "Rows" in one and one.get("Modality") != "SEG"}
    if not images:
        kind = str(headers[0][1].get("Modality", "?")) if headers else "no DICOM file"
        no_image = (f"holds no DICOM image ({kind}).", "Give the images of one series.")
        raise InputError(path, *NO_IMAGES.get(kind, no_image))
    _require_one_series(path, images)
    several = [file for file, header in images.items() if int(header.get("NumberOfFrames") or 1) > 1]
    if several and len(images) > 1:
        raise InputError(path, f"holds {len(images)} files, {len(several)} of many frames.", "Give one file.")
    if several:
        volume = _multi_frame(path, several[0], images[several[0]], frame, labels)
    else:
        volume = _series(path, images, frame, labels)
    remarks = []
    if volume.array.ndim == 4 and colour:
        volume = replace(volume, array=np.moveaxis(volume.array, -1, 0))
    elif volume.array.ndim == 4:
        volume = replace(volume, array=luminance(volume.array))
        remarks.append(REDUCED)
    if len(images) < len(headers):
        kinds = sorted({str(header.get("Modality", "?")) for file, header in headers if file not in images})
        remarks.append(f"{len(headers) - len(images)} files without an image left out ({', '.join(kinds)})")
    units = {str(header.get("Units", "")) for header in images.values() if header.get("Modality") == "PT"}
    return replace(volume, remarks=tuple(remarks), unit="/".join(sorted(units)))


def series_files(path: Path) -> list[Path]:
    """Return the files of a folder with one series of one volume, in the order of their slices."""
    images = [(file, header) for file, header in whole_headers(path) if has_position(header)]
    stacks = find_stacks([slice_of_file(file, header) for file, header in images])
    return [one.key for one in stacks[volume_number(path, len(stacks), None, False, listed(stacks))].slices]


def _require_one_series(path: Path, images: Mapping[Path, object]) -> None:
    """Raise InputError with a list where files are of several series."""
    series: dict[str, list] = {}
    for header in images.values():
        series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(header)
    if len(series) > 1:
        words = "; ".join(
            f"{headers[0].get('SeriesDescription') or 'number ' + str(headers[0].get('SeriesNumber', '?'))} "
            f"({len(headers)} files)"
            for headers in list(series.values())[:NAMED]
        )
        remedy = "Give a folder with the slices of one series."
        raise InputError(path, f"holds {len(series)} DICOM series: {words}.", remedy)


def _series(path: Path, images: Mapping[Path, object], frame: int | None, labels: bool) -> ReadVolume:
    """Read files of one slice each."""
    placed = [file for file, header in images.items() if has_position(header)]
    if len(images) > 1 and len(placed) < len(images):
        raise InputError(
            path,
            f"{len(images) - len(placed)} of its {len(images)} slices have no position in space.",
            "Nothing says in which order and how far apart they lie: give NIfTI or NRRD with spacing.",
        )
    if not placed:  # one picture, such as a radiograph: there is nothing to sort
        volume_number(path, 1, frame, labels)
        (file,) = images
        volume = _decoded(file)
        return ReadVolume(volume.array, volume.affine)
    stacks = find_stacks([slice_of_file(file, header) for file, header in images.items()])
    stack = stacks[volume_number(path, len(stacks), frame, labels, listed(stacks))]
    first = images[stack.slices[0].key]
    affine = stack_affine(path, stack, thickness_mm(first))
    require_memory(path, (len(stack.slices), *stack.slices[0].size, int(first.get("SamplesPerPixel", 1))), 8)
    array = np.concatenate([_decoded(one.key).array for one in stack.slices])
    return ReadVolume(array, affine, volumes=len(stacks))


def _multi_frame(path: Path, file: Path, header, frame: int | None, labels: bool) -> ReadVolume:
    """Read one file of many frames, each with its own place in space; or one frame of a film."""
    count = int(header.NumberOfFrames)
    shape = (count, int(header.Rows), int(header.Columns), int(header.get("SamplesPerPixel", 1)))
    require_memory(path, shape, 8)
    slices = [slice_of_frame(header, number) for number in range(count)]
    if None in slices:
        volume = _decoded(file)
        if header.get("Modality") in ORDERED_KINDS:
            return ReadVolume(volume.array, volume.affine)
        number = volume_number(path, count, frame, labels, "the frames of a film, without a place in space")
        return ReadVolume(volume.array[number][None], volume.affine, volumes=count)
    stacks = find_stacks(slices)
    stack = stacks[volume_number(path, len(stacks), frame, labels, listed(stacks))]
    affine = stack_affine(path, stack, thickness_mm(header))
    array = _frames(file, header)[[one.key for one in stack.slices]]
    return ReadVolume(array, affine, volumes=len(stacks))


def _frames(file: Path, header) -> np.ndarray:
    """Return all frames in stored order, in the values that each frame's own scale gives."""
    scales = [scale(header, number) for number in range(int(header.NumberOfFrames))]
    if len(set(scales)) == 1:
        return _decoded(file).array
    if header.PhotometricInterpretation != "MONOCHROME2":  # GDCM would apply the first frame's to all
        raise InputError(
            file,
            f"its frames differ in scale and are {header.PhotometricInterpretation}.",
            "Convert it to NIfTI or NRRD first.",
        )
    import pydicom

    slopes, intercepts = (np.array(part)[:, None, None] for part in zip(*scales, strict=True))
    return pydicom.dcmread(file).pixel_array * slopes + intercepts


def _decoded(file: Path) -> Volume:
    """Return the pixels of a file as stored (k, j, i), or (k, j, i, 3) for RGB, scaled to what they mean."""
    import SimpleITK as sitk

    try:
        volume = from_itk(sitk.ReadImage(str(file)))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-160:]
        raise InputError(file, f"its pixels cannot be decoded ({reason}).", GET_AGAIN) from error
    colours = volume.array.ndim == 4
    return Volume(np.moveaxis(volume.array[:3], 0, -1), volume.affine) if colours else volume
