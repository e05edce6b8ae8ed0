"""What the headers of DICOM images say: whether a file is whole, and where each slice and frame lies."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medsam_nb.data.reading import DICOM, suffix_of
from medsam_nb.data.stacks import Slice
from medsam_nb.errors import InputError

# What may tell volumes of one series apart, in the order in which it is tried.
MARKS = (
    "StackID", "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime",
    "EffectiveEchoTime", "DiffusionBValue", "InversionTime", "TriggerTime", "AcquisitionNumber",
    "FrameAcquisitionNumber", "ImageType", "FrameType", "SeriesDescription", "AcquisitionTime", "ContentTime",
)  # fmt: skip
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
UNDEFINED_LENGTH = 0xFFFFFFFF
GET_AGAIN = "It may be truncated: copy or download it again."


def whole_headers(path: Path) -> list[tuple[Path, object]]:
    """Return every DICOM file of a folder (or the one file) with its header, without pixels.

    Raises
    ------
    InputError
        For a file that is not whole: libraries drop such slices, or fill them up, without a word.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if file.is_file() and not file.name.startswith(".")]
    whole, damaged = [], []
    for file in files:
        if file.name == "DICOMDIR" or not _is_dicom(file):
            continue
        header = _whole_header(file)
        if header is None:
            damaged.append(file)
        else:
            whole.append((file, header))
    if damaged:
        others = f"one of the {len(whole)} other slices of its series" if whole else "DICOM"
        raise InputError(damaged[0], f"cannot be read as {others}.", GET_AGAIN)
    return whole


def _is_dicom(path: Path) -> bool:
    if suffix_of(path) in DICOM:
        return True
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _whole_header(file: Path) -> object | None:
    """Return a file's header without its pixels, or None where it is no DICOM or ends too early."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd but readable
            header = pydicom.dcmread(file, force=suffix_of(file) in DICOM)
            if "Rows" not in header:
                kind = header.get("SOPClassUID")
                return None if kind is None or "Image Storage" in kind.name else header
            pixels = [name for name in PIXELS if name in header]
            if not pixels:
                return None
            if pixels == ["PixelData"]:
                stored = header.get_item("PixelData")
                announced = 0 if stored.length == UNDEFINED_LENGTH else stored.length
                if len(stored.value) < max(announced, _least_bytes(header)):
                    return None
            for name in pixels:
                delattr(header, name)
    except Exception:  # pydicom has many ways to say that a file is none
        return None
    return header


def _least_bytes(header) -> int:
    """Return how many bytes the pixels of a file take that is not compressed."""
    syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    if syntax and syntax.is_compressed:
        return 0
    values = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel", 1))
    bits = values * int(header.get("NumberOfFrames") or 1) * int(header.BitsAllocated)
    subsampled = str(header.get("PhotometricInterpretation", "")).endswith("_422")  # a third is left out
    return bits * 2 // 3 // 8 if subsampled else bits // 8


def has_position(header) -> bool:
    """Whether the header of a slice says where it lies."""
    return bool(header.get("ImagePositionPatient")) and bool(header.get("ImageOrientationPatient"))


def thickness_mm(header) -> float:
    """Return the thickness of a single slice; 1 where nothing states it."""
    for place in (header, group(header, None, "PixelMeasuresSequence")):
        for name in ("SpacingBetweenSlices", "SliceThickness"):
            value = getattr(place, name, None)
            if value:
                return abs(float(value))
    return 1.0


def slice_of_file(file: Path, header) -> Slice:
    """Return where the slice of a file lies.

    Raises
    ------
    InputError
        If the header does not say how far its pixels are apart.
    """
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    if not spacing:
        raise InputError(file, "its header has no PixelSpacing.", "Give NIfTI or NRRD with spacing.")
    marks = {mark: _text(header.get(mark)) for mark in MARKS if mark in header}
    return _slice(file, header, header.ImagePositionPatient, header.ImageOrientationPatient, spacing, marks)


def slice_of_frame(header, number: int) -> Slice | None:
    """Return where a frame lies, or None where the header does not say it of each frame."""
    position = group(header, number, "PlanePositionSequence")
    orientation = group(header, number, "PlaneOrientationSequence")
    measures = group(header, number, "PixelMeasuresSequence")
    if not (position and orientation and measures):
        return None
    found = {}
    for element in (header.get("PerFrameFunctionalGroupsSequence") or [()])[number]:
        for item in element.value if element.VR == "SQ" else ():
            found |= {mark: _text(item.get(mark)) for mark in MARKS if mark in item}
    marks = {mark: found[mark] for mark in MARKS if mark in found}
    place, axes = position.ImagePositionPatient, orientation.ImageOrientationPatient
    return _slice(number, header, place, axes, measures.PixelSpacing, marks)


def _slice(
    key: object, header, position: Sequence, axes: Sequence, spacing: Sequence, marks: dict[str, str]
) -> Slice:
    along_row, along_column = np.array(axes, float).reshape(2, 3)
    return Slice(
        key,
        np.array(position, float),
        along_row / np.linalg.norm(along_row),
        along_column / np.linalg.norm(along_column),
        (float(spacing[0]), float(spacing[1])),
        (int(header.Rows), int(header.Columns)),
        marks,
    )


def group(header, number: int | None, name: str):
    """Return a functional group of a frame (of all frames for None), or None where there is none."""
    places = [header.get("SharedFunctionalGroupsSequence")]
    if number is not None:
        own = header.get("PerFrameFunctionalGroupsSequence") or []
        places.insert(0, own[number : number + 1])
    for place in places:
        if place and place[0].get(name):
            return place[0][name].value[0]
    return None


def scale(header, number: int) -> tuple[float, float]:
    """Return slope and intercept of a frame."""
    place = group(header, number, "PixelValueTransformationSequence") or header
    return float(place.get("RescaleSlope", 1)), float(place.get("RescaleIntercept", 0))


def _text(value: object) -> str:
    if value is None or isinstance(value, str | int | float):
        return "" if value is None else str(value)
    return "/".join(map(str, value))
