"""`medsam-nb describe`: the row that it writes is read as it stands and prepares what is there."""

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import dicom
from helpers.projects import started
from PIL import Image

from medsam_nb.data.fetch import MIRROR_VARIABLE
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import InputError
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.workbook.describing import describe_folder
from medsam_nb.workbook.describing.pairing import find_pairing

SAMPLES = Path(os.environ.get(MIRROR_VARIABLE) or Path(__file__).parents[2] / ".." / "shared" / "data")
SHAPE = (12, 24, 30)
CT = np.random.default_rng(0).integers(-1000, 900, SHAPE).astype(np.int16)
GREY = np.random.default_rng(1).integers(20, 200, SHAPE[1:]).astype(np.uint8)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[2:7, 4:10, 6:14], LABELS[5:9, 13:20, 6:14] = 1, 3
SPOT = np.zeros(SHAPE[1:], np.uint8)
SPOT[5:15, 8:20] = 255


def volume(path, array=CT, spacing=(0.8, 0.8, 3.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.T, np.diag([*spacing, 1.0])), path)


def picture(path, array=GREY):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def described(folder):
    """Describe a folder and prepare what the row says; return both, and the row."""
    found = describe_folder(folder)
    manifest = folder.parent / "found.yaml"
    manifest.write_text(found.text, encoding="utf-8")
    row = load_manifest(manifest).data_set(found.name)
    table = prepare(row, folder.parent, folder.parent / "prepared", progress=False)
    return found, row, table.set_index("case_id")


def only_ok(table):
    assert set(table.status) == {"ok"}, list(table.error)
    return set(table.index)


def images_and_labels(folder):
    for case in ("p_1", "p_2"):
        volume(folder / "images" / f"{case}.nii.gz")
        volume(folder / "labels" / f"{case}.nii.gz", LABELS)
    return {"p_1", "p_2"}


def one_folder(folder):
    for case in ("a", "b_seg"):
        volume(folder / f"{case}_ct.nii.gz")
        volume(folder / f"{case}_seg.nii.gz", LABELS)
    return {"a", "b_seg"}


def folder_per_case(folder):
    for case in ("Müller", "von der Tann", "x.3"):
        volume(folder / "train" / case / "scan.nii.gz")
        volume(folder / "train" / case / "truth.nii.gz", LABELS)
    return {"Müller", "von_der_Tann", "x.3"}


def bids_with_sessions(folder):
    for subject, session in (("01", "pre"), ("01", "post"), ("02", "pre")):
        name = f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}"
        volume(folder / f"{name}_T1w.nii.gz", np.abs(CT))
        volume(folder / "derivatives" / "manual" / f"{name}_dseg.nii.gz", LABELS)
    return {"sub-01_ses-pre", "sub-01_ses-post", "sub-02_ses-pre"}


def a_file_per_object(folder):
    for case in ("s01", "s02", "s03"):
        volume(folder / case / "ct.nii.gz")
        for value, name in ((1, "liver"), (3, "lung_left")):
            volume(folder / case / "segmentations" / f"{name}.nii.gz", (value == LABELS).astype(np.uint8))
    return {"s01", "s02", "s03"}


def neither_name_says_it(folder):
    for case in ("1", "2", "3"):
        volume(folder / "A" / f"{case}.nii.gz")
        volume(folder / "B" / f"{case}.nii.gz", LABELS)
    return {"1", "2", "3"}


def word_in_a_folder_of_both(folder):
    for case in ("liver_seg_1", "liver_seg_2"):
        volume(folder / case / "image.nii.gz")
        volume(folder / case / "mask.nii.gz", LABELS)
    return {"liver_seg_1", "liver_seg_2"}


def a_single_case(folder):
    volume(folder / "image.nii.gz")
    volume(folder / "mask.nii.gz", LABELS)
    return {"data"}


def pictures(folder):
    for number in range(3):
        picture(folder / "train" / "images" / f"{number}.png")
        picture(folder / "train" / "masks" / f"{number}.png", SPOT)
    return {"0", "1", "2"}


def classes_with_parts(folder):
    for kind in ("benign", "malignant"):
        for number in (1, 2, 3):
            picture(folder / kind / f"{kind} ({number}).png")
            picture(folder / kind / f"{kind} ({number})_mask.png", SPOT)
    picture(folder / "benign" / "benign (1)_mask_1.png", SPOT[:, ::-1].copy())
    return {f"{kind}_{number}" for kind in ("benign", "malignant") for number in (1, 2, 3)}


def series_with_segmentation(folder):
    for case in ("c1", "c2"):
        dicom.write_series(
            folder / case / "ct", (CT + 1000).astype(np.uint16), spacing=(1, 1), series=f"1.2.{case[1]}"
        )
        dicom.write_series(folder / case / "seg", LABELS, spacing=(1, 1), series=f"1.3.{case[1]}")
    return {"c1", "c2"}


