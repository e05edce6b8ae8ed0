"""Cases that can be read and are probably not what was meant: named in sentences for the top of a report."""

import json

import nibabel as nib
import numpy as np
import pandas as pd

from medsam_nb.data.doubts import KINDS, case_doubts
from medsam_nb.data.prepare import prepare, prepare_data_sets
from medsam_nb.data.prepared import case_table
from medsam_nb.data.quality import case_warnings, object_facts, plausibility
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.volume import Case, Volume

SHAPE = (6, 20, 24)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[2:5, 4:10, 6:12] = 1
HU = {"policy": "window", "low": -160, "high": 240}


def image(seed=0):
    return np.random.default_rng(seed).normal(40, 60, SHAPE).astype(np.float32)


def case(array, labels=LABELS, intensity=None):
    window = Intensity(**(intensity or HU))
    volume = Volume.from_spacing(array.astype(np.float32), (3, 1, 1))
    return Case("set", "one", "CT", volume, labels, {"organ": (1,)}, window)


def row(name="own", **more):
    fields = {
        "name": name, "title": "Own", "modality": "CT", "dimension": 3, "objects": {"organ": [1]},
        "intensity": HU, "layout": {"name": "nifti_pairs"},
    }  # fmt: skip
    return DataSet.model_validate(fields | more)


def write(root, name, array, labels=LABELS, data_set="own"):
    for folder, values in (("images", array), ("labels", labels)):
        place = root / "raw" / data_set / folder
        place.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values.T, np.diag([-1, 1, 3, 1.0])), place / f"{name}.nii.gz")


def sentences(root, **more):
    return plausibility(prepare(row(**more), root / "raw", root / "prepared", progress=False))


def test_a_usual_case_is_not_doubted():
    assert case_doubts(case(image())) == {}


def test_each_kind_of_doubt_is_found():
    ends = np.where(np.random.default_rng(0).random(SHAPE) < 0.2, 255, 0) + np.random.default_rng(1).integers(
        0, 4, SHAPE
    )
    full = np.ones(SHAPE, np.uint8)
    wide = {"policy": "window", "low": -5000, "high": 50000}
    found = {
        "few_levels": case_doubts(case(np.random.default_rng(0).random(SHAPE))),
        "saturated": case_doubts(case(image() + 2000)),
        "full": case_doubts(case(image(), full)),
        "like_a_mask": case_doubts(case(ends, intensity={"policy": "min_max"})),
    }
    assert set(found) == set(KINDS)
    for kind, doubts in found.items():
        assert kind in doubts and doubts[kind], kind
    assert "only 2 of 256 grey levels are left by `window`" in found["few_levels"]["few_levels"]
    assert set(case_doubts(case(image(), intensity=wide))) == {"few_levels"}  # far too wide a window


def test_what_is_doubted_is_not_warned_of_as_well():
    bright = case(image() + 2000)
    words = case_warnings(bright, [object_facts("organ", bright.mask("organ"))])
    assert not any("after windowing" in word for word in words)
    assert "100 % of the labelled voxels are white" in case_doubts(bright)["saturated"]


def test_doubts_stand_in_the_table_and_in_one_sentence(tmp_path):
    for number in range(4):
        labels = np.roll(LABELS, number, 2)
        write(
            tmp_path,
            f"c{number}",
            image(number) if number else np.random.default_rng(0).random(SHAPE),
            labels,
        )
    for number in (2, 3):
        write(tmp_path, f"c{number}", image(number) / 1000, np.roll(LABELS, number, 2))
    table = prepare(row(), tmp_path / "raw", tmp_path / "prepared", progress=False).set_index("case_id")
    assert (table.status == "ok").all()
    assert set(json.loads(table.doubts["c0"])) == {"few_levels"} and table.doubts["c1"] == "{}"
    assert table.warnings["c0"].startswith("only 2 of 256 grey levels are left by `window`")
    assert plausibility(table.reset_index()) == [
        "own: 3 of 4 cases show fewer than 16 grey levels to the models (c0, c2, c3). "
        "Does `intensity` of the row fit the values that are stored?"
    ]


def test_repeated_images_and_masks_are_named(tmp_path):
    for name, seed, shift in (("a", 0, 0), ("b", 0, 0), ("c", 1, 1), ("d", 1, 2), ("e", 2, 3), ("f", 3, 3)):
        write(tmp_path, name, image(seed), np.roll(LABELS, shift, 2))
    assert sentences(tmp_path) == [
        "own: 2 cases are one and the same (a, b): they count apart.",
        "own: 2 cases have one image with different masks (c, d): they count apart.",
        "own: 2 of 6 cases have one and the same mask on different images (e, f). Were files mixed up? "
        "If they are of one patient, say so in the row (`patient`).",
    ]


def test_one_mask_for_images_of_one_patient_is_right(tmp_path):
    for name, seed in (("p1_t1", 0), ("p1_t2", 1), ("p2_t1", 2)):
        write(tmp_path, name, image(seed), np.roll(LABELS, name.startswith("p2"), 2))
    assert sentences(tmp_path, patient="^(p[0-9])_") == []
    assert "2 of 3 cases have one and the same mask" in sentences(tmp_path)[0]


def test_a_case_of_two_data_sets_is_named_once(tmp_path):
    for name in ("one", "two"):
        write(tmp_path, "a", image(), data_set=name)
        write(
            tmp_path,
            f"{name}_b",
            image(len(name)) * (1 + (name == "two")),
            np.roll(LABELS, 1, 2),
            data_set=name,
        )
    rows = [row("one"), row("two")]
    table = prepare_data_sets(rows, tmp_path / "raw", tmp_path / "prepared")
    assert plausibility(table) == ["one/a, two/a: one case in several data sets. It counts in each."]
    rows = [row("one"), row("two", accuracy=False)]
    assert plausibility(prepare_data_sets(rows, tmp_path / "raw", tmp_path / "prepared")) == []


def test_an_object_that_no_case_holds_is_named(tmp_path):
    write(tmp_path, "a", image())
    assert sentences(tmp_path, objects={"organ": [1], "tumour": [2], "cyst": [3]}) == [
        "own: no case holds tumour, cyst."
    ]


def test_a_constant_image_is_no_image(tmp_path):
    write(tmp_path, "a", np.full(SHAPE, 7.0, np.float32))
    table = prepare(row(), tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert "all voxels have the value 7" in table.error[0]


def test_tables_of_failed_and_older_cases_are_no_problem():
    lines = [
        {"data_set": "own", "case_id": "a", "modality": "CT", "accuracy": True, "status": "ok"},
        {"data_set": "own", "case_id": "", "modality": "CT", "accuracy": True, "status": "failed"},
    ]
    assert plausibility(case_table(lines)) == [] == plausibility(case_table([]))
    assert isinstance(case_table(lines), pd.DataFrame)
