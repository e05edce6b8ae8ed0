"""What a row leaves of its folder: chosen cases, and slices around the objects."""

import json

import nibabel as nib
import numpy as np
import pytest

from medsam_nb.data.formats import read_volume
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case, write_result
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet

SHAPE = (40, 20, 24)  # slices of 3 mm
IMAGE = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[10:14, 4:10, 6:12], LABELS[30, 2:8, 6:12] = 1, 2
NAMES = ("site1-a", "site1-b", "site2-a", "ä 3")


def row(**more):
    fields = {
        "name": "own", "title": "Own", "modality": "CT", "dimension": 3, "objects": {"organ": [1]},
        "ignored_labels": [2], "intensity": {"policy": "window", "low": 0, "high": 900},
        "layout": {"name": "nifti_pairs"},
    }  # fmt: skip
    return DataSet.model_validate(fields | more)


def write(root, names=NAMES, affine=None):
    for name in names:
        for folder, array in (("images", IMAGE), ("labels", LABELS)):
            path = root / "raw" / "own" / folder / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image(array.T, np.diag([-1, 1, 3, 1.0]) if affine is None else affine)
            nib.save(image, path)


def prepared(root, made):
    return prepare(made, root / "raw", root / "prepared", progress=False).set_index("case_id")


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({"cases": ["site1-b", "ä 3"]}, {"site1-b", "ä_3"}),
        ({"cases": ["site1-*"]}, {"site1-a", "site1-b"}),
        ({"left_out_cases": ["*-a"]}, {"site1-b", "ä_3"}),
        ({"cases": ["site*"], "left_out_cases": ["site1-a"]}, {"site1-b", "site2-a"}),
        ({}, {"site1-a", "site1-b", "site2-a", "ä_3"}),
    ],
)
def test_a_row_chooses_cases_by_name(tmp_path, chosen, names):
    write(tmp_path)
    assert set(prepared(tmp_path, row()).index) == {"site1-a", "site1-b", "site2-a", "ä_3"}
    table = prepared(tmp_path, row(**chosen))
    assert set(table.index) == {one.name for one in case_folders(tmp_path / "prepared", "own")} == names
    assert "fit no pattern" not in "".join(table.data_set_notes)  # what is left out is no stray file


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"cases": ["site1-c"]}, "`cases` names 'site1-c', which is none of its 4 cases (site1-a, site1-b,"),
        ({"left_out_cases": ["site?-a"]}, "`left_out_cases` names 'site?-a', which is none"),
        ({"left_out_cases": ["*"]}, "`cases` and `left_out_cases` leave no case"),
    ],
)
def test_a_name_that_fits_nothing_is_refused(tmp_path, chosen, words):
    write(tmp_path)
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, row(**chosen))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("margin_mm", "first", "last"), [(9, 7, 16), (9.1, 6, 17), (0, 9, 14), (40, 0, 27), (1000, 0, 39)]
)
def test_a_margin_around_the_objects_is_kept(tmp_path, margin_mm, first, last):
    write(tmp_path, ["a"])
    table = prepared(tmp_path, row(margin_mm=margin_mm))
    assert table.status.to_dict() == {"a": "ok"}, list(table.error)
    (folder,) = case_folders(tmp_path / "prepared", "own")
    case = load_case(folder)
    # Stored from foot to head, as shown: slice numbers are those of the file.
    kept = slice(first, last + 1)
    assert np.array_equal(case.labels, LABELS[kept][:, ::-1]) or np.array_equal(case.labels, LABELS[kept])
    assert case.image.affine[2, 3] == pytest.approx(3 * first)
    record = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    if (first, last) == (0, 39):
        assert record["cut"] is None and "cut to" not in table.warnings["a"]
    else:
        assert record["cut"] == {
            "margin_mm": margin_mm, "first_slice": first, "last_slice": last, "of_slices": 40
        }  # fmt: skip
        assert f"cut to slices {first} to {last} of 40" in table.warnings["a"]


def test_results_of_a_cut_case_lie_where_the_source_has_them(tmp_path):
    oblique = np.array([[0, 0, 2.5, 9], [-1, 0, 0, 30], [0, 1.2, 0, -70], [0, 0, 0, 1.0]])  # sagittal
    write(tmp_path, ["a"], oblique)
    assert set(prepared(tmp_path, row(margin_mm=5)).status) == {"ok"}
    (folder,) = case_folders(tmp_path / "prepared", "own")
    write_result(tmp_path / "found.nii.gz", load_case(folder).mask("organ").astype(np.uint8), folder)
    found = read_volume(tmp_path / "found.nii.gz", labels=True)
    assert np.array_equal(found.array, LABELS == 1) and np.allclose(found.affine[:, [2, 1, 0, 3]], oblique)


def test_another_margin_is_another_case(tmp_path):
    write(tmp_path, ["a"])
    hashes = {prepared(tmp_path, row(margin_mm=margin)).data_sha256["a"] for margin in (None, 9.0, 12.0)}
    assert len(hashes) == 3


def test_a_picture_has_no_margin():
    with pytest.raises(ValueError, match="`margin_mm` cuts volumes"):
        row(margin_mm=3, dimension=2)
