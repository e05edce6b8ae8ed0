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
GRID_TOLERANCE = 0.2  # of a voxel: headers are rounded; half a voxel is a fault of the tool that wrote one
SAME_SPACING = 0.01  # relative difference below which two spacings count as equal
MICROMETRES = 1000.0  # to the millimetre


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

    "thickest" is the plane across the largest spacing. Where two spacings are equal they are those of the
    pixels, whichever is larger (PET has pixels wider than its slices are apart); axial where all three are.
    A volume of one slice is that slice.

    Examples
    --------
    >>> pet = Volume.from_spacing(np.zeros((40, 30, 30)), (3.27, 5.47, 5.47))
    >>> sagittal = Volume(np.zeros((10, 40, 30)), np.diag([4.0, 0.9, 1.0, 1.0]))
    >>> slice_plane(pet), slice_plane(sagittal), slice_plane(sagittal, "axial")
    ('axial', 'sagittal', 'axial')
    """
    if slice_axis != "thickest":
        return slice_axis
    planes = [
        {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal"}.get(c, "sagittal")
        for c in volume.orientation
    ]
    flat = [axis for axis, size in enumerate(volume.array.shape) if size == 1]
    if len(flat) == 1:
        return planes[flat[0]]
    spacing = np.array(volume.spacing_mm)
    equal = [a for a in range(3) if _same(*np.delete(spacing, a))]  # the axis across two equal spacings
    if len(equal) == 1:
        return planes[equal[0]]
    thickest = [planes[i] for i in np.flatnonzero(spacing >= spacing.max() * (1 - SAME_SPACING))]
    return "axial" if "axial" in thickest else thickest[0]


def _same(one: float, other: float) -> bool:
    """Whether two spacings count as equal."""
    return abs(one - other) <= SAME_SPACING * max(one, other)


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


def corner_distance_voxels(
    shape: tuple[int, ...], first: np.ndarray, second: np.ndarray, grid: np.ndarray
) -> float:
    """Return how far the corners of a grid lie apart under two affines, in voxels of a third.

    A tolerance in voxels means the same for a whole body and for a mouse's kidney.
    """
    return corner_distance_mm(shape, np.linalg.solve(grid, first), np.linalg.solve(grid, second))


def words_mm(distance: float) -> str:
    """Return a length with as many digits as it needs, such as "5.00 mm" or "0.0031 mm"."""
    return f"{distance:.2f} mm" if distance >= 0.1 else f"{distance:.2g} mm"


def require_same_grid(image: Volume, other: Volume, item: object) -> None:
    """Raise InputError unless two volumes in the same orientation lie on one grid in space."""
    if image.array.shape != other.array.shape:
        raise InputError(
            item,
            f"the image has shape {image.array.shape}, the mask {other.array.shape} (z, y, x).",
            "Give a mask that lies on the image's grid.",
        )
    if corner_distance_voxels(image.array.shape, image.affine, other.affine, image.affine) > GRID_TOLERANCE:
        distance = corner_distance_mm(image.array.shape, image.affine, other.affine)
        ratio = np.median(np.divide(other.spacing_mm, image.spacing_mm))
        unit = _same(max(ratio, 1 / ratio), MICROMETRES)
        raise InputError(
            item,
            f"image and mask have one shape but lie up to {words_mm(distance)} apart in space."
            + (" One header is in micrometres, the other in millimetres." if unit else ""),
            "Correct the header that is wrong, or, if the mask is known to fit voxel by voxel, "
            "set `mask_geometry: ignore` in the manifest row.",
        )


def part_of_grid(
    volume: Volume, shape: tuple[int, int, int], affine: np.ndarray, item: object
) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return where on another grid a label volume lies that has the same voxels, in any order or extent.

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
    part : tuple of slice
        Of the target grid.
    values : ndarray
        What belongs there, a view.

    Raises
    ------
    InputError
        If the grids do not share their voxels, or labelled voxels lie outside the target.
    """
    moved = np.linalg.solve(affine, volume.affine)
    steps, start = np.rint(moved[:3, :3]), np.rint(moved[:3, 3])
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = steps, start
    apart = corner_distance_voxels(volume.array.shape, affine @ whole, volume.affine, affine)
    if apart > GRID_TOLERANCE or sorted(np.abs(steps).sum(axis=0)) != [1, 1, 1]:
        raise InputError(item, *_words_of_misfit(volume, affine, whole, moved[:3, 3] - start))
    turned = np.transpose(volume.array, np.abs(steps).argmax(axis=1))
    backwards = steps.sum(axis=1) < 0
    turned = turned[tuple(slice(None, None, -1 if back else 1) for back in backwards)]
    first = (start - backwards * (np.array(turned.shape) - 1)).astype(int)
    last = first + turned.shape
    kept = turned[tuple(slice(max(-f, 0), max(size - f, 0)) for f, size in zip(first, shape, strict=True))]
    if np.count_nonzero(kept) < np.count_nonzero(turned):
        raise InputError(item, "labelled voxels lie outside the image.", "Give a mask of this image.")
    part = tuple(
        slice(min(max(f, 0), size), min(max(end, 0), size))
        for f, end, size in zip(first, last, shape, strict=True)
    )
    return part, kept


def place(volume: Volume, shape: tuple[int, int, int], affine: np.ndarray, item: object) -> np.ndarray:
    """Return a label volume on another grid, 0 outside the volume; see `part_of_grid`."""
    part, values = part_of_grid(volume, shape, affine, item)
    out = np.zeros(shape, volume.array.dtype)
    if values.size:
        out[part] = values
    return out


def _words_of_misfit(
    volume: Volume, affine: np.ndarray, nearest: np.ndarray, shift: np.ndarray
) -> tuple[str, str]:
    """Return what is wrong with a volume that does not lie on a grid, and what to do.

    Parameters
    ----------
    nearest : ndarray, shape (4, 4)
        The nearest change of indices.
    shift : ndarray, shape (3,)
        What its translation lacks, voxels.
    """
    distance = corner_distance_mm(volume.array.shape, affine @ nearest, volume.affine)
    problem = f"its voxels do not coincide with the image's (up to {words_mm(distance)} apart)."
    remedy = "Give a mask drawn on this image; nothing is resampled here."
    off = np.abs(shift) > GRID_TOLERANCE
    if off.any() and np.allclose(np.abs(shift[off]), 0.5, atol=0.05):
        axes = ", ".join(name for name, is_off in zip("zyx", off, strict=True) if is_off)
        problem += f" They are shifted by half a voxel along {axes}: a corner was taken for a centre."
        remedy = "Export the mask again with a tool that states the centres of voxels, as DICOM and NIfTI do."
    return problem, remedy


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
        """Return the binary mask of one object, bool, shape (z, y, x).

        Slices without the object are never written, so that the system gives them no memory: a case of a
        hundred objects does not take a byte for each voxel of each.
        """
        mask = np.zeros(self.labels.shape, bool)
        for here, labels in zip(mask, self.labels, strict=True):
            found = np.isin(labels, self.objects[object_name])
            if found.any():
                here[...] = found
        return mask

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
            digest.update(np.ascontiguousarray(array))
        digest.update(repr(sorted((k, tuple(v)) for k, v in self.objects.items())).encode())
        digest.update(repr(astuple(self.intensity)).encode())
        return digest.hexdigest()
