"""The nouns of the data: a volume on its grid, and a case (image, label map, named objects).

Every array is (z, y, x): slice, row, column. `canonical` brings a volume into radiological
display order, so the same code slices a file of any stored orientation; `place` brings a result
back onto the grid it came from. Neither ever resamples.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass

import nibabel as nib
import numpy as np

from medsam_nb.errors import InputError
from medsam_nb.protocol.intensity import Intensity, to_uint8

# Directions (slice, row, column) in which the index grows, as a radiologist looks at them.
DISPLAY_AXES = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
GEOMETRY_TOLERANCE_MM = 0.05
SAME_SPACING = 0.01  # relative difference below which two spacings count as equal


@dataclass(frozen=True, eq=False)
class Volume:
    """An array on a grid in patient space.

    Attributes
    ----------
    array : ndarray, shape (z, y, x)
    affine : ndarray, shape (4, 4), float64
        Maps an index (z, y, x, 1) to RAS+ millimetres: x to the patient's right, y to the front,
        z to the head. Its columns are in the order of the array's axes.
    """

    array: np.ndarray
    affine: np.ndarray

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels (z, y, x), mm."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))

    @classmethod
    def from_spacing(cls, array: np.ndarray, spacing_mm: tuple[float, float, float]) -> "Volume":
        """Place an axial array without a known position: index 0 at the origin."""
        z, y, x = spacing_mm
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = z, -y, -x, 1.0  # S, P, L
        return cls(array, affine)

    @property
    def orientation(self) -> str:
        """Directions in which slice, row and column grow, such as "SPL"."""
        return "".join(nib.aff2axcodes(self.affine))


def reoriented(volume: Volume, orientation: str) -> Volume:
    """Return the same voxels with axes permuted and flipped towards the given directions.

    Examples
    --------
    >>> volume = Volume(np.arange(6).reshape(1, 2, 3), np.diag([3.0, 1, 1, 1])[:, [2, 1, 0, 3]])
    >>> volume.orientation, reoriented(volume, "SPL").array[0].tolist()
    ('SAR', [[5, 4, 3], [2, 1, 0]])
    """
    change = nib.orientations.ornt_transform(
        nib.io_orientation(volume.affine), nib.orientations.axcodes2ornt(tuple(orientation))
    )
    array = nib.orientations.apply_orientation(volume.array, change)
    return Volume(array, volume.affine @ nib.orientations.inv_ornt_aff(change, volume.array.shape))


def slice_plane(volume: Volume, slice_axis: str = "thickest") -> str:
    """Return the anatomical plane of the slices: "axial", "coronal" or "sagittal".

    "thickest" is the plane across the largest spacing; axial where it is not unique.
    """
    if slice_axis != "thickest":
        return slice_axis
    spacing = np.array(volume.spacing_mm)
    planes = [
        {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal"}.get(c, "sagittal")
        for c in volume.orientation
    ]
    thickest = [planes[i] for i in np.flatnonzero(spacing >= spacing.max() * (1 - SAME_SPACING))]
    return "axial" if "axial" in thickest else thickest[0]


def canonical(volume: Volume, slice_axis: str = "thickest") -> Volume:
    """Return a volume in display order along a slicing axis.

    Parameters
    ----------
    volume : Volume
    slice_axis : {"thickest", "axial", "coronal", "sagittal", "stored"}
        "stored" leaves the file's own order, as for pictures without a position.
    """
    plane = slice_plane(volume, slice_axis)
    return volume if plane == "stored" else reoriented(volume, DISPLAY_AXES[plane])


def corner_distance_mm(shape: tuple[int, ...], first: np.ndarray, second: np.ndarray) -> float:
    """Return how far the corners of a grid lie apart under two affines, mm (the worst corner)."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    apart = (first - second) @ np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.linalg.norm(apart[:3], axis=0).max())


def require_same_grid(image: Volume, other: Volume, item: object) -> None:
    """Raise InputError unless two volumes in the same orientation lie on one grid in space."""
    if image.array.shape != other.array.shape:
        raise InputError(
            item,
            f"the image has shape {image.array.shape}, the mask {other.array.shape} (z, y, x).",
            "Give a mask that lies on the image's grid.",
        )
    distance = corner_distance_mm(image.array.shape, image.affine, other.affine)
    if distance > GEOMETRY_TOLERANCE_MM:
        raise InputError(
            item,
            f"image and mask have one shape but lie up to {distance:.2f} mm apart in space.",
            "Correct the header that is wrong, or, if the mask is known to fit voxel by voxel, "
            "set `mask_geometry: ignore` in the manifest row.",
        )


