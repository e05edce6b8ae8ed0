"""Small downloads of the study's 18 data sets, with the names, folders, formats and labels of the real ones.

Each function writes two cases into a folder, as the real archive unpacks. The sources of what is known of the
layouts stand in `data_manifest.yaml` and in the readers, `data/layouts`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from medsam_nb.workbook.rehearsal.files import (
    PICTURE,
    grey,
    image_of,
    label_volume,
    nifti,
    picture,
    plain_nifti,
    rgb,
    segmentation,
    series,
    spot,
)

CASES = 2  # of each data set: comparisons pair cases of different patients


def _decathlon(task: str, stems: tuple[str, str], labels: dict[str, str]) -> Callable[[Path], None]:
    """Return what writes a task of the Medical Segmentation Decathlon, "._" files of its archives too."""

    def write(folder: Path) -> None:
        base, pairs = folder / task, []
        values = [int(value) for value in labels if value != "0"]
        for number, stem in enumerate(stems):
            mask = label_volume(*values)
            nifti(base / "imagesTr" / f"{stem}.nii.gz", image_of(mask, number, np.float32))
            nifti(base / "labelsTr" / f"{stem}.nii.gz", mask)
            for place in ("imagesTr", "labelsTr"):
                (base / place / f"._{stem}.nii.gz").write_bytes(b"\0\5\26\7AppleDouble")
            pairs.append({"image": f"./imagesTr/{stem}.nii.gz", "label": f"./labelsTr/{stem}.nii.gz"})
        nifti(base / "imagesTs" / "test_9.nii.gz", image_of(label_volume(), 9))
        described = {"name": task, "labels": labels, "numTraining": CASES, "training": pairs, "test": []}
        (base / "dataset.json").write_text(json.dumps(described), encoding="utf-8")

    return write


def _spine(folder: Path) -> None:
    for number in range(CASES):
        mask = label_volume(1, 2)
        stem = f"site{number + 1}-sc01"
        nifti(folder / f"{stem}-image.nii.gz", image_of(mask, number))
        for rater in (1, 2, 3, 4):
            nifti(folder / f"{stem}-mask-r{rater}.nii.gz", mask if rater < 4 else mask * 0)
        (folder / f"{stem}-levels.txt").write_text("1,C2\n", encoding="utf-8")
    nifti(folder / "site1-sc11-image.nii.gz", image_of(label_volume(), 9))  # a test case without masks


def _prostate(folder: Path) -> None:
    for number in range(CASES):
        mask, patient = label_volume(1), folder / "GE" / f"Patient_{number + 1}"
        series(patient / "T2W", image_of(mask, number))
        series(patient / "GT" / "prostate", mask * 255)


def _brain(folder: Path) -> None:
    for number in range(CASES):
        case, mask = f"BraTS2021_{number:05d}", label_volume(1, 2, 4)
        for sequence in ("flair", "t1", "t1ce", "t2"):
            nifti(folder / case / f"{case}_{sequence}.nii.gz", image_of(mask, number), (1, 1, 1))
        nifti(folder / case / f"{case}_seg.nii.gz", mask, (1, 1, 1))


def _breast_mri(folder: Path) -> None:
    for number in range(CASES):
        case, inner = f"Breast_MRI_{number + 1:03d}", label_volume(1, 2)
        study = folder / "Duke-Breast-Cancer-MRI" / case / "01-01-1990-NA-MRI-09"
        series(study / "3.000000-ax dyn pre-93877", image_of(inner, number))
        series(study / "5.000000-ax dyn 1st pass-11111", image_of(inner, number + 5))
        place = folder / "PKG - Duke-Breast-Cancer-MRI-Supplement-v3" / "Segmentation_Masks_NRRD" / case
        whole = (inner > 0).astype(np.uint8)
        segmentation(place / f"Segmentation_{case}_Breast.seg.nrrd", whole, [("Breast", 1)])
        vessels, dense = (1, 2) if number else (2, 1)  # the values differ from file to file
        named = [("Vessels", vessels), ("Dense", dense)]
        segmentation(place / f"Segmentation_{case}_Dense_and_Vessels.seg.nrrd", inner, named)


def _liver(folder: Path) -> None:
    for batch, number in (("Training Batch 1", 0), ("Training Batch 2", 28)):
        mask = label_volume(1, 2)
        plain_nifti(folder / batch / f"volume-{number}.nii", image_of(mask, number))
        plain_nifti(folder / batch / f"segmentation-{number}.nii", mask)


def _organs(folder: Path) -> None:
    for number in range(CASES):
        mask = label_volume(1, 2, 3, 4, 5, 6)
        nifti(folder / f"volume-{number}.nii.gz", image_of(mask, number))
        nifti(folder / f"labels-{number}.nii.gz", mask)


def _pet(folder: Path) -> None:
    for number, labels in enumerate((label_volume(1), label_volume(1), label_volume())):
        mask = labels
        study = folder / "FDG-PET-CT-Lesions" / f"PETCT_{number:010x}" / "03-23-2003-NA-PET-CT Ganzkoerper-1"
        for name in ("SUV", "CTres", "PET"):
            nifti(study / f"{name}.nii.gz", image_of(mask, number, np.float32) / 20)
        nifti(study / "SEG.nii.gz", mask)  # the last is a patient without a lesion


def _chest(folder: Path) -> None:
    base = folder / "Lung Segmentation"
    for number, (name, ending) in enumerate((("CHNCXR_0001_0", "_mask"), ("MCUCXR_0001_0", ""))):
        picture(base / "CXR_png" / f"{name}.png", rgb(grey(spot(number), number)))
        picture(base / "masks" / f"{name}{ending}.png", spot(number))
    picture(base / "CXR_png" / "CHNCXR_0002_0.png", rgb(grey(spot(2), 2)))  # one of 96 without a mask


def _hip(folder: Path) -> None:
    for number in range(CASES):
        mask = np.zeros((1, *PICTURE), np.uint8)
        mask[0, 10:30, 10:30], mask[0, 34:52, 40:60] = 1, 2
        nifti(folder / "images" / f"{number + 1}.nii.gz", image_of(mask, number), (1, 1, 1))
        nifti(folder / "labels" / f"{number + 1}.nii.gz", mask, (1, 1, 1))


def _breast_ultrasound(folder: Path) -> None:
    base = folder / "Dataset_BUSI_with_GT"
    for number, kind in enumerate(("benign", "malignant", "normal")):
        mask = spot(number) if kind != "normal" else spot(0) * 0
        picture(base / kind / f"{kind} (1).png", rgb(grey(mask, number)))
        picture(base / kind / f"{kind} (1)_mask.png", mask)
    picture(base / "benign" / "benign (1)_mask_1.png", spot(0)[:, ::-1].copy())


def _kidney(folder: Path) -> None:
    for number in range(CASES):
        picture(folder / "slice" / "slice" / f"{number + 1}.png", grey(spot(number), number))
        soft = np.where(spot(number) > 0, 130, 120).astype(np.uint8)
        picture(folder / "mask" / "mask" / f"{number + 1}.png", soft)


def _muscle(folder: Path) -> None:
    base = folder / "Polito-Radboud-DeepLearningUS"
    for number, (muscle, state) in enumerate((("BB", "Healthy"), ("TA", "Pathological"))):
        picture(base / muscle / state / "Images" / "001.png", grey(spot(number), number))
        picture(base / muscle / state / "Masks" / "001.png", spot(number))


def _ovary(folder: Path) -> None:
    places = (("train/train_image", "train/train_label/label"), ("test/image", "test/label/black_write"))
    for number, (images, masks) in enumerate(places):
        base, coloured = folder / "dataset" / "OTU_2D", np.zeros((*PICTURE, 3), np.uint8)
        coloured[..., 1] = spot(number) // 2
        picture(base / images / "7.JPG", rgb(grey(spot(number), number)))
        picture(base / masks / "7.PNG", coloured)


DOWNLOADS: dict[str, Callable[[Path], None]] = {
    "mri_spine": _spine,
    "mri_heart": _decathlon("Task02_Heart", ("la_003", "la_004"), {"0": "background", "1": "left atrium"}),
    "mri_prostate": _prostate,
    "mri_brain": _brain,
    "mri_breast": _breast_mri,
    "ct_liver": _liver,
    "ct_organ": _organs,
    "ct_spleen": _decathlon("Task09_Spleen", ("spleen_2", "spleen_10"), {"0": "background", "1": "spleen"}),
    "ct_colon": _decathlon(
        "Task10_Colon", ("colon_001", "colon_005"), {"0": "background", "1": "colon cancer primaries"}
    ),
    "ct_pancreas": _decathlon(
        "Task07_Pancreas",
        ("pancreas_001", "pancreas_004"),
        {"0": "background", "1": "pancreas", "2": "cancer"},
    ),
    "ct_hepatic_vessel": _decathlon(
        "Task08_HepaticVessel",
        ("hepaticvessel_001", "hepaticvessel_002"),
        {"0": "background", "1": "Vessel", "2": "Tumour"},
    ),
    "pet_wholebody": _pet,
    "xray_chest": _chest,
    "xray_hip": _hip,
    "us_breast": _breast_ultrasound,
    "us_kidney": _kidney,
    "us_muscle": _muscle,
    "us_ovarian_tumor": _ovary,
}
