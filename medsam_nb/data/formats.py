"""Reading and writing image files: every format becomes a `Volume` in the file's own order.

NIfTI is read by nibabel here; what SimpleITK, Pillow and pydicom read has modules of its own. The heavy
readers are imported when a file asks for them.
"""

import gzip
import io
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from medsam_nb.data.dicom import read_dicom
from medsam_nb.data.itk import REVERSED, read_itk
from medsam_nb.data.pictures import read_picture
from medsam_nb.data.reading import (
    DICOM,
    ITK,
    MISSING_FILE,
    NIFTI,
    PICTURES,
    SWAPPED,
    UNITS_MM,
    ReadVolume,
    guarded,
    memory_bytes,
    require_memory,
    require_sound,
    suffix_of,
    volume_number,
)
from medsam_nb.errors import InputError
from medsam_nb.files import write_atomically
from medsam_nb.protocol.volume import Volume, place

RGB24 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
CHUNK_BYTES = 1 << 22
HEADER_CHARACTERS = 1 << 20  # of a text header; the rest is no header


def with_data(path: Path) -> list[Path]:
    """Return a file and those in which a header says that its data lie (`.mhd` and `.nhdr` with `.raw`).

    A header that cannot be read stands alone: reading the volume will say what is wrong with it.
    """
    found = [path]
    key = {".mhd": "elementdatafile", ".nhdr": "datafile", ".hdr": None}.get(suffix_of(path), "")
    if key is None:  # NIfTI and Analyze pairs
        found += [
            other for other in (path.with_suffix(".img"), path.with_suffix(".img.gz")) if other.exists()
        ]
    elif key and path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace")[:HEADER_CHARACTERS].splitlines()
        for number, line in enumerate(lines):
            name, _, value = line.replace("=", ":", 1).partition(":")
            if name.strip().lower().replace(" ", "") != key:
                continue
            words = value.split()
            if words and words[0].upper() == "LIST":
                names = [one.strip() for one in lines[number + 1 :] if one.strip()]
            elif "%" in value:  # a pattern with first, last and step: everything beside the header counts
                names = sorted(other.name for other in path.parent.iterdir() if other.is_file())
            else:
                names = [value.strip()]
            found += [path.parent / one for one in names if (path.parent / one).is_file()]
            break
    return list(dict.fromkeys(found))


