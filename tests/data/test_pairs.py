"""Own data by patterns: what fits is a case, what does not is named, and nothing else has a meaning."""

import unicodedata

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medsam_nb.data import quality
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet

IMAGE = np.random.default_rng(0).integers(-900, 900, (6, 20, 24)).astype(np.int16)
LABELS = np.zeros(IMAGE.shape, np.uint8)
LABELS[2:5, 4:10, 6:12] = 1


def row(layout="nifti_pairs", images=None, masks=None, **more):
    fields = {
        "name": "own", "title": "Own", "modality": "CT", "dimension": 3, "objects": {"organ": [1]},
        "intensity": {"policy": "percentile"}, "layout": {"name": layout, "images": images, "masks": masks},
    }  # fmt: skip
    return DataSet.model_validate(fields | more)


def write(root, *names):
    """Write an image, or a mask where the path says so, at every path below the data set's folder."""
    for name in names:
        save(root, name, is_mask=any(word in name for word in ("label", "seg", "liver", "spleen")))


def save(root, name, is_mask):
    path = root / "raw" / "own" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image((LABELS if is_mask else IMAGE).T, np.diag([-1, 1, 3, 1.0]))
    nib.save(image, path.with_name("written.nii.gz" if name.lower().endswith(".gz") else "written.nii"))
    path.with_name("written.nii.gz" if name.lower().endswith(".gz") else "written.nii").rename(path)


def prepared(root, made=None):
    return prepare(made or row(), root / "raw", root / "prepared", progress=False).set_index("case_id")


def test_endings_in_capitals_and_without_compression(tmp_path):
    for name in ("p1.nii.gz", "p2.NII.GZ", "p3.nii", "p4.NII"):
        write(tmp_path, f"images/{name}", f"labels/{name}")
    table = prepared(tmp_path)
    assert table.status.to_dict() == dict.fromkeys(("p1", "p2", "p3", "p4"), "ok")
    table = prepared(tmp_path, row(images="images/{case}.nii.gz", masks="labels/{case}.nii.gz"))
    assert list(table.index) == ["p1", "p2"]
    assert quality.plausibility(table.reset_index()) == [
        "own: 2 cases are one and the same (p1, p2): they count apart.",
        "own: 4 files fit no pattern: images/p3.nii, images/p4.NII, labels/p3.nii, labels/p4.NII.",
    ]


def test_image_and_mask_may_end_differently(tmp_path):
    write(tmp_path, "images/a.nii.gz", "labels/a.nii")
    assert prepared(tmp_path).status.to_dict() == {"a": "ok"}


def test_files_without_a_partner_are_cases_that_fail(tmp_path):
    write(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", "images/b.nii", "labels/c.nii.gz")
    table = prepared(tmp_path)
    assert table.status.to_dict() == {"a": "ok", "b": "failed", "c": "failed"}
    assert "labels/b.nii: there is no such file" in table.error["b"]
    assert "images/c.nii.gz: there is no such file" in table.error["c"]


def test_nothing_that_fits_names_what_is_there(tmp_path):
    write(tmp_path, "images/a.nii.gz", "labels/a.nii.gz")
    (tmp_path / "raw" / "own" / "images" / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, row(images="images/{case}_ct.nii.gz", masks="labels/{case}.mha"))
    assert "looked for images/{case}_ct.nii.gz and labels/{case}.mha; 2 files fit no pattern" in str(
        caught.value
    )
    assert "images/a.nii.gz, labels/a.nii.gz" in str(caught.value)


@pytest.mark.parametrize("folder", ["T1 [3T]", "a*b", "what?", "{x", "[!a]", "ä ö", "c#1 (2)", "100%"])
def test_everything_but_placeholders_is_literal(tmp_path, folder):
    write(tmp_path, f"{folder}/p.nii.gz", f"seg {folder}/p.nii.gz", "Tx T/q.nii.gz", "axxb/q.nii.gz")
    made = row(images=folder + "/{case}.nii.gz", masks=f"seg {folder}" + "/{case}.nii.gz")
    table = prepared(tmp_path, made)
    assert table.status.to_dict() == {"p": "ok"}


def test_accents_fit_however_a_system_spells_them(tmp_path):
    apart, joined = (unicodedata.normalize(form, "Müller") for form in ("NFD", "NFC"))
    assert apart != joined
    write(tmp_path, f"images/{apart}.nii.gz", f"labels/{joined}.nii.gz")
    assert prepared(tmp_path).status.to_dict() == {joined: "ok"}


def test_a_name_that_stands_twice_must_be_the_same_twice(tmp_path):
    write(
        tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", "sub-2/anat/sub-1_T1w.nii.gz", "seg/sub-1/sub-1_dseg.nii.gz"
    )
    made = row(images="{case}/anat/{case}_T1w.nii.gz", masks="seg/{case}/{case}_dseg.nii.gz")
    table = prepared(tmp_path, made)
    assert table.status.to_dict() == {"sub-1": "ok"}
    assert "1 files fit no pattern: sub-2/anat/sub-1_T1w.nii.gz" in table.data_set_notes["sub-1"]


@pytest.mark.parametrize(
    ("images", "masks"), [("{case}.nii.gz", "{case}_mask.nii.gz"), ("{case}_ct.nii.gz", "{case}_seg.nii.gz")]
)
def test_masks_beside_the_images_are_no_images(tmp_path, images, masks):
    for case in ("a", "b_mask_b", "c"):
        save(tmp_path, images.format(case=case), is_mask=False)
        save(tmp_path, masks.format(case=case), is_mask=True)
    table = prepared(tmp_path, row(images=images, masks=masks))
    assert table.status.to_dict() == dict.fromkeys(("a", "b_mask_b", "c"), "ok")


def test_two_files_for_one_case_are_a_question(tmp_path):
    write(tmp_path, "images/a.nii.gz", "images/a.nii", "labels/a.nii.gz", "images/b.nii", "labels/b.nii")
    table = prepared(tmp_path)
    assert table.status.to_dict() == {"a": "failed", "b": "ok"}
    assert "several files could be meant: images/a.nii.gz and images/a.nii." in table.error["a"]


def test_a_mask_file_for_each_object(tmp_path):
    """As TotalSegmentator writes them, with more objects than are wanted, and one that is missing."""
    wanted = {"s1": ("liver", "spleen", "aorta_seg"), "s2": ("liver",)}
    write(tmp_path, *(f"{case}/ct.nii.gz" for case in wanted))
    write(
        tmp_path, *(f"{case}/segmentations/{name}.nii.gz" for case, names in wanted.items() for name in names)
    )
    made = row(
        images="{case}/ct.nii.gz", masks="{case}/segmentations/{object}.nii.gz",
        objects={"spleen": [1], "liver": [2]},
    )  # fmt: skip
    table = prepared(tmp_path, made)
    assert table.status.to_dict() == {"s1": "ok", "s2": "ok"}
    first, second = (load_case(folder) for folder in case_folders(tmp_path / "prepared", "own"))
    assert set(first.objects) == {"spleen", "liver"} and set(second.objects) == {"liver"}
    assert first.mask("spleen").sum() == first.mask("liver").sum() == LABELS.sum()  # they overlap
    assert "1 files fit no pattern: s1/segmentations/aorta_seg.nii.gz" in table.data_set_notes["s1"]


def test_parts_of_one_mask_are_united(tmp_path):
    place = tmp_path / "raw" / "own"
    place.mkdir(parents=True)
    for case, parts in (("x (1)", ("", "_1", "_2")), ("x (2)", ("",))):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)).save(
            place / f"{case}.png"
        )
        for number, part in enumerate(parts):
            mask = np.zeros((20, 30), np.uint8)
            mask[3:6, 5 * number : 5 * number + 4] = 255
            Image.fromarray(mask).save(place / f"{case}_mask{part}.png")
    made = row("picture_pairs", "{case}.png", "{case}_mask{part}.png", dimension=2, mask_threshold=128)
    table = prepared(tmp_path, made)
    assert table.status.to_dict() == {"x_1": "ok", "x_2": "ok"}
    sizes = [load_case(folder).mask("organ").sum() for folder in case_folders(tmp_path / "prepared", "own")]
    assert sizes == [36, 12]


