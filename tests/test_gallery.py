"""Which cases are shown: the rules by hand, and that a picture's IoU is that of the table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_table

from medsam_nb import examples, gallery
from medsam_nb.designs import Design
from medsam_nb.errors import StudyError
from medsam_nb.evaluate import evaluate_2d, evaluate_3d
from medsam_nb.intensity import Intensity
from medsam_nb.manifest import load_manifest
from medsam_nb.models import load_model
from medsam_nb.store import as_table
from medsam_nb.volume import Case, Volume

ROOT = Path(__file__).parents[1]


def rows(modality, case_id, values, name="organ", **more):
    """3D rows of one object on slices 0, 1, ...; the first is prompted."""
    return [
        {
            "task": "3d",
            "data_set": modality.lower(),
            "modality": modality,
            "case_id": case_id,
            "object": name,
            "model": "m",
            "slice_index": z,
            "distance_slices": z,
            "truth_px": 10,
            "metric": "iou",
            "value": value,
            **more,
        }
        for z, value in enumerate(values)
    ]


def test_best_median_and_worst_follow_the_stated_rule():
    table = as_table(
        rows("MRI", "a", [0.9, 0.8, 0.4])
        + rows("MRI", "b", [0.9, 0.2, 0.1, 0.3])
        + rows("MRI", "c", [0.9, 0.5, 0.55])
        + rows("MRI", "d", [0.2, 0.2])
        + rows("CT", "x", [0.7, 0.6])
        + rows("PET", "p", [0.5, 0.5])
        + rows("PET", "q", [0.6, 0.6])
    )
    chosen = gallery.spread_of_cases(table).set_index(["modality", "rank"])
    picked = {key: (row["case_id"], row["slice_index"]) for key, row in chosen.iterrows()}
    # means: a 0.70, c 0.65, b 0.375, d 0.20; the lower of the middle two is b; prompted slices are not shown
    assert picked == {
        ("CT", "only case"): ("x", 1),
        ("MRI", "best"): ("a", 1),
        ("MRI", "median"): ("b", 1),
        ("MRI", "worst"): ("d", 1),
        ("PET", "best"): ("q", 1),
        ("PET", "worst"): ("p", 1),
    }
    assert chosen.loc[("MRI", "best"), "case_mean"] == pytest.approx(0.7)
    assert chosen.loc[("MRI", "worst"), "n_cases"] == 4
    assert gallery.spread_of_cases(table[:0]).empty


def test_the_object_nearest_to_its_case_is_shown():
    table = as_table(rows("MRI", "a", [0.9, 0.9, 0.9]) + rows("MRI", "a", [0.5, 0.5, 0.5], name="tumour"))
    table = pd.concat([table, as_table(rows("MRI", "a", [0.6, 0.6, 0.62], name="vessel"))])
    assert gallery.spread_of_cases(table).iloc[0]["object"] == "vessel"  # the case's mean is 0.67


def test_failures_are_the_worst_of_each_object_and_modalities_take_turns():
    table = as_table(
        rows("MRI", "a", [0.9, 0.05, 0.0, 0.0])
        + rows("MRI", "b", [0.9, 0.01])
        + rows("MRI", "c", [0.9, 0.02])
        + rows("CT", "x", [0.0, 0.09])
        + rows("CT", "y", [0.9, 0.5])
    )
    shown = gallery.failures(table, most=3)
    assert list(zip(shown["case_id"], shown["slice_index"], strict=True)) == [("a", 2), ("x", 1), ("b", 1)]
    large = table.assign(truth_px=table["truth_px"].mask(table["slice_index"] == 3, 99))
    assert gallery.failures(large, most=1)["slice_index"].item() == 3
    counted = gallery.failure_counts(table).set_index("modality")
    assert counted.loc["MRI", ["failed_masks", "masks", "failed_cases", "cases"]].tolist() == [5, 5, 3, 3]
    assert counted.loc["CT", ["failed_masks", "masks", "failed_cases", "cases"]].tolist() == [1, 2, 1, 2]
    assert gallery.failures(table[:0]).empty and gallery.failure_counts(table[:0]).empty


def test_the_kinds_of_failure_are_told_apart():
    truth = np.zeros((20, 20), bool)
    truth[:4, :4] = True
    everything, elsewhere, piece = ~np.zeros_like(truth), np.roll(truth, 9, axis=1), truth.copy()
    piece[1:] = False
    assert gallery.reason(truth, np.zeros_like(truth)) == "empty prediction"
    assert gallery.reason(truth, everything) == "leak"
    assert gallery.reason(truth, elsewhere) == "wrong object"
    assert gallery.reason(truth, piece) == "fragment"
    assert set(gallery.REASONS) == {"empty prediction", "leak", "wrong object", "fragment"}


def test_choices_do_not_depend_on_the_order_of_the_rows():
    table = made_up_table(cases=4)
    table = table[(table["task"] == "3d") & (table["prompt"] == "one_point")]
    one = table[(table["frame_choice"] == "centre_slice") & (table["direction"] == "bidirectional")]
    one = one[one["mask_choice"] == "first_mask"]
    mixed = one.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(gallery.spread_of_cases(one), gallery.spread_of_cases(mixed))
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(gallery.failures(table, 0.5), gallery.failures(shuffled, 0.5))


@pytest.fixture(scope="module")
def case():
    labels = np.zeros((4, 32, 32), np.uint8)
    labels[:, 8:20, 10:22] = 1
    noise = np.random.default_rng(0).normal(0, 8, labels.shape)
    image = Volume.from_spacing((100 + 80 * labels + noise).astype(np.float32), (4.0, 1.0, 1.0))
    return Case("made_up", "a", "MRI", image, labels, {"block": (1,)}, Intensity("window", 0, 255))


def test_the_picture_of_a_row_has_the_iou_of_the_table(case):
    checkpoint = load_manifest(ROOT / "data_manifest.yaml").checkpoint("miniature_sam2")
    model = load_model(checkpoint, ROOT / "weights", device="cpu")
    design = Design("centre_slice", "one_box", "bidirectional", "first_mask")
    deep = as_table(evaluate_3d(model, case, [design], seed=3))
    row = deep[deep["distance_slices"] == -2].iloc[0]
    prompted, carried = examples.panels_of_row(model, case, row, seed=3, heading="worst: ", explain=True)
    assert carried.iou == row["value"] and prompted.prompt.box is not None and carried.prompt is None
    assert "worst: made_up a: block, -2 slices, " in carried.title and "prompted" in prompted.title
    flat = as_table(evaluate_2d(model, case, ["one_point"], seed=3))
    row = flat[flat["mask_choice"] == "first"].iloc[1]
    (picture,) = examples.panels_of_row(model, case, row, seed=3)
    assert picture.iou == row["value"] and picture.prompt[0].points
    with pytest.raises(StudyError, match="Choose first masks"):
        examples.panels_of_row(model, case, flat[flat["mask_choice"] == "oracle"].iloc[0], seed=3)


def test_cases_that_are_not_here_leave_their_places_empty(tmp_path):
    table = as_table(rows("MRI", "a", [0.5, 0.5]) + rows("CT", "x", [0.5, 0.5]))
    chosen = gallery.spread_of_cases(table)
    assert examples.panels_of_rows(None, chosen, tmp_path, seed=0) == [None] * 12
    assert examples.panels_of_rows(None, gallery.failures(table, 0.6), tmp_path, seed=0) == [None] * 4
