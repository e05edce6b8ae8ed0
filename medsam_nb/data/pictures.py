"""Pictures (PNG, JPEG, TIFF, BMP) as volumes: as a viewer shows them, every page, every kind of pixel."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medsam_nb.data.picture_files import (
    has_deep_colours,
    require_whole_jpeg,
    require_whole_png,
    sub_byte_step,
    tiff_axes,
)
from medsam_nb.data.reading import ReadVolume, require_memory, suffix_of
from medsam_nb.errors import InputError
from medsam_nb.protocol.volume import Volume

LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in Pillow's conversion to grey
LOSSY = (".jpg", ".jpeg")
ORIENTATION, SUBFILE, DESCRIPTION = 274, 254, 270  # tags of EXIF and TIFF
SHOWN_AS_RGB = ("CMYK", "YCbCr", "LAB", "HSV", "RGBX")  # of Pillow's modes
COLOURS_NAMED = 6  # in a message
REDUCED = "colour image reduced to luminance (`colour: rgb` in the row shows the colours)"
BLACK = "#000000"


@dataclass(frozen=True, eq=False)
class Page:
    """One page of a picture, turned as viewers turn it.

    Attributes
    ----------
    values : ndarray, shape (y, x) or (y, x, 3)
        Grey levels, indices of a palette, or RGB.
    opacity : ndarray, shape (y, x), or None
    palette : ndarray of uint8, shape (n, 3), or None
        Colours of the indices.
    step : int
        Between neighbouring stored values: grey levels of fewer than 8 bits are read spread over 0 to 255.
    """

    values: np.ndarray
    opacity: np.ndarray | None = None
    palette: np.ndarray | None = None
    step: int = 1

    @property
    def shown(self) -> np.ndarray:
        """What a viewer shows: grey levels (y, x), or RGB (y, x, 3) if any pixel has a colour."""
        seen = self.values if self.palette is None else self.palette[self.values]
        return seen[..., 0] if seen.ndim == 3 and (seen == seen[..., :1]).all() else seen

    @property
    def is_drawn_in_opacity(self) -> bool:
        """Whether only the opacity shows anything, as in masks that some tools export."""
        if self.opacity is None or self.opacity.min() == self.opacity.max():
            return False
        return (self.values == self.values.reshape(-1, *self.values.shape[2:])[0]).all()


def read_picture(path: Path, labels: bool, colour: bool = False) -> ReadVolume:
    """Read a picture: pages as slices, colours as luminance.

    Parameters
    ----------
    path : Path
    labels : bool
        Whether the values are labels: a palette picture then keeps its indices, and colours are refused.
    colour : bool
        Whether colours are kept, in 8 bits, as the first of four axes.

    Returns
    -------
    ReadVolume
        Shape (pages, y, x), or (volumes, slices, y, x) where ImageJ or OME says that pages are channels or
        times. Number type as stored.

    Raises
    ------
    InputError
        If rows are missing, pages differ in size, labels are colours, or a palette leaves open which index is
        the background.
    """
    with _opened(path) as (pages, finish):
        if labels:
            return finish([_label_page(path, page) for page in pages])
        if not colour:
            return finish([_image_page(page) for page in pages])
        shown = [_eight_bits(page.shown) for page in pages]
        if all(page.ndim == 2 for page in shown):
            return finish([(page, "") for page in shown])
        volume = finish([(page if page.ndim == 3 else np.stack([page] * 3, axis=2), "") for page in shown])
        return replace(volume, array=np.moveaxis(volume.array, -1, 0))


def read_mask_picture(path: Path, threshold: float) -> ReadVolume:
    """Read a picture as a binary mask: 1 where any channel reaches the threshold.

    Opacity counts only where nothing else is drawn. Pictures of one bit count as 0 and 255.
    """

    def binary(page: Page) -> tuple[np.ndarray, str]:
        if page.is_drawn_in_opacity:
            return (page.opacity >= threshold).astype(np.uint8), "the mask is the picture's opacity"
        shown = page.shown * np.uint8(255) if page.values.dtype == bool else page.shown
        mask = shown >= threshold
        return (mask.any(axis=2) if mask.ndim == 3 else mask).astype(np.uint8), ""

    with _opened(path) as (pages, finish):
        return finish([binary(page) for page in pages])


def read_colour_mask(path: Path, colours: Mapping[str, int]) -> ReadVolume:
    """Read a picture whose colours are labels.

    Parameters
    ----------
    path : Path
    colours : mapping of str to int
        Label of each colour, "#rrggbb". Black, and what is fully transparent, is background.

    Raises
    ------
    InputError
        If another colour is there, or the picture has more than 8 bits a channel.
    """
    values = {BLACK: 0} | {colour.lower(): label for colour, label in colours.items()}
    codes = np.array([int(colour[1:], 16) for colour in values])
    order = np.argsort(codes)
    codes, labels = codes[order], np.array(list(values.values()), np.uint16)[order]

    def labelled(page: Page) -> tuple[np.ndarray, str]:
        shown = page.shown * np.uint8(255) if page.values.dtype == bool else page.shown
        if shown.dtype != np.uint8:
            raise InputError(path, f"its colours are {shown.dtype}.", "Save the mask with 8 bits a channel.")
        shown = np.stack([shown] * 3, axis=2) if shown.ndim == 2 else shown
        found = shown.astype(np.int32) @ (1 << 16, 1 << 8, 1)
        if page.opacity is not None:
            found[page.opacity == 0] = 0
        place = np.searchsorted(codes, found).clip(max=len(codes) - 1)
        others = codes[place] != found
        if others.any():
            raise InputError(
                path,
                f"has colours that `mask_colours` of the row does not name: {_named(found[others])}.",
                "Add them." + (f" {lossy_words(path)}" if is_lossy(path) else ""),
            )
        return labels[place], ""

    with _opened(path) as (pages, finish):
        return finish([labelled(page) for page in pages])


def _eight_bits(shown: np.ndarray) -> np.ndarray:
    """Return a page as it is if it is grey, and its colours in 8 bits."""
    if shown.dtype == bool:
        return shown.astype(np.uint8)
    return (shown >> 8).astype(np.uint8) if shown.ndim == 3 and shown.dtype == np.uint16 else shown


def luminance(colours: np.ndarray) -> np.ndarray:
    """Return the luminance of RGB, shape (..., 3), in its number type."""
    return np.rint(colours @ LUMINANCE).astype(colours.dtype)


def is_lossy(path: Path) -> bool:
    """Whether a file's format changes the values next to edges, as JPEG does."""
    return suffix_of(path) in LOSSY


