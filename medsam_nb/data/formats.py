"""Reading and writing image files: every format becomes a `Volume` in the file's own order.

NIfTI is read by nibabel; NRRD, MHA/MHD, GIPL and DICOM series by SimpleITK; DICOM segmentations by
highdicom; pictures by Pillow. The heavy readers are imported when a file asks for them.
"""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from medsam_nb.errors import InputError
from medsam_nb.files import write_atomically
from medsam_nb.protocol.volume import Volume, place

NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".gipl.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
DICOM = (".dcm", ".ima")
LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in Pillow's conversion to grey
GIPL_HEADER_BYTES = 256
MISSING_FILE = "Image and mask must be named as the row's layout says, and a download be complete."
SWAPPED = "If this is the image, image and mask have changed places."
UNEVEN_SLICES_MM = 0.01  # scanners round slice positions; a missing slice is orders of magnitude more

# (x, y, z) in ITK's world (left, posterior, head) against (z, y, x) in ours (right, front, head).
TO_RAS = np.diag([-1.0, -1.0, 1.0])
_REVERSED = [2, 1, 0, 3]
RGB24 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
GREY_MODES = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # of Pillow
HEADER_CHARACTERS = 1 << 20  # of a text header; the rest is no header


def suffix_of(path: Path) -> str:
    """Return the suffix in lower case, with what comes before ".gz".

    Examples
    --------
    >>> suffix_of(Path("a.b/case.1.nii.gz")), suffix_of(Path("scan.NRRD"))
    ('.nii.gz', '.nrrd')
    """
    name = path.name.lower()
    stem = Path(name.removesuffix(".gz"))
    return stem.suffix + (".gz" if name.endswith(".gz") else "")


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
    path: Path, *, labels: bool = False, frame: int | None = None, colour: bool = False
) -> Volume:
    """Read one image or label file, or a folder that holds one DICOM series.

    Parameters
    ----------
    path : Path
    labels : bool
        Whether the values are labels: a palette picture then keeps its indices, and colours are not
        turned into luminance.
    frame : int, optional
        Which volume of a file with several (4D), from 0.
    colour : bool
        Whether colours are kept: of a coloured picture, or of an image with three (or, with opacity,
        four) 8-bit components a voxel.

    Returns
    -------
    Volume
        Array (k, j, i) in the file's stored order and number type, native byte order; (k, j, i, 3), uint8,
        where colours are kept and there are some.

    Raises
    ------
    InputError
        If the file is missing, damaged, of an unknown format, or holds several volumes and none is
        chosen.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(path, "there is no such file.", MISSING_FILE)
    suffix = suffix_of(path)
    if path.is_dir() or suffix in DICOM:
        volume = guarded(_read_dicom, path)
    elif suffix in NIFTI:
        volume = guarded(_read_nifti, path)
    elif suffix in ITK:
        volume = guarded(_read_itk, path)
    elif suffix in PICTURES:
        volume = guarded(_read_picture, path, labels, colour)
    else:
        raise InputError(
            path,
            f"the format {suffix!r} is not known.",
            f"Known: {', '.join(NIFTI + ITK + PICTURES + DICOM)}.",
        )
    coloured = colour and frame is None and volume.array.ndim == 4 and volume.array.dtype == np.uint8
    if coloured and len(volume.array) in (3, 4):
        return Volume(np.ascontiguousarray(np.moveaxis(volume.array[:3], 0, -1)), volume.affine)
    return _one_frame(path, volume, frame)


def guarded(reader: Callable[..., Volume], path: Path, *arguments: object) -> Volume:
    """Call a library's reader; whatever it says about a damaged file comes out as an InputError."""
    try:
        return reader(path, *arguments)
    except InputError:
        raise
    except Exception as error:  # every library has its own kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            path, f"cannot be read ({reason[-200:]}).", "It may be truncated: copy or download it again."
        ) from error


