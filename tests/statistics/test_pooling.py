"""Averages against hand-made tables and against the described steps of the paper's scripts."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table

from medsam_nb.errors import InputError, StudyError
from medsam_nb.figures import designs, distance, style
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics import mixed, paired, pairing, pooling, rankings, released_scripts, shown_cases
from medsam_nb.statistics.declarations import declare
from medsam_nb.statistics.retention import retention

mpl.use("agg")


def drawn_on(draw):
    """The table that a figure returns."""

    def draws(table):
        fig, ax = style.canvas()
        try:
            return draw(table, ax).drop(columns="failed", errors="ignore")
        finally:
            plt.close(fig)

    return draws


DIRECTION = {"name": "d", "task": "3d", "vary": "direction", "a": "bidirectional", "b": "front_to_end"}
ENTRIES = {
    "compare": lambda t: paired.compare(t, [DIRECTION]).drop(columns=["failed_a", "failed_b"]),
    "case_means": lambda t: pooling.case_means(t, ["prompt"]).drop(columns="failed"),
    "rank_designs": lambda t: rankings.rank_designs(t).ranks,
    "mixed_model": lambda t: mixed.mixed_model(t, "prompt"),
    "retention": retention,
    "spread_of_cases": shown_cases.spread_of_cases,
    "iou_by_design": drawn_on(designs.iou_by_design),
    "iou_by_distance": drawn_on(distance.iou_by_distance),
    "retention_by_distance": drawn_on(distance.retention_by_distance),
    "design_heat_map": drawn_on(designs.design_heat_map),
    "design_ranking": drawn_on(designs.design_ranking),
}


def volume_rows(case_id, values, prompted, direction, first=0, n_slices=None, **more):
    """3D rows of one volume and design: values of consecutive slices from `first`."""
    return [
        {
            "task": "3d",
            "data_set": "CT-Spleen",
            "case_id": case_id,
            "object": "spleen",
            "model": "m",
            "prompt": "one_box",
            "mask_choice": "first_mask",
            "frame_choice": "three_slices" if len(prompted) > 1 else "centre_slice",
            "direction": direction,
            "protocol": "corrected",
            "slice_index": first + number,
            "prompted_slices": ";".join(map(str, prompted)),
            "n_slices": n_slices or first + len(values),
            "truth_px": 5,
            "metric": "iou",
            "value": value,
            **more,
        }
        for number, value in enumerate(values)
    ]


def what_the_script_prints(volumes, direction):
    """The steps of the released script, as described: lists that grow by themselves, then one mean.

    `volumes` are (scores of all slices with -1 where the object is not, prompted slices).
    """
    padded = []
    for scores, prompted in volumes:
        collected = []

        def run(order, scores=scores, collected=collected):
            for z in order:
                collected.append(scores[z])  # appends to the list that the caller extends
            return collected

        n = len(scores)
        if direction == "bidirectional":
            middle = prompted[1] if len(prompted) > 1 else prompted[0]
            backward = range(middle, -1, -1) if middle > 0 else []
            collected += run(backward)
            collected += run(range(prompted[-1] + 1, n))
        else:
            collected += run(range(n))
        padded.append(collected + [-1] * (1000 - len(collected)))
    if len({len(line) for line in padded}) > 1:
        return float("nan")  # a ragged array: the script stops
    scores = np.array(padded)
    return scores[scores >= 0].mean()


@pytest.mark.parametrize("direction", ["front_to_end", "bidirectional"])
@pytest.mark.parametrize("prompted", [(4,), (0,), (2, 5, 8), (0, 1, 2)])
def test_released_gives_what_the_script_prints(direction, prompted):
    rng = np.random.default_rng(len(prompted))
    volumes, rows = [], []
    for number, (n, first) in enumerate([(14, 0), (11, 0), (20, 0)]):
        values = rng.random(n - 2 - number)
        scores = np.full(n, -1.0)
        scores[first : first + len(values)] = values
        volumes.append((scores, prompted))
        protocol = "released" if len(prompted) > 1 else "corrected"
        rows += volume_rows(f"c{number}", values, prompted, direction, first, n, protocol=protocol)
    found = released_scripts.paper_means(as_table(rows), "released")["value"].item()
    assert found == pytest.approx(what_the_script_prints(volumes, direction))


def test_volumes_too_long_for_the_script_have_no_value():
    rows = volume_rows("a", np.linspace(0, 1, 501), (4,), "front_to_end")
    rows += volume_rows("b", np.linspace(0, 1, 20), (4,), "front_to_end")
    result = released_scripts.paper_means(as_table(rows), "released").iloc[0]
    assert np.isnan(result["value"]) and "too long" in result["note"]
    assert released_scripts.paper_means(as_table(rows)).iloc[0]["value"] == pytest.approx(0.5)
    rows = volume_rows("a", np.linspace(0, 1, 500), (4,), "front_to_end")
    assert released_scripts.paper_means(as_table(rows), "released").iloc[0]["value"] == pytest.approx(0.5)


def test_each_switch_alone_on_numbers_by_hand():
    rows = volume_rows("a", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], (1, 2, 4), "bidirectional")
    table = as_table(rows)

    def mean(*switches):
        return released_scripts.paper_means(table, switches=list(switches))["value"].item()

    assert mean() == pytest.approx(0.35)
    assert mean("reverse_counted_twice") == pytest.approx((2 * 0.6 + 1.5) / 9)
    assert mean("slices_between_prompts_skipped") == pytest.approx((0.1 + 0.2 + 0.3 + 0.6) / 4)
    assert mean("slice_zero_skipped") == pytest.approx(0.35)
    with pytest.raises(StudyError, match="are unknown"):
        mean("count_twice")


def test_slice_zero_is_not_scored_where_a_bidirectional_run_starts_there():
    def mean(direction, prompted, *switches):
        table = as_table(volume_rows("a", [0.9, 0.6, 0.3], prompted, direction))
        return released_scripts.paper_means(table, switches=list(switches))["value"].item()

    assert mean("bidirectional", (0,), "slice_zero_skipped") == pytest.approx(0.45)
    assert mean("front_to_end", (0,), "slice_zero_skipped") == pytest.approx(0.6)
    assert mean("bidirectional", (1,), "slice_zero_skipped") == pytest.approx(0.6)


def test_one_pass_alone_counts_every_slice_twice_and_changes_nothing():
    table = as_table(volume_rows("a", [0.9, 0.6, 0.3], (1,), "front_to_end"))
    assert released_scripts.paper_means(table, switches=["reverse_counted_twice"])[
        "value"
    ].item() == pytest.approx(0.6)


def test_the_length_at_which_the_script_stops_by_hand():
    """From the centre c: slices 0 to c four times, those behind twice."""
    for n, value in ((332, 0.5), (334, np.nan)):
        rows = volume_rows("a", [0.5] * n, (n // 2,), "bidirectional")
        collected = 4 * (n // 2 + 1) + 2 * (n - 1 - n // 2)
        found = released_scripts.paper_means(
            as_table(rows), switches=["reverse_counted_twice", "long_volumes_stop"]
        )
        assert (collected > released_scripts.MOST_SCORES) == np.isnan(value)
        assert found["value"].item() == pytest.approx(value, nan_ok=True)


def test_every_switch_is_named_and_explained():
    for name, words in released_scripts.SWITCHES.items():
        assert name.isidentifier() and len(words) > 20
    assert released_scripts.chosen_switches("corrected") == frozenset()
    assert released_scripts.chosen_switches("released") == frozenset(released_scripts.SWITCHES) - {
        "default_design_only"
    }
    assert any("forward pass starts anew" in words for words in released_scripts.NOT_REPLAYED)


def test_both_averages_by_hand():
    rows = volume_rows("long", [0.9] * 8, (4,), "front_to_end")
    rows += volume_rows("short", [0.1] * 2, (1,), "front_to_end")
    found = released_scripts.both_averages(as_table(rows)).iloc[0]
    assert found["pooled_slices"] == pytest.approx(0.74) and found["mean_of_cases"] == pytest.approx(0.5)
    assert found["difference"] == pytest.approx(0.24) and found["n_cases"] == 2
    assert released_scripts.both_averages(as_table([])).empty


@pytest.mark.parametrize("name", ENTRIES)
def test_no_entry_takes_a_table_with_repeated_keys_or_mixed_experiments(name):
    table = made_up_table(("MRI-Heart",), 2)
    table = table[(table["model"] == "miniature_sam2") & (table["task"] == "3d")]
    with pytest.raises(InputError, match="share their keys"):
        ENTRIES[name](as_table(pd.concat([table, table.head(3)])))
    other = table.assign(protocol="released").astype({"protocol": "string"})
    with pytest.raises(InputError, match="protocol"):
        ENTRIES[name](pd.concat([table, other]))
    with pytest.raises(InputError, match="impossible values"):
        ENTRIES[name](table.assign(value=table["value"].mask(table.index == table.index[5], 1.5)))


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_takes_one_case_and_missing_values(name):
    """One case gives no p value and no interval; a missing value of an object counts as 0."""
    table = made_up_table(("MRI-Heart",), 1)
    table = table[(table["model"] == "miniature_sam2") & (table["task"] == "3d")]
    lost = table.assign(value=table["value"].mask(table["slice_index"] == 6, pd.NA))
    zero = table.assign(value=table["value"].mask(table["slice_index"] == 6, 0.0))
    found = ENTRIES[name](lost)
    pd.testing.assert_frame_equal(found, ENTRIES[name](zero))
    for column in {"p", "ci_low", "p_holm"} & set(found):
        assert found[column].isna().all()


def test_the_uneven_choice_of_three_slices_needs_rows_of_that_protocol():
    even = volume_rows("a", [0.2, 0.2], (0, 1), "front_to_end")
    uneven = volume_rows("a", [0.6, 0.6], (0, 1), "front_to_end", protocol="released")
    table = as_table(even + uneven)
    assert released_scripts.paper_means(table)["value"].item() == pytest.approx(0.2)
    assert released_scripts.paper_means(table, "released")["value"].item() == pytest.approx(0.6)
    assert released_scripts.paper_means(as_table(even), "released").empty
    effects = released_scripts.switch_effects(table).set_index("switch")["difference"]
    assert effects["uneven_three_slices"] == pytest.approx(0.4)
    assert effects["all (released)"] == pytest.approx(0.4)


def test_the_default_design_only():
    table = made_up_table(cases=2)
    kept = released_scripts.paper_means(table[table["task"] == "3d"], switches=["default_design_only"])
    assert set(kept["prompt"]) == {"one_point"} and set(kept["frame_choice"]) == {"centre_slice"}
    assert set(kept["direction"]) == {"front_to_end"}


def test_pooled_slices_weigh_long_volumes_and_case_means_do_not():
    rows = volume_rows("long", [0.9] * 8, (4,), "front_to_end")
    rows += volume_rows("short", [0.1] * 2, (1,), "front_to_end")
    table = as_table(rows)
    assert released_scripts.paper_means(table)["value"].item() == pytest.approx(0.74)
    assert pooling.case_means(table)["value"].mean() == pytest.approx(0.5)


def test_objects_weigh_the_same():
    rows = volume_rows("a", [0.9] * 8, (4,), "front_to_end")
    rows += volume_rows("a", [0.1] * 2, (1,), "front_to_end", object="tumour")
    means = released_scripts.paper_means(as_table(rows))
    assert released_scripts.over_objects(means)["value"].item() == pytest.approx(0.5)
    assert pooling.case_means(as_table(rows))["value"].item() == pytest.approx(0.5)


def test_absent_objects_are_left_out_and_failed_masks_are_zero():
    rows = volume_rows("a", [0.8, np.nan, 0.4], (1,), "front_to_end")
    found = pooling.case_means(as_table(rows)).iloc[0]
    assert found["value"] == pytest.approx(0.4) and found["failed"] == 1 and found["n_slices_scored"] == 3
    rows[1]["truth_px"] = 0
    found = pooling.case_means(as_table(rows)).iloc[0]
    assert found["value"] == pytest.approx(0.6) and found["failed"] == 0
    assert pooling.check_table(as_table(rows)).attrs["missing"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": 1.2}, "impossible values"),
        ({"value": -0.1}, "impossible values"),
        ({"value": np.inf, "metric": "hd95_mm"}, "impossible values"),
        ({"case_id": None}, "rows without 'case_id'"),
    ],
)
def test_impossible_tables_are_refused(change, words):
    rows = volume_rows("a", [0.8, 0.4], (1,), "front_to_end")
    rows[1] |= change
    with pytest.raises(InputError, match=words):
        pooling.check_table(as_table(rows))


def test_case_means_never_mix_models_or_protocols():
    table = made_up_table(cases=2)
    with pytest.raises(InputError, match="model has several values"):
        pooling.case_means(table[table["task"] == "2d"], by=["task", "prompt"])


def test_an_empty_table_gives_empty_means():
    assert pooling.case_means(as_table([])).empty
    assert released_scripts.paper_means(as_table([])).empty
    assert released_scripts.switch_effects(as_table([])).empty


def test_a_missing_design_is_matched_away():
    """Designs that only one side has do not enter the comparison."""
    designs = [
        Design("centre_slice", "one_box", "bidirectional", "first_mask"),
        Design("centre_slice", "one_box", "front_to_end", "first_mask"),
        Design("centre_slice", "mask", "bidirectional", "first_mask"),
    ]
    table = made_up_table(cases=3, designs=designs)
    comparison = declare(
        {"name": "d", "task": "3d", "vary": "direction", "a": "bidirectional", "b": "front_to_end"}
    )
    pairs = pairing.paired_values(pooling.check_table(table), comparison)
    assert pairs.designs == 1 and len(pairs.values) == 6
    box = table[(table["prompt"] == "one_box") & (table["task"] == "3d")].astype({"value": float})
    means = box.groupby(["case_id", "direction"])["value"].mean().unstack()
    assert pairs.values.set_index("patient_id")["a"].to_dict() == pytest.approx(
        means["bidirectional"].to_dict()
    )


def test_a_table_of_another_program_needs_only_the_columns_that_matter():
    other = pd.DataFrame({"data_set": "x", "case_id": ["1", "2"], "metric": "iou", "value": [0.2, 0.4]})
    assert pooling.case_means(other)["value"].tolist() == [0.2, 0.4]
