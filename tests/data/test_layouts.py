"""Every layout, from a raw folder that is faithful in names, formats, types and quirks to prepared cases."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from helpers import networks
from PIL import Image

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import InputError
from medsam_nb.evaluation.rows import evaluate_2d
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.workbook.rehearsal.files import series

MANIFEST = load_manifest(Path(__file__).parents[2] / "data_manifest.yaml")
SHAPE = (24, 20, 8)


def noise(shape=SHAPE, kind=np.int16):
    return (np.random.default_rng(0).random(shape) * 200).astype(kind)


def blocks(*values, shape=SHAPE):
    """A label map with one block per value, side by side along the first axis."""
    labels = np.zeros(shape, np.uint8)
    for number, value in enumerate(values):
        labels[2 + 4 * number : 5 + 4 * number, 5:12] = value
    return labels


def nifti(path, array, spacing=(0.8, 0.8, 5.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)


def picture(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path) if mode else Image.fromarray(array).save(path)


def dicom(folder, array):
    series(folder, array, (3.0, 1.0, 1.0))


def prepared(name, tmp_path):
    table = prepare(MANIFEST.data_set(name), tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert list(table.error[table.status == "failed"]) == []
    cases = {folder.name: load_case(folder) for folder in case_folders(tmp_path / "prepared", name)}
    for case in cases.values():  # on to the evaluation: a score for every object and slice that holds it
        rows = evaluate_2d(networks.small_model(), case, ["one_box"], seed=1)
        scored = {(row["object"], row["slice_index"]) for row in rows}
        held = {
            (name, int(z)) for name in case.objects for z in np.flatnonzero(case.mask(name).any(axis=(1, 2)))
        }
        assert scored == held
        assert all(0 <= row["value"] <= 1 for row in rows)
    return cases


def counts(case):
    return {name: int(case.mask(name).sum()) for name in case.objects}


ONE_BLOCK = 3 * 7 * 8


@pytest.mark.parametrize(
    ("name", "task", "stem", "labels"),
    [
        ("mri_heart", "Task02_Heart", "la_003", {"0": "background", "1": "left atrium"}),
        ("ct_spleen", "Task09_Spleen", "spleen_2", {"0": "background", "1": "spleen"}),
        ("ct_colon", "Task10_Colon", "colon_001", {"0": "background", "1": "colon cancer primaries"}),
        (
            "ct_pancreas",
            "Task07_Pancreas",
            "pancreas_001",
            {"0": "background", "1": "pancreas", "2": "cancer"},
        ),
        (
            "ct_hepatic_vessel",
            "Task08_HepaticVessel",
            "hepaticvessel_001",
            {"0": "b", "1": "Vessel", "2": "Tumour"},
        ),
    ],
)
def test_msd(tmp_path, name, task, stem, labels):
    base = tmp_path / "raw" / name / task
    values = [int(value) for value in labels if value != "0"]
    nifti(base / "imagesTr" / f"{stem}.nii.gz", noise(kind=np.float32))
    nifti(base / "labelsTr" / f"{stem}.nii.gz", blocks(*values))
    nifti(base / "imagesTs" / f"{stem}9.nii.gz", noise())
    for folder in ("imagesTr", "labelsTr"):
        (base / folder / f"._{stem}.nii.gz").write_bytes(b"\0\5\26\7AppleDouble")
    pair = {"image": f"./imagesTr/{stem}.nii.gz", "label": f"./labelsTr/{stem}.nii.gz"}
    hidden = {"image": f"./imagesTr/._{stem}.nii.gz", "label": f"./labelsTr/._{stem}.nii.gz"}
    described = {"name": task, "labels": labels, "numTraining": 1, "training": [pair, hidden], "test": []}
    (base / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    (base / "._dataset.json").write_bytes(b"\0\5\26\7")
    cases = prepared(name, tmp_path)
    merged = 2 if name == "ct_pancreas" else 1
    (only,) = MANIFEST.data_set(name).objects
    assert {key: counts(case) for key, case in cases.items()} == {stem: {only: merged * ONE_BLOCK}}


def test_msd_of_another_task_is_refused(tmp_path):
    base = tmp_path / "raw" / "ct_pancreas" / "Task09_Spleen"
    base.mkdir(parents=True)
    (base / "dataset.json").write_text(
        json.dumps({"labels": {"0": "b", "1": "spleen"}, "training": []}), encoding="utf-8"
    )
    with pytest.raises(InputError, match="This is not the task of ct_pancreas"):
        prepared("ct_pancreas", tmp_path)


def test_lits(tmp_path):
    base = tmp_path / "raw" / "ct_liver"
    for batch, number in (("Training Batch 1", 0), ("Training Batch 2", 28)):
        nifti(base / batch / f"volume-{number}.nii", noise())
        nifti(base / batch / f"segmentation-{number}.nii", blocks(1, 2))
    nifti(base / "Test" / "test-volume-0.nii", noise())
    cases = prepared("ct_liver", tmp_path)
    assert {key: counts(case) for key, case in cases.items()} == {
        "volume-0": {"liver": 2 * ONE_BLOCK},
        "volume-28": {"liver": 2 * ONE_BLOCK},
    }


@pytest.mark.parametrize("folders", [("", ""), ("volumes", "labels")])
def test_ct_org(tmp_path, folders):
    base = tmp_path / "raw" / "ct_organ"
    nifti(base / folders[0] / "volume-21.nii.gz", noise())
    nifti(base / folders[1] / "labels-21.nii.gz", blocks(1, 3, 4, 5, 6))
    cases = prepared("ct_organ", tmp_path)
    assert counts(cases["volume-21"]) == dict.fromkeys(("liver", "lungs", "kidneys", "bone"), ONE_BLOCK)


@pytest.mark.parametrize(
    ("folder", "case", "suffix"),
    [
        ("MICCAI_BraTS_2018_Data_Training/HGG", "Brats18_2013_10_1", ".nii.gz"),
        ("MICCAI_BraTS2020_TrainingData", "BraTS20_Training_001", ".nii"),
        ("", "BraTS2021_00000", ".nii.gz"),
    ],
)
def test_brats(tmp_path, folder, case, suffix):
    base = tmp_path / "raw" / "mri_brain" / folder / case
    for number, sequence in enumerate(("flair", "t1", "t1ce", "t2")):
        nifti(base / f"{case}_{sequence}{suffix}", noise() + np.int16(number), (1, 1, 1))
    nifti(base / f"{case}_seg{suffix}", blocks(1, 2, 4), (1, 1, 1))
    cases = prepared("mri_brain", tmp_path)
    assert counts(cases[case]) == dict.fromkeys(("core", "edema", "enhancing"), ONE_BLOCK)
    assert cases[case].image.array.min() == noise().min() + 2  # the third sequence, t1ce


def test_scgm_takes_the_majority_of_four_raters(tmp_path):
    base = tmp_path / "raw" / "mri_spine"
    nifti(base / "site1-sc01-image.nii.gz", noise())
    for rater in (1, 2, 3, 4):
        labels = blocks(1, 2)
        if rater == 4:
            labels[:] = 0
        if rater == 3:
            labels[labels == 1] = 2
        nifti(base / f"site1-sc01-mask-r{rater}.nii.gz", labels)
    (base / "site1-sc01-levels.txt").write_text("1,C2\n", encoding="utf-8")
    nifti(base / "site1-sc11-image.nii.gz", noise())  # a test case without masks
    cases = prepared("mri_spine", tmp_path)
    assert {key: counts(case) for key, case in cases.items()} == {
        "site1-sc01": {"grey_matter": ONE_BLOCK, "spinal_cord": 2 * ONE_BLOCK}
    }


def test_i2cvb_as_far_as_its_layout_is_known(tmp_path):
    base = tmp_path / "raw" / "mri_prostate" / "GE"
    mask = blocks(1).T * 255
    dicom(base / "Patient_1" / "T2W", noise().T)
    dicom(base / "Patient_1" / "GT" / "prostate", mask)
    dicom(base / "Patient_428260" / "T2W", noise().T)
    dicom(base / "Patient_428260" / "GT" / "prostate", mask[:-1])
    table = prepare(
        MANIFEST.data_set("mri_prostate"), tmp_path / "raw", tmp_path / "prepared", progress=False
    ).set_index("case_id")
    assert table.status.to_dict() == {"GE_Patient_1": "ok", "GE_Patient_428260": "failed"}
    assert "(7, 20, 24)" in table.error["GE_Patient_428260"]
    case = load_case(tmp_path / "prepared" / "mri_prostate" / "GE_Patient_1")
    assert counts(case) == {"prostate": ONE_BLOCK}


def test_saml(tmp_path):
    base = tmp_path / "raw" / "mri_prostate_saml"
    for site, word in (("BIDMC", "Segmentation"), ("UCL", "segmentation")):
        nifti(base / site / "Case00.nii.gz", noise())
        nifti(base / site / f"Case00_{word}.nii.gz", blocks(1, 2))
    cases = prepared("mri_prostate_saml", tmp_path)
    assert {key: counts(case) for key, case in cases.items()} == dict.fromkeys(
        ("BIDMC_Case00", "UCL_Case00"), {"prostate": 2 * ONE_BLOCK}
    )


def seg_nrrd(path, array, segments):
    """Write a `.seg.nrrd`; segments are (name, label value)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 3.0))
    for number, (name, value) in enumerate(segments):
        for key, text in (
            ("ID", f"Segment_{number + 1}"),
            ("Name", name),
            ("LabelValue", value),
            ("Layer", 0),
        ):
            image.SetMetaData(f"Segment{number}_{key}", str(text))
    sitk.WriteImage(image, str(path), useCompression=True)