def lossy_words(path: Path) -> str:
    """Return what to do about a mask in a lossy format."""
    return f"{path.name} is a JPEG, which blurs edges: set `mask_threshold` in the manifest row, such as 128."


def _image_page(page: Page) -> tuple[np.ndarray, str]:
    shown = page.shown.astype(np.uint8) if page.values.dtype == bool else page.shown
    return (shown, "") if shown.ndim == 2 else (luminance(shown), REDUCED)


def _label_page(path: Path, page: Page) -> tuple[np.ndarray, str]:
    if page.is_drawn_in_opacity:
        return page.opacity, "the mask is the picture's opacity"
    if page.palette is not None:
        _require_black_background(path, page)
        return page.values, ""
    if page.shown.ndim == 2:
        return page.shown.astype(np.uint8) if page.shown.dtype == bool else page.shown // page.step, ""
    colours = page.shown.astype(np.int64) @ (1 << 16, 1 << 8, 1) if page.shown.dtype == np.uint8 else None
    raise InputError(
        path,
        "its labels are colours" + (f": {_named(colours)}." if colours is not None else "."),
        "Say which colour is which label with `mask_colours` in the manifest row, or set `mask_threshold`: a "
        "pixel then counts where any channel reaches it.",
    )


def _require_black_background(path: Path, page: Page) -> None:
    """Raise InputError where a palette shows index 0 in a colour and another index that is used in black."""
    used = np.unique(page.values)
    dark = [int(index) for index in used if not page.palette[index].any()]
    if used[0] == 0 and dark and dark[0] != 0:
        raise InputError(
            path,
            f"its palette shows index {dark[0]} in black and index 0 in a colour: which is the background?",
            "Say which colour is which label with `mask_colours` in the manifest row.",
        )


