"""Arrays in NumPy's .npz and in HDF5 files, as volumes. Nothing in a file is ever run: no pickle is read."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from medsam_nb.data.pictures import REDUCED, luminance
from medsam_nb.data.reading import MISSING_FILE, ReadVolume, guarded, require_memory, require_sound
from medsam_nb.errors import InputError
from medsam_nb.manifest.layouts import ArraysLayout
from medsam_nb.protocol.volume import Volume

SHOWN = 12  # names of arrays in a message
COMPONENTS = (3, 4)  # of a colour, the fourth is opacity
NO_SPACING = "the file states no spacing: voxels count as cubes of 1 mm"
# What a file is to a reader here: the array of a name, or None where there is none.
Lookup = Callable[[str], np.ndarray | None]


def read_arrays(
    path: Path, layout: ArraysLayout, dimension: int, colour: bool = False, image: Volume | None = None
) -> ReadVolume:
    """Read the image of a file, or, with `image`, its mask.

    Parameters
    ----------
    path : Path
    layout : ArraysLayout
        Which arrays, and in which order their axes are.
    dimension : {2, 3}
        Of the row: how many axes are space.
    colour : bool
        Whether colours are kept.
    image : Volume, optional
        On whose grid a mask lies unless its own file states another spacing.

    Returns
    -------
    ReadVolume
        Array (z, y, x), or (z, y, x, 3), uint8, where colours are kept; placed as an axial volume, as
        nothing in such files says where it lies.

    Raises
    ------
    InputError
        If the file is missing or damaged, has no array of that name, or one of another shape or kind.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(path, "there is no such file.", MISSING_FILE)
    name = layout.image if image is None else layout.mask
    if layout.name == "npz":
        array, spacing = _from_npz(path, name, layout)
    else:
        array, spacing = _from_hdf5(path, name, layout)
    array = _in_order(path, name, array, layout.axes, dimension, colours=image is None)
    remarks = []
    if array.ndim == 4 and not colour:
        array, remarks = luminance(array), [REDUCED]
    spacing_mm = layout.spacing_mm or _spacing(path, spacing, layout, dimension)
    if spacing_mm is None:
        remarks += [NO_SPACING] if dimension == 3 and image is None else []
        spacing_mm = (1.0, 1.0, 1.0) if image is None else image.spacing_mm
    volume = ReadVolume(array, Volume.from_spacing(array, spacing_mm).affine, tuple(remarks))
    require_sound(path, volume)
    return volume


def _from_npz(path: Path, name: str, layout: ArraysLayout) -> tuple[np.ndarray, np.ndarray | None]:
    """Return an array of an .npz file and its spacing, or None."""
    if not zipfile.is_zipfile(path):
        raise InputError(path, "is no .npz file.", "It may be truncated: copy or download it again.")
    with zipfile.ZipFile(path) as archive:
        there = _names_in_npz(path)
        return _looked_up(path, name, layout, there, lambda wanted: _read_npy(path, archive, wanted))


