"""Which cases are shown: the rules by hand, and that a picture's IoU is that of the table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table

from medsam_nb.errors import StudyError
from medsam_nb.evaluation.rows import evaluate_2d, evaluate_3d
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models.checkpoints import load_model
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.table import as_table
from medsam_nb.protocol.volume import Case, Volume
from medsam_nb.statistics import shown_cases
from medsam_nb.workbook import row_pictures

ROOT = Path(__file__).parents[2]


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
    chosen = shown_cases.spread_of_cases(table).set_index(["modality", "rank"])
    picked = {key: (row["case_id"], row["slice_index"]) for key, row in chosen.iterrows()}
    # means: a 0.70, c 0.65, b 0.375, d 0.20; b is the lower of the middle two; prompted slices are not shown
    assert picked == {
        ("CT", "only case"): ("x", 1),
        ("MRI", "best"): ("a", 1),
        ("MRI", "median"): ("b", 3),
        ("MRI", "worst"): ("d", 1),
        ("PET", "best"): ("q", 1),
        ("PET", "worst"): ("p", 1),
    }
    assert chosen.loc[("MRI", "best"), "case_mean"] == pytest.approx(0.7)
    assert chosen.loc[("MRI", "worst"), "n_cases"] == 4
    assert shown_cases.spread_of_cases(table[:0]).empty


def test_the_mask_nearest_to_the_mean_of_its_case_is_shown():
    table = as_table(rows("MRI", "a", [0.9, 0.9, 0.9]) + rows("MRI", "a", [0.5, 0.5, 0.5], name="tumour"))
    table = pd.concat([table, as_table(rows("MRI", "a", [0.6, 0.6, 0.65], name="vessel"))])
    shown = shown_cases.spread_of_cases(table).iloc[0]  # the case's mean is 0.67
    assert (shown["object"], shown["slice_index"]) == ("vessel", 2)
    even = as_table(rows("MRI", "a", [0.5, 0.5]) + rows("MRI", "a", [0.5, 0.5], name="large", truth_px=20))
    assert shown_cases.spread_of_cases(even).iloc[0]["object"] == "large"


def test_a_typical_failure_of_every_kind_and_modality_is_shown():
    table = as_table(
        rows("MRI", "a", [0.9, 0.0, 0.0, 0.0], predicted_px=0)
        + rows("MRI", "b", [0.9, 0.05], predicted_px=190)
        + rows("MRI", "c", [0.0, 0.02], predicted_px=30)
        + rows("CT", "x", [0.0, 0.09], predicted_px=1)
        + rows("CT", "y", [0.9, 0.5], predicted_px=10)
    )
    shown = shown_cases.failures(table).set_index(["modality", "reason"])
    assert {key: (row["case_id"], row["slice_index"], row["n_alike"]) for key, row in shown.iterrows()} == {
        ("MRI", "empty prediction"): ("a", 2, 3),
        ("MRI", "leak"): ("b", 1, 1),
        ("MRI", "wrong object"): ("c", 1, 1),
        ("CT", "fragment"): ("x", 1, 1),
    }
    counted = shown_cases.failure_counts(table).set_index("modality")
    plain = ["failed_masks", "masks", "failed_cases", "cases", "empty prediction", "leak", "fragment"]
    assert counted.loc["MRI", plain].tolist() == [5, 5, 3, 3, 3, 1, 0]
    assert counted.loc["CT", plain].tolist() == [1, 2, 1, 2, 0, 0, 1]
    assert shown_cases.failures(table[:0]).empty and shown_cases.failure_counts(table[:0]).empty
    foreign = shown_cases.failures(table.assign(predicted_px=pd.NA))
    assert set(foreign["reason"]) == {"unknown"}


def test_the_kind_of_a_failure_follows_from_the_table_as_from_the_masks():
    truth = np.zeros((20, 20), bool)
    truth[:4, :4] = True
    everything, elsewhere, piece = ~np.zeros_like(truth), np.roll(truth, 9, axis=1), truth.copy()
    piece[1:] = False
    half = np.roll(truth, 2, axis=1)
    half[8:, :] = True
    masks = {"empty prediction": truth & False, "leak": everything, "wrong object": elsewhere}
    masks |= {"fragment": piece}
    sizes = [
        {"value": iou(truth, mask), "truth_px": 16, "predicted_px": mask.sum()}
        for mask in (*masks.values(), half)
    ]
    assert shown_cases.reasons(pd.DataFrame(sizes)).tolist() == [*masks, "leak"]  # exactly half is covered
    assert set(shown_cases.REASONS) == {*masks, "unknown"}


def test_choices_do_not_depend_on_the_order_of_the_rows():
    table = made_up_table(cases=4)
    table = table[(table["task"] == "3d") & (table["prompt"] == "one_point")]
    one = table[(table["frame_choice"] == "centre_slice") & (table["direction"] == "bidirectional")]
    one = one[one["mask_choice"] == "first_mask"]
    mixed = one.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(shown_cases.spread_of_cases(one), shown_cases.spread_of_cases(mixed))
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(shown_cases.failures(table, 0.5), shown_cases.failures(shuffled, 0.5))


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
    prompted, carried = row_pictures.panels_of_row(
        model, case, row, seed=3, heading="worst: ", remark=", leak"
    )
    assert carried.iou == row["value"] and prompted.prompt.box is not None and carried.prompt is None
    assert carried.title == "worst: made_up a: block, -2 slices, leak"
    assert prompted.title == "worst: made_up a: block, prompted"
    flat = as_table(evaluate_2d(model, case, ["one_point"], seed=3))
    row = flat[flat["mask_choice"] == "first_mask"].iloc[1]
    (picture,) = row_pictures.panels_of_row(model, case, row, seed=3)
    assert picture.iou == row["value"] and picture.prompt[0].points
    with pytest.raises(StudyError, match="Choose first masks"):
        row_pictures.panels_of_row(model, case, flat[flat["mask_choice"] == "oracle_mask"].iloc[0], seed=3)


def test_cases_that_are_not_here_leave_their_places_empty(tmp_path):
    table = as_table(rows("MRI", "a", [0.5, 0.5]) + rows("CT", "x", [0.5, 0.5]))
    chosen = shown_cases.spread_of_cases(table)
    assert row_pictures.panels_of_rows(None, chosen, tmp_path, seed=0) == [None] * 12
    assert row_pictures.panels_of_rows(None, shown_cases.failures(table, 0.6), tmp_path, seed=0) == [None] * 4