def _one_frame(path: Path, volume: Volume, frame: int | None) -> Volume:
    """Return the chosen volume of an array (frames, k, j, i), checked."""
    array = volume.array
    if array.ndim == 4:
        if len(array) > 1 and frame is None:
            raise InputError(
                path,
                f"holds {len(array)} volumes (phases or channels).",
                "Choose one: `frame: 0` in the layout of the manifest row.",
            )
        if (frame or 0) >= len(array):
            raise InputError(path, f"has {len(array)} volumes, not {frame + 1}.", "Choose a smaller `frame`.")
        array = array[frame or 0]
    if array.ndim != 3 or array.dtype.kind not in "biuf" or array.size == 0:
        raise InputError(
            path, f"holds an array of shape {array.shape} and type {array.dtype}.", "Give one scalar volume."
        )
    if not np.isfinite(volume.affine).all() or abs(np.linalg.det(volume.affine[:3, :3])) < 1e-9:
        raise InputError(path, "its header places all voxels in one plane.", "Correct the file's affine.")
    return Volume(array.astype(array.dtype.newbyteorder("="), copy=False), volume.affine)


def _read_nifti(path: Path) -> Volume:
    image = nib.load(path)
    array = np.asanyarray(image.dataobj)
    coloured = array.dtype.names  # RGB or RGBA
    while array.ndim > (3 if coloured else 4) and array.shape[-1] == 1:
        array = array[..., 0]
    array = array.reshape(array.shape + (1,) * (3 - array.ndim))
    if coloured:
        array = np.stack([array[name] for name in coloured], axis=-1)  # components are frames
    return Volume(np.ascontiguousarray(array.T), image.affine[:, _REVERSED])


def from_itk(image) -> Volume:
    import SimpleITK as sitk

    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)  # components of a voxel are frames
    affine = np.eye(4)
    dimension = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine[:3, :3] = TO_RAS @ direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = TO_RAS @ np.array(image.GetOrigin()[:3])
    return Volume(array, affine[:, _REVERSED])


def _read_itk(path: Path) -> Volume:
    import SimpleITK as sitk

    volume = from_itk(sitk.ReadImage(str(path)))
    if ".gipl" in path.name.lower():
        _require_whole_gipl(path, volume.array.nbytes)
    return volume


