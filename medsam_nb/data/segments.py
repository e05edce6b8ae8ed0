"""Segmentations as one mask per segment: `.seg.nrrd` files and DICOM segmentations, which may overlap.

DICOM segmentations are read frame by frame, as archives publish them: frames in any order, empty ones left
out, each with its own place in space. Pixels are decoded by pydicom.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medsam_nb.data.dicom_headers import group, slice_of_frame
from medsam_nb.data.itk import TO_RAS, from_itk
from medsam_nb.data.reading import DICOM, MISSING_FILE, guarded, suffix_of
from medsam_nb.data.stacks import Slice
from medsam_nb.errors import InputError
from medsam_nb.protocol.volume import Volume, part_of_grid


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment of a segmentation.

    Attributes
    ----------
    number : int
        As the file counts them.
    name : str
        Archives give several segments one name.
    parts : tuple of (Volume or Slice with its mask)
        What is stored of it.
    """

    number: int
    name: str
    parts: tuple[Volume | tuple[Slice, np.ndarray], ...]

    def is_called(self, word: str) -> bool:
        """Whether a manifest's word means this segment: its name, or its number as "#2"."""
        return word.strip().lower() == self.name.lower() or word.strip() == f"#{self.number}"

    def on(self, image: Volume, path: Path) -> np.ndarray:
        """Return the segment's mask on an image's grid, bool; refused as in `volume.part_of_grid`."""
        mask = np.zeros(image.array.shape, bool)
        for part in self.parts:
            volume = part if isinstance(part, Volume) else _plane(*part, image)
            where, values = part_of_grid(volume, mask.shape, image.affine, f"{path}, segment {self.name}")
            if values.size:
                mask[where] |= values.astype(bool)
        return mask


def _plane(place: Slice, mask: np.ndarray, image: Volume) -> Volume:
    """Return a frame as a volume of one slice, as thick as the image is across it."""
    world_normal = TO_RAS @ place.normal
    axes = image.affine[:3, :3] / np.array(image.spacing_mm)
    affine = np.eye(4)
    affine[:3, 0] = image.affine[:3, int(np.abs(world_normal @ axes).argmax())]
    affine[:3, 1] = TO_RAS @ place.along_column * place.spacing_mm[0]
    affine[:3, 2] = TO_RAS @ place.along_row * place.spacing_mm[1]
    affine[:3, 3] = TO_RAS @ place.position
    return Volume(mask[None], affine)


def find_segments(path: Path) -> list[Segment]:
    """Read the segments of a `.seg.nrrd` or a DICOM segmentation.

    Raises
    ------
    InputError
        If the file is missing or damaged, is no segmentation, is soft, or its frames do not say which
        segment they show and where they lie.
    """
    if not path.exists():
        raise InputError(path, "there is no such file.", MISSING_FILE)
    return guarded(_dicom_segments if suffix_of(path) in DICOM else _nrrd_segments, path)


def _nrrd_segments(path: Path) -> list[Segment]:
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
        segments.append(Segment(number, header[f"Segment{number}_Name"], (Volume(mask, volume.affine),)))
    if not segments:
        raise InputError(path, "its header names no segment.", "Read it as a label map, or export it again.")
    return segments


def _dicom_segments(path: Path) -> list[Segment]:
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd but readable
        file = pydicom.dcmread(path)
        if file.Modality != "SEG":
            words = "is not a DICOM segmentation" + (f" but {file.Modality}." if file.Modality else ".")
            raise InputError(path, words, "Give the SEG object of this series.")
        frames = file.pixel_array.reshape(-1, int(file.Rows), int(file.Columns))
    names = {int(one.SegmentNumber): str(one.get("SegmentLabel") or "") for one in file.SegmentSequence}
    frames = _binary(path, file, frames)
    shown = list(_segments_of_frames(path, file, frames, list(names)))
    places = [slice_of_frame(file, number) for number in range(len(frames))]
    if None in places:
        raise InputError(
            path, "its frames do not say where they lie in space.", "Export it again, or as NRRD or NIfTI."
        )
    return [
        Segment(number, name, tuple((places[n], mask) for n, of, mask in shown if of == number))
        for number, name in names.items()
    ]


def _binary(path: Path, file, frames: np.ndarray) -> np.ndarray:
    """Return frames with 0 and 1 only (numbers of segments for a label map); refuse soft ones."""
    if file.SegmentationType != "FRACTIONAL":
        return frames
    full = int(file.get("MaximumFractionalValue", 1))
    values = np.unique(frames)
    if not set(values.tolist()) <= {0, full}:
        raise InputError(
            path,
            f"is a fractional (soft) segmentation: {len(values)} values up to {values[-1]} of {full}.",
            "Export it as a binary one.",
        )
    return (frames == full).astype(np.uint8)


def _segments_of_frames(
    path: Path, file, frames: np.ndarray, numbers: Sequence[int]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (frame, segment, mask) for everything that is shown."""
    for n, frame in enumerate(frames):
        if file.SegmentationType == "LABELMAP":
            yield from (
                (n, int(value), frame == value) for value in np.unique(frame) if int(value) in numbers
            )
            continue
        said = group(file, n, "SegmentIdentificationSequence")
        if said is None and len(numbers) > 1:
            raise InputError(
                path,
                f"its frames do not say which of the {len(numbers)} segments they show.",
                "Export it again with a tool that does, or as NRRD or NIfTI.",
            )
        yield n, numbers[0] if said is None else int(said.ReferencedSegmentNumber), frame
