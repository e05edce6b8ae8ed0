"""Exported masks lie on the original, to the voxel, for readers that know nothing of this package."""

import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from helpers.oblique import OBLIQUE, sagittal_oblique_series

from medsam_nb.data.export import bids_label, write_dicom_segmentation, write_masks
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import load_case
from medsam_nb.data.segments import find_segments
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet
from medsam_nb.workbook.explorer_scene import scene_of_file


def series_image(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.fixture(scope="module", params=["thickest", "axial"])
def prepared(request, tmp_path_factory):
    """A sagittal oblique series, prepared as it was acquired and cut in another plane."""
    root = tmp_path_factory.mktemp("oblique")
    sagittal_oblique_series(root / "raw" / "series")
    original = series_image(root / "raw" / "series")
    truth = sitk.Cast(original > 900, sitk.sitkUInt8)
    sitk.WriteImage(truth, str(root / "raw" / "mask.nii.gz"))
    row = DataSet.model_validate(OBLIQUE | {"slice_axis": request.param})
    table = prepare(row, root, root / "prepared", progress=False)
    assert list(table.error) == [""]
    return root / "prepared" / "oblique" / "one", root / "raw" / "series", original


def assert_on_the_original(mask, original):
    """The bright voxels of the original, and only they, in SimpleITK's own geometry."""
    assert mask.GetSize() == original.GetSize()
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(mask, get)(), getattr(original, get)(), atol=1e-4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask) > 0, sitk.GetArrayFromImage(original) > 900)


def test_nifti_masks_lie_on_the_series_for_simpleitk(prepared, tmp_path):
    folder, _, original = prepared
    case = load_case(folder)
    (path,) = write_masks(tmp_path, {"bright": case.mask("bright")}, folder, "one_box", {"Model": "m"})
    assert_on_the_original(sitk.ReadImage(str(path)), original)
    assert (
        path.relative_to(tmp_path).as_posix() == "sub-one/anat/sub-one_label-bright_desc-oneBox_mask.nii.gz"
    )
    record = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert record["Model"] == "m" and record["Object"] == "bright"
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "medsam-nb"
    assert nib.load(path).header.get_xyzt_units()[0] == "mm"


def test_a_dicom_segmentation_lies_on_the_series(prepared, tmp_path):
    folder, series, original = prepared
    case = load_case(folder)
    other = np.zeros_like(case.mask("bright"))
    other[0, 0, 0] = True
    path = tmp_path / "seg.dcm"
    masks = {"bright": case.mask("bright"), "corner": other, "nothing": np.zeros_like(other)}
    write_dicom_segmentation(path, masks, folder, series, made_by="miniature_sam2")
    file = pydicom.dcmread(path)
    assert [segment.SegmentLabel for segment in file.SegmentSequence] == ["bright", "corner"]
    # Frame by frame with pydicom and SimpleITK alone: where a frame says it lies, the original is bright.
    array = sitk.GetArrayFromImage(original)
    found = np.zeros(array.shape, bool)
    for frame, groups in zip(file.pixel_array, file.PerFrameFunctionalGroupsSequence, strict=True):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1:
            position = [float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient]
            x, y, z = original.TransformPhysicalPointToIndex(position)
            assert (x, y) == (0, 0)
            found[z] = frame > 0
    np.testing.assert_array_equal(found, array > 900)
    read = sitk.ReadImage(str(path))
    assert read.GetSize()[:2] == original.GetSize()[:2]
    shared = file.SharedFunctionalGroupsSequence[0]
    cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    np.testing.assert_allclose(
        cosines, np.array(original.GetDirection()).reshape(3, 3)[:, :2].T.ravel(), atol=1e-5
    )


def test_the_own_reader_takes_it_back(prepared, tmp_path):
    folder, series, original = prepared
    case = load_case(folder)
    path = tmp_path / "seg.dcm"
    write_dicom_segmentation(path, {"bright": case.mask("bright")}, folder, series, made_by="m")
    (found,) = find_segments(path)
    assert (found.number, found.name) == (1, "bright")
    np.testing.assert_array_equal(found.on(case.image, path), case.mask("bright"))


def test_another_series_and_empty_masks_are_refused(prepared, tmp_path):
    folder, _, _ = prepared
    case = load_case(folder)
    with pytest.raises(InputError, match="every mask is empty"):
        empty = {"bright": np.zeros_like(case.mask("bright"))}
        write_dicom_segmentation(tmp_path / "a.dcm", empty, folder, tmp_path, made_by="m")
    sagittal_oblique_series(tmp_path / "series")
    for file in (tmp_path / "series").iterdir():
        header = pydicom.dcmread(file)
        header.ImagePositionPatient[0] += 5
        header.save_as(file)
    with pytest.raises(InputError, match="not the series"):
        write_dicom_segmentation(
            tmp_path / "a.dcm", {"b": case.mask("bright")}, folder, tmp_path / "series", made_by="m"
        )


def test_a_hand_s_masks_of_a_series_are_a_segmentation_too(prepared, tmp_path):
    _, series, original = prepared
    scene = scene_of_file(series)
    bright = scene.image.array > 900
    nifti, dicom = scene.write(tmp_path, {"bright": bright}, "byHand", {"Model": "miniature_sam2"})
    assert_on_the_original(sitk.ReadImage(str(nifti)), original)
    frames = pydicom.dcmread(dicom).pixel_array
    filled = (sitk.GetArrayFromImage(original) > 900).any((1, 2))
    np.testing.assert_array_equal(frames > 0, sitk.GetArrayFromImage(original)[filled] > 900)


def test_two_cases_never_share_a_file(prepared, tmp_path):
    folder, _, _ = prepared
    copy = tmp_path / "two"
    shutil.copytree(folder, copy)
    record = json.loads((copy / "case.json").read_text())
    mask = {"bright": load_case(folder).mask("bright")}
    write_masks(tmp_path / "out", mask, folder, "d")
    write_masks(tmp_path / "out", mask, folder, "d")  # its own again
    (copy / "case.json").write_text(json.dumps(record | {"case_id": "_one"}))
    with pytest.raises(InputError, match="mask of 'one'; '_one' would have the same name"):
        write_masks(tmp_path / "out", mask, copy, "d")


def test_names_have_letters_and_digits_only():
    assert bids_label("miniature_sam2: centre_slice/one_box") == "miniatureSam2CentreSliceOneBox"
    assert bids_label("--") == "unnamed"
