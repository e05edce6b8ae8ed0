"""nnU-Net's raw format in both versions: names, channels, labels and file endings as `dataset.json` says."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet

SHAPE = (24, 20, 8)
IMAGE = (np.random.default_rng(0).random(SHAPE) * 200).astype(np.int16)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[3:9, 4:10, 2:5], LABELS[3:9, 11:16, 3:6] = 1, 2
VERSION_1 = {
    "modality": {"0": "T1", "1": "FLAIR"}, "labels": {"0": "background", "1": "edema", "2": "tumour"},
    "numTraining": 2, "training": [],
}  # fmt: skip
VERSION_2 = {
    "channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "whole": [1, 2], "tumour": 2},
    "regions_class_order": [1, 2], "numTraining": 2, "file_ending": ".nii.gz",
}  # fmt: skip


def row(channel=None, dimension=3, **more):
    layout = {"name": "nnunet"} | ({} if channel is None else {"channel": channel})
    fields = {
        "name": "own", "title": "Own", "modality": "MRI", "dimension": dimension, "layout": layout,
        "objects": {"tumour": [2]}, "ignored_labels": [1], "intensity": {"policy": "percentile"},
    }  # fmt: skip
    return DataSet.model_validate(fields | more)


def nifti(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 4, 1.0])), path)


def task(root, described=VERSION_2, cases=("b_001", "b_002")):
    base = root / "raw" / "own" / "Dataset137_Brain"
    for case in cases:
        for channel in (0, 1):
            nifti(base / "imagesTr" / f"{case}_{channel:04d}.nii.gz", IMAGE + np.int16(1000 * channel))
        nifti(base / "labelsTr" / f"{case}.nii.gz", LABELS)
    nifti(base / "imagesTs" / "b_009_0000.nii.gz", IMAGE)
    (base / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return base


def prepared(root, made):
    return prepare(made, root / "raw", root / "prepared", progress=False).set_index("case_id")


@pytest.mark.parametrize("described", [VERSION_1, VERSION_2], ids=["version 1", "version 2"])
@pytest.mark.parametrize(("channel", "least"), [(0, 0), (1, 1000), ("flair", 1000), ("T1", 0)])
def test_the_channel_is_chosen_by_number_or_name(tmp_path, described, channel, least):
    task(tmp_path, described)
    table = prepared(tmp_path, row(channel))
    assert table.status.to_dict() == {"b_001": "ok", "b_002": "ok"}, list(table.error)
    for folder in case_folders(tmp_path / "prepared", "own"):
        case = load_case(folder)
        assert least <= case.image.array.min() < least + 200
        assert case.mask("tumour").sum() == (LABELS == 2).sum()


def test_regions_are_objects_with_several_labels(tmp_path):
    task(tmp_path)
    made = row(0, objects={"whole": [1, 2], "tumour": [2]}, ignored_labels=[])
    assert set(prepared(tmp_path, made).status) == {"ok"}
    case = load_case(case_folders(tmp_path / "prepared", "own")[0])
    assert case.mask("whole").sum() == (LABELS > 0).sum() > case.mask("tumour").sum()


@pytest.mark.parametrize(
    ("channel", "changed", "words"),
    [
        (None, {}, "it has the channels 0 (T1), 1 (FLAIR). Choose one: `channel: 0`"),
        ("t2", {}, "it has the channels 0 (T1), 1 (FLAIR), not 't2'"),
        (0, {"channel_names": None}, "names no channels"),
        (0, {"labels": ["tumour"]}, "its `labels` are no names with label values"),
        (0, {"labels": {"background": 0, "edema": 1}}, "the row own also names 2. Correct `objects`"),
        (0, {"labels": {"a": 1, "tumour": [1, 2]}}, "its tumour is [1, 2], that of the row own [2]"),
        (0, {"file_ending": "nii"}, "its `file_ending` is 'nii'"),
        (0, {"file_ending": ".nrrd"}, "holds no image <case>_0000.nrrd"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_is_there(tmp_path, channel, changed, words):
    task(tmp_path, VERSION_2 | changed)
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, row(channel))
    assert words in str(caught.value) and (
        "dataset.json" in str(caught.value) or "imagesTr" in words or changed
    )


def test_two_data_sets_in_one_folder_are_a_question(tmp_path):
    base = task(tmp_path)
    (base.parent / "dataset.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"holds 2 files dataset\.json"):
        prepared(tmp_path, row(0))


def test_a_file_without_its_partner_is_a_case_that_fails(tmp_path):
    base = task(tmp_path)
    (base / "labelsTr" / "b_001.nii.gz").unlink()
    (base / "imagesTr" / "b_002_0000.nii.gz").unlink()
    nifti(base / "imagesTr" / "b_003_0000.nii.gz", IMAGE)
    nifti(base / "labelsTr" / "b_003.nii.gz", LABELS)
    table = prepared(tmp_path, row(0))
    assert table.status.to_dict() == {"b_001": "failed", "b_002": "failed", "b_003": "ok"}
    assert "labelsTr/b_001.nii.gz: there is no such file" in table.error["b_001"]
    assert "imagesTr/b_002_0000.nii.gz: there is no such file" in table.error["b_002"]


def test_pictures_with_their_own_ending(tmp_path):
    base = tmp_path / "raw" / "own"
    for folder, name, array in (("imagesTr", "x_0000", IMAGE), ("labelsTr", "x", LABELS)):
        (base / folder).mkdir(parents=True)
        Image.fromarray(array[..., 3].astype(np.uint8)).save(base / folder / f"{name}.png")
    described = VERSION_2 | {"file_ending": ".png", "channel_names": {"0": "xray"}}
    (base / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    table = prepared(tmp_path, row(dimension=2, intensity={"policy": "stored"}))
    assert table.status.to_dict() == {"x": "ok"}, list(table.error)
    (folder,) = case_folders(tmp_path / "prepared", "own")
    assert np.array_equal(load_case(folder).labels[0], LABELS[..., 3])


def test_files_that_the_description_lists_one_by_one(tmp_path):
    base = task(tmp_path)
    pair = {
        "images": ["imagesTr/b_001_0000.nii.gz", "imagesTr/b_001_0001.nii.gz"],
        "label": "labelsTr/b_001.nii.gz",
    }
    outside = pair | {"label": "../../../secret.nii.gz"}
    listed = {"good": pair, "outside": outside, "odd": {"images": "x"}, "none": None}
    (base / "dataset.json").write_text(json.dumps(VERSION_2 | {"dataset": listed}), encoding="utf-8")
    table = prepared(tmp_path, row("FLAIR"))
    assert table.status.to_dict() == dict.fromkeys(("outside", "odd", "none"), "failed") | {"good": "ok"}
    assert "lie outside of the data set's folder" in table.error["outside"]
    assert "it needs `images` (with channel 1) and `label`" in table.error["none"]
