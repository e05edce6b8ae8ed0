"""What is prompted by hand: a prepared case, or any image file, with a truth or without."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medsam_nb.data.export import write_masks, write_segmentation_of_series
from medsam_nb.data.formats import read_volume, write_nifti
from medsam_nb.data.pictures import luminance
from medsam_nb.data.prepared import load_case
from medsam_nb.protocol.intensity import Intensity, to_uint8
from medsam_nb.protocol.prompts_file import image_sha256
from medsam_nb.protocol.volume import Volume, canonical, place


@dataclass(frozen=True, eq=False)
class Scene:
    """An image to prompt, with a truth or without.

    Attributes
    ----------
    data_set, case_id : str
    image : Volume
    slices : ndarray of uint8, shape (z, y, x) or, in colour, (z, y, x, 3)
    truth : mapping of str to ndarray of bool, shape (z, y, x)
        By object; empty where nothing is known.
    digest : str
        Of the case, or of the image where there is no case.
    folder : Path or None
        Of the prepared case.
    source : Volume or None
        The image as it was read from its file, where there is no prepared case.
    series : Path or None
        Folder of the DICOM series that the image was read from, where it was one.
    """

    data_set: str
    case_id: str
    image: Volume
    slices: np.ndarray
    truth: Mapping[str, np.ndarray]
    digest: str
    folder: Path | None = None
    source: Volume | None = None
    series: Path | None = None

    def sha256(self) -> str:
        """Return what prompts are tied to."""
        return self.digest

    def write(
        self, folder: Path, masks: Mapping[str, np.ndarray], description: str, record: Mapping[str, object]
    ) -> list[Path]:
        """Write masks as NIfTI on the grid of the image's source; see `export.write_masks`.

        Of a DICOM series there is a DICOM segmentation of all of them, too.
        """
        if self.folder is not None:
            return write_masks(folder, masks, self.folder, description, record)
        paths, placed = [], {}
        for name, mask in masks.items():
            paths.append(Path(folder) / f"{self.case_id}_{name}_mask.nii.gz")
            volume = Volume(mask.astype(np.uint8), self.image.affine)
            shape, affine = self.source.array.shape, self.source.affine
            placed[name] = Volume(place(volume, shape, affine, paths[-1]), affine)
            write_nifti(paths[-1], placed[name])
        if self.series is not None and any(volume.array.any() for volume in placed.values()):
            paths.append(Path(folder) / f"{self.case_id}_masks.dcm")
            made_by = str(record.get("Model", "medsam-nb"))
            write_segmentation_of_series(paths[-1], placed, self.series, made_by=made_by)
        return paths


def scene_of_case(folder: Path) -> Scene:
    """Return a prepared case as a scene, by its folder."""
    case = load_case(folder)
    truth = {name: case.mask(name) for name in case.objects}
    grey = case.slices_uint8()
    return Scene(case.data_set, case.case_id, case.image, grey, truth, case.sha256(), Path(folder))


def scene_of_file(
    path: Path,
    *,
    slice_axis: str = "thickest",
    intensity: Intensity = Intensity(),  # noqa: B008 (frozen)
) -> Scene:
    """Return an image file, or a folder with one DICOM series, as a scene without a truth.

    Pictures that have colours are shown to the model in colour.
    """
    read = read_volume(Path(path), colour=True)
    shown = canonical(read, slice_axis).array
    source = read if read.array.ndim == 3 else Volume(luminance(read.array), read.affine)
    image = canonical(source, slice_axis)
    image = Volume(np.ascontiguousarray(image.array, np.float32), image.affine)
    name = Path(path).name.split(".")[0]
    slices = to_uint8(shown, intensity, name, limits_of=image.array)
    digest = image_sha256(image)  # in the name too: many files are called "image"
    series = Path(path) if Path(path).is_dir() else None
    return Scene("files", f"{name}_{digest[:6]}", image, slices, {}, digest, source=source, series=series)