@pytest.mark.parametrize("values", [(1, 2), (2, 1)])
def test_duke_breast_reads_label_values_from_the_headers(tmp_path, values):
    base = tmp_path / "raw" / "mri_breast"
    study = base / "Duke-Breast-Cancer-MRI" / "Breast_MRI_002" / "01-01-1990-NA-MRI-09"
    dicom(study / "3.000000-ax dyn pre-93877", noise().T)
    dicom(study / "5.000000-ax dyn 1st pass-11111", noise().T)
    masks = base / "PKG - Duke-Breast-Cancer-MRI-Supplement-v3" / "Segmentation_Masks_NRRD" / "Breast_MRI_002"
    breast = (blocks(1, 1, 1) > 0).T.astype(np.uint8)
    vessel, dense = values
    inner = blocks(0, dense, vessel).T.astype(np.uint8)
    seg_nrrd(masks / "Segmentation_Breast_MRI_002_Breast.seg.nrrd", breast, [("Breast", 1)])
    seg_nrrd(
        masks / "Segmentation_Breast_MRI_002_Dense_and_Vessels.seg.nrrd",
        inner,
        [("Vessels", vessel), ("Dense", dense)],
    )
    cases = prepared("mri_breast", tmp_path)
    assert counts(cases["Breast_MRI_002"]) == {
        "breast": 3 * ONE_BLOCK,
        "fibroglandular_tissue": ONE_BLOCK,
    }


