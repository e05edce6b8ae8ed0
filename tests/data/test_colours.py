"""Colours of every kind of file: kept to the last bit from file to model, or reduced, as the row says."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from helpers.picture_data import grey_picture, picture_row, spot
from PIL import Image

from medsam_nb.data.formats import read_volume, write_nifti
from medsam_nb.data.pictures import LUMINANCE
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import InputError
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.volume import Case, Volume

COLOURED = np.stack([grey_picture(1), grey_picture(2), grey_picture(3)], axis=-1)
GREY = grey_picture(0)


def saved(folder, name, picture, **options):
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / name, **options)
    return folder / name


def with_opacity(picture):
    picture = picture.copy()
    picture.putalpha(Image.fromarray(grey_picture(9)))
    return picture


# Files that hold the picture exactly, and what it then is.
EXACT = {
    "rgb.png": Image.fromarray(COLOURED),
    "rgba.png": with_opacity(Image.fromarray(COLOURED)),
    "palette.png": Image.fromarray(COLOURED).quantize(200),
    "rgb.bmp": Image.fromarray(COLOURED),
    "rgb.tif": Image.fromarray(COLOURED),
    "cmyk.tif": Image.fromarray(COLOURED).convert("CMYK"),
}
FROM_JPEG = {"rgb.jpg": Image.fromarray(COLOURED), "cmyk.jpg": Image.fromarray(COLOURED).convert("CMYK")}


def one_case(tmp_path, name, picture, **changes):
    stem, suffix = name.rsplit(".", 1)
    saved(tmp_path / "raw" / "own" / "images", name, picture)
    saved(tmp_path / "raw" / "own" / "masks", f"{stem}.png", Image.fromarray(spot()))
    layout = {"name": "picture_pairs", "images": f"images/{{case}}.{suffix}", "masks": "masks/{case}.png"}
    row = picture_row(layout=layout, **changes)
    table = prepare(row, tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert list(table.error) == [""]
    (folder,) = case_folders(tmp_path / "prepared", "own")
    return load_case(folder), table.iloc[0], folder


@pytest.mark.parametrize("name", [*EXACT, *FROM_JPEG])
def test_models_are_shown_what_the_released_scripts_show(tmp_path, name):
    picture = (EXACT | FROM_JPEG)[name]
    case, line, folder = one_case(tmp_path, name, picture, colour="rgb")
    with Image.open(tmp_path / "raw" / "own" / "images" / name) as file:
        expected = np.asarray(file.convert("RGB"))  # what the released scripts hand to the predictor
    assert np.array_equal(case.slices_uint8(), expected[None])
    assert np.array_equal(case.image.array[0], np.rint(expected @ LUMINANCE))
    assert "luminance" not in line.warnings
    stored = nib.load(folder / "colours.nii.gz")
    assert stored.get_data_dtype().names == ("R", "G", "B")
    assert sitk.ReadImage(str(folder / "colours.nii.gz")).GetNumberOfComponentsPerPixel() == 3
    if name in EXACT and name.startswith("rgb"):
        assert np.array_equal(expected, COLOURED)


def test_a_row_of_before_shows_grey_and_says_what_it_lost(tmp_path):
    case, line, folder = one_case(tmp_path, "rgb.png", Image.fromarray(COLOURED))
    assert case.colours is None and not (folder / "colours.nii.gz").exists()
    assert np.array_equal(case.slices_uint8()[0], np.rint(COLOURED @ LUMINANCE))
    assert "`colour: rgb` in the row shows the colours" in line.warnings


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "P"])
def test_a_grey_picture_is_the_same_case_in_both(tmp_path, mode, colour):
    case, line, _ = one_case(tmp_path, "grey.png", Image.fromarray(GREY).convert(mode), colour=colour)
    assert case.colours is None and line.warnings == ""
    assert np.array_equal(case.slices_uint8(), GREY[None])


def test_sixteen_bits_of_grey_stay_what_they_are(tmp_path):
    deep = Image.fromarray(GREY.astype(np.uint16) * 200)
    intensity = {"policy": "min_max"}
    case, _, _ = one_case(tmp_path, "deep.tif", deep, colour="rgb", intensity=intensity)
    assert case.colours is None and np.array_equal(case.image.array[0], GREY.astype(float) * 200)


def test_colour_is_a_part_of_the_case_and_decides_preparing(tmp_path):
    grey, _, _ = one_case(tmp_path, "rgb.png", Image.fromarray(COLOURED))
    coloured, _, folder = one_case(tmp_path, "rgb.png", Image.fromarray(COLOURED), colour="rgb")
    assert coloured.sha256() != grey.sha256()
    turned = Case(
        **{name: getattr(coloured, name) for name in ("data_set", "case_id", "modality", "image", "labels")},
        objects=coloured.objects,
        intensity=coloured.intensity,
        colours=coloured.colours[..., ::-1].copy(),
    )
    assert turned.sha256() != coloured.sha256()
    write_nifti(folder / "colours.nii.gz", Volume(turned.colours, coloured.image.affine))
    with pytest.raises(InputError, match="has changed since it was prepared"):
        load_case(folder)
    (folder / "colours.nii.gz").unlink()
    with pytest.raises(InputError, match="is no prepared case"):
        load_case(folder)
    again, _, _ = one_case(tmp_path, "rgb.png", Image.fromarray(COLOURED), colour="rgb")
    assert again.sha256() == coloured.sha256()
    back, _, folder = one_case(tmp_path, "rgb.png", Image.fromarray(COLOURED))
    assert back.sha256() == grey.sha256() and not (folder / "colours.nii.gz").exists()


def test_black_and_white_of_colours_are_those_of_the_luminance():
    colours = np.array([[[[10, 60, 0], [200, 91, 40]]]], np.uint8)
    grey = np.rint(colours @ LUMINANCE).astype(np.float32)
    image = Volume.from_spacing(grey, (1, 1, 1))
    labels = np.array([[[1, 0]]], np.uint8)
    case = Case("s", "c", "m", image, labels, {"o": (1,)}, Intensity("window", 0, 100), colours=colours)
    expected = np.rint(np.clip(colours.astype(float) * 2.55, 0, 255))
    assert np.array_equal(case.slices_uint8(), expected)
    low, high = grey.min(), grey.max()
    case = Case("s", "c", "m", image, labels, {"o": (1,)}, Intensity("min_max"), colours=colours)
    expected = np.rint(np.clip((colours - low) * 255 / (high - low), 0, 255))
    assert np.array_equal(case.slices_uint8(), expected)
    with pytest.raises(InputError, match="8-bit RGB"):
        Case("s", "c", "m", image, labels, {"o": (1,)}, colours=colours.astype(np.float32))


VOLUME = np.random.default_rng(0).integers(0, 255, (4, 20, 16, 3), dtype=np.uint8)
AFFINE = np.array([[-0.8, 0, 0, 60], [0, 0.8, 0, -50], [0, 0, 5.0, 10], [0, 0, 0, 1]])


def stored_volume(kind, folder):
    """Write a coloured volume (z, y, x, 3) as a file of some kind; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "nii.gz":
        path = folder / "case.nii.gz"
        rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.save(nib.Nifti1Image(VOLUME.view(rgb)[..., 0].T, AFFINE), path)
        return path
    if kind == "tif":
        pages = [Image.fromarray(page) for page in VOLUME]
        return saved(folder, "case.tif", pages[0], save_all=True, append_images=pages[1:])
    path = folder / f"case.{kind}"
    image = sitk.GetImageFromArray(VOLUME, isVector=True)
    image.SetSpacing((0.8, 0.8, 5.0))
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("kind", ["nii.gz", "mha", "nrrd", "tif"])
def test_volumes_in_colour(tmp_path, kind):
    path = stored_volume(kind, tmp_path / "raw" / "own" / "images")
    volume = read_volume(path, colour=True)
    assert volume.array.dtype == np.uint8 and np.array_equal(volume.array, VOLUME)
    if kind == "tif":
        assert read_volume(path).array.shape == (4, 20, 16)
    else:
        with pytest.raises(InputError, match="holds 3 volumes"):
            read_volume(path)
        assert np.array_equal(read_volume(path, frame=1).array, VOLUME[..., 1])
        assert np.array_equal(read_volume(path, frame=1, colour=True).array, VOLUME[..., 1])


