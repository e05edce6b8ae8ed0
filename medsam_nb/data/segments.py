"""Segmentations as one mask per segment: `.seg.nrrd` files and DICOM segmentations, which may overlap."""

from pathlib import Path

import numpy as np

from medsam_nb.data.formats import DICOM, MISSING_FILE, TO_RAS, from_itk, guarded, suffix_of
from medsam_nb.errors import InputError
from medsam_nb.protocol.volume import Volume, place


def read_segments(path: Path, image: Volume) -> dict[str, np.ndarray]:
    """Read a `.seg.nrrd` or a DICOM segmentation as one mask per segment.

    Parameters
    ----------
    path : Path
    image : Volume
        The image, in the orientation it was read in. Segmentations are often stored for a part of it.

    Returns
    -------
    dict of str to ndarray of bool, shape (z, y, x)
        By segment name, on the image's grid; segments may overlap.
    """
    if not path.exists():
        raise InputError(path, "there is no such file.", MISSING_FILE)
    reader = _dicom_segments if suffix_of(path) in DICOM else _nrrd_segments
    found = guarded(reader, path)
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise InputError(path, f"segment names repeat: {', '.join(names)}.", "Rename the segments.")
    return {
        name: place(mask, image.array.shape, image.affine, f"{path}, segment {name}").astype(bool)
        for name, mask in found
    }


def _nrrd_segments(path: Path) -> list[tuple[str, Volume]]:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    volume = from_itk(image)
    header = {key: image.GetMetaData(key).strip() for key in image.GetMetaDataKeys()}
    layers = volume.array if volume.array.ndim == 4 else volume.array[None]
    segments = []
    for number in range(len(header)):
        if f"Segment{number}_Name" not in header:
            break
        layer = int(header.get(f"Segment{number}_Layer", 0))
        value = int(header.get(f"Segment{number}_LabelValue", 1))
        mask = (layers[layer] == value).astype(np.uint8)
        segments.append((header[f"Segment{number}_Name"], Volume(mask, volume.affine)))
    if not segments:
        raise InputError(path, "its header names no segment.", "Read it as a label map, or export it again.")
    return segments


def _dicom_segments(path: Path) -> list[tuple[str, Volume]]:
    import highdicom
    import pydicom

    if pydicom.dcmread(path, stop_before_pixels=True).Modality != "SEG":
        raise InputError(path, "is not a DICOM segmentation.", "Give the SEG object of this series.")
    file = highdicom.seg.segread(path)
    if file.segmentation_type == highdicom.seg.SegmentationTypeValues.FRACTIONAL:
        raise InputError(path, "is a fractional (soft) segmentation.", "Export it as a binary one.")
    volume = file.get_volume(combine_segments=False)
    affine = np.eye(4)
    affine[:3] = TO_RAS @ volume.affine[:3]
    return [
        (file.get_segment_description(number).segment_label, Volume(volume.array[..., channel], affine))
        for channel, number in enumerate(volume.get_channel_values("ReferencedSegmentNumber"))
    ]
