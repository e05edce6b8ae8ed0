"""Damaged downloads, swapped files, read-only and full disks: a message that helps, and nothing lost.

Every case lies beside an unharmed one, which must be prepared all the same. Damage to downloads
(wrong hash, cut connection, archives that reach outside) is in `test_fetch`.
"""

import gzip
import subprocess
import zipfile

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from medsam_nb.data import downloads
from medsam_nb.data.fetch import MIRROR_VARIABLE, fetch, unpack
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".gipl")
PICTURES = (".png", ".jpg", ".tif", ".bmp")
SHAPE = (6, 20, 24)  # (z, y, x)


def volume_arrays():
    image = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:5, 5:12, 6:15] = 1
    return image, labels


def picture_arrays():
    image = np.random.default_rng(0).integers(0, 255, (60, 70)).astype(np.uint8)
    labels = np.zeros((60, 70), np.uint8)
    labels[20:40, 20:50] = 255
    return image, labels


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in PICTURES:
        Image.fromarray(array).save(path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def listed(cases, **changes):
    """A row whose cases are (image, mask, segments or None) by name."""
    fields = {
        "name": "own", "title": "Own", "modality": "CT", "dimension": 3, "objects": {"organ": [1]},
        "intensity": {"policy": "percentile"}, "slice_axis": "stored",
        "layout": {
            "name": "listed",
            "cases": [
                {"case_id": name, "image": image, "mask": mask, "segments": segments}
                for name, (image, mask, segments) in cases.items()
            ],
        },
    }  # fmt: skip
    return DataSet.model_validate(fields | changes)


def pair_row(suffix, **changes):
    cases = {name: (f"{name}/image{suffix}", f"{name}/mask{suffix}", None) for name in ("good", "bad")}
    if suffix in PICTURES:
        changes = {"dimension": 2, "mask_threshold": 128} | changes
    return listed(cases, **changes)


def write_pairs(tmp_path, suffix):
    image, labels = picture_arrays() if suffix in PICTURES else volume_arrays()
    for name in ("good", "bad"):
        write(tmp_path / "raw" / "own" / name / f"image{suffix}", image)
        write(tmp_path / "raw" / "own" / name / f"mask{suffix}", labels)
    return tmp_path / "raw" / "own" / "bad"


def error_of_bad(tmp_path, row):
    """Prepare; the good case must be there and whole, the bad one must be gone; return its message."""
    table = prepare(row, tmp_path / "raw", tmp_path / "prepared", progress=False).set_index("case_id")
    assert table.status.to_dict() == {"good": "ok", "bad": "failed"}, table.error.to_dict()
    (folder,) = case_folders(tmp_path / "prepared", "own")
    assert load_case(folder).case_id == "good"
    assert [path.name for path in (tmp_path / "prepared" / "own").iterdir() if path.is_dir()] == ["good"]
    return table.error["bad"]


def halve(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("which", ["image", "mask"])
@pytest.mark.parametrize("suffix", VOLUMES + PICTURES)
def test_truncated_file(tmp_path, suffix, which):
    bad = write_pairs(tmp_path, suffix)
    halve(bad / (f"{which}.raw" if suffix == ".mhd" else f"{which}{suffix}"))
    message = error_of_bad(tmp_path, pair_row(suffix))
    assert f"bad/{which}{suffix}: cannot be read" in message
    assert "copy or download it again" in message


@pytest.mark.parametrize("which", ["image", "mask"])
def test_a_compressed_file_is_compared_with_its_own_checksum(tmp_path, which):
    bad = write_pairs(tmp_path, ".nii.gz") / f"{which}.nii.gz"
    data = bytearray(gzip.compress(gzip.decompress(bad.read_bytes()), compresslevel=0))
    data[-200] ^= 1  # a voxel near the end: it can be unpacked, to another value
    bad.write_bytes(data)
    assert "CRC check failed" in error_of_bad(tmp_path, pair_row(".nii.gz"))


# Not JPEG: a lossy mask has as many values as an image; there only the mosaic shows the swap.
@pytest.mark.parametrize("suffix", [*VOLUMES, ".png", ".tif", ".bmp"])
def test_swapped_image_and_mask(tmp_path, suffix):
    bad = write_pairs(tmp_path, suffix)
    if suffix == ".mhd":  # their headers name the raw files
        image, labels = volume_arrays()
        write(bad / "image.mhd", labels)
        write(bad / "mask.mhd", image)
    else:
        (bad / f"image{suffix}").rename(bad / "kept")
        (bad / f"mask{suffix}").rename(bad / f"image{suffix}")
        (bad / "kept").rename(bad / f"mask{suffix}")
    message = error_of_bad(tmp_path, pair_row(suffix))
    assert "bad" in message
    assert "changed places" in message


SERIES = {"0008|0060": "CT", "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0020|0037": "1\\0\\0\\0\\1\\0"}
SERIES |= {"0020|000d": "1.2.826.1", "0020|0052": "1.2.826.2", "0010|0020": "p1", "0010|0010": "p1^"}
SERIES |= {"0008|0020": "20200101", "0008|0030": "101010", "0010|0030": "", "0010|0040": "O"}
SERIES |= {"0008|0050": "", "0020|0010": "1", "0020|0011": "1", "0008|0090": "", "0018|0050": "3"}


def write_series(folder, array, number):
    """Write a CT series, one file per slice, 3 mm apart."""
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z, plane in enumerate(array):
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing((1.0, 1.0, 3.0))
        own = {"0020|000e": f"1.2.826.3.{number}", "0008|0018": f"1.2.826.4.{number}.{z}"}
        own |= {"0020|0013": str(z + 1), "0020|0032": f"0\\0\\{3 * z}"}
        for tag, value in (SERIES | own).items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{z:02d}.dcm"))
        writer.Execute(image)


def write_dicom_seg(path, series, labels):
    """Write a binary DICOM segmentation of a series, as segmentation tools do."""
    sources = [pydicom.dcmread(file) for file in sorted(series.iterdir())]
    code = pydicom.sr.coding.Code("85756007", "SCT", "Tissue")
    described = highdicom.seg.SegmentDescription(
        1, "ORGAN", code, code, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    )
    highdicom.seg.Segmentation(
        sources,
        labels.astype(np.uint8),
        highdicom.seg.SegmentationTypeValues.BINARY,
        [described],
        series_instance_uid="1.2.826.5.1",
        series_number=2,
        sop_instance_uid="1.2.826.5.2",
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="0",
        device_serial_number="0",
    ).save_as(path)


@pytest.fixture
def dicom_row(tmp_path):
    image, labels = volume_arrays()
    for number, name in enumerate(("good", "bad")):
        base = tmp_path / "raw" / "own" / name
        write_series(base / "image", image, number)
        write_dicom_seg(base / "mask.dcm", base / "image", labels)
    return listed(
        {name: (f"{name}/image", f"{name}/mask.dcm", {"organ": "organ"}) for name in ("good", "bad")}
    )


def test_dicom_series_and_segmentation_are_read(tmp_path, dicom_row):
    table = prepare(dicom_row, tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert table.error.tolist() == ["", ""]
    image, labels = volume_arrays()
    case = load_case(tmp_path / "prepared" / "own" / "good")
    assert np.array_equal(case.image.array, image)
    assert np.array_equal(case.mask("organ"), labels > 0)
    assert case.image.spacing_mm == pytest.approx((3, 1, 1))


def test_missing_slice_of_a_dicom_series(tmp_path, dicom_row):
    (tmp_path / "raw" / "own" / "bad" / "image" / "03.dcm").unlink()
    message = error_of_bad(tmp_path, dicom_row)
    assert "bad/image: neighbouring slices are 3.00 to 6.00 mm apart" in message
    assert "download the series again" in message


def test_last_slice_of_a_dicom_series_is_missing(tmp_path, dicom_row):
    (tmp_path / "raw" / "own" / "bad" / "image" / "05.dcm").unlink()
    labels = volume_arrays()[1]
    labels[5] = labels[4]  # the segmentation reaches into the slice that is gone
    whole = tmp_path / "raw" / "own" / "good"
    write_dicom_seg(tmp_path / "raw" / "own" / "bad" / "mask.dcm", whole / "image", labels)
    message = error_of_bad(tmp_path, dicom_row)
    assert "bad/mask.dcm, segment ORGAN: labelled voxels lie outside the image" in message


@pytest.mark.parametrize("number", ["03", "05"])  # the last one would be missed by nobody
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_truncated_slice_of_a_dicom_series(tmp_path, dicom_row, number, kept):
    path = tmp_path / "raw" / "own" / "bad" / "image" / f"{number}.dcm"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    message = error_of_bad(tmp_path, dicom_row)
    assert f"bad/image/{number}.dcm: cannot be read as one of the 5 other slices" in message
    assert "download it again" in message


def test_truncated_dicom_segmentation(tmp_path, dicom_row):
    halve(tmp_path / "raw" / "own" / "bad" / "mask.dcm")
    message = error_of_bad(tmp_path, dicom_row)
    assert "bad/mask.dcm: cannot be read" in message
    assert "copy or download it again" in message


def test_dicom_slice_in_the_place_of_the_segmentation(tmp_path, dicom_row):
    bad = tmp_path / "raw" / "own" / "bad"
    (bad / "mask.dcm").write_bytes((bad / "image" / "00.dcm").read_bytes())
    assert "bad/mask.dcm: is not a DICOM segmentation" in error_of_bad(tmp_path, dicom_row)


def test_truncated_segments_of_a_seg_nrrd(tmp_path):
    image, labels = volume_arrays()
    for name in ("good", "bad"):
        write(tmp_path / "raw" / "own" / name / "image.nrrd", image)
        stored = sitk.GetImageFromArray(labels)
        stored.SetMetaData("Segment0_Name", "Organ")
        stored.SetMetaData("Segment0_LabelValue", "1")
        sitk.WriteImage(stored, str(tmp_path / "raw" / "own" / name / "mask.seg.nrrd"))
    halve(tmp_path / "raw" / "own" / "bad" / "mask.seg.nrrd")
    row = listed({n: (f"{n}/image.nrrd", f"{n}/mask.seg.nrrd", {"organ": "Organ"}) for n in ("good", "bad")})
    assert "bad/mask.seg.nrrd: cannot be read" in error_of_bad(tmp_path, row)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB of its own; `mount(small_disk, "remount,ro")` makes it read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    if not mount(place, "size=1m"):
        pytest.skip("a small file system cannot be mounted here (that needs the rights of root)")
    yield place
    subprocess.run(["umount", place], check=True)


def mount(place, options):
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_full_disk_keeps_what_was_prepared(tmp_path, small_disk):
    write_pairs(tmp_path, ".nii.gz")
    row = pair_row(".nii.gz")
    first = prepare(row, tmp_path / "raw", small_disk / "prepared", progress=False)
    assert first.status.tolist() == ["ok", "ok"]
    big = np.random.default_rng(0).integers(-900, 900, (40, 100, 200)).astype(np.int16)
    write(tmp_path / "raw" / "own" / "bad" / "image.nii.gz", big)
    write(tmp_path / "raw" / "own" / "bad" / "mask.nii.gz", (big > 880).astype(np.uint8))
    table = prepare(row, tmp_path / "raw", small_disk / "prepared", progress=False).set_index("case_id")
    assert table.status.to_dict() == {"good": "ok", "bad": "failed"}
    assert "prepared/own/bad: cannot be written (No space left on device)" in table.error["bad"]
    assert "Free space or choose another folder" in table.error["bad"]
    assert load_case(small_disk / "prepared" / "own" / "good").case_id == "good"
    assert list((small_disk / "prepared" / "own").glob(".partial-*")) == []


def test_read_only_disk_keeps_what_was_prepared(tmp_path, small_disk):
    write_pairs(tmp_path, ".nii.gz")
    row = pair_row(".nii.gz")
    prepare(row, tmp_path / "raw", small_disk / "prepared", progress=False)
    assert mount(small_disk, "remount,ro")
    image, labels = volume_arrays()
    write(tmp_path / "raw" / "own" / "bad" / "image.nii.gz", image[::-1])
    with pytest.raises(InputError, match="cannot be written .*Read-only file system.*choose another folder"):
        prepare(row, tmp_path / "raw", small_disk / "prepared", progress=False)
    found = [load_case(folder).case_id for folder in case_folders(small_disk / "prepared", "own")]
    assert found == ["bad", "good"]


def test_download_to_a_full_and_to_a_read_only_disk(tmp_path, small_disk, monkeypatch):
    (tmp_path / "mirror" / "own").mkdir(parents=True)
    (tmp_path / "mirror" / "own" / "big.zip").write_bytes(bytes(2_000_000))
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "mirror"))
    file = {"url": "https://example.org/big.zip", "path": "big.zip"}
    known = pair_row(".nii", files=[file | {"size_bytes": 2_000_000}])
    with pytest.raises(InputError, match=r"own/big\.zip: 0\.00 GB are needed, 0\.00 GB are free"):
        fetch(known, small_disk, progress=False)
    with pytest.raises(InputError, match=r"big\.zip: cannot be written \(No space left on device\)"):
        fetch(pair_row(".nii", files=[file]), small_disk, progress=False)
    assert [path.name for path in small_disk.rglob("*") if path.is_file()] == []
    assert mount(small_disk, "remount,ro")
    with pytest.raises(InputError, match=r"cannot be written \(Read-only file system\)"):
        fetch(pair_row(".nii", files=[file]), small_disk, progress=False)


def test_archive_on_a_full_and_on_a_read_only_disk(tmp_path, small_disk, monkeypatch):
    with zipfile.ZipFile(small_disk / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.bin", bytes(3_000_000))
    before = (small_disk / "set.zip").read_bytes()
    with pytest.raises(InputError, match=r"GB are needed"):
        unpack(small_disk / "set.zip", small_disk)
    monkeypatch.setattr(downloads, "SPARE_BYTES", -(10**9))  # as if the space had been there a moment ago
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        unpack(small_disk / "set.zip", small_disk)
    assert mount(small_disk, "remount,ro")
    with pytest.raises(InputError, match=r"cannot be written \(Read-only file system\)"):
        unpack(small_disk / "set.zip", small_disk)
    assert [path.name for path in small_disk.iterdir()] == ["set.zip"]
    assert (small_disk / "set.zip").read_bytes() == before


def test_archive_with_a_damaged_member(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("noise.bin", np.random.default_rng(0).bytes(50_000))
        archive.writestr("text.txt", "a" * 50_000)
    data = bytearray((tmp_path / "set.zip").read_bytes())
    data[20_000:20_200] = bytes(200)
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"set\.zip: is damaged .*fetch it again"):
        unpack(tmp_path / "set.zip", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


def test_nifti_whose_header_is_wrong(tmp_path):
    bad = write_pairs(tmp_path, ".nii")
    affine = nib.load(bad / "image.nii").affine
    affine[:, 1] = affine[:, 0]  # two axes in one direction
    (bad / "image.nii").unlink()
    nib.save(nib.Nifti1Image(volume_arrays()[0].T, affine), bad / "image.nii")
    message = error_of_bad(tmp_path, pair_row(".nii"))
    assert "bad/image.nii: its header places all voxels in one plane" in message
