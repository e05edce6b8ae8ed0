"""What all readers of image files share: the volume they return, and what no file may claim.

A header is believed only where a body and this machine could hold what it says; that is looked at before
anything is allocated.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from medsam_nb.errors import InputError
from medsam_nb.protocol.intensity import MOST_VALUE
from medsam_nb.protocol.volume import Volume

NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".gipl.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
DICOM = (".dcm", ".ima")
ARRAYS = (".npz", ".h5", ".hdf5")
MISSING_FILE = "Image and mask must be named as the row's layout says, and a download be complete."
SWAPPED = "If this is the image, image and mask have changed places."
SPACINGS_MM = (1e-6, 1e3)  # a molecule, and more than any scanner's voxel
MOST_PLACE_MM = 1e5  # a hundred metres from the origin
SKEW_DEGREES = 0.5  # off right angles; distances are then wrong by less than 1 %
# Of a voxel beside the file's own: as 32-bit numbers in the file's and in display order, labels, grey levels.
WORKING_BYTES = 12
UNKNOWN_MEMORY = 64 << 30  # where the system does not say
UNITS_MM = {
    "nm": 1e-6, "nanometer": 1e-6, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3,
    "micrometer": 1e-3, "micrometre": 1e-3, "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "centimeter": 10.0,
    "m": 1e3, "meter": 1e3,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ReadVolume(Volume):
    """A volume as it came from a file.

    Attributes
    ----------
    remarks : tuple of str
        What reading had to decide, for the case table.
    volumes : int
        How many the file holds; this is one of them.
    unit : str
        Of the values, where a PET header states it: "BQML" is activity, "GML" is SUV.
    """

    remarks: tuple[str, ...] = ()
    volumes: int = 1
    unit: str = ""


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


def guarded(reader: Callable[..., object], path: Path, *arguments: object) -> object:
    """Call a library's reader; whatever it says about a damaged file comes out as an InputError."""
    try:
        return reader(path, *arguments)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            path, "does not fit into the memory of this machine.", "Use a machine with more memory."
        ) from error
    except UnicodeEncodeError as error:
        raise InputError(
            path, "its name is no UTF-8 text, which its reader needs.", "Rename it with ASCII letters."
        ) from error
    except Exception as error:  # every library has its own kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            path, f"cannot be read ({reason[-200:]}).", "It may be truncated: copy or download it again."
        ) from error


def volume_number(
    path: Path, count: int, frame: int | None, labels: bool, words: str = "phases or channels"
) -> int:
    """Return which of a file's volumes is meant; one mask serves for every frame of an image.

    Raises
    ------
    InputError
        If there are several and none is chosen, or there is no such one. `words` describe them.
    """
    if count == 1 and (labels or not frame):
        return 0
    if frame is None:
        raise InputError(
            path,
            f"holds {count} volumes ({words}).",
            "Choose one: `frame: 0` in the layout of the manifest row.",
        )
    if frame >= count:
        raise InputError(path, f"has {count} volumes, not {frame + 1}.", "Choose a smaller `frame`.")
    return frame


def memory_bytes() -> int:
    """Return the memory of this machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return UNKNOWN_MEMORY


def require_memory(path: Path, shape: Sequence[int], value_bytes: int) -> None:
    """Raise InputError where a header announces more than this machine could hold, before it is allocated."""
    voxels = prod(int(size) for size in shape)
    needed = voxels * (value_bytes + WORKING_BYTES)
    if needed > memory_bytes():
        raise InputError(
            path,
            f"its header announces {' x '.join(map(str, shape))} values, which take "
            f"{needed / 2**30:,.0f} GiB to prepare; this machine has {memory_bytes() / 2**30:,.0f} GiB.",
            "If the header is right, crop the image or use a larger machine; otherwise get the file again.",
        )


def require_sound(path: Path, volume: Volume) -> None:
    """Raise InputError for a grid that no image of a body has, and for values that no scanner stores.

    The grid's axes must be at right angles: everything here measures along them.
    """
    directions, place = volume.affine[:3, :3], volume.affine[:3, 3]
    spacing = np.linalg.norm(directions, axis=0) if np.isfinite(volume.affine).all() else np.zeros(3)
    if spacing.min() <= 0 or abs(np.linalg.det(directions / spacing)) < 1e-3:
        raise InputError(path, "its header places all voxels in one plane.", "Correct the file's affine.")
    if suffix_of(path) not in PICTURES:  # they have no millimetres
        reach = np.abs(place).max() + (spacing * np.array(volume.array.shape[:3])).max()
        least, most = SPACINGS_MM
        if not (least <= spacing.min() and spacing.max() <= most and reach <= MOST_PLACE_MM):
            raise InputError(
                path,
                f"its header places voxels {' x '.join(f'{s:.3g}' for s in spacing)} mm apart and up to "
                f"{reach:.3g} mm from the origin: beyond any body.",
                "Correct the file's affine or its unit.",
            )
        axes = directions / spacing
        skew = np.rad2deg(np.arcsin(np.abs((axes.T @ axes)[np.triu_indices(3, 1)]).max()))
        if skew > SKEW_DEGREES:
            raise InputError(
                path,
                f"its axes are {skew:.1f} degrees off right angles (shear, or a tilted gantry).",
                "Resample image and mask onto a straight grid first; nothing is resampled here.",
            )
    if volume.array.dtype.kind == "f":
        most = max(-np.fmin.reduce(volume.array, axis=None), np.fmax.reduce(volume.array, axis=None))
        if MOST_VALUE < most < np.inf:
            problem = f"its values reach {most:.3g}: beyond any scanner's."
            raise InputError(path, problem, "Look at the program that wrote it.")