def place(volume: Volume, shape: tuple[int, int, int], affine: np.ndarray, item: object) -> np.ndarray:
    """Return a label volume on another grid that has the same voxels, in any order or extent.

    Parameters
    ----------
    volume : Volume
    shape : (int, int, int)
        Of the target grid.
    affine : ndarray, shape (4, 4)
        Of the target grid, columns in the order of its axes.
    item : object
        What an error message names.

    Returns
    -------
    ndarray, the target shape
        0 outside the volume.

    Raises
    ------
    InputError
        If the grids do not share their voxels, or labelled voxels lie outside the target.
    """
    moved = Volume(volume.array, np.linalg.solve(affine, volume.affine))
    steps, start = np.rint(moved.affine[:3, :3]), np.rint(moved.affine[:3, 3])
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = steps, start
    distance = corner_distance_mm(volume.array.shape, affine @ whole, volume.affine)
    if distance > GEOMETRY_TOLERANCE_MM or sorted(np.abs(steps).sum(axis=0)) != [1, 1, 1]:
        raise InputError(
            item,
            f"its voxels do not coincide with the image's (up to {distance:.2f} mm apart).",
            "Give a mask drawn on this image; nothing is resampled here.",
        )
    found = np.array(np.nonzero(volume.array))
    target = (steps @ found + start[:, None]).astype(int)
    if ((target < 0) | (target >= np.array(shape)[:, None])).any():
        raise InputError(item, "labelled voxels lie outside the image.", "Give a mask of this image.")
    out = np.zeros(shape, volume.array.dtype)
    out[tuple(target)] = volume.array[tuple(found)]
    return out


@dataclass(frozen=True, eq=False)
class Case:
    """One patient's image with its label map.

    Attributes
    ----------
    data_set, case_id, modality : str
    image : Volume
        Intensities as stored (Hounsfield units for CT), float32.
    labels : ndarray, shape (z, y, x), integer
        Label map on the image's grid; 0 is background.
    objects : mapping of str to tuple of int
        The label values that make up each object. Every object is segmented on its own.
    intensity : Intensity
        How intensities become grey levels.
    patient_id : str
        Whose images these are, within the data set; the case's own id where nothing is known.
    colours : ndarray of uint8, shape (z, y, x, 3), or None
        RGB of an image that models are shown in colour; `image` is then its luminance.
    """

    data_set: str
    case_id: str
    modality: str
    image: Volume
    labels: np.ndarray
    objects: Mapping[str, tuple[int, ...]]
    intensity: Intensity = Intensity()
    patient_id: str = ""
    colours: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "patient_id", self.patient_id or self.case_id)
        if self.image.array.ndim != 3:
            raise InputError(
                self.case_id, f"the image has {self.image.array.ndim} axes.", "Give one 3D volume (z, y, x)."
            )
        if self.image.array.shape != self.labels.shape:
            raise InputError(
                self.case_id,
                f"the image has shape {self.image.array.shape}, the mask {self.labels.shape} (z, y, x).",
                "Give a mask that lies on the image's grid.",
            )
        if self.colours is not None and (
            self.colours.shape != (*self.labels.shape, 3) or self.colours.dtype != np.uint8
        ):
            raise InputError(
                self.case_id,
                f"its colours are {self.colours.dtype} of shape {self.colours.shape}.",
                f"Give 8-bit RGB of shape {(*self.labels.shape, 3)}.",
            )
        if not np.isfinite(self.image.array).all():
            bad = int((~np.isfinite(self.image.array)).sum())
            raise InputError(
                self.case_id,
                f"{bad} voxels of the image are NaN or infinite.",
                "Replace them before preparing the case.",
            )
        if not self.labels.any():
            raise InputError(
                self.case_id, "the mask is empty.", "Remove the case, or check that the right mask was given."
            )

    def mask(self, object_name: str) -> np.ndarray:
        """Return the binary mask of one object, bool, shape (z, y, x)."""
        return np.isin(self.labels, self.objects[object_name])

    def slices_uint8(self) -> np.ndarray:
        """Return what models are shown, uint8, by the data set's policy: grey levels (z, y, x), or RGB.

        RGB has shape (z, y, x, 3); black and white are those of the luminance, the same for each channel.
        """
        shown = self.image.array if self.colours is None else self.colours
        return to_uint8(shown, self.intensity, self.case_id, limits_of=self.image.array)

    def sha256(self) -> str:
        """Return the hash of voxels, grid, objects and grey-level policy: what results depend on.

        Whose images they are is no part of it: it changes no mask.
        """
        digest = hashlib.sha256()
        arrays = [self.image.array, self.labels, self.image.affine.astype(np.float64).round(6)]
        for array in arrays + ([] if self.colours is None else [self.colours]):
            digest.update(str((array.dtype.str, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(repr(sorted((k, tuple(v)) for k, v in self.objects.items())).encode())
        digest.update(repr(astuple(self.intensity)).encode())
        return digest.hexdigest()
