"""Every real sample is prepared, or refused with the right words."""

import os
from pathlib import Path

import pytest

from medsam_nb.fetch import MIRROR_VARIABLE, fetch
from medsam_nb.manifest import DataSet, load_manifest
from medsam_nb.prepare import case_folders, load_case, prepare

ROOT = Path(__file__).parents[1]
SAMPLES = Path(os.environ.get(MIRROR_VARIABLE) or ROOT / ".." / "shared" / "data")
ROWS = load_manifest(ROOT / "data_manifest.yaml").data_sets
NAMES = [name for name in ROWS if name.startswith(("sample_", "example_"))]

pytestmark = pytest.mark.skipif(
    not (SAMPLES / "INDEX.csv").is_file(),
    reason=f"no mirror of the samples at ../shared/data or {MIRROR_VARIABLE}",
)


@pytest.mark.parametrize("name", NAMES)
def test_sample_is_fetched_and_prepared(tmp_path, monkeypatch, name):
    monkeypatch.setenv(MIRROR_VARIABLE, str(SAMPLES))
    row = ROWS[name]
    assert fetch(row, tmp_path / "raw", progress=False) == []
    table = prepare(row, tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert list(table.error) == [""] * row.expected.cases
    for folder in case_folders(tmp_path / "prepared", name):
        case = load_case(folder)
        assert case.objects
        grey = case.slices_uint8()
        assert grey.max() > grey.min()


def test_only_masks_to_measure_against_count_for_accuracy():
    for name in NAMES:
        assert ROWS[name].accuracy == name.startswith("sample_")


def refusal(tmp_path, case, suffix="", **changes):
    fields = {
        "name": "sample",
        "title": "",
        "modality": "",
        "dimension": 3,
        "objects": {"object": [1]},
        "intensity": {"policy": "min_max"},
        "folder": case,
        "layout": {
            "name": "listed",
            "cases": [{"case_id": "one", "image": f"image{suffix}", "mask": f"mask{suffix}"}],
        },
    }
    table = prepare(DataSet.model_validate(fields | changes), SAMPLES, tmp_path, progress=False)
    assert list(table.status) == ["failed"]
    return table.error[0]


def test_mask_of_another_shape(tmp_path):
    message = refusal(tmp_path, "totalseg/ct_shape_mismatch", ".nii.gz")
    assert "(112, 101, 122)" in message
    assert "(30, 101, 122)" in message


def test_soft_mask_without_a_threshold(tmp_path):
    message = refusal(tmp_path, "sct_testing/mt1_gm_soft", ".nii.gz")
    assert "the mask is soft: 204 distinct values between 0 and 1.05922" in message
    assert "mask_threshold" in message


def test_jpeg_mask_without_a_threshold(tmp_path):
    message = refusal(tmp_path, "hepatic_vessel_jpg/10002_070", ".jpg", dimension=2, slice_axis="stored")
    assert "labels that the manifest row sample does not name" in message


def test_labels_that_the_row_does_not_name(tmp_path):
    message = refusal(tmp_path, "tptbox/ct_spine_vert", ".nii.gz")
    assert "21 (6567 voxels), 22 (17698 voxels), 23 (12083 voxels)" in message