def _require_whole_gipl(path: Path, voxel_bytes: int) -> None:
    """Raise ValueError for a truncated GIPL file, which ITK reads without a word."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
        found = len(file.read())
    if found < GIPL_HEADER_BYTES + voxel_bytes:
        raise ValueError(f"{found} bytes, its header announces {GIPL_HEADER_BYTES + voxel_bytes}")


def _read_dicom(path: Path) -> Volume:
    import SimpleITK as sitk

    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        series = reader.GetGDCMSeriesIDs(str(path))
        if len(series) != 1:
            raise InputError(
                path, f"holds {len(series)} DICOM series.", "Give a folder with the slices of one series."
            )
        files = reader.GetGDCMSeriesFileNames(str(path), series[0])
        _require_all_files(path, files)
        _require_even_slices(path, files)
    else:
        files = (str(path),)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        return from_itk(reader.Execute())
    reader.SetFileNames(files)
    return from_itk(reader.Execute())


def _require_all_files(path: Path, files: tuple[str, ...]) -> None:
    """Raise InputError where the reader left out a DICOM file: it drops truncated ones without a word."""
    used = {Path(file).name for file in files}
    for file in sorted(file for file in path.iterdir() if file.is_file() and file.name not in used):
        if not file.name.startswith(".") and file.name != "DICOMDIR" and _is_dicom(file):
            raise InputError(
                file,
                f"cannot be read as one of the {len(files)} other slices of its series.",
                "It may be truncated: copy or download it again.",
            )


def _is_dicom(path: Path) -> bool:
    if suffix_of(path) in DICOM:
        return True
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _require_even_slices(path: Path, files: tuple[str, ...]) -> None:
    """Raise InputError where slices of a series are missing, doubled or tilted."""
    import pydicom

    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    if len(headers) < 2 or "ImagePositionPatient" not in headers[0]:
        return
    if len({tuple(np.round(header.ImageOrientationPatient, 4)) for header in headers}) > 1:
        raise InputError(
            path, "its slices have different orientations.", "Give one stack of parallel slices."
        )
    row, column = np.array(headers[0].ImageOrientationPatient, float).reshape(2, 3)
    positions = np.array([header.ImagePositionPatient for header in headers], float) @ np.cross(row, column)
    steps = np.abs(np.diff(positions))
    if steps.min() <= 0 or steps.max() - steps.min() > UNEVEN_SLICES_MM + 0.01 * np.median(steps):
        raise InputError(
            path,
            f"neighbouring slices are {steps.min():.2f} to {steps.max():.2f} mm apart.",
            "Files are missing or doubled: copy or download the series again.",
        )


def _read_picture(path: Path, labels: bool, colour: bool = False) -> Volume:
    from PIL import Image, ImageSequence

    with Image.open(path) as picture:
        pages = [_picture_array(page, labels) for page in ImageSequence.Iterator(picture)]
        if colour and picture.mode not in GREY_MODES:
            shown = [np.asarray(page.convert("RGB")) for page in ImageSequence.Iterator(picture)]
            pages = shown if any((page != page[..., :1]).any() for page in shown) else pages
    if len({page.shape for page in pages}) > 1:
        raise InputError(path, "its pages differ in size.", "Give pages of one size.")
    array = np.stack(pages)
    if array.ndim == 4 and colour:
        array = np.moveaxis(array, -1, 0)
    if array.ndim == 4 and labels:
        if (array != array[..., :1]).any():
            raise InputError(
                path,
                "its labels are colours.",
                "Set `mask_threshold` in the manifest row: a pixel then counts where any channel reaches it.",
            )
        array = array[..., 0]
    return Volume.from_spacing(array, (1.0, 1.0, 1.0))


def _picture_array(picture, labels: bool) -> np.ndarray:
    """Return one page: (y, x), or (y, x, 3) for a coloured label picture."""
    if picture.mode == "P" and not labels:
        picture = picture.convert("RGB")
    array = np.asarray(picture)
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.ndim == 2:
        return array
    if array.shape[2] in (2, 4):  # the last channel is opacity
        array = array[..., :-1]
    if labels or (array == array[..., :1]).all():
        return array if labels else array[..., 0]
    return luminance(array)


def luminance(colours: np.ndarray) -> np.ndarray:
    """Return the luminance of RGB, shape (..., 3), in its number type."""
    return np.rint(colours @ LUMINANCE).astype(colours.dtype)


def is_coloured(path: Path) -> bool:
    """Whether a picture has colours that reading it as an image turns into luminance."""
    from PIL import Image

    with Image.open(path) as picture:
        array = np.asarray(picture.convert("RGB"))
    return bool((array != array[..., :1]).any())


def read_mask_picture(path: Path, threshold: float) -> Volume:
    """Read a picture as a binary mask: 1 where any channel (but opacity) reaches the threshold."""
    from PIL import Image

    def binary(path: Path) -> Volume:
        with Image.open(path) as picture:
            array = _picture_array(picture, labels=picture.mode != "P")
        mask = array >= threshold
        mask = mask.any(axis=2) if mask.ndim == 3 else mask
        return Volume.from_spacing(mask[None].astype(np.uint8), (1.0, 1.0, 1.0))

    if not path.exists():
        raise InputError(path, "there is no such file.", MISSING_FILE)
    return guarded(binary, path)


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
            raise InputError(
                item,
                f"the mask is soft: {len(np.unique(finite))} distinct values between "
                f"{finite.min():g} and {finite.max():g}.",
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
    if array.dtype.kind == "f" and (array != np.rint(array)).any():
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
    image = nib.Nifti1Image(stored.T, volume.affine[:, _REVERSED])
    image.header.set_xyzt_units("mm")
    write_atomically(path, _gzip(image.to_bytes()))


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=6, mtime=0)  # no time stamp: equal content, equal file


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