def test_autopet_in_both_forms(tmp_path):
    base = tmp_path / "raw" / "pet_wholebody"
    study = base / "FDG-PET-CT-Lesions" / "PETCT_0011f3deaf" / "03-23-2003-NA-PET-CT Ganzkoerper-10445"
    for name in ("SUV", "CTres", "PET"):
        nifti(study / f"{name}.nii.gz", noise(kind=np.float32))
    nifti(study / "CT.nii.gz", noise((40, 36, 8)))
    nifti(study / "SEG.nii.gz", blocks(1))
    healthy = base / "FDG-PET-CT-Lesions" / "PETCT_healthy" / "01-01-2001-NA"
    nifti(healthy / "SUV.nii.gz", noise(kind=np.float32))
    nifti(healthy / "SEG.nii.gz", blocks())
    nifti(base / "nnunet" / "imagesTr" / "fdg_1_2_0000.nii.gz", noise())
    nifti(base / "nnunet" / "imagesTr" / "fdg_1_2_0001.nii.gz", noise(kind=np.float32))
    nifti(base / "nnunet" / "labelsTr" / "fdg_1_2.nii.gz", blocks(1))
    cases = prepared("pet_wholebody", tmp_path)
    assert {key: counts(case) for key, case in cases.items()} == {
        "PETCT_0011f3deaf_03-23-2003-NA-PET-CT_Ganzkoerper-10445": {"lesion": ONE_BLOCK},
        "fdg_1_2": {"lesion": ONE_BLOCK},
    }
    assert {case.patient_id for case in cases.values()} == {"PETCT_0011f3deaf", "fdg_1"}


