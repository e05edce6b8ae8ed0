"""Figures on the page: at a size at which their letters can be read, or within the file itself."""

import base64
from io import BytesIO
from pathlib import Path

from PIL import Image

from medsam_nb.errors import InputError

# A figure's letters have 7 points; a third more makes them as large on a screen as the captions.
CSS_PIXELS_PER_INCH = 130
LARGE = 150_000  # bytes of a PNG from which a photograph's format is tried


def printed_width(path: Path) -> int:
    """Return the width at which a figure's letters are as large as the page's, in CSS pixels."""
    try:
        with Image.open(path) as picture:
            inches = picture.width / picture.info.get("dpi", (300, 300))[0]
    except Exception as error:  # of any kind, as damage is
        raise InputError(path, f"is no picture ({error}).", "Run the notebook that drew it again.") from error
    return round(inches * CSS_PIXELS_PER_INCH)


def within(path: Path) -> str:
    """Return a picture as an address that holds it (a data URI); a large one as JPEG, if that is smaller."""
    data, kind = path.read_bytes(), "png"
    if len(data) > LARGE:
        with Image.open(path) as picture:
            picture = picture.convert("RGB")
            picture.thumbnail((1600, 8000))
            buffer = BytesIO()
            picture.save(buffer, format="JPEG", quality=88, optimize=True)
        if buffer.tell() < len(data):
            data, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
