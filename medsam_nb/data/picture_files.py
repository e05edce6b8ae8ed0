"""What Pillow does not say of a picture's file: missing rows, the depth of pixels, the axes of pages."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np

from medsam_nb.errors import InputError

BITS_PER_SAMPLE = 258  # a tag of TIFF
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; 0 is grey, 3 a palette
# Adam7: first column and row, steps between columns and rows of each pass.
PNG_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
MISSING_GREY = 128  # what decoders of JPEG show where data are missing
MCU_ROWS = 8  # rows that JPEG stores together, at least
GET_AGAIN = "It may be truncated: copy or download it again."


def _png_header(path: Path) -> tuple[int, int, int, int, bool]:
    """Return width, height, bits, colour type and whether rows are interlaced."""
    with open(path, "rb") as file:
        head = file.read(29)
    if head[:8] != PNG_SIGNATURE:
        return 0, 0, 8, 0, False
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", head[16:29])
    return width, height, bits, kind, bool(interlaced)


def has_deep_colours(path: Path, tags: dict) -> bool:
    """Whether a PNG or TIFF has several channels of more than 8 bits; `tags` are those of a TIFF."""
    _, _, bits, kind, _ = _png_header(path)
    samples = tags.get(BITS_PER_SAMPLE, ())
    deep = isinstance(samples, tuple) and len(samples) > 1 and max(samples) > 8
    return deep or (bits == 16 and PNG_CHANNELS.get(kind, 1) > 1)


def sub_byte_step(path: Path) -> int:
    """Return by how much Pillow spreads neighbouring values of a grey PNG of 2 or 4 bits, else 1."""
    _, _, bits, kind, _ = _png_header(path)
    return {2: 85, 4: 17}.get(bits, 1) if kind == 0 else 1


def require_whole_png(path: Path, stored: np.ndarray) -> None:
    """Raise InputError for a PNG with fewer rows than it announces; Pillow shows missing ones as zeros."""
    width, height, bits, kind, interlaced = _png_header(path)
    if not width or (stored[-1].any() and not interlaced):
        return
    passes = PNG_PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    pixel_bits = bits * PNG_CHANNELS.get(kind, 1)
    expected = sum(rows * (1 + -(-wide * pixel_bits // 8)) for wide, rows in sizes if wide > 0 and rows > 0)
    if _png_bytes(path, expected) < expected:
        raise InputError(path, f"cannot be read (rows of the {height} it announces are missing).", GET_AGAIN)


def _png_bytes(path: Path, most: int) -> int:
    """Return how many bytes of rows a PNG holds; counting ends when there are enough."""
    data, found, inflate = path.read_bytes(), 0, zlib.decompressobj()
    place = len(PNG_SIGNATURE)
    while place + 8 <= len(data) and found < most:
        size, name = struct.unpack(">I4s", data[place : place + 8])
        if name == b"IDAT":
            found += len(inflate.decompress(data[place + 8 : place + 8 + size]))
        place += size + 12
    return found


def require_whole_jpeg(path: Path, stored: np.ndarray) -> None:
    """Raise InputError for a JPEG that ends properly after part of its rows.

    Decoders fill the rest with middle grey and say so only on standard error; no camera or scanner makes rows
    of exactly that value.
    """
    if (stored[-MCU_ROWS:] == MISSING_GREY).all() and not (stored == MISSING_GREY).all():
        raise InputError(path, "cannot be read (its last rows are missing).", GET_AGAIN)


def tiff_axes(path: Path, description: str, pages: np.ndarray) -> np.ndarray:
    """Return the pages of a TIFF as slices, or as (volumes, slices) where its description says so.

    Parameters
    ----------
    path : Path
    description : str
        Of the first page: ImageJ and OME write there what the pages are.
    pages : ndarray, shape (pages, y, x)

    Returns
    -------
    ndarray, shape (pages, y, x) or (volumes, slices, y, x)
        A volume is a time and channel.

    Raises
    ------
    InputError
        If the pages are not those that the description announces.
    """
    if description.startswith("ImageJ="):
        said = dict(re.findall(r"^(\w+)=(\d+)\s*$", description, re.MULTILINE))
        sizes = {"C": int(said.get("channels", 1)), "T": int(said.get("frames", 1))}
        sizes["Z"] = int(said.get("slices", 1))
        order, announced = "CZT", int(said.get("images", 1))
        if sizes["C"] * sizes["Z"] * sizes["T"] == 1:
            sizes["Z"] = announced
    elif "<OME" in description:
        sizes = {axis: int((re.findall(rf'Size{axis}="(\d+)"', description) or [1])[0]) for axis in "CZT"}
        order = (re.findall(r'DimensionOrder="XY(\w{3})"', description) or ["CZT"])[0]
        announced = sizes["C"] * sizes["Z"] * sizes["T"]
        if announced != len(pages) == sizes["Z"] * sizes["T"]:  # channels within the pixels
            sizes["C"], announced = 1, len(pages)
    else:
        return pages
    if announced != len(pages) or sizes["C"] * sizes["Z"] * sizes["T"] != len(pages):
        raise InputError(
            path,
            f"its description announces {announced} pages, {len(pages)} can be read.",
            "Save it as a plain TIFF stack of one channel and one time.",
        )
    array = pages.reshape(*(sizes[axis] for axis in reversed(order)), *pages.shape[1:])
    names = order[::-1]
    array = np.moveaxis(array, [names.index(axis) for axis in "TCZ"], [0, 1, 2])
    array = array.reshape(sizes["T"] * sizes["C"], sizes["Z"], *pages.shape[1:])
    return array if len(array) > 1 else array[0]
