"""DICOM files as scanners and archives write them, slice by slice or frame by frame, with pydicom."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
PET = "1.2.840.10008.5.1.4.1.1.128"
US_FILM = "1.2.840.10008.5.1.4.1.1.3.1"
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
AXIAL = (1, 0, 0, 0, 1, 0)


def base(kind: str, modality: str, series: str = "1.2.826.0.1.3") -> Dataset:
    """Return a data set without pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.826.0.1.1", series
    made.FrameOfReferenceUID = "1.2.826.0.1.2"
    made.Modality, made.PatientID, made.PatientName = modality, "p", "p"
    return made


def with_pixels(made: Dataset, pixels: np.ndarray, photometric: str = "MONOCHROME2") -> Dataset:
    """Add pixels: (rows, columns), (frames, rows, columns), or colours with 3 channels last."""
    colours = pixels.ndim > 2 and pixels.shape[-1] == 3
    made.SamplesPerPixel, made.PhotometricInterpretation = (3 if colours else 1), photometric
    if colours:
        made.PlanarConfiguration = 0
    made.Rows, made.Columns = pixels.shape[-3:-1] if colours else pixels.shape[-2:]
    if pixels.ndim - colours == 3:
        made.NumberOfFrames = len(pixels)
    bits = pixels.dtype.itemsize * 8
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    return made


def save(made: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)


def write_slice(path: Path, pixels: np.ndarray, position, number: int, **more) -> None:
    """Write one slice; `position` is (x, y, z), or None for a slice without a place.

    `more` are further attributes, or another `kind`, `series`, `orientation`, `spacing` or `photometric`.
    """
    kind, series = more.pop("kind", CT), more.pop("series", "1.2.826.0.1.3")
    made = base(kind, more.pop("Modality", "CT"), series)
    made.InstanceNumber, made.SeriesNumber, made.SliceThickness = number, 1, 3
    orientation, spacing = more.pop("orientation", AXIAL), more.pop("spacing", (0.8, 0.8))
    if position is not None:
        made.ImagePositionPatient = [float(round(value, 8)) for value in position]
        made.ImageOrientationPatient = [float(round(value, 8)) for value in orientation]
    made.PixelSpacing = list(spacing)
    made.RescaleSlope, made.RescaleIntercept = more.pop("slope", 1), more.pop("intercept", 0)
    with_pixels(made, pixels, more.pop("photometric", "MONOCHROME2"))
    for name, value in more.items():
        setattr(made, name, value)
    save(made, path)


def write_series(folder: Path, array: np.ndarray, step: float = 3.0, **more) -> None:
    """Write axial slices one above the other."""
    for z, plane in enumerate(array):
        write_slice(folder / f"{z:03d}.dcm", plane, (0, 0, step * z), z + 1, **more)


def frame_group(position, segment: int | None = None, **more) -> Dataset:
    """Return the functional groups of a frame; `more` is slope, intercept or time (TemporalPositionIndex)."""
    made = Dataset()
    if position is not None:
        place = Dataset()
        place.ImagePositionPatient = [float(value) for value in position]
        made.PlanePositionSequence = [place]
    if segment is not None:
        shown = Dataset()
        shown.ReferencedSegmentNumber = segment
        made.SegmentIdentificationSequence = [shown]
    if "slope" in more:
        scale = Dataset()
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = more["slope"], more["intercept"], "US"
        made.PixelValueTransformationSequence = [scale]
    if "time" in more:
        content = Dataset()
        content.TemporalPositionIndex = more["time"]
        made.FrameContentSequence = [content]
    return made


def write_frames(
    path: Path, array: np.ndarray, groups: list[Dataset], *, spacing=(0.8, 0.8), made=None
) -> None:
    """Write one file of many frames with their groups in the order of the array."""
    made = base(ENHANCED_CT, "CT") if made is None else made
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(spacing), 3
    plane.ImageOrientationPatient = [float(value) for value in AXIAL]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], groups
    if "PixelData" not in made:
        with_pixels(made, array)
    save(made, path)


def write_segmentation(
    path: Path,
    frames: np.ndarray,
    groups: list[Dataset],
    names: list[str],
    *,
    kind="BINARY",
    spacing=(0.8, 0.8),
) -> None:
    """Write a DICOM segmentation: frames of 0 and 1 (or 0 to 255 for FRACTIONAL) with their groups."""
    made = base(SEGMENTATION, "SEG", "1.2.826.0.1.9")
    made.SegmentationType = kind
    segments = []
    for number, name in enumerate(names, 1):
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = number, name, "MANUAL"
        segments.append(segment)
    made.SegmentSequence = segments
    with_pixels(made, frames.astype(np.uint8))
    if kind == "BINARY":
        made.BitsAllocated, made.BitsStored, made.HighBit = 1, 1, 0
        packed = np.packbits(frames.astype(bool).ravel(), bitorder="little").tobytes()
        made.PixelData = packed + bytes(len(packed) % 2)
    elif kind == "FRACTIONAL":
        made.SegmentationFractionalType, made.MaximumFractionalValue = "PROBABILITY", 255
    made.NumberOfFrames = len(frames)
    write_frames(path, frames, groups, spacing=spacing, made=made)
