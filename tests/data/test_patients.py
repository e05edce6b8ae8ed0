"""Whose images a case holds: every way to say it, from the manifest to the rows of the results."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers.picture_data import picture_row, write_picture_pair

from medsam_nb.data.patients import read_patient_table
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import InputError
from medsam_nb.evaluation import units
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest

ROOT = Path(__file__).parents[2]
NAMES = ("p1_a", "p1_b", "p2_a")


def prepared(tmp_path, names=NAMES, **changes):
    for number, name in enumerate(names):
        if not (tmp_path / "raw" / "own" / "images" / f"{name}.png").exists():
            write_picture_pair(tmp_path / "raw" / "own", name, number)
    table = prepare(picture_row(**changes), tmp_path / "raw", tmp_path / "prepared", progress=False)
    return table.set_index("case_id")


def patients_of(table):
    return table.patient_id.to_dict()


def test_without_a_rule_a_case_is_its_own_patient(tmp_path):
    table = prepared(tmp_path)
    assert patients_of(table) == {name: name for name in NAMES}
    assert load_case(tmp_path / "prepared" / "own" / "p1_a").patient_id == "p1_a"


def test_an_expression_finds_the_patient_in_the_name(tmp_path):
    table = prepared(tmp_path, patient=r"^(p\d+)_")
    assert patients_of(table) == {"p1_a": "p1", "p1_b": "p1", "p2_a": "p2"}
    for folder in case_folders(tmp_path / "prepared", "own"):
        record = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        assert record["patient_id"] == load_case(folder).patient_id == folder.name[:2]
    assert list(pd.read_parquet(tmp_path / "prepared" / "own" / "cases.parquet").patient_id) == [
        "p1", "p1", "p2",
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", [r"^(q\d)", r"^()p"])
def test_a_case_that_the_expression_does_not_cover_is_refused(tmp_path, pattern):
    table = prepared(tmp_path, patient=pattern)
    assert set(table.status) == {"failed"}
    assert all("no patient is found in the name" in error for error in table.error)


@pytest.mark.parametrize(
    ("images", "files"),
    [
        ("{patient}/{case}", ("p1/a", "p1/b", "p2/a")),
        ("{patient}_{case}", ("p1_a", "p1_b", "p2_a")),
        ("{patient}/scan/{patient}-{case}", ("p1/scan/p1-a", "p1/scan/p1-b", "p2/scan/p2-a")),
    ],
)
def test_a_placeholder_stands_for_the_patient(tmp_path, images, files):
    for number, name in enumerate(files):
        write_picture_pair(tmp_path / "raw" / "own", name, number)
    layout = {"name": "picture_pairs", "images": f"images/{images}.png", "masks": f"masks/{images}.png"}
    table = prepare(picture_row(layout=layout), tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert patients_of(table.set_index("case_id")) == {"p1_a": "p1", "p1_b": "p1", "p2_a": "p2"}
    assert set(table.status) == {"ok"}


def test_listed_cases_name_their_patient(tmp_path):
    for number, name in enumerate(NAMES):
        write_picture_pair(tmp_path / "raw" / "own", name, number)
    cases = [
        {"case_id": name, "image": f"images/{name}.png", "mask": f"masks/{name}.png"}
        | ({"patient": "Nobody 7"} if name[:2] == "p1" else {})
        for name in NAMES
    ]
    table = prepared(tmp_path, layout={"name": "listed", "cases": cases})
    assert patients_of(table) == {"p1_a": "Nobody 7", "p1_b": "Nobody 7", "p2_a": "p2_a"}


def test_a_table_names_the_patients(tmp_path):
    folder = tmp_path / "raw" / "own"
    folder.mkdir(parents=True)
    lines = ["\ufeffcase_id,age,patient", "p1_a,50,007", "p1_b,50, 007 ", 'p2_a,61,"Müller, A"', "p9_z,1,9"]
    (folder / "who.csv").write_text("\n".join(lines), encoding="utf-8")
    table = prepared(tmp_path, patient_table="who.csv")
    assert patients_of(table) == {"p1_a": "007", "p1_b": "007", "p2_a": "Müller, A"}
    (folder / "who.csv").write_text("\n".join(lines[:3]), encoding="utf-8")
    table = prepared(tmp_path, patient_table="who.csv")
    assert table.status.to_dict() == {"p1_a": "ok", "p1_b": "ok", "p2_a": "failed"}
    assert "who.csv names no patient" in table.error["p2_a"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case_id,patient\na,1\na,2\n", "line 3: a stands here as of 1 and of 2"),
        ("case_id,patient\na,1\na,1\n", "line 3: a stands here again"),
        ("case_id,patient\nbenign (1),1\nbenign_1,2\n", "line 3: benign_1 stands here as of 1 and of 2"),
        ("case_id,patient\na,\n", "line 2: a case or patient is empty"),
        ("case_id,patient\na\n", "line 2: a case or patient is empty"),
        ("case,patient\na,1\n", "no column case_id"),
        ("", "no column case_id and no column patient"),
        (b"\xff\xfe\x00", "who.csv: is text in UTF-16"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, text, words):
    path = tmp_path / "raw" / "own" / "who.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, patient_table="who.csv")
    assert words in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_patient_table(path.with_name("other.csv"))


def test_another_rule_changes_the_patients_and_nothing_else(tmp_path):
    manifest = load_manifest(ROOT / "data_manifest.yaml")

    def planned():
        folders = case_folders(tmp_path / "prepared", "own")
        checkpoints = [manifest.checkpoint("miniature_sam2")]
        return units.plan_units(
            "2d", folders, checkpoints, weights_dir=tmp_path, seed=1, device="cpu", prompts=["one_box"]
        )

    store = Store(tmp_path / "rows")
    before = prepared(tmp_path)
    chosen = planned()
    assert set(units.run_units(chosen, store, workers=0).status) == {"computed"}
    rows = store.read([unit.key for unit in chosen])
    assert (rows.patient_id == rows.case_id).all()
    images = [folder / "image.nii.gz" for folder in case_folders(tmp_path / "prepared", "own")]
    times = [path.stat().st_mtime_ns for path in images]

    after = prepared(tmp_path, patient=r"^(p\d+)_")
    assert patients_of(after) == {"p1_a": "p1", "p1_b": "p1", "p2_a": "p2"}
    assert [path.stat().st_mtime_ns for path in images] == times
    assert after.drop(columns="patient_id").equals(before.drop(columns="patient_id"))
    again = planned()
    assert set(units.run_units(again, store, workers=0).status) == {"stored"}  # nothing is computed again
    renamed = store.read([unit.key for unit in again])
    assert dict(zip(renamed.case_id, renamed.patient_id, strict=True)) == patients_of(after)
    assert renamed.drop(columns="patient_id").equals(rows.drop(columns="patient_id"))


def test_the_rules_of_the_shipped_rows():
    manifest = load_manifest(ROOT / "data_manifest.yaml")
    from medsam_nb.data.patients import patient_of

    expected = {
        ("us_nerve", "12_103"): "12",
        ("pet_wholebody", "PETCT_0011f3deaf_03-23-2003-NA-PET-CT_Ganzkoerper-10445"): "PETCT_0011f3deaf",
        ("pet_wholebody", "fdg_0011f3deaf_03-23-2003"): "fdg_0011f3deaf",
        ("mri_brain", "Brats18_2013_10_1"): "Brats18_2013_10",
        ("mri_brain", "Brats18_TCIA01_147_1"): "Brats18_TCIA01_147",
        ("mri_brain", "BraTS20_Training_001"): "BraTS20_Training_001",
        ("mri_brain", "BraTS2021_00000"): "BraTS2021_00000",
        ("mri_breast", "Breast_MRI_002"): "Breast_MRI_002",
        ("mri_prostate", "GE_Patient_428260"): "GE_Patient_428260",
        ("mri_spine", "site1-sc01"): "site1-sc01",
    }
    for (name, case_id), patient in expected.items():
        assert patient_of(manifest.data_set(name), case_id, None) == patient
    for name, row in manifest.data_sets.items():
        if row.group == "study":  # its rule is known, or it says that nobody knows
            known = row.patient is not None or any("patient" in fact for fact in row.unverified)
            assert known, name


def test_two_pictures_of_one_patient_are_told_apart_by_their_patient(tmp_path):
    table = prepared(tmp_path, patient=r"^(p\d+)_")
    assert np.array_equal(table.groupby("patient_id").size(), [2, 1])


def test_bids_with_sessions(tmp_path):
    """Subjects and sessions, masks among the derivatives; both sessions of a subject are one patient's."""
    from medsam_nb.manifest.rows import DataSet

    data = np.random.default_rng(0).integers(0, 900, (12, 14, 6)).astype(np.int16)
    mask = np.zeros(data.shape, np.uint8)
    mask[3:8, 3:8, 2:4] = 1
    for subject, session in (("01", "pre"), ("01", "post"), ("02", "pre")):
        name = f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}"
        for place, array in ((f"{name}_T1w", data), (f"derivatives/manual/{name}_dseg", mask)):
            path = tmp_path / "raw" / "own" / f"{place}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([1, 1, 4, 1.0])), path)
    name = "sub-{patient}/ses-{case}/anat/sub-{patient}_ses-{case}"
    row = DataSet.model_validate(
        {
            "name": "own", "title": "Own", "modality": "MRI", "dimension": 3, "objects": {"lesion": [1]},
            "intensity": {"policy": "percentile"},
            "layout": {
                "name": "nifti_pairs", "images": f"{name}_T1w.nii.gz",
                "masks": f"derivatives/manual/{name}_dseg.nii.gz",
            },
        }
    )  # fmt: skip
    table = prepare(row, tmp_path / "raw", tmp_path / "prepared", progress=False).set_index("case_id")
    assert set(table.status) == {"ok"} and set(table.data_set_notes) == {""}
    assert patients_of(table) == {"01_pre": "01", "01_post": "01", "02_pre": "02"}