def test_folders_with_a_series_are_images(tmp_path):
    from helpers import dicom

    for case in ("a", "b"):
        dicom.write_series(
            tmp_path / "raw" / "own" / case / "ct", (IMAGE + 1000).astype(np.uint16), spacing=(1, 1)
        )
        dicom.write_series(
            tmp_path / "raw" / "own" / case / "seg", LABELS, spacing=(1, 1), series="1.2.826.0.1.7"
        )
    table = prepared(tmp_path, row(images="{case}/ct", masks="{case}/seg"))
    assert table.status.to_dict() == {"a": "ok", "b": "ok"} and table.data_set_notes["a"] == ""


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (
            {"images": "{case}/{what}.nii"},
            "{what} is no placeholder; known: {case}, {patient}",
        ),
        ({"images": "{case}/{object}.nii"}, "only `{case}` may stand in it"),
        ({"images": "images/a.nii"}, "String should match pattern"),
        ({"masks": "../{case}.nii"}, "must be a path below the folder"),
        ({"masks": "{case}_{part}.nii", "objects": {"a": [1], "b": [2]}}, "use `{object}` too"),
    ],
)
def test_patterns_that_cannot_be_meant(patterns, words):
    objects = patterns.pop("objects", {"organ": [1]})
    with pytest.raises(ValueError) as caught:
        row(**patterns, objects=objects)
    assert words in str(caught.value)


@pytest.mark.parametrize("content", ["\ufeff", "utf-16", "cp1252", "nul"])
def test_text_from_windows_is_read_or_named(tmp_path, content):
    """The list of a decathlon task, as an editor may have saved it."""
    place = tmp_path / "raw" / "own"
    write(tmp_path, "imagesTr/ä_1.nii.gz", "labelsTr/ä_1.nii.gz")
    text = (
        '{"labels": {"0": "background", "1": "organ"}, '
        '"training": [{"image": "./imagesTr/ä_1.nii.gz", "label": "./labelsTr/ä_1.nii.gz"}]}'
    )
    data = {"utf-16": text.encode("utf-16"), "cp1252": text.encode("cp1252"), "nul": (text + "\0").encode()}
    (place / "dataset.json").write_bytes(data.get(content, ("\ufeff" + text).encode()))
    made = row()
    made = DataSet.model_validate(made.model_dump() | {"layout": {"name": "msd"}})
    if content == "\ufeff":
        assert prepared(tmp_path, made).status.to_dict() == {"ä_1": "ok"}
        return
    with pytest.raises(InputError, match=r"dataset\.json.*(UTF-16|no UTF-8|NUL).*Save it as UTF-8"):
        prepared(tmp_path, made)
