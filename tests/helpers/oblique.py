"""A DICOM series that lies as few do: sagittal, oblique, its files named in another order than they lie."""

import numpy as np
import SimpleITK as sitk

SHAPE = (6, 20, 24)
OBLIQUE = {
    "name": "oblique", "title": "Own", "modality": "MR", "dimension": 3, "objects": {"bright": [1]},
    "intensity": {"policy": "min_max"}, "folder": "raw",
    "layout": {"name": "listed", "cases": [{"case_id": "one", "image": "series", "mask": "mask.nii.gz"}]},
}  # fmt: skip


def sagittal_oblique_series(folder):
    """Write a DICOM series whose slices are sagittal and tilted; return its array (slice, row, column)."""
    a = np.deg2rad(14)
    row = np.array([0, np.cos(a), -np.sin(a)])  # along columns: to the back and down
    column = np.array([0, -np.sin(a), -np.cos(a)])  # along rows: to the feet
    b = np.deg2rad(9)
    turn = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    row, column = turn @ row, turn @ column
    normal = np.cross(row, column)
    array = np.random.default_rng(3).integers(0, 400, SHAPE).astype(np.int16)
    array[2:5, 6:13, 9:17] += 1000
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z, plane in enumerate(array):
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing((0.9, 1.2, 4.0))
        position = np.array([20.0, -30.0, 45.0]) + 4.0 * z * normal
        tags = {
            "0008|0060": "MR", "0008|0016": "1.2.840.10008.5.1.4.1.1.4", "0010|0020": "P1",
            "0010|0010": "A^B",
            "0020|000d": "1.2.3.4", "0020|000e": "1.2.3.4.77", "0020|0052": "1.2.3.4.9",
            "0008|0018": f"1.2.3.4.5.{z}",
            "0020|0013": str(z), "0020|0032": "\\".join(f"{v:.6f}" for v in position), 
            "0018|0050": "4",
            "0020|0037": "\\".join(f"{v:.8f}" for v in (*row, *column)),
            "0008|0020": "20260101", "0008|0030": "120000",
        }  # fmt: skip
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{9 - z}.dcm"))  # names in another order than places
        writer.Execute(image)