GREY = noise((30, 40), np.uint8)
SPOT = np.zeros((30, 40), np.uint8)
SPOT[5:15, 8:20] = 255
SPOT_PIXELS = 120


def test_kaggle_chest_in_both_naming_styles(tmp_path):
    base = tmp_path / "raw" / "xray_chest" / "Lung Segmentation"
    for name in ("CHNCXR_0001_0", "MCUCXR_0001_0", "CHNCXR_0002_0"):
        picture(base / "CXR_png" / f"{name}.png", np.stack([GREY] * 3, axis=2))
    picture(base / "masks" / "CHNCXR_0001_0_mask.png", SPOT)
    picture(base / "masks" / "MCUCXR_0001_0.png", SPOT)
    cases = prepared("xray_chest", tmp_path)
    assert {key: counts(case) for key, case in cases.items()} == dict.fromkeys(
        ("CHNCXR_0001_0", "MCUCXR_0001_0"), {"lungs": SPOT_PIXELS}
    )


def test_montgomery_unites_left_and_right(tmp_path):
    base = tmp_path / "raw" / "xray_chest_montgomery" / "MontgomerySet"
    picture(base / "CXR_png" / "MCUCXR_0001_0.png", GREY)
    for side, mask in (("leftMask", SPOT), ("rightMask", SPOT[:, ::-1].copy())):
        Path(base / "ManualMask" / side).mkdir(parents=True)
        Image.fromarray(mask > 0).save(base / "ManualMask" / side / "MCUCXR_0001_0.png")  # 1 bit
    (case,) = prepared("xray_chest_montgomery", tmp_path).values()
    assert counts(case) == {"lungs": 2 * SPOT_PIXELS}


def test_hip_xray(tmp_path):
    base = tmp_path / "raw" / "xray_hip"
    nifti(base / "images" / "1.nii.gz", noise((30, 40, 1)))
    nifti(base / "labels" / "1.nii.gz", blocks(1, 2, shape=(30, 40, 1)))
    (case,) = prepared("xray_hip", tmp_path).values()
    assert counts(case) == {"ilium": 21, "femur": 21}


def test_busi_unites_several_masks(tmp_path):
    base = tmp_path / "raw" / "us_breast" / "Dataset_BUSI_with_GT"
    for kind in ("benign", "malignant", "normal"):
        picture(base / kind / f"{kind} (1).png", np.stack([GREY] * 3, axis=2))
        mask = SPOT if kind != "normal" else SPOT * 0
        picture(base / kind / f"{kind} (1)_mask.png", mask)
    picture(base / "benign" / "benign (1)_mask_1.png", SPOT[:, ::-1].copy())
    picture(base / "benign" / "benign (10).png", GREY)
    opaque = np.full_like(SPOT, 255)
    picture(base / "benign" / "benign (10)_mask.png", np.stack([SPOT, SPOT, SPOT, opaque], axis=2))
    cases = prepared("us_breast", tmp_path)
    assert {key: counts(case)["tumour"] for key, case in cases.items()} == {
        "benign_1": 2 * SPOT_PIXELS,
        "benign_10": SPOT_PIXELS,
        "malignant_1": SPOT_PIXELS,
    }


