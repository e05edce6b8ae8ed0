"""NRRD, MetaImage and GIPL, read by SimpleITK; units of length are read from their text headers here."""

import gzip
import re
from pathlib import Path

import numpy as np

from medsam_nb.data.reading import UNITS_MM, ReadVolume, require_memory, suffix_of
from medsam_nb.errors import InputError
from medsam_nb.protocol.volume import Volume

GIPL_HEADER_BYTES = 256
HEADER_BYTES = 1 << 16  # of a text header; what follows is data
# (x, y, z) in ITK's world (left, posterior, head) against (z, y, x) in ours (right, front, head).
TO_RAS = np.diag([-1.0, -1.0, 1.0])
REVERSED = [2, 1, 0, 3]


def from_itk(image) -> Volume:
    """Return an image of SimpleITK's; components of a voxel become the first axis."""
    import SimpleITK as sitk

    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    affine = np.eye(4)
    dimension = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine[:3, :3] = TO_RAS @ direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = TO_RAS @ np.array(image.GetOrigin()[:3])
    return Volume(array, affine[:, REVERSED])


def read_itk(path: Path) -> ReadVolume:
    """Read a file that SimpleITK knows, in millimetres."""
    import SimpleITK as sitk

    header = sitk.ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    bits = re.search(r"(\d+)-bit", sitk.GetPixelIDValueAsString(header.GetPixelID()))
    require_memory(
        path, (*header.GetSize(), header.GetNumberOfComponents()), int(bits[1]) // 8 if bits else 8
    )
    volume = from_itk(header.Execute())
    if ".gipl" in path.name.lower():
        _require_whole_gipl(path, volume.array.nbytes)
    factor, remarks = _unit(path)
    affine = volume.affine.copy()
    affine[:3] *= factor
    return ReadVolume(volume.array, affine, remarks)


def _require_whole_gipl(path: Path, voxel_bytes: int) -> None:
    """Raise ValueError for a truncated GIPL file, which ITK reads without a word."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
        found = len(file.read(GIPL_HEADER_BYTES + voxel_bytes))  # what follows does not matter
    if found < GIPL_HEADER_BYTES + voxel_bytes:
        raise ValueError(f"{found} bytes, its header announces {GIPL_HEADER_BYTES + voxel_bytes}")


def _unit(path: Path) -> tuple[float, tuple[str, ...]]:
    """Return the header's unit of length in mm, and what is to be said of it; ITK does not look at it."""
    pattern = {
        ".nrrd": r"^(?:space )?units:(.*)$", ".nhdr": r"^(?:space )?units:(.*)$",
        ".mha": r"^DistanceUnits *=(.*)$", ".mhd": r"^DistanceUnits *=(.*)$",
    }.get(suffix_of(path))  # fmt: skip
    if pattern is None:
        return 1.0, ()
    with open(path, "rb") as file:
        text = file.read(HEADER_BYTES).decode("utf-8", errors="replace")
    text = re.split(r"\r?\n\r?\n|^ElementDataFile", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.search(pattern, text, re.MULTILINE)
    words = re.findall(r"[^\s\"]+", found[1].lower()) if found else []
    words = {re.sub(r"(?<=..)s$", "", word) for word in words}  # "microns"
    factors = {UNITS_MM[word] for word in words if word in UNITS_MM}
    if len(factors) > 1:
        problem = f"its axes have different units ({found[1].strip()})."
        raise InputError(path, problem, "Give it in millimetres.")
    if not factors or factors == {1.0}:
        return 1.0, ()
    return factors.pop(), (f"header in {' '.join(sorted(words))}, turned into mm",)