def _named(codes: np.ndarray) -> str:
    """Return the most frequent colours of an array of 24-bit codes, with their pixels."""
    found, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    named = [f"#{found[i]:06x} ({counts[i]} pixels)" for i in order[:COLOURS_NAMED]]
    more = len(found) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


@contextmanager
def _opened(path: Path) -> Iterator[tuple]:
    """Open a picture; yield its pages, and what makes a volume of a (values, remark) for each."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the machine's memory is the limit
    try:
        with Image.open(path) as picture:
            count = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            require_memory(path, (count, *picture.size[::-1]), 4 * len(picture.getbands()))
            turned = picture.getexif().get(ORIENTATION, 1)
            said = [f"turned as its EXIF orientation {turned} says"] if turned in range(2, 9) else []
            tags = getattr(picture, "tag_v2", {})
            description, deep = str(tags.get(DESCRIPTION, "")), has_deep_colours(path, tags)
            if said and (deep or (picture.format == "TIFF" and turned > 4)):  # there libraries garble them
                raise InputError(
                    path, f"cannot be turned as its orientation {turned} says.", "Save it turned."
                )

            def finish(made: list[tuple[np.ndarray, str]]) -> ReadVolume:
                if len({values.shape for values, _ in made}) > 1:
                    raise InputError(path, "its pages differ in size.", "Give pages of one size.")
                array = tiff_axes(path, description, np.stack([values for values, _ in made]))
                remarks = dict.fromkeys([*said, *(remark for _, remark in made if remark)])
                return ReadVolume(array, Volume.from_spacing(array, (1.0, 1.0, 1.0)).affine, tuple(remarks))

            yield (_deep_pages(path) if deep else _pages(path, picture)), finish
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _pages(path: Path, picture) -> Iterator[Page]:
    """Yield every page but previews and the smaller copies of a pyramid."""
    from PIL import ImageOps, ImageSequence

    for number, page in enumerate(ImageSequence.Iterator(picture)):
        smaller = getattr(page, "tag_v2", {}).get(SUBFILE, 0) & 1
        if number and (picture.format == "MPO" or smaller):
            continue
        step = sub_byte_step(path) if page.format == "PNG" and page.mode == "L" else 1
        page.load()  # Pillow turns the pages of a TIFF here, and states their size before
        stored = np.asarray(page)
        if page.format == "PNG":
            require_whole_png(path, stored)
        elif page.format in ("JPEG", "MPO"):
            require_whole_jpeg(path, stored)
        yield _as_page(page if page.format == "TIFF" else ImageOps.exif_transpose(page), step)


def _as_page(picture, step: int) -> Page:
    """Return a page of Pillow's in one of the few forms that are told apart here."""
    transparent = "transparency" in picture.info
    if picture.mode in SHOWN_AS_RGB:
        picture = picture.convert("RGB")
    elif picture.mode in ("La", "RGBa"):
        picture = picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode])
    array = np.asarray(picture)
    if picture.mode in ("P", "PA"):
        palette = np.zeros((256, 3), np.uint8)
        colours = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        palette[: len(colours)] = colours
        opacity = np.asarray(picture.convert("RGBA"))[..., 3] if transparent or picture.mode == "PA" else None
        return Page(array if array.ndim == 2 else array[..., 0], opacity, palette)
    if picture.mode == "LA":
        return Page(array[..., 0], array[..., 1])
    if picture.mode == "RGBA":
        return Page(array[..., :3], array[..., 3])
    return Page(array, step=step)


def _deep_pages(path: Path) -> Iterator[Page]:
    """Yield the pages of a picture with 16 bits a channel, which Pillow would cut to 8."""
    import cv2

    ok, pages = cv2.imdecodemulti(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if not ok:
        raise ValueError("16-bit colours that OpenCV cannot read")
    for page in pages:
        channels = 1 if page.ndim == 2 else page.shape[2]
        if channels == 1:
            yield Page(page.reshape(page.shape[:2]))
        else:
            yield Page(page[..., 2::-1], page[..., 3] if channels == 4 else None)
