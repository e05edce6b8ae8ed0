"""Every case is an island: whatever is wrong with one, the others are prepared; nothing else is touched."""

import nibabel as nib
import numpy as np
import pytest
from helpers.jobs import begin_beside_a_killer
from pydantic import ValidationError

from medsam_nb.data import workers
from medsam_nb.data.names import clean_name
from medsam_nb.data.patients import patient_of
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import InputError
from medsam_nb.files import remove_made
from medsam_nb.manifest.rows import DataSet

AFFINE = np.diag([-0.8, 0.8, 3.0, 1.0])


def row(**more):
    given = {"name": "own", "title": "t", "modality": "CT", "dimension": 3, "objects": {"organ": [1]}}
    given |= {"intensity": {"policy": "percentile"}, "layout": {"name": "nifti_pairs"}}
    return DataSet.model_validate(given | more)


def write(root, name, seed=0, mask=None):
    image = np.random.default_rng(seed).integers(-900, 900, (6, 20, 24)).astype(np.int16)
    labels = np.zeros(image.shape, np.uint8)
    labels[2:5, 4:10, 6:12] = 1
    for folder, array in (("images", image), ("labels", labels if mask is None else mask)):
        place = root / "raw" / "own" / folder
        place.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array.T, AFFINE), place / f"{name}.nii.gz")


def prepared(root, **more):
    return prepare(row(**more), root / "raw", root / "prepared", progress=False)


def test_names_of_any_script_stay_apart_and_nothing_is_lost(tmp_path):
    for number, name in enumerate(("anna", "bob", "患者", "пациент 1", "(?)", "con", "a b", "a_b", "A_B")):
        write(tmp_path, name, number)
    table = prepared(tmp_path)
    assert (table.status == "ok").all() and table.case_id.str.lower().is_unique
    folders = case_folders(tmp_path / "prepared", "own")
    assert sorted(path.name for path in folders) == sorted(table.case_id) and len(folders) == 9
    assert {"anna", "bob", "患者", "пациент_1"} <= set(table.case_id)
    images = {load_case(folder).image.array.tobytes() for folder in folders}
    assert len(images) == 9


def test_long_names_differ_after_they_are_cut():
    one, other = clean_name("x" * 300), clean_name("x" * 301)
    assert one != other and max(len(one), len(other)) <= 100


def test_a_case_that_cannot_be_read_stops_no_other(tmp_path):
    write(tmp_path, "good")
    write(tmp_path, "nan", mask=np.full((6, 20, 24), np.nan, np.float32))
    table = prepared(tmp_path).set_index("case_id")
    assert table.status.to_dict() == {"good": "ok", "nan": "failed"}
    assert table.error["nan"].startswith(("nan", str(tmp_path)))


def test_a_process_that_is_killed_costs_its_case_only(tmp_path, monkeypatch):
    for name in ("a", "killer", "c"):
        write(tmp_path, name)
    monkeypatch.setattr(workers, "_begin", begin_beside_a_killer)
    table = prepare(row(), tmp_path / "raw", tmp_path / "prepared", workers=2, progress=False)
    assert table.set_index("case_id").status.to_dict() == {"a": "ok", "killer": "failed", "c": "ok"}
    assert "memory" in table.set_index("case_id").error["killer"]


def test_what_was_renamed_or_removed_is_not_measured_again(tmp_path):
    write(tmp_path, "anna")
    write(tmp_path, "bob")
    prepared(tmp_path)
    for folder in ("images", "labels"):
        place = tmp_path / "raw" / "own" / folder
        (place / "bob.nii.gz").rename(place / "robert.nii.gz")
    prepared(tmp_path)
    assert [path.name for path in case_folders(tmp_path / "prepared", "own")] == ["anna", "robert"]
    assert case_folders(tmp_path / "nowhere", "own") == []


@pytest.mark.parametrize("name", [".", "..", ".hidden", "", "a/b", "a\\b", "x" * 101, "a\n"])
def test_a_manifest_names_no_path(name):
    from medsam_nb.manifest.rows import Manifest

    with pytest.raises(ValidationError):
        Manifest.model_validate({"data_sets": {name: row().model_dump()}})


def test_only_folders_that_were_made_here_are_removed(tmp_path):
    made, foreign, other = (tmp_path / name for name in ("made", "foreign", "other"))
    for folder, file in ((made, "case.json"), (foreign, "thesis.docx"), (other, "case.json")):
        folder.mkdir()
        (folder / file).write_text("x", encoding="utf-8")
    (tmp_path / "link").symlink_to(other)
    for wrong in (
        tmp_path / "..",
        tmp_path / ".",
        tmp_path / "link",
        foreign,
        tmp_path.parent,
        made / "case.json",
    ):
        with pytest.raises(ValueError, match="not removed"):
            remove_made(wrong, tmp_path, ["case.json"])
    remove_made(made, tmp_path, ["case.json"])
    remove_made(tmp_path / "gone", tmp_path, ["case.json"])
    assert not made.exists() and foreign.exists() and other.exists()


def test_one_threshold_makes_one_object(tmp_path):
    write(tmp_path, "a")
    table = prepared(tmp_path, objects={"organ": [1], "tumour": [2]}, mask_threshold=0.5)
    assert table.status.tolist() == ["failed"] and "makes one object" in table.error[0]


def test_cases_of_one_patient(tmp_path):
    for name in ("p1_scan1", "p1_scan2", "p2_scan1"):
        write(tmp_path, name)
    table = prepared(tmp_path, patient="^(p[0-9]+)_").set_index("case_id")
    assert table.patient_id.to_dict() == {"p1_scan1": "p1", "p1_scan2": "p1", "p2_scan1": "p2"}
    folders = case_folders(tmp_path / "prepared", "own")
    assert [load_case(folder).patient_id for folder in folders] == ["p1", "p1", "p2"]
    assert prepared(tmp_path).patient_id.tolist() == ["p1_scan1", "p1_scan2", "p2_scan1"]  # the rule is gone
    unfit = prepared(tmp_path, patient="^(q)_")
    assert (unfit.status == "failed").all() and "does not fit" in unfit.error[0]


def test_a_rule_of_patients_is_checked_with_the_manifest():
    for wrong, words in (("(", "no regular expression"), ("p1", "one group"), ("(a)(b)", "one group")):
        with pytest.raises(ValidationError, match=words):
            row(patient=wrong)
    listed = {
        "name": "listed",
        "cases": [{"case_id": "a", "image": "i.nii", "mask": "m.nii", "patient": "p"}],
    }
    with pytest.raises(ValidationError, match="keep one rule"):
        row(layout=listed, patient="(a)")
    with pytest.raises(InputError, match="does not fit"):
        patient_of(row(patient="^(p)_"), "x", None)