def test_ct2us(tmp_path):
    base = tmp_path / "raw" / "us_kidney"
    picture(base / "slice" / "slice" / "1.png", GREY)
    picture(base / "mask" / "mask" / "1.png", np.where(SPOT > 0, 130, 120).astype(np.uint8))
    (case,) = prepared("us_kidney", tmp_path).values()
    assert counts(case) == {"kidney": SPOT_PIXELS}


def test_marzola(tmp_path):
    base = tmp_path / "raw" / "us_muscle" / "Polito-Radboud-DeepLearningUS"
    for muscle, state in (("BB", "Healthy"), ("TA", "Pathological")):
        picture(base / muscle / state / "Images" / "001.png", GREY)
        picture(base / muscle / state / "Masks" / "001.png", SPOT)
    cases = prepared("us_muscle", tmp_path)
    assert {key: counts(case) for key, case in cases.items()} == dict.fromkeys(
        ("BB_Healthy_001", "TA_Pathological_001"), {"muscle": SPOT_PIXELS}
    )


def test_mmotu_in_both_layouts(tmp_path):
    coloured = np.zeros((30, 40, 3), np.uint8)
    coloured[..., 1] = SPOT // 2
    base = tmp_path / "raw" / "us_ovarian_tumor"
    for images, masks in (
        ("OTU_2d/images", "OTU_2d/annotations"),
        ("dataset/OTU_2D/train/train_image", "dataset/OTU_2D/train/train_label/label"),
        ("dataset/OTU_2D/test/image", "dataset/OTU_2D/test/label/black_write"),
    ):
        picture(base / images / "7.JPG", np.stack([GREY] * 3, axis=2))
        picture(base / masks / "7.PNG", coloured)
    picture(base / "OTU_2d" / "annotations" / "7_binary.PNG", SPOT)
    cases = prepared("us_ovarian_tumor", tmp_path)
    assert {key: counts(case) for key, case in cases.items()} == dict.fromkeys(
        ("7", "train_7", "test_7"), {"tumour": SPOT_PIXELS}
    )


def test_us_nerve_leaves_out_pictures_without_nerve(tmp_path):
    base = tmp_path / "raw" / "us_nerve" / "train"
    for name, mask in (("1_1", SPOT), ("1_2", SPOT * 0)):
        picture(base / f"{name}.tif", GREY)
        picture(base / f"{name}_mask.tif", mask)
    cases = prepared("us_nerve", tmp_path)
    assert {key: counts(case) for key, case in cases.items()} == {"1_1": {"nerve": SPOT_PIXELS}}
    assert cases["1_1"].patient_id == "1"
    assert np.array_equal(cases["1_1"].slices_uint8()[0], GREY)  # as stored
    table = pd.read_parquet(tmp_path / "prepared" / "us_nerve" / "cases.parquet")
    assert table.set_index("case_id").status.to_dict() == {"1_1": "ok", "1_2": "no_object"}
    assert table.spacing_mm.tolist() == ["", ""]  # a picture has no millimetres


def test_rows_called_tested_are_tested_here():
    here = Path(__file__).read_text(encoding="utf-8")
    for name, row in MANIFEST.data_sets.items():
        if row.tested and not name.startswith(("sample_", "example_")):  # those: test_samples
            assert f'"{name}"' in here, name
    assert not MANIFEST.data_set("mri_prostate").ready, "its layout has not been seen in an original download"
