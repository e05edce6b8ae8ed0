"""A small data set of pictures for tests: any picture file with a mask, and its manifest row."""

from pathlib import Path

import numpy as np
from PIL import Image

from medsam_nb.manifest.rows import DataSet


def picture_row(**changes) -> DataSet:
    """Return a row of 8-bit pictures, shown as stored."""
    fields = {
        "name": "own",
        "title": "Own",
        "modality": "ultrasound",
        "dimension": 2,
        "objects": {"spot": [255]},
        "intensity": {"policy": "stored"},
        "slice_axis": "stored",
        "layout": {"name": "picture_pairs"},
    }
    return DataSet.model_validate(fields | changes)


def grey_picture(seed: int, shape: tuple[int, int] = (24, 30)) -> np.ndarray:
    """Return an 8-bit picture whose grey levels stay within 20 to 200, so that a stretch would be seen."""
    return np.random.default_rng(seed).integers(20, 200, shape, dtype=np.uint8)


def spot(shape: tuple[int, int] = (24, 30)) -> np.ndarray:
    """Return a mask picture of 0 and 255."""
    mask = np.zeros(shape, np.uint8)
    mask[5:15, 8:20] = 255
    return mask


def write_picture_pair(folder: Path, name: str, seed: int) -> None:
    """Write `images/NAME.png` and `masks/NAME.png`; the name may hold folders."""
    for kind, array in (("images", grey_picture(seed)), ("masks", spot())):
        path = folder / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