def nnunet(folder):
    for case in ("b_1", "b_2"):
        for channel in (0, 1):
            volume(folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
        volume(folder / "labelsTr" / f"{case}.nii.gz", LABELS)
    content = {
        "channel_names": {"0": "T1", "1": "FLAIR"}, "file_ending": ".nii.gz", "numTraining": 2,
        "labels": {"background": 0, "whole tumour": [1, 3], "core": 3},
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return {"b_1", "b_2"}


def decathlon(folder):
    pairs = []
    for case in ("spleen_2", "spleen_10"):
        volume(folder / "imagesTr" / f"{case}.nii.gz")
        volume(folder / "labelsTr" / f"{case}.nii.gz", LABELS)
        pairs.append({"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"})
    content = {
        "modality": {"0": "CT"}, "labels": {"0": "background", "1": "spleen", "3": "cyst"}, "training": pairs
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return {"spleen_2", "spleen_10"}


def npz(folder):
    folder.mkdir(parents=True)
    for case in ("CT_1", "CT_2"):
        arrays = {"imgs": np.abs(CT // 8).astype(np.uint8), "gts": LABELS, "spacing": np.array([0.8, 0.8, 3])}
        np.savez(folder / f"{case}.npz", **arrays)
    return {"CT_1", "CT_2"}


@pytest.mark.parametrize(
    ("build", "layout", "dimension", "objects"),
    [
        (images_and_labels, "nifti_pairs", 3, {"label_1": [1], "label_3": [3]}),
        (one_folder, "nifti_pairs", 3, {"label_1": [1], "label_3": [3]}),
        (folder_per_case, "nifti_pairs", 3, {"label_1": [1], "label_3": [3]}),
        (bids_with_sessions, "nifti_pairs", 3, {"label_1": [1], "label_3": [3]}),
        (a_file_per_object, "nifti_pairs", 3, {"liver": [1], "lung_left": [2]}),
        (neither_name_says_it, "nifti_pairs", 3, {"label_1": [1], "label_3": [3]}),
        (word_in_a_folder_of_both, "nifti_pairs", 3, {"label_1": [1], "label_3": [3]}),
        (a_single_case, "listed", 3, {"label_1": [1], "label_3": [3]}),
        (pictures, "picture_pairs", 2, {"object": [255]}),
        (classes_with_parts, "picture_pairs", 2, {"object": [255]}),
        (series_with_segmentation, "nifti_pairs", 3, {"label_1": [1], "label_3": [3]}),
        (nnunet, "nnunet", 3, {"whole_tumour": [1, 3], "core": [3]}),
        (decathlon, "msd", 3, {"spleen": [1], "cyst": [3]}),
        (npz, "npz", 3, {"label_1": [1], "label_3": [3]}),
    ],
)  # fmt: skip
def test_the_row_prepares_at_once(tmp_path, build, layout, dimension, objects):
    cases = build(tmp_path / "data")
    found, row, table = described(tmp_path / "data")
    assert (row.layout.name, row.dimension, row.objects) == (layout, dimension, objects)
    assert found.cases == len(cases) == len(only_ok(table))
    if build is not classes_with_parts:  # whose classes are part of the names
        assert set(table.index) == cases
    for folder in case_folders(tmp_path / "prepared", found.name):
        assert set(load_case(folder).objects) == set(objects)


def test_what_was_seen_and_what_is_asked(tmp_path):
    images_and_labels(tmp_path / "data")
    volume(tmp_path / "data" / "images" / "p_3.nii.gz")
    found, row, _ = described(tmp_path / "data")
    voxels = int((LABELS == 1).sum())
    assert f"label_1: [1]  # {2 * voxels:,} voxels in 2 of 2 masks" in found.text
    assert row.modality == "CT" and "guessed from the values (-1000 to 899" in found.text
    assert row.intensity.policy == "window" and "slices are axial" in found.text
    assert "1 files belong to no case: images/p_3.nii.gz" in found.text
    assert any("what are the objects called (label_1, label_3)" in one for one in found.questions)
    assert all(f"# QUESTION: {question}" in found.text for question in found.questions)


def test_patients_and_classes_are_a_question(tmp_path):
    bids_with_sessions(tmp_path / "bids")
    found, row, table = described(tmp_path / "bids")
    assert row.modality == "MRI"
    assert table.patient_id.to_dict() == {
        "sub-01_ses-pre": "sub-01", "sub-01_ses-post": "sub-01", "sub-02_ses-pre": "sub-02"
    }  # fmt: skip
    assert any("is each of the 2 names that `{patient}` stands for a patient's" in q for q in found.questions)


def test_several_sequences_and_channels_are_a_question(tmp_path):
    for case in ("B_1", "B_2"):
        for name, array in (("flair", CT), ("t1", CT), ("seg", LABELS)):
            volume(tmp_path / "brain" / case / f"{case}_{name}.nii.gz", array)
    found, row, table = described(tmp_path / "brain")
    assert only_ok(table) == {"B_1", "B_2"} and row.layout.images == "{case}/{case}_t1.nii.gz"
    assert any("these images fit as well: {case}/{case}_flair.nii.gz" in one for one in found.questions)
    nnunet(tmp_path / "nn")
    assert any(
        "which channel is shown to the model: 0 T1, 1 FLAIR" in q
        for q in describe_folder(tmp_path / "nn").questions
    )


def test_colours_soft_masks_several_volumes_and_one_slice(tmp_path):
    coloured = np.zeros((*SPOT.shape, 3), np.uint8)
    coloured[3:9, 4:9], coloured[12:20, 4:9] = (255, 0, 0), (0, 128, 0)
    for number in (1, 2):
        picture(tmp_path / "eyes" / "images" / f"{number}.png")
        picture(tmp_path / "eyes" / "masks" / f"{number}.png", coloured)
        volume(tmp_path / "soft" / f"{number}_image.nii.gz")
        volume(tmp_path / "soft" / f"{number}_mask.nii.gz", (LABELS > 0) * np.float32(0.9))
        volume(tmp_path / "film" / f"{number}_image.nii.gz", np.stack([CT, CT + np.int16(5)]))
        volume(tmp_path / "film" / f"{number}_mask.nii.gz", LABELS)
        volume(tmp_path / "flat" / f"{number}_image.nii.gz", CT[3:4])
        volume(tmp_path / "flat" / f"{number}_mask.nii.gz", LABELS[3:4])
    _, row, table = described(tmp_path / "eyes")
    assert row.mask_colours == {"#008000": 1, "#ff0000": 2} and only_ok(table)
    found, row, table = described(tmp_path / "soft")
    assert row.mask_threshold == 0.5 and only_ok(table)
    assert any("masks are soft or grey (0 to 0.9)" in one for one in found.questions)
    found, row, table = described(tmp_path / "film")
    assert row.layout.frame == 0 and only_ok(table) and any("hold 2 volumes" in q for q in found.questions)
    _, row, table = described(tmp_path / "flat")
    assert row.dimension == 2 and only_ok(table)


def test_two_planes_are_a_question(tmp_path):
    for name, spacing in (("a", (1, 1, 5.0)), ("b", (1, 1, 5.0)), ("c", (1, 5.0, 1))):
        volume(tmp_path / "data" / "images" / f"{name}.nii.gz", CT, spacing)
        volume(tmp_path / "data" / "labels" / f"{name}.nii.gz", LABELS, spacing)
    found, row, table = described(tmp_path / "data")
    assert row.slice_axis == "axial" and only_ok(table)
    assert any("2 axial, 1 coronal" in one for one in found.questions)


def test_a_case_that_cannot_be_prepared_is_told(tmp_path):
    images_and_labels(tmp_path / "data")
    volume(tmp_path / "data" / "labels" / "p_1.nii.gz", LABELS[:9])
    found = describe_folder(tmp_path / "data")
    assert any("p_1 cannot be prepared" in one and "has shape (12, 24, 30)" in one for one in found.questions)


@pytest.mark.parametrize("name", ["a: b", "x #1", "'q\" {}", "- yes", "CON", "Ünï 肝", "null", "1e3", "%TAG"])
def test_names_that_mean_something_to_yaml(tmp_path, name):
    for case in (f"{name}1", f"{name}2"):
        volume(tmp_path / name / "images" / f"{case}.nii.gz")
        volume(tmp_path / name / "labels" / f"{case}.nii.gz", LABELS)
    found, row, table = described(tmp_path / name)
    assert len(only_ok(table)) == found.cases == 2 and row.raw_folder == name


def test_a_hostile_folder_is_no_trap(tmp_path):
    """Damaged files, links in circles, pipes, names that no text holds: the good cases are described."""
    folder = tmp_path / "data"
    images_and_labels(folder)
    (folder / "loop").symlink_to(folder)
    (folder / "images" / "gone.nii.gz").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "images" / "pipe.nii.gz")
    (folder / "images" / "broken.nii.gz").write_bytes(b"no image")
    (folder / "labels" / "broken.nii.gz").write_bytes(b"")
    (folder / "dataset.json").write_text("[1, 2", encoding="utf-8")
    (folder / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"rubbish" * 9)
    (folder / "x{case}.nii.gz").write_bytes(b"")
    (folder / ".hidden.nii.gz").write_bytes(b"")
    (folder / "new\nline.nii.gz").write_bytes(b"")
    (folder / "bell\x1b[31m.png").write_bytes(b"")
    with open(os.fsencode(folder) + b"/\xff\xfe.nii", "wb"):
        pass
    found, _, table = described(folder)
    assert {"p_1", "p_2"} <= set(table.index[table.status == "ok"])
    assert "\x1b" not in found.text and "names are no text and were left out" in found.text
    assert any("broken cannot be prepared" in one for one in found.questions)


@pytest.mark.parametrize("content", ["nothing", "file", "images only", "arrays of another kind", "missing"])
def test_what_holds_no_data_set_is_refused_by_name(tmp_path, content):
    folder = tmp_path / "data"
    if content == "file":
        folder.write_text("x", encoding="utf-8")
    elif content != "missing":
        folder.mkdir()
    if content == "images only":
        volume(folder / "a.nii.gz")
    if content == "arrays of another kind":
        np.savez(folder / "a.npz", first=CT, second=CT)
    words = {
        "nothing": "no image with a mask was found (0 images, 0 masks", "file": "is no folder",
        "images only": "no image with a mask was found (1 images, 0 masks", "missing": "is no folder",
        "arrays of another kind": "is not told by their names (first, second)",
    }  # fmt: skip
    with pytest.raises(InputError) as caught:
        describe_folder(folder)
    assert words[content] in str(caught.value)


def test_thousands_of_names_take_seconds():
    images = [f"site{n % 7}/sub-{n:04d}/sub-{n:04d}_ct.nii.gz" for n in range(4000)]
    masks = [image.replace("_ct", "_seg") for image in images]
    pairing = find_pairing(images, masks)
    assert pairing.cases == 4000 and pairing.left == ()


def test_the_command_prints_writes_and_refuses(tmp_path):
    images_and_labels(tmp_path / "data")

    def run(*words):
        process = started("describe", *words, folder=tmp_path, errors="replace")
        return process.communicate(timeout=120)[0], process.returncode

    printed, code = run(tmp_path / "data")
    assert code == 0 and printed == describe_folder(tmp_path / "data").text
    said, code = run(tmp_path / "data", "--out", "row.yaml")
    assert code == 0 and "row.yaml: 2 cases in the row data, 1 questions left open" in said
    assert (tmp_path / "row.yaml").read_text(encoding="utf-8") == printed
    said, code = run(tmp_path / "data", "--out", "row.yaml")
    assert code == 2 and "is there already" in said
    shutil.rmtree(tmp_path / "data")
    said, code = run(tmp_path / "data")
    assert code == 2 and "is no folder" in said and "Traceback" not in said


def test_masks_named_after_their_image_and_object(tmp_path):
    """No pattern fits: every case has objects of its own, some in several files."""
    for case, names in (("s1", ("liver_000", "rib_left_000", "rib_left_001")), ("s_2", ("liver_000",))):
        picture(tmp_path / "data" / "images" / f"{case}.png")
        for name in names:
            picture(tmp_path / "data" / "masks" / f"{case}_{name}.png", SPOT)
    _, row, table = described(tmp_path / "data")
    assert row.layout.name == "listed" and row.objects == {"liver": [1], "rib_left": [2]}
    assert only_ok(table) == {"s1", "s_2"}
    assert len(row.layout.cases[0].masks["rib_left"]) == 2


@pytest.mark.skipif(
    not (SAMPLES / "INDEX.csv").is_file(), reason=f"no samples at ../shared/data or {MIRROR_VARIABLE}"
)
@pytest.mark.parametrize(
    ("name", "cases", "modality"),
    [
        ("dcmqi_ct", 4, "CT"), ("elastix", 1, None), ("hepatic_vessel_jpg", 1, None), ("monai", 2, None),
        ("msd_spleen", 1, "CT"), ("muscle_apo", 1, None), ("nerve_us", 3, "ultrasound"),
        ("pyradiomics", 3, None), ("sammed2d", 4, None), ("sts_ct", 1, "CT"), ("sts_mr_t1", 1, "MRI"),
        ("sts_pet", 1, "PET"), ("sunnybrook2d", 2, None), ("tptbox", 4, None),
    ],
)  # fmt: skip
def test_real_folders_prepare_at_once(tmp_path, name, cases, modality):
    (tmp_path / name).symlink_to(SAMPLES.resolve() / name)
    found = describe_folder(tmp_path / name)
    (tmp_path / "found.yaml").write_text(found.text, encoding="utf-8")
    row = load_manifest(tmp_path / "found.yaml").data_set(found.name)
    table = prepare(row, tmp_path, tmp_path / "prepared", progress=False)
    assert list(table.status) == ["ok"] * cases and row.modality == (modality or "not stated")