def read_volume(
    path: Path,
    *,
    labels: bool = False,
    frame: int | None = None,
    colour: bool = False,
    checked: bool = True,
) -> ReadVolume:
    """Read one image or label file, or a folder that holds one DICOM series.

    Parameters
    ----------
    path : Path
    labels : bool
        Whether the values are labels: a palette picture then keeps its indices, and colours are not
        turned into luminance.
    frame : int, optional
        Which volume of a file with several (4D, phases of a series), from 0. Of masks, one volume serves for
        every frame.
    colour : bool
        Whether colours are kept: of a coloured picture, or of an image with three (or, with opacity,
        four) 8-bit components a voxel.
    checked : bool
        Whether a compressed NIfTI file is compared with its own checksum; not needed where a hash of the
        content is compared afterwards.

    Returns
    -------
    ReadVolume
        Array (k, j, i) in the file's stored order and number type, native byte order; (k, j, i, 3), uint8,
        where colours are kept and there are some. Affine in mm.

    Raises
    ------
    InputError
        If the file is missing, damaged, of an unknown format, larger than the memory, in no possible place,
        or holds several volumes and none is chosen.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(path, "there is no such file.", MISSING_FILE)
    suffix = suffix_of(path)
    if path.is_dir() or suffix in DICOM:
        volume = guarded(read_dicom, path, frame, labels, colour)
    elif suffix in NIFTI:
        volume = guarded(_read_nifti, path)
        if checked:
            guarded(_require_checksum, path)
    elif suffix in ITK:
        volume = guarded(read_itk, path)
    elif suffix in PICTURES:
        volume = guarded(read_picture, path, labels, colour)
    else:
        raise InputError(
            path,
            f"the format {suffix!r} is not known.",
            f"Known: {', '.join(NIFTI + ITK + PICTURES + DICOM)}.",
        )
    array = volume.array
    if colour and frame is None and array.ndim == 4 and array.dtype == np.uint8 and len(array) in (3, 4):
        volume = replace(volume, array=np.ascontiguousarray(np.moveaxis(array[:3], 0, -1)))
    elif not path.is_dir() and suffix not in DICOM:  # whose reader has chosen already
        volume = one_volume(path, volume, frame, labels)
    require_sound(path, volume)
    return replace(volume, array=volume.array.astype(volume.array.dtype.newbyteorder("="), copy=False))


def one_volume(path: Path, volume: ReadVolume, frame: int | None, labels: bool) -> ReadVolume:
    """Return the chosen volume of an array (volumes, k, j, i) or (k, j, i)."""
    array, count = volume.array, volume.volumes
    if array.ndim == 4:
        count = len(array)
        array = array[volume_number(path, count, frame, labels)]
    elif not labels and frame:
        volume_number(path, 1, frame, labels)
    if array.ndim != 3 or array.dtype.kind not in "biuf" or array.size == 0:
        raise InputError(
            path, f"holds an array of shape {array.shape} and type {array.dtype}.", "Give one scalar volume."
        )
    return replace(volume, array=array, volumes=count)


def _require_checksum(path: Path) -> None:
    """Raise what gzip does if a file is not as it was compressed.

    The checksum stands at the end; readers stop at the last voxel, and would take changed ones for values.
    """
    if not path.name.lower().endswith(".gz"):
        return
    read, most = 0, memory_bytes()
    with gzip.open(path) as file:
        while piece := file.read(CHUNK_BYTES):
            read += len(piece)
            if read > most:
                problem = f"unpacks to more than the {most / 2**30:,.0f} GiB of this machine's memory."
                raise InputError(path, problem, "Look whether it is the right file.")


def _read_nifti(path: Path) -> ReadVolume:
    image = nib.load(path)
    header, remarks = image.header, []
    scaled = header.get_slope_inter() != (1, 0) if hasattr(header, "get_slope_inter") else False
    require_memory(path, image.shape, 8 if scaled else image.get_data_dtype().itemsize)
    array = np.asanyarray(image.dataobj)
    coloured = array.dtype.names  # RGB or RGBA
    while array.ndim > (3 if coloured else 4) and array.shape[-1] == 1:
        array = array[..., 0]
    array = array.reshape(array.shape + (1,) * (3 - array.ndim))
    if coloured:
        array = np.stack([array[name] for name in coloured], axis=-1)  # components come first, as volumes
    affine = image.affine[:, REVERSED]
    unit = _nifti_unit(header)
    if unit in UNITS_MM and unit != "mm":
        affine[:3] *= UNITS_MM[unit]
        remarks.append(f"header in {unit}, turned into mm")
    if "qform_code" in header and not header["qform_code"] and not header["sform_code"]:
        remarks.append("the header states no place in space: left, right and order of slices are a guess")
    return ReadVolume(np.ascontiguousarray(array.T), affine, tuple(remarks))


def _nifti_unit(header) -> str:
    """Return the unit of length in a header; unknown ones count as mm, as everywhere."""
    try:
        return header.get_xyzt_units()[0]
    except (AttributeError, KeyError):  # Analyze; a code that means nothing
        return "unknown"


def as_labels(volume: Volume, item: object, threshold: float | None = None) -> Volume:
    """Return a volume of integer labels, uint8 or uint16.

    Parameters
    ----------
    volume : Volume
    item : object
        What an error message names.
    threshold : float, optional
        Labels are 1 where the value reaches it, for soft or grey masks; without it such masks are
        refused.
    """
    array = volume.array
    if threshold is not None:
        return Volume((array >= threshold).astype(np.uint8), volume.affine)
    if array.dtype.kind == "f":
        whole = np.rint(array)
        if not np.isfinite(array).all() or (np.abs(array - whole) > 1e-4).any():
            finite = array[np.isfinite(array)]
            if not len(finite):
                raise InputError(item, "the mask holds no number, only NaN.", "Give a mask with labels.")
            others = array.size - len(finite)
            raise InputError(
                item,
                f"the mask is soft: {len(np.unique(finite))} distinct values between {finite.min():g} and "
                f"{finite.max():g}" + (f", {others} that are no numbers." if others else "."),
                f"Give whole labels, or set `mask_threshold` in the manifest row. {SWAPPED}",
            )
        array = whole
    if array.min() < 0 or array.max() > 65535:
        raise InputError(
            item,
            f"its labels reach from {array.min():g} to {array.max():g}.",
            f"Use labels from 0 to 65535. {SWAPPED}",
        )
    return Volume(array.astype(np.uint8 if array.max() <= 255 else np.uint16), volume.affine)


def smallest_type(array: np.ndarray) -> np.ndarray:
    """Return the array in the smallest number type NIfTI knows that holds its values exactly."""
    if array.dtype.kind == "f" and any((part != np.rint(part)).any() for part in array):
        return array.astype(np.float32)
    for kind in (np.uint8, np.int16, np.uint16, np.int32):
        if np.iinfo(kind).min <= array.min() and array.max() <= np.iinfo(kind).max:
            return array.astype(kind)
    return array.astype(np.float32)


def write_nifti(path: Path, volume: Volume) -> None:
    """Write a volume as compressed NIfTI with its place in space, all of it or nothing.

    Colours, uint8 (z, y, x, 3), are written as NIfTI's RGB24, one value of three components a voxel.
    """
    if volume.array.ndim == 4:
        stored = np.ascontiguousarray(volume.array).view(RGB24)[..., 0]
    else:
        stored = smallest_type(volume.array)
    image = nib.Nifti1Image(stored.T, volume.affine[:, REVERSED])
    image.header.set_xyzt_units("mm")
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", 6, packed, mtime=0) as file:  # no time stamp: equal content, equal file
        image.to_stream(file)
    write_atomically(path, packed.getbuffer())


def write_on_source_grid(path: Path, labels: Volume, shape: tuple[int, int, int], affine: np.ndarray) -> None:
    """Write a label map on the grid of the file its image came from.

    Parameters
    ----------
    path : Path
        Ends in ".nii.gz".
    labels : Volume
        In display order.
    shape, affine
        Of the source file as `read_volume` returned it.
    """
    write_nifti(path, Volume(place(labels, shape, affine, path), affine))
