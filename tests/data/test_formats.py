"""Every format gives the same volume, damaged files are named, and orientation survives the way back."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medsam_nb.data.formats import (
    as_labels,
    read_volume,
    write_nifti,
    write_on_source_grid,
)
from medsam_nb.data.pictures import read_mask_picture
from medsam_nb.data.segments import find_segments
from medsam_nb.errors import InputError
from medsam_nb.protocol.volume import Volume, canonical, place, reoriented, require_same_grid, slice_plane

ARRAY = np.random.default_rng(0).integers(-900, 900, (5, 6, 7)).astype(np.int16)  # (z, y, x)


def oblique(codes, spacing=(0.8, 0.9, 4.0), degrees=12.0):
    """Affine (x, y, z) of an oblique scan in an orientation."""
    turn = np.deg2rad(degrees)
    rotation = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    axes = nib.orientations.axcodes2ornt(codes)
    permuted = np.zeros((3, 3))
    for column, (axis, flip) in enumerate(axes):
        permuted[int(axis), column] = flip
    affine = np.eye(4)
    affine[:3, :3] = rotation @ permuted * np.array(spacing)
    affine[:3, 3] = (10, -20, 30)
    return affine


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".gipl"])
def test_formats_agree_with_simpleitk(tmp_path, suffix):
    image = sitk.GetImageFromArray(ARRAY)
    image.SetSpacing((0.8, 0.9, 4.0))
    if suffix != ".gipl":  # it knows no direction
        image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, -1))
        image.SetOrigin((10, 20, 30))
    path = tmp_path / f"image{suffix}"
    sitk.WriteImage(image, str(path))
    volume = read_volume(path)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, ARRAY)
    stored = sitk.ReadImage(str(path))
    for index in ((0, 0, 0), (6, 5, 4), (2, 3, 1)):
        left, posterior, head = stored.TransformIndexToPhysicalPoint(index)
        assert np.allclose((volume.affine @ [*index[::-1], 1])[:3], (-left, -posterior, head), atol=1e-4)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PSR", "PIR", "SAL", "IPR"])
@pytest.mark.parametrize("axis", ["thickest", "axial", "coronal", "sagittal", "stored"])
def test_orientation_and_the_way_back(tmp_path, codes, axis):
    affine = oblique(codes)
    nib.save(nib.Nifti1Image(ARRAY.T, affine), tmp_path / "image.nii.gz")
    source = read_volume(tmp_path / "image.nii.gz")
    assert source.orientation[::-1] == codes
    shown = canonical(source, axis)
    wanted = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
    if axis != "stored":
        assert shown.orientation == wanted[slice_plane(source, axis)]
    if axis == "thickest":
        assert shown.spacing_mm[0] == pytest.approx(4.0, abs=1e-5)
    write_on_source_grid(tmp_path / "back.nii.gz", shown, source.array.shape, source.affine)
    back = nib.load(tmp_path / "back.nii.gz")
    assert np.array_equal(np.asarray(back.dataobj), ARRAY.T)
    assert np.allclose(back.affine, affine, atol=1e-4)


def test_every_voxel_keeps_its_place_in_space():
    source = Volume(ARRAY, oblique("PIR")[:, [2, 1, 0, 3]])
    shown = reoriented(source, "SPL")
    for index in ((0, 0, 0), (4, 5, 6), (1, 2, 3)):
        point = source.affine @ [*index, 1]
        there = np.rint(np.linalg.solve(shown.affine, point)[:3]).astype(int)
        assert shown.array[tuple(there)] == ARRAY[index]


def test_volume_written_opens_in_simpleitk(tmp_path):
    affine = oblique("LPS")[:, [2, 1, 0, 3]]
    write_nifti(tmp_path / "out.nii.gz", Volume(ARRAY, affine))
    stored = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(stored), ARRAY)
    left, posterior, head = stored.TransformIndexToPhysicalPoint((3, 2, 1))
    assert np.allclose((affine @ [1, 2, 3, 1])[:3], (-left, -posterior, head), atol=1e-3)


def test_place_refuses_another_grid():
    affine = oblique("RAS")[:, [2, 1, 0, 3]]
    crop = Volume(np.ones((2, 2, 2), np.uint8), affine.copy())
    crop.affine[:3, 3] += affine[:3, :3] @ (1, 2, 3)
    found = np.argwhere(place(crop, ARRAY.shape, affine, "crop"))
    assert found.min(axis=0).tolist() == [1, 2, 3]
    assert found.max(axis=0).tolist() == [2, 3, 4]
    crop.affine[:3, 3] += affine[:3, :3] @ (0, 0, 0.5)
    with pytest.raises(InputError, match="do not coincide"):
        place(crop, ARRAY.shape, affine, "crop")
    crop.affine[:3, 3] += affine[:3, :3] @ (4, 0, 0.5)
    with pytest.raises(InputError, match="outside the image"):
        place(crop, ARRAY.shape, affine, "crop")


def test_same_grid_is_judged_in_space():
    image = Volume(ARRAY, oblique("RAS")[:, [2, 1, 0, 3]])
    almost = image.affine.copy()
    almost[0, 3] += 0.01
    require_same_grid(image, Volume(ARRAY, almost), "mask")
    almost[0, 3] += 1
    with pytest.raises(InputError, match="1.01 mm apart"):
        require_same_grid(image, Volume(ARRAY, almost), "mask")


def test_big_endian_and_float_labels(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(ARRAY.T.astype(">i2"), np.eye(4), header), tmp_path / "big.nii")
    assert (tmp_path / "big.nii").read_bytes()[:4] == (348).to_bytes(4, "big")
    volume = read_volume(tmp_path / "big.nii")
    assert volume.array.dtype.isnative
    assert np.array_equal(volume.array, ARRAY)
    labels = as_labels(Volume(np.float64([[[0, 2, 5]]]), np.eye(4)), "labels")
    assert labels.array.dtype == np.uint8
    assert labels.array.tolist() == [[[0, 2, 5]]]
    with pytest.raises(InputError, match="reach from -1"):
        as_labels(Volume(np.array([[[-1, 2]]]), np.eye(4)), "labels")


@pytest.mark.parametrize(
    "suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".gipl", ".png", ".jpg", ".tif"]
)
def test_truncated_and_missing_files_are_named(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    if suffix in (".png", ".jpg", ".tif"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)).save(path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(path))
    damaged = tmp_path / "image.raw" if suffix == ".mhd" else path
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_volume(path)
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        read_volume(path)


def test_unknown_format(tmp_path):
    (tmp_path / "image.xyz").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"'\.xyz' is not known\. Known: \.nii"):
        read_volume(tmp_path / "image.xyz")


def test_label_pictures_of_every_kind(tmp_path):
    labels = np.zeros((8, 9), np.uint8)
    labels[2:4, 3:6] = 2
    palette = Image.fromarray(labels, "P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(labels > 0).save(tmp_path / "bit.png")
    Image.fromarray(np.stack([labels] * 3, axis=2)).save(tmp_path / "grey_rgb.png")
    assert np.array_equal(read_volume(tmp_path / "palette.png", labels=True).array[0], labels)
    assert np.array_equal(read_volume(tmp_path / "bit.png", labels=True).array[0], labels > 0)
    assert np.array_equal(read_volume(tmp_path / "grey_rgb.png", labels=True).array[0], labels)
    coloured = np.zeros((8, 9, 3), np.uint8)
    coloured[2:4, 3:6, 1] = 200
    Image.fromarray(coloured).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match="its labels are colours"):
        read_volume(tmp_path / "colour.png", labels=True)
    assert np.array_equal(read_mask_picture(tmp_path / "colour.png", 128).array[0], labels > 0)


def test_segments_with_layers_and_a_smaller_extent(tmp_path):
    image = Volume(np.zeros((4, 6, 7), np.int16), np.diag([3.0, -1, -1, 1])[[2, 1, 0, 3]])
    layers = np.zeros((2, 3, 4, 2), np.uint8)
    layers[0, 0, 0] = (1, 1)
    layers[1, 2, 3, 0] = 2
    stored = sitk.GetImageFromArray(layers, isVector=True)
    stored.SetSpacing((1, 1, 3))
    stored.SetOrigin((2, 1, 3))
    for number, (name, layer, value) in enumerate((("Breast", 0, 1), ("Vessel", 0, 2), ("Dense", 1, 1))):
        for key, text in (("Name", name), ("Layer", layer), ("LabelValue", value)):
            stored.SetMetaData(f"Segment{number}_{key}", str(text))
    sitk.WriteImage(stored, str(tmp_path / "a.seg.nrrd"))
    path = tmp_path / "a.seg.nrrd"
    assert {one.name: np.argwhere(one.on(image, path)).tolist() for one in find_segments(path)} == {
        "Breast": [[1, 1, 2]],
        "Vessel": [[2, 3, 5]],
        "Dense": [[1, 1, 2]],
    }