def _read_npy(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return one array of an .npz file; its header is judged before anything is allocated."""
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0
        }.get(version)  # fmt: skip
        shape, _, kind = read_header(file) if read_header else ((), False, np.dtype(object))
    if kind.hasobject or read_header is None:
        problem = f"its array {name!r} holds Python objects, which could run code and are not read."
        raise InputError(path, problem, "Save it as numbers.")
    require_memory(path, shape, kind.itemsize)
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _from_hdf5(path: Path, name: str, layout: ArraysLayout) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a data set of an HDF5 file and its spacing, or None."""
    h5py, there = _h5py(path), _names_in_hdf5(path)
    with h5py.File(path, "r") as file:

        def read(wanted: str) -> np.ndarray | None:
            found = file.get(wanted)
            if not isinstance(found, h5py.Dataset):
                image = file.get(name)  # the spacing may be an attribute of its image
                return None if image is None or wanted == name else image.attrs.get(wanted)
            if found.file.filename != file.filename or found.is_virtual or found.external:
                problem = f"the data of {wanted!r} lie in another file."
                raise InputError(path, problem, "Give one file that holds its data.")
            require_memory(path, found.shape, found.dtype.itemsize)
            return found[()]

        return _looked_up(path, name, layout, there, read)


def _looked_up(
    path: Path, name: str, layout: ArraysLayout, there: Sequence[str], read: Lookup
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the array of a name and the spacing, or InputError with the names that a file has."""
    listed = ", ".join(there[:SHOWN]) + (", ..." if len(there) > SHOWN else "") or "none"
    array = read(name) if name.strip("/") in there else None
    if array is None:
        field = "mask" if name == layout.mask else "image"
        problem = f"it has no array {name!r}; it has {listed}."
        raise InputError(path, problem, f"Name one of them as `{field}` in the layout of the manifest row.")
    wanted = layout.spacing or "spacing"
    spacing = read(wanted) if wanted in there or layout.name == "hdf5" else None
    if spacing is None and layout.spacing:
        problem = f"it has no spacing {wanted!r}; it has {listed}."
        raise InputError(path, problem, "Correct `spacing` in the manifest row, or give `spacing_mm`.")
    return np.asarray(array), None if spacing is None else np.asarray(spacing)


def _in_order(
    path: Path, name: str, array: np.ndarray, axes: str, dimension: int, *, colours: bool
) -> np.ndarray:
    """Return an array as (z, y, x), or (z, y, x, 3) where it holds colours."""
    shape = array.shape
    coloured = colours and array.dtype == np.uint8 and array.ndim == dimension + 1 and shape[-1] in COMPONENTS
    rest = array.ndim - coloured
    if dimension == 2 and rest == 3 and 1 in (array.shape[0], array.shape[2]) and not coloured:
        array = array[0] if array.shape[0] == 1 else array[..., 0]  # a slice of a volume
        rest = 2
    if rest != dimension or array.dtype.kind not in "biuf" or array.size == 0:
        raise InputError(
            path,
            f"its array {name!r} has shape {shape} and type {array.dtype}.",
            f"The row says dimension {dimension}: give {dimension} axes of numbers, or correct `dimension`.",
        )
    if axes == "xyz":
        array = array.transpose(*range(dimension)[::-1], *((dimension,) if coloured else ()))
    array = array[None] if dimension == 2 else array
    return np.ascontiguousarray(array[..., :3] if coloured else array)


def _spacing(
    path: Path, stated: np.ndarray | None, layout: ArraysLayout, dimension: int
) -> tuple[float, float, float] | None:
    """Return the spacing (z, y, x) that a file states, mm; of a picture, slices are 1 mm apart."""
    if stated is None:
        return None
    if stated.dtype.kind not in "iuf" or stated.size not in (dimension, 3):
        problem = f"its spacing has shape {stated.shape} and type {stated.dtype}."
        raise InputError(path, problem, f"It must be {dimension} numbers, in mm.")
    values = stated.ravel().astype(float).tolist()
    ordered = values[::-1] if layout.spacing_axes == "xyz" else values
    return tuple([1.0, *ordered] if len(ordered) == 2 else ordered)


def names_of_arrays(path: Path, kind: str) -> list[str]:
    """Return the names of the arrays in an .npz ("npz") or HDF5 ("hdf5") file, without reading them."""
    return list(guarded(_names_in_npz if kind == "npz" else _names_in_hdf5, path))


def _names_in_npz(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [one.removesuffix(".npy") for one in archive.namelist() if one.endswith(".npy")]


def _names_in_hdf5(path: Path) -> list[str]:
    h5py = _h5py(path)
    names: list[str] = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda key, item: names.append(key) if isinstance(item, h5py.Dataset) else None)
    return names


def _h5py(path: Path):
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            path, "is read with the package h5py, which is not installed.", "Run `pip install h5py`."
        ) from error
    return h5py
