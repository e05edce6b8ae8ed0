"""DICOM images: where slices lie is judged from the headers, and what cannot be judged is refused by name."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from helpers import dicom as write
from pydicom.dataset import Dataset

from medsam_nb.data.formats import read_volume
from medsam_nb.data.pictures import REDUCED
from medsam_nb.errors import InputError

ARRAY = np.random.default_rng(0).integers(0, 2000, (5, 12, 16)).astype(np.uint16)  # (z, y, x)
STRAIGHT = "Resample image and mask onto a straight grid first"


def refusal(path, **how):
    with pytest.raises(InputError) as caught:
        read_volume(path, **how)
    return str(caught.value)


@pytest.mark.parametrize(
    "orientation",
    [write.AXIAL, (0, 1, 0, 0, 0, -1), (0.9781476, 0.2079117, 0, -0.2033683, 0.9567727, 0.2079117)],
)
def test_a_series_lies_where_simpleitk_puts_it(tmp_path, orientation):
    normal = np.cross(orientation[:3], orientation[3:])
    for z in range(5):
        place = np.array([-80.5, 31.25, 12]) + 2.5 * z * normal
        write.write_slice(
            tmp_path / f"{(7 * z) % 5}.dcm",
            ARRAY[z],
            place,
            9 - z,
            orientation=orientation,
            spacing=(0.7, 0.9),
        )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    known, volume = reader.Execute(), read_volume(tmp_path)
    assert np.array_equal(volume.array, ARRAY) and np.array_equal(sitk.GetArrayFromImage(known), ARRAY)
    assert volume.spacing_mm == pytest.approx((2.5, 0.7, 0.9))
    for index in ((0, 0, 0), (15, 11, 4), (3, 2, 1)):
        left, posterior, head = known.TransformIndexToPhysicalPoint(index)
        assert np.allclose((volume.affine @ [*index[::-1], 1])[:3], (-left, -posterior, head), atol=1e-4)


def test_scale_of_each_slice_is_its_own(tmp_path):
    slopes = [1, 0.5, 2.25, 0.125, 3]
    for z, slope in enumerate(slopes):
        write.write_slice(tmp_path / f"{z}.dcm", ARRAY[z], (0, 0, 3 * z), z, slope=slope, intercept=-z)
    expected = ARRAY * np.array(slopes)[:, None, None] - np.arange(5)[:, None, None]
    assert np.array_equal(read_volume(tmp_path).array, expected)


def test_directions_that_differ_by_rounding_are_one(tmp_path):
    for z in range(5):
        tilt = 0.00005 + (-1) ** z * 2e-5  # on both sides of where four digits are cut
        write.write_slice(
            tmp_path / f"{z}.dcm", ARRAY[z], (0, 0, 3 * z), z, orientation=(1, tilt, 0, -tilt, 1, 0)
        )
    assert np.array_equal(read_volume(tmp_path).array, ARRAY)


def test_a_tilted_gantry_is_refused(tmp_path):
    cos, sin = np.cos(np.deg2rad(15)), np.sin(np.deg2rad(15))
    write.write_series(tmp_path, ARRAY, orientation=(1, 0, 0, 0, cos, -sin))
    message = refusal(tmp_path)
    assert "tilted by 15.0 degrees" in message and "the last of 5 lies 3.1 mm beside" in message
    assert STRAIGHT in message


def test_slices_beside_a_straight_line_are_refused(tmp_path):
    for z in range(5):
        write.write_slice(tmp_path / f"{z}.dcm", ARRAY[z], (4 * (z == 2), 0, 3 * z), z)
    assert "5.0 pixels beside a straight line" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("heights", "words"), [([0, 3, 6, 12, 15], "3.00 to 6.00"), ([0, 3, 3, 6, 9], "0.00 to 3.00")]
)
def test_missing_and_doubled_slices_are_refused(tmp_path, heights, words):
    for z, height in enumerate(heights):
        write.write_slice(tmp_path / f"{z}.dcm", ARRAY[z], (0, 0, height), z)
    assert f"neighbouring slices are {words} mm apart" in refusal(tmp_path)


def test_thin_slices_are_judged_by_their_own_thickness(tmp_path):
    """A hundredth of a millimetre is nothing in a patient, and a slice in microscopy."""
    for z, height in enumerate([0, 0.01, 0.02, 0.04, 0.05]):
        write.write_slice(tmp_path / f"{z}.dcm", ARRAY[z], (0, 0, height), z, spacing=(0.005, 0.005))
    assert "slices are 0.01 to 0.02 mm apart" in refusal(tmp_path)


@pytest.mark.parametrize("without", [range(5), [2]])
def test_slices_without_a_place_are_refused(tmp_path, without):
    for z in range(5):
        place = None if z in without else (0, 0, 3 * z)
        write.write_slice(tmp_path / f"{z}.dcm", ARRAY[z], place, z)
    message = refusal(tmp_path)
    assert f"{len(without)} of its 5 slices have no position" in message and "give NIfTI" in message


def test_one_picture_needs_no_place(tmp_path):
    write.write_slice(tmp_path / "a.dcm", ARRAY[0], None, 1, kind=write.SECONDARY, Modality="CR")
    assert np.array_equal(read_volume(tmp_path / "a.dcm").array, ARRAY[:1])


def write_phases(folder, **marks):
    """Write two volumes in one place; `marks` give the value of a tag in each."""
    for n in range(2):
        for z in range(5):
            own = {name: values[n] for name, values in marks.items()}
            write.write_slice(folder / f"{n}_{z}.dcm", ARRAY[z] + 1000 * n, (0, 0, 3 * z), 5 * n + z, **own)


def test_phases_of_a_series_are_listed_and_chosen(tmp_path):
    write_phases(tmp_path, AcquisitionNumber=(7, 2))
    message = refusal(tmp_path)
    assert (
        "holds 2 volumes (0: 5 axial slices, AcquisitionNumber 2; 1: 5 axial slices, AcquisitionNumber 7)"
        in message
    )
    assert "Choose one: `frame: 0`" in message
    assert np.array_equal(read_volume(tmp_path, frame=0).array, ARRAY + 1000)
    volume = read_volume(tmp_path, frame=1)
    assert np.array_equal(volume.array, ARRAY) and volume.volumes == 2
    assert "has 2 volumes, not 3" in refusal(tmp_path, frame=2)


def test_phases_that_nothing_tells_apart_are_listed_as_stored(tmp_path):
    write_phases(tmp_path)
    assert "1: 5 axial slices as stored" in refusal(tmp_path)
    assert np.array_equal(read_volume(tmp_path, frame=1).array, ARRAY + 1000)


def test_stacks_of_different_directions_are_listed_and_chosen(tmp_path):
    for z in range(3):
        write.write_slice(tmp_path / f"a{z}.dcm", ARRAY[z], (0, 0, 3 * z), z)
    for z in range(2):
        write.write_slice(
            tmp_path / f"s{z}.dcm", ARRAY[z], (5 * z, 0, 0), 9 + z, orientation=(0, 1, 0, 0, 0, -1)
        )
    message = refusal(tmp_path)
    assert "holds 2 volumes (0: 3 axial slices; 1: 2 sagittal slices)" in message
    assert read_volume(tmp_path, frame=1).array.shape == (2, 12, 16)


def test_several_series_are_listed(tmp_path):
    write.write_series(tmp_path / "a", ARRAY, SeriesDescription="portal venous")
    write.write_slice(
        tmp_path / "a" / "x.dcm", ARRAY[0], (0, 0, 0), 1, series="1.2.826.0.1.4", SeriesDescription="scout"
    )
    message = refusal(tmp_path / "a")
    assert "holds 2 DICOM series: portal venous (5 files); scout (1 files)" in message


def test_frames_are_sorted_by_place_and_have_their_own_scale(tmp_path):
    order, slopes = [3, 0, 4, 1, 2], [2, 1, 0.5, 3, 4]
    groups = [write.frame_group((0, 0, 3 * z), slope=slopes[z], intercept=-10 * z) for z in order]
    write.write_frames(tmp_path / "a.dcm", ARRAY[order], groups)
    volume = read_volume(tmp_path / "a.dcm")
    scale = np.array(slopes)[:, None, None]
    assert np.array_equal(volume.array, ARRAY * scale - 10 * np.arange(5)[:, None, None])
    assert volume.spacing_mm == pytest.approx((3, 0.8, 0.8))
    same = [write.frame_group((0, 0, 3 * z), slope=2, intercept=-1000) for z in order]
    write.write_frames(tmp_path / "b.dcm", ARRAY[order], same)
    assert np.array_equal(read_volume(tmp_path / "b.dcm").array, ARRAY * 2.0 - 1000)


def test_times_of_a_file_of_frames_are_listed_and_chosen(tmp_path):
    groups = [write.frame_group((0, 0, 3 * z), time=time) for z in range(5) for time in (2, 1)]
    frames = np.stack([ARRAY[z] + 1000 * time for z in range(5) for time in (2, 1)])
    write.write_frames(tmp_path / "a.dcm", frames, groups)
    assert "0: 5 axial slices, TemporalPositionIndex 1" in refusal(tmp_path / "a.dcm")
    assert np.array_equal(read_volume(tmp_path / "a.dcm", frame=1).array, ARRAY + 2000)


def test_a_film_is_no_volume(tmp_path):
    made = write.with_pixels(write.base(write.US_FILM, "US"), ARRAY.astype(np.uint8))
    write.save(made, tmp_path / "a.dcm")
    assert "holds 5 volumes (the frames of a film" in refusal(tmp_path / "a.dcm")
    assert np.array_equal(read_volume(tmp_path / "a.dcm", frame=3).array, ARRAY[3:4].astype(np.uint8))


def test_colours_become_luminance(tmp_path):
    colours = np.random.default_rng(1).integers(0, 255, (12, 16, 3)).astype(np.uint8)
    grey = np.rint(colours @ [0.299, 0.587, 0.114]).astype(np.uint8)
    write.write_slice(tmp_path / "rgb.dcm", colours, None, 1, photometric="RGB", kind=write.SECONDARY)
    volume = read_volume(tmp_path / "rgb.dcm")
    assert np.array_equal(volume.array[0], grey) and volume.remarks == (REDUCED,)
    ybr = pydicom.pixels.convert_color_space(colours, "RGB", "YBR_FULL")
    write.write_slice(tmp_path / "ybr.dcm", ybr, None, 1, photometric="YBR_FULL", kind=write.SECONDARY)
    assert np.abs(read_volume(tmp_path / "ybr.dcm").array[0].astype(int) - grey).max() <= 1


def test_compressed_slices_are_the_same(tmp_path):
    write.write_series(tmp_path, ARRAY)
    for file in tmp_path.iterdir():
        made = pydicom.dcmread(file)
        made.compress(pydicom.uid.RLELossless)
        made.save_as(file)
    assert np.array_equal(read_volume(tmp_path).array, ARRAY)


def write_contours(path):
    made = write.base(write.RTSTRUCT, "RTSTRUCT", "1.2.826.0.1.8")
    made.StructureSetLabel = "contours"
    made.ROIContourSequence = [Dataset()]
    write.save(made, path)


def test_contours_are_refused_by_name_and_left_out_beside_images(tmp_path):
    write_contours(tmp_path / "only" / "rs.dcm")
    for path in (tmp_path / "only", tmp_path / "only" / "rs.dcm"):
        message = refusal(path, labels=True)
        assert "is an RT structure set: contours, no voxels" in message and "label map" in message
    write.write_series(tmp_path / "both", ARRAY)
    write_contours(tmp_path / "both" / "rs.dcm")
    volume = read_volume(tmp_path / "both")
    assert np.array_equal(volume.array, ARRAY)
    assert volume.remarks == ("1 files without an image left out (RTSTRUCT)",)


def test_a_segmentation_is_no_label_map(tmp_path):
    groups = [write.frame_group((0, 0, 0), 1)]
    write.write_segmentation(tmp_path / "seg.dcm", np.ones((1, 12, 16)), groups, ["liver"])
    message = refusal(tmp_path / "seg.dcm", labels=True)
    assert "is a DICOM segmentation" in message and "`segments`" in message


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_slice_with_part_of_its_rows_is_named(tmp_path, kept):
    write.write_series(tmp_path, ARRAY)
    file = tmp_path / "002.dcm"
    made = pydicom.dcmread(file)
    made.PixelData = made.PixelData[: 2 * int(kept * len(made.PixelData) // 2)]
    made.save_as(file)  # it ends properly
    assert "002.dcm: cannot be read as one of the 4 other slices of its series" in refusal(tmp_path)


def test_files_that_are_no_dicom_are_not_looked_at(tmp_path):
    write.write_series(tmp_path, ARRAY)
    (tmp_path / "readme.txt").write_text("x", encoding="utf-8")
    (tmp_path / "._000.dcm").write_bytes(b"\0\5\26\7")
    (tmp_path / "DICOMDIR").write_bytes(b"x" * 200)
    assert np.array_equal(read_volume(tmp_path).array, ARRAY)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no DICOM image (no DICOM file)" in refusal(empty)
    (empty / "a.dcm").write_text("no image", encoding="utf-8")
    assert "a.dcm: cannot be read as DICOM" in refusal(empty)
