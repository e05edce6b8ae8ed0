"""Small images with known objects, written in the formats of the study's downloads."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medsam_nb.data.formats import write_nifti
from medsam_nb.protocol.volume import Volume

SHAPE = (8, 40, 48)  # slices, rows, columns: small, and no two equal, so that a turned axis is seen
SPACING_MM = (5.0, 0.8, 0.8)
FIRST_SLICE, LAST_SLICE = 2, 6  # that hold objects; those before and after do not
PICTURE = (60, 80)


def label_volume(*values: int) -> np.ndarray:
    """Return a label map with one block for each value, side by side, uint8, shape `SHAPE`."""
    labels = np.zeros(SHAPE, np.uint8)
    width = SHAPE[2] // max(len(values), 2)
    for number, value in enumerate(values):
        left = number * width
        labels[FIRST_SLICE : LAST_SLICE + 1, 8 : 20 + number, left + 1 : left + width - 1] = value
    return labels


def image_of(labels: np.ndarray, seed: int, kind: type = np.int16) -> np.ndarray:
    """Return an image in which objects differ from their surroundings in brightness, values 0 to 200."""
    draw = np.random.default_rng(seed)
    image = 60 + 8 * draw.normal(size=labels.shape) + 30 * (labels > 0) + 15 * labels
    return np.clip(image, 0, 200).astype(kind)


def nifti(path: Path, array: np.ndarray, spacing_mm: Sequence[float] = SPACING_MM) -> None:
    """Write an axial volume (z, y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, Volume.from_spacing(array, tuple(spacing_mm)))


def plain_nifti(path: Path, array: np.ndarray) -> None:
    """Write an axial volume as `.nii`, without compression, as LiTS is published."""
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    affine = Volume.from_spacing(array, SPACING_MM).affine[:, [2, 1, 0, 3]]
    nib.save(nib.Nifti1Image(array.T, affine), path)


def picture(path: Path, array: np.ndarray) -> None:
    """Write a picture, grey or RGB, in the format of its ending."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def spot(seed: int) -> np.ndarray:
    """Return a mask picture of 0 and 255 with one object, shape `PICTURE`; its place depends on the seed."""
    mask = np.zeros(PICTURE, np.uint8)
    mask[12 : 34 + seed, 20 + seed : 52] = 255
    return mask


def grey(mask: np.ndarray, seed: int) -> np.ndarray:
    """Return the picture of a mask, uint8."""
    return image_of((mask > 0).astype(np.uint8) * 3, seed, np.uint8)


def rgb(array: np.ndarray) -> np.ndarray:
    """Return a grey picture as RGB, as many ultrasound and X-ray pictures are stored."""
    return np.stack([array] * 3, axis=2)


def series(folder: Path, array: np.ndarray, spacing_mm: tuple[float, float, float] = (5.0, 0.8, 0.8)) -> None:
    """Write a DICOM series, one file for each slice; array and spacing (z, y, x)."""
    import SimpleITK as sitk

    folder.mkdir(parents=True, exist_ok=True)
    number = int(hashlib.sha256(folder.as_posix().encode()).hexdigest()[:10], 16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z, plane in enumerate(array):
        image = sitk.GetImageFromArray(plane[None].astype(np.int16))
        image.SetSpacing(spacing_mm[::-1])
        tags = {
            "0008|0060": "MR", "0008|0016": "1.2.840.10008.5.1.4.1.1.4", "0020|000d": f"1.2.3.{number}",
            "0020|000e": f"1.2.3.{number}.1", "0008|0018": f"1.2.3.{number}.1.{z + 1}",
            "0018|0050": f"{spacing_mm[0]:g}", "0020|0013": str(z),
            "0020|0032": f"0\\0\\{spacing_mm[0] * z:g}", "0020|0037": "1\\0\\0\\0\\1\\0",
        }  # fmt: skip
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"1-{z + 1:02d}.dcm"))
        writer.Execute(image)


def segmentation(path: Path, array: np.ndarray, segments: Sequence[tuple[str, int]]) -> None:
    """Write a `.seg.nrrd` on the grid of `series`; segments are (name, label value)."""
    import SimpleITK as sitk

    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.8, 5.0))
    for number, (name, value) in enumerate(segments):
        fields = {"ID": f"Segment_{number + 1}", "Name": name, "LabelValue": value, "Layer": 0}
        for key, text in fields.items():
            image.SetMetaData(f"Segment{number}_{key}", str(text))
    sitk.WriteImage(image, str(path), useCompression=True)
