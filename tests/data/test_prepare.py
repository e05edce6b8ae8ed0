"""Raw files to prepared cases: what is right is kept exactly, what is wrong is recorded and skipped."""

import dataclasses
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case, object_table, write_result
from medsam_nb.errors import InputError
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.intensity import Intensity

SHIPPED = Path(__file__).parents[2] / "data_manifest.yaml"
AFFINE = np.array([[-0.8, 0, 0, 60], [0, 0.8, 0, -50], [0, 0, 5.0, 10], [0, 0, 0, 1]])  # LAS, thick slices


def own_row(**changes):
    fields = {
        "name": "own",
        "title": "Own",
        "modality": "CT",
        "dimension": 3,
        "objects": {"spleen": [1], "liver": [2, 3]},
        "intensity": {"policy": "window", "low": -100, "high": 100},
        "layout": {"name": "nifti_pairs"},
    }
    return DataSet.model_validate(fields | changes)


def volume_pair(seed=0, shape=(20, 18, 6)):
    rng = np.random.default_rng(seed)
    image = rng.integers(-1000, 1000, shape).astype(np.int16)
    labels = np.zeros(shape, np.uint8)
    labels[3:9, 4:10, 1:4] = 1
    labels[12:15, 4:10, 2:5] = 2
    labels[15:16, 4:10, 2:5] = 3
    return image, labels


def write_pair(raw, name, image, labels, affine=AFFINE, label_affine=None):
    for folder, array, place in (
        ("images", image, affine),
        ("labels", labels, affine if label_affine is None else label_affine),
    ):
        (raw / "own" / folder).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, place), raw / "own" / folder / f"{name}.nii.gz")


def error_of(raw, tmp_path, row=None):
    table = prepare(row or own_row(), raw, tmp_path / "prepared", progress=False)
    assert list(table.status) == ["failed"], table.to_dict("records")
    assert case_folders(tmp_path / "prepared", "own") == []
    return table.error[0]


