"""Sparse truth: which slices stay, and what is found with them where the truth is known."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from medsam_nb.errors import StudyError
from medsam_nb.figures.sparse_truth import sparse_estimates as draw_estimates
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics.sparse_truth import Annotation, annotated, sparse_estimates, sparse_summary
from medsam_nb.workbook.slice_findings import sparse_said

mpl.use("agg")
KINDS = [Annotation(), Annotation(2), Annotation(5), Annotation(slices=1)]
KINDS += [Annotation(slices=1, largest=True)]


def made_up(first=0.0, patients=12, large=0.0, noise=0.05):
    """Two mask choices; `first` is what the first gains, `large` what the largest slice has more."""
    rng, rows = np.random.default_rng(3), []
    for patient in range(patients):
        base = rng.normal(0.7, 0.03)
        for z in range(20):
            own = rng.normal(0, noise)
            for choice in ("first_mask", "most_confident_mask"):
                value = base + own + first * (choice == "first_mask") + large * (z == 10)
                rows.append(
                    {"task": "3d", "data_set": f"s{patient % 2}", "case_id": f"p{patient}", "object": "o"}
                    | {"model": "m", "mask_choice": choice, "slice_index": z, "truth_px": 100 - abs(z - 10)}
                    | {"metric": "iou", "value": np.clip(value + rng.normal(0, 0.01), 0, 1)}
                )
    return as_table(rows)


def slices_of(table):
    return {name: sorted(rows["slice_index"].unique()) for name, rows in table.groupby("case_id")}


def test_the_slices_that_stay_are_those_that_would_have_been_annotated():
    table = made_up(patients=6)
    assert len(annotated(table, Annotation(1), 0)) == len(table)
    every = slices_of(annotated(table, Annotation(5), 0, 1))
    assert all(len(kept) == 4 and set(np.diff(kept)) == {5} for kept in every.values())
    assert len({kept[0] for kept in every.values()}) > 1  # each case begins by its own chance
    assert every == slices_of(annotated(table[::-1], Annotation(5), 0, 1))  # whatever the order
    assert every != slices_of(annotated(table, Annotation(5), 0, 2))
    drawn = slices_of(annotated(table, Annotation(slices=3), 0))
    assert all(len(kept) == 3 for kept in drawn.values()) and len(set(map(tuple, drawn.values()))) > 1
    largest = slices_of(annotated(table, Annotation(slices=1, largest=True), 0))
    assert set(map(tuple, largest.values())) == {(10,)}
    assert len(annotated(table, Annotation(slices=99), 0)) == len(table)
    for wrong in ({"every": 0}, {"slices": -1}, {"largest": True}):
        with pytest.raises(StudyError, match="sparse truth"):
            Annotation(**wrong)


def test_random_slices_are_right_on_average_and_wider_and_the_largest_are_biased():
    found = sparse_estimates(made_up(large=0.1), KINDS, draws=12)
    summary = sparse_summary(found).set_index("annotation")
    assert summary.loc["all slices", ["bias", "spread"]].tolist() == [0, 0]
    assert summary.loc["all slices", "width_ratio"] == 1 and summary.loc["all slices", "draws"] == 1
    for name in ("every 2nd slice", "every 5th slice", "1 random slice"):
        assert abs(summary.loc[name, "bias"]) < 4 * summary.loc[name, "spread"] / np.sqrt(12)
    spread = summary.loc[["every 2nd slice", "every 5th slice", "1 random slice"], "spread"]
    assert spread.is_monotonic_increasing
    assert summary.loc["1 random slice", "width_ratio"] > 1.2
    expected = 0.1 * 19 / 20
    assert summary.loc["largest slice", "bias"] == pytest.approx(expected, abs=0.03)
    assert summary.loc["largest slice", "covers"] == 0 and summary.loc["1 random slice", "covers"] == 1
    assert summary.loc["every 5th slice", "n_slices"] == 12 * 4 and summary["patients_lost"].eq(0).all()


@pytest.mark.parametrize(("first", "holds"), [(0.0, True), (-0.1, False)])
def test_a_true_claim_is_shown_with_few_slices_and_a_false_one_is_not(first, holds):
    summary = sparse_summary(sparse_estimates(made_up(first, noise=0.02), KINDS, draws=5))
    assert (summary["holds"] == float(holds)).all()
    assert summary["difference_bias"].abs().max() < 0.01


def test_a_case_without_an_annotated_slice_is_lost_and_counted():
    table = made_up(patients=12)
    short = table[(table["case_id"] != "p0") | (table["slice_index"] == 7)]
    summary = sparse_summary(sparse_estimates(short, [Annotation(), Annotation(10)], draws=12))
    assert 0.5 < summary["patients_lost"].iloc[1] <= 1


def test_it_is_drawn_and_said():
    found = sparse_estimates(made_up(), KINDS, draws=4)
    fig, axes = plt.subplots(1, 2)
    drawn = draw_estimates(found, axes, 0.05)
    assert drawn[found.columns].equals(found)
    of_one = drawn[drawn["annotation"] == KINDS[1].name]
    assert np.allclose(of_one["mean_ci_low"], of_one["ci_low"].mean()) and len(of_one) == 4
    assert [text.get_text() for text in axes[0].get_yticklabels()] == [kind.name for kind in KINDS]
    assert [text.get_text() for text in axes[1].texts] == ["1 of 1", *["4 of 4"] * 3, "1 of 1", "shown in"]
    assert draw_estimates(found[:0], axes, 0.05).empty
    plt.close(fig)
    said = sparse_said(sparse_summary(found), found.iloc[0], 0.05)
    assert "the first mask is shown to be at most 0.05 IoU worse" in said
    assert "with every 2nd slice (120 slices in all)" in said and "4 of 4 draws" in said
    only = sparse_estimates(made_up(), KINDS[:1])
    assert sparse_said(sparse_summary(only), only.iloc[0], 0.05) == "No random annotation was drawn."