def test_a_volume_in_colour_is_brought_into_display_order(tmp_path):
    stored_volume("nii.gz", tmp_path / "raw" / "own" / "images")
    labels = np.zeros(VOLUME.shape[:3], np.uint8)
    labels[1:3, 4:12, 3:9] = 1
    folder = tmp_path / "raw" / "own" / "labels"
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(labels.T, AFFINE), folder / "case.nii.gz")
    row = picture_row(
        dimension=3, slice_axis="axial", objects={"spot": [1]}, layout={"name": "nifti_pairs"}, colour="rgb"
    )
    table = prepare(row, tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert list(table.error) == [""]
    case = load_case(tmp_path / "prepared" / "own" / "case")
    assert np.array_equal(case.colours, VOLUME[:, ::-1])  # rows of this file grow to the front
    assert np.array_equal(case.labels, labels[:, ::-1])
    assert np.array_equal(case.slices_uint8(), case.colours)


def test_dicom_in_colour(tmp_path):
    path = tmp_path / "raw" / "own" / "case.dcm"
    path.parent.mkdir(parents=True)
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME[:1], isVector=True), str(path))
    assert np.array_equal(read_volume(path, colour=True).array, VOLUME[:1])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([0.0, 0.5, 1.0]), "0 to 1, are no 8-bit"),
        (np.array([0.0, 300.0]), "0 to 300, are no 8-bit"),
        (np.array([-1.0, 30.0]), "-1 to 30, are no 8-bit"),
        (np.array([7.0, 7.0]), "all voxels have the value 7"),
    ],
)
def test_only_8_bits_are_shown_as_stored(array, words):
    from medsam_nb.protocol.intensity import to_uint8

    with pytest.raises(InputError, match=words):
        to_uint8(array, Intensity("stored"), "case")


def test_stored_pictures_are_not_stretched(tmp_path):
    case, line, _ = one_case(tmp_path, "grey.png", Image.fromarray(GREY))
    assert np.array_equal(case.slices_uint8()[0], GREY) and GREY.min() >= 20 and GREY.max() < 200
    stretched, _, _ = one_case(
        tmp_path, "grey.png", Image.fromarray(GREY), intensity={"policy": "percentile"}
    )
    assert stretched.slices_uint8().min() == 0 and stretched.slices_uint8().max() == 255
    assert stretched.sha256() != case.sha256()