def test_case_is_prepared_exactly(tmp_path):
    image, labels = volume_pair()
    write_pair(tmp_path / "raw", "p1", image, labels)
    table = prepare(own_row(), tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert list(table.status) == ["ok"]
    line = table.iloc[0]
    assert (line["shape"], line.spacing_mm, line.orientation) == ("6 x 18 x 20", "5 x 0.8 x 0.8", "LAS")
    assert (line.n_slices, line.labelled_slices, line.accuracy) == (6, 4, True)
    (folder,) = case_folders(tmp_path / "prepared", "own")
    case = load_case(folder)
    # LAS is left-to-... : x already grows to the left as on a display, y grows to the front: flipped.
    assert np.array_equal(case.image.array, image.T[:, ::-1, :])
    assert np.array_equal(case.labels, labels.T[:, ::-1, :])
    assert case.sha256() == line.data_sha256
    assert case.intensity == Intensity("window", -100, 100)
    grey = case.slices_uint8()
    assert grey.dtype == np.uint8
    assert grey[case.image.array >= 100].min() == 255
    objects = object_table(table).set_index("object")
    assert objects.voxels.to_dict() == {"spleen": 6 * 6 * 3, "liver": 4 * 6 * 3}
    assert objects.loc["liver", ["components", "first_slice", "last_slice"]].tolist() == [1, 2, 4]
    assert pd.read_parquet(tmp_path / "prepared" / "own" / "cases.parquet").equals(table)


def test_prepared_files_open_elsewhere(tmp_path):
    import SimpleITK as sitk

    image, labels = volume_pair()
    write_pair(tmp_path / "raw", "p1", image, labels)
    prepare(own_row(), tmp_path / "raw", tmp_path / "prepared", progress=False)
    (folder,) = case_folders(tmp_path / "prepared", "own")
    stored = sitk.ReadImage(str(folder / "labels.nii.gz"))
    source = sitk.ReadImage(str(tmp_path / "raw" / "own" / "labels" / "p1.nii.gz"))
    for index in ((4, 5, 2), (13, 6, 3), (0, 0, 0)):
        point = source.TransformIndexToPhysicalPoint(index)
        assert stored[stored.TransformPhysicalPointToIndex(point)] == source[index]


def test_result_goes_back_to_the_source_grid(tmp_path):
    image, labels = volume_pair()
    write_pair(tmp_path / "raw", "p1", image, labels)
    prepare(own_row(), tmp_path / "raw", tmp_path / "prepared", progress=False)
    (folder,) = case_folders(tmp_path / "prepared", "own")
    write_result(tmp_path / "result.nii.gz", load_case(folder).labels, folder)
    result = nib.load(tmp_path / "result.nii.gz")
    assert np.array_equal(np.asarray(result.dataobj), labels)
    assert np.allclose(result.affine, AFFINE)


def test_preparing_again_keeps_what_is_there(tmp_path):
    raw, prepared = tmp_path / "raw", tmp_path / "prepared"
    for number in range(4):
        write_pair(raw, f"p{number}", *volume_pair(number))
    first = prepare(own_row(), raw, prepared, progress=False)
    times = {
        folder.name: (folder / "case.json").stat().st_mtime_ns for folder in case_folders(prepared, "own")
    }
    write_pair(raw, "p1", *volume_pair(7))
    (prepared / "own" / "p2" / "labels.nii.gz").unlink()
    (prepared / "own" / "p3" / "mosaic.png").unlink()
    second = prepare(own_row(), raw, prepared, progress=False)
    again = {
        folder.name: (folder / "case.json").stat().st_mtime_ns for folder in case_folders(prepared, "own")
    }
    assert {name for name in times if times[name] != again[name]} == {"p1", "p2", "p3"}
    assert first.data_sha256[1] != second.data_sha256[1]
    assert first.data_sha256[[0, 2, 3]].equals(second.data_sha256[[0, 2, 3]])
    third = prepare(own_row(title="Another title"), raw, prepared, progress=False)
    assert third.equals(second)
    changed = prepare(own_row(intensity={"policy": "min_max"}), raw, prepared, progress=False)
    assert not (changed.data_sha256 == second.data_sha256).any()


def test_workers_give_the_same_table(tmp_path):
    for number in range(3):
        write_pair(tmp_path / "raw", f"p{number}", *volume_pair(number))
    one = prepare(own_row(), tmp_path / "raw", tmp_path / "a", progress=False)
    two = prepare(own_row(), tmp_path / "raw", tmp_path / "b", workers=2, progress=False)
    assert one.equals(two)


def test_bad_case_is_recorded_and_the_others_go_on(tmp_path):
    image, labels = volume_pair()
    write_pair(tmp_path / "raw", "good", image, labels)
    write_pair(tmp_path / "raw", "bad", image, labels * 0)
    table = prepare(own_row(), tmp_path / "raw", tmp_path / "prepared", progress=False).set_index("case_id")
    assert table.status.to_dict() == {"good": "ok", "bad": "failed"}
    assert "the mask is empty" in table.error["bad"]


def test_shape_mismatch(tmp_path):
    image, labels = volume_pair()
    write_pair(tmp_path / "raw", "p1", image, labels[..., :5])
    message = error_of(tmp_path / "raw", tmp_path)
    assert "labels/p1.nii.gz" in message
    assert "(6, 18, 20)" in message
    assert "(5, 18, 20)" in message


def test_geometry_mismatch(tmp_path):
    image, labels = volume_pair()
    shifted = AFFINE.copy()
    shifted[2, 3] += 5
    write_pair(tmp_path / "raw", "p1", image, labels, label_affine=shifted)
    message = error_of(tmp_path / "raw", tmp_path)
    assert "5.00 mm apart" in message
    assert "mask_geometry: ignore" in message
    table = prepare(own_row(mask_geometry="ignore"), tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert list(table.status) == ["ok"]


def test_mask_in_another_stored_order_is_brought_into_place(tmp_path):
    image, labels = volume_pair()
    turned = nib.Nifti1Image(labels, AFFINE).as_reoriented([[2, 1], [0, -1], [1, 1]])
    write_pair(tmp_path / "raw", "p1", image, np.asarray(turned.dataobj), label_affine=turned.affine)
    table = prepare(own_row(), tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert list(table.error) == [""]
    (folder,) = case_folders(tmp_path / "prepared", "own")
    assert np.array_equal(load_case(folder).labels, labels.T[:, ::-1, :])


def test_unnamed_label(tmp_path):
    image, labels = volume_pair()
    labels[0, 0, :4] = 7
    write_pair(tmp_path / "raw", "p1", image, labels)
    message = error_of(tmp_path / "raw", tmp_path)
    assert "7 (4 voxels)" in message
    assert "ignored_labels" in message
    table = prepare(own_row(ignored_labels=[7]), tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert list(table.status) == ["ok"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_no_numbers(tmp_path, bad):
    image, labels = volume_pair()
    image = image.astype(np.float32)
    image[2, 3, :2] = bad
    write_pair(tmp_path / "raw", "p1", image, labels)
    assert "2 voxels of the image are NaN or infinite" in error_of(tmp_path / "raw", tmp_path)


def test_soft_mask(tmp_path):
    image, labels = volume_pair()
    write_pair(tmp_path / "raw", "p1", image, (labels > 0) * np.float32(0.5))
    assert "the mask is soft" in error_of(tmp_path / "raw", tmp_path)
    row = own_row(mask_threshold=0.5, objects={"spleen": [1]})
    assert list(prepare(row, tmp_path / "raw", tmp_path / "prepared", progress=False).status) == ["ok"]


def test_constant_image(tmp_path):
    image, labels = volume_pair()
    write_pair(tmp_path / "raw", "p1", image * 0, labels)
    row = own_row(intensity={"policy": "percentile", "low": 1, "high": 99})
    assert "all voxels have the value 0" in error_of(tmp_path / "raw", tmp_path, row)


def test_several_volumes_in_one_file(tmp_path):
    image, labels = volume_pair()
    write_pair(tmp_path / "raw", "p1", np.stack([image, image + 1], axis=3), labels)
    assert "holds 2 volumes" in error_of(tmp_path / "raw", tmp_path)
    row = own_row(layout={"name": "nifti_pairs", "frame": 1})
    prepare(row, tmp_path / "raw", tmp_path / "prepared", progress=False)
    (folder,) = case_folders(tmp_path / "prepared", "own")
    assert np.array_equal(load_case(folder).image.array, image.T[:, ::-1, :] + 1)


def test_missing_partner_and_missing_folder(tmp_path):
    write_pair(tmp_path / "raw", "p1", *volume_pair())
    os.remove(tmp_path / "raw" / "own" / "labels" / "p1.nii.gz")
    message = error_of(tmp_path / "raw", tmp_path)
    assert "labels/p1.nii.gz: there is no such file" in message
    with pytest.raises(InputError, match="the data set own is not there"):
        prepare(own_row(), tmp_path / "nowhere", tmp_path / "prepared", progress=False)
    (tmp_path / "raw" / "own" / "images" / "p1.nii.gz").unlink()
    with pytest.raises(InputError, match="no case found; looked for images/"):
        prepare(own_row(), tmp_path / "raw", tmp_path / "prepared", progress=False)


def test_failed_case_leaves_no_older_state(tmp_path):
    image, labels = volume_pair()
    write_pair(tmp_path / "raw", "p1", image, labels)
    prepare(own_row(), tmp_path / "raw", tmp_path / "prepared", progress=False)
    write_pair(tmp_path / "raw", "p1", image, labels * 0)
    assert "empty" in error_of(tmp_path / "raw", tmp_path)


def test_changed_or_damaged_prepared_case_is_noticed(tmp_path):
    image, labels = volume_pair()
    write_pair(tmp_path / "raw", "p1", image, labels)
    prepare(own_row(), tmp_path / "raw", tmp_path / "prepared", progress=False)
    (folder,) = case_folders(tmp_path / "prepared", "own")
    record = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    (folder / "case.json").write_text(json.dumps(record | {"objects": {"liver": [1]}}), encoding="utf-8")
    with pytest.raises(InputError, match="has changed since it was prepared"):
        load_case(folder)
    whole = (folder / "image.nii.gz").read_bytes()
    (folder / "image.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"image\.nii\.gz: cannot be read"):
        load_case(folder)
    (folder / "case.json").unlink()
    with pytest.raises(InputError, match="is no prepared case"):
        load_case(folder)


def test_target_that_cannot_be_written(tmp_path):
    write_pair(tmp_path / "raw", "p1", *volume_pair())
    (tmp_path / "prepared").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written"):
        prepare(own_row(), tmp_path / "raw", tmp_path / "prepared", progress=False)


def test_embedded_data_sets_need_no_files(tmp_path):
    manifest = load_manifest(SHIPPED)
    row = manifest.data_set("simulated_ultrasound")
    table = prepare(row, tmp_path / "nowhere", tmp_path, progress=False)
    assert list(table.status) == ["ok"] * 3
    assert set(object_table(table).object) == set(row.objects)
    thick, thin = (load_case(f).image.spacing_mm[0] for f in case_folders(tmp_path, row.name)[:2])
    assert (thick, thin) == (5.0, 2.0)


def test_mni152_slab(tmp_path):
    row = load_manifest(SHIPPED).data_set("mni152")
    table = prepare(row, tmp_path / "nowhere", tmp_path, progress=False)
    case = load_case(case_folders(tmp_path, "mni152")[0])
    assert case.image.array.shape[0] == row.layout.slice_count
    brain, grey, white = (case.mask(name) for name in ("brain", "grey_matter", "white_matter"))
    assert not (grey & white).any()
    assert (brain | ~(grey | white)).all()
    assert case.image.array[white].mean() > case.image.array[grey].mean()  # T1: white matter is brighter
    # The eyes lie in front: with rows growing to the back, the first rows hold the forehead.
    assert case.image.affine[1, 1] < 0
    assert table.warnings[0] == ""


def test_case_hash_covers_grey_levels_and_grid(tmp_path):
    write_pair(tmp_path / "raw", "p1", *volume_pair())
    prepare(own_row(), tmp_path / "raw", tmp_path / "prepared", progress=False)
    case = load_case(case_folders(tmp_path / "prepared", "own")[0])
    other = dataclasses.replace(case, intensity=Intensity("window", -100, 101))
    assert other.sha256() != case.sha256()
