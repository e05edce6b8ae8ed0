"""Published numbers of SAM 2: exactly what was read, and beside them only what is the same thing."""

import numpy as np
import pytest

from medsam_nb.protocol.table import as_table
from medsam_nb.statistics import published_sam2
from medsam_nb.statistics.released_scripts import over_objects, paper_means

DESIGNS = [
    (frame, prompt, direction)
    for frame in ("centre_slice", "three_slices")
    for prompt in ("one_point", "mask")
    for direction in ("front_to_end", "bidirectional")
]


def rows(data_set="ct", modality="CT", objects=("liver", "kidney_right"), cases=3, seed=0):
    """3D rows: slices and volume Dice of every design; cases 0 and 1 are of one patient."""
    draw = np.random.default_rng(seed)
    for case in range(cases):
        for name in objects:
            for frame, prompt, direction in DESIGNS:
                common = {
                    "task": "3d", "data_set": data_set, "modality": modality, "case_id": f"c{case}",
                    "patient_id": "p0" if case < 2 else f"p{case}", "object": name, "model": "sam2_large",
                    "prompt": prompt, "frame_choice": frame, "direction": direction,
                    "mask_choice": "first_mask", "mask_scope": "all", "protocol": "corrected",
                    "frames": "image", "prompted_slices": "1", "n_slices": 4,
                }  # fmt: skip
                for z in range(3):
                    iou = {
                        "metric": "iou",
                        "slice_index": z,
                        "distance_slices": z - 1,
                        "value": draw.random(),
                    }
                    yield common | iou
                yield common | {"metric": "volume_dice", "value": draw.random()}


def test_the_numbers_are_those_that_were_read():
    table = published_sam2.sam2_table()
    assert list(table.columns) == list(published_sam2.COLUMN_TYPES)
    organs = table[table["object"].notna()].set_index("object")
    assert organs[["value", "sd"]].astype(float).to_numpy().tolist() == [
        [0.821, 0.192], [0.862, 0.212], [0.870, 0.154], [0.891, 0.131], [0.531, 0.291], [0.361, 0.197],
        [0.203, 0.222], [0.308, 0.234],
    ]  # fmt: skip
    assert (
        set(organs["n"]) == {123} and set(organs["unit"]) == {"patient"} and set(organs["metric"]) == {"dice"}
    )
    assert list(table[table["object"].isna()]["value"]) == [0.19, 0.3778, 0.5222, 0.6198, 0.32, 0.51]
    verified = published_sam2.is_verified(table)
    assert list(table.loc[~verified, "value"]) == [0.19, 0.3778, 0.5222, 0.6198]
    assert not table["fine_tuned"].any() and table[["source", "read_from", "value", "n"]].notna().all().all()


def test_printed_numbers_say_what_is_not_stated_and_what_is_unverified():
    printed = published_sam2.sam2_printed()
    assert len(printed) == 14
    assert printed.iloc[0].to_dict() == {
        "of": "TotalSegmentator (subset): liver",
        "prompt": "not stated",
        "metric": "Dice",
        "mean": "0.821 (SD 0.192)",
        "n": "123 patients",
        "source": "Yamagishi et al., JMIR AI 4 (2025) e72109, with negative prompts",
        "read from": "abstract",
    }
    last = printed.iloc[-1]
    assert (last["prompt"], last["mean"], last["n"]) == ("mask, one slice", "0.51", "21 data sets")
    assert printed["read from"].str.contains("unverified").sum() == 4


def test_objects_stand_beside_published_ones_of_their_modality_and_metric():
    table = as_table([*rows(), *rows("mr", "MRI"), *rows("fake", "simulated CT")])
    found = published_sam2.comparable_with_sam2(table)
    assert list(found.columns) == published_sam2.COMPARABLE_COLUMNS
    assert list(found["object"]) == ["liver", "right kidney"] and set(found["data_set"]) == {"ct"}
    liver = found.iloc[0]
    dice = table[(table.data_set == "ct") & (table.object == "liver") & (table.metric == "volume_dice")]
    dice = dice.astype({"value": float})
    cell = ["prompt", "frame_choice", "direction"]
    by_case = dice.groupby([*cell, "patient_id", "case_id"])["value"].mean()
    by_design = by_case.groupby([*cell, "patient_id"]).mean().groupby(cell).mean()
    assert liver["n_designs"] == len(DESIGNS) == 8 and liver["n_patients"] == 2
    assert liver["measured_mean"] == pytest.approx(by_design.mean())
    assert (liver["measured_lowest"], liver["measured_highest"]) == (by_design.min(), by_design.max())
    assert (liver["published"], liver["published_sd"], liver["published_n"]) == (0.821, 0.192, 123)
    assert liver["not_stated"] == "frame choice, prompt, direction" and liver["verified"]


def test_means_over_data_sets_stand_beside_the_study_own_sets_only():
    table = as_table([*rows(), *rows("other", seed=1), *rows("third", "MRI", ("heart",), seed=2)])
    assert not published_sam2.comparable_with_sam2(table)["object"].isna().any()
    found = published_sam2.comparable_with_sam2(table, ["ct", "third"])
    means = found[found["object"].isna()]
    assert list(means["published"]) == [0.19, 0.3778, 0.6198, 0.32, 0.51]  # the table has no box
    assert set(means["data_set"]) == {"ct, third"} and set(means["n_objects"]) == {3}
    study = table[table.data_set.isin(["ct", "third"]) & (table.metric == "iou")]
    by_design = over_objects(paper_means(study))
    assert means.iloc[0]["measured_mean"] == pytest.approx(by_design["value"].mean())
    one = by_design[(by_design.prompt == "mask") & (by_design.frame_choice == "centre_slice")]
    assert means.iloc[-1]["n_designs"] == 2
    assert means.iloc[-1]["measured_highest"] == pytest.approx(one["value"].max())


def test_nothing_comparable_is_an_empty_table():
    for table in (as_table([]), as_table(list(rows("mr", "MRI", ("heart",))))):
        found = published_sam2.comparable_with_sam2(table)
        assert found.empty and list(found.columns) == published_sam2.COMPARABLE_COLUMNS
    flat = as_table(list(rows())).assign(task="2d")
    assert published_sam2.comparable_with_sam2(flat).empty
