"""What a few of a folder's images and masks hold: their planes, values, labels and colours."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medsam_nb.data.arrays import read_arrays
from medsam_nb.data.formats import read_volume
from medsam_nb.data.pictures import is_lossy
from medsam_nb.data.reading import PICTURES, ReadVolume, guarded, suffix_of
from medsam_nb.data.sources import Source
from medsam_nb.errors import InputError
from medsam_nb.manifest.layouts import ArraysLayout
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.volume import slice_plane

MOST_IMAGES = 3
MOST_MASKS = 20
MOST_BYTES = 400 << 20  # of files whose masks are read, beyond the first
MANY_LABELS = 64  # more are grey levels
MANY_COLOURS = 16
# Least and greatest value of a CT lie in these ranges: air or fat (or padding), and bone or metal.
CT_LEAST, CT_MOST = (-4096, -150), (100, 8000)


@dataclass
class Contents:
    """What was seen.

    Attributes
    ----------
    images, masks : int
        That were read.
    planes : Counter of str
    flat : int
        Images of one slice.
    least, most : float
        Of all images read.
    whole_bytes : bool
        Whether all images hold 8-bit values.
    coloured : bool
    several_volumes : int
        Most volumes in a file; 1 is the usual.
    label_maps : int
        Masks with more than one label.
    voxels, cases : Counter of int
        How often a label occurs, and in how many masks.
    soft : tuple of (float, float) or None
        Least and greatest value of masks that are no whole labels.
    n_soft : int
        How many they are.
    lossy : bool
        Whether masks are JPEG.
    colours : Counter of str
        Of coloured masks.
    remarks : set of str
        What reading decided, such as a unit turned into mm.
    failures : list of str
    """

    images: int = 0
    masks: int = 0
    planes: Counter = field(default_factory=Counter)
    flat: int = 0
    least: float = np.inf
    most: float = -np.inf
    whole_bytes: bool = True
    coloured: bool = False
    several_volumes: int = 1
    label_maps: int = 0
    voxels: Counter = field(default_factory=Counter)
    cases: Counter = field(default_factory=Counter)
    soft: tuple[float, float] | None = None
    n_soft: int = 0
    lossy: bool = False
    colours: Counter = field(default_factory=Counter)
    remarks: set = field(default_factory=set)
    failures: list = field(default_factory=list)


def read_contents(row: DataSet, sources: Sequence[Source]) -> Contents:
    """Read some images and masks of a data set: the first, the last, and some between.

    Parameters
    ----------
    row : DataSet
        Whose layout finds the files; nothing else of it counts.
    sources : sequence of Source
    """
    seen = Contents()
    usable = [one for one in sources if one.problem is None]
    for source in spread(usable, MOST_IMAGES):
        _see_image(seen, row, source.image)
    read = 0
    for source in spread(usable, MOST_MASKS):
        if source.rule == "segments" or (seen.masks and read > MOST_BYTES):
            continue
        for path in source.masks:
            read += path.stat().st_size if path.is_file() else 0
            if source.rule == "labels" or seen.masks < MOST_MASKS:
                _see_mask(seen, row, path)
    return seen


def like_hounsfield(seen: Contents) -> bool:
    """Whether the values that were seen may be Hounsfield units."""
    ranges = ((CT_LEAST, seen.least), (CT_MOST, seen.most))
    return not seen.whole_bytes and all(low <= value <= high for (low, high), value in ranges)


def spread(items: Sequence, most: int) -> list:
    """Return at most so many items, from the first to the last."""
    places = sorted({round(n) for n in np.linspace(0, len(items) - 1, min(len(items), most))})
    return [items[n] for n in places]


def read_any(path: Path, row: DataSet | None = None, labels: bool = False) -> ReadVolume:
    """Return a volume, the first of several; see `formats.read_volume`."""
    if row is not None and isinstance(row.layout, ArraysLayout):
        image = guarded(read_arrays, path, row.layout, row.dimension)
        return guarded(read_arrays, path, row.layout, row.dimension, False, image) if labels else image
    try:
        return read_volume(path, labels=labels)
    except InputError as error:
        if "frame" not in error.remedy:
            raise
        return read_volume(path, labels=labels, frame=0)


def _see_image(seen: Contents, row: DataSet, path: Path) -> None:
    try:
        image = read_any(path, row)
    except InputError as error:
        seen.failures.append(str(error))
        return
    seen.images += 1
    array = image.array[np.isfinite(image.array)] if image.array.dtype.kind == "f" else image.array
    if array.size:
        seen.least, seen.most = min(seen.least, float(array.min())), max(seen.most, float(array.max()))
        seen.whole_bytes &= bool(array.dtype == np.uint8)
    seen.several_volumes = max(seen.several_volumes, image.volumes)
    seen.remarks |= set(image.remarks)
    seen.flat += 1 in image.array.shape
    is_picture = suffix_of(path) in PICTURES
    seen.planes["stored" if is_picture else slice_plane(image)] += 1
    seen.coloured |= is_picture and _has_colours(path)


def _see_mask(seen: Contents, row: DataSet, path: Path) -> None:
    is_picture = suffix_of(path) in PICTURES
    try:
        if is_picture and _has_colours(path):
            seen.masks, seen.lossy = seen.masks + 1, seen.lossy or is_lossy(path)
            seen.colours += _colours(path)
            return
        mask = read_any(path, row, labels=True)
    except InputError as error:
        seen.failures.append(str(error))
        return
    seen.masks, seen.lossy = seen.masks + 1, seen.lossy or is_lossy(path)
    values, counts = np.unique(mask.array, return_counts=True)
    whole = np.isfinite(values).all() and (np.abs(values - np.rint(values)) <= 1e-4).all()
    if not whole or len(values) > MANY_LABELS or values.min() < 0:
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        seen.n_soft += 1
        seen.soft = (low, high) if seen.soft is None else (min(low, seen.soft[0]), max(high, seen.soft[1]))
        return
    seen.label_maps += np.count_nonzero(values) > 1
    for value, count in zip(np.rint(values).astype(int).tolist(), counts.tolist(), strict=True):
        if value:
            seen.voxels[value] += count
            seen.cases[value] += 1


def _has_colours(path: Path) -> bool:
    """Whether a picture shows another hue than grey."""
    array = _as_rgb(path)
    return array is not None and bool((array.max(axis=-1) != array.min(axis=-1)).any())


def _colours(path: Path) -> Counter:
    """Return the pixels of each colour but black, as "#rrggbb"."""
    array = _as_rgb(path).reshape(-1, 3).astype(np.uint32)
    values, counts = np.unique(array @ np.array([1 << 16, 1 << 8, 1], np.uint32), return_counts=True)
    return Counter({f"#{v:06x}": n for v, n in zip(values.tolist(), counts.tolist(), strict=True) if v})


def _as_rgb(path: Path) -> np.ndarray | None:
    """Return a picture of colours in 8-bit RGB, or None where it has none or cannot be shown so."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.mode not in ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr") or picture.width < 1:
                return None
            return np.asarray(picture.convert("RGB"))
    except Exception:  # reading it as a volume says what is wrong
        return None
