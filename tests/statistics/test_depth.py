"""Depth and slice-to-slice change are told apart where the truth is known."""

import numpy as np
import pytest

from medsam_nb.protocol.table import as_table
from medsam_nb.statistics import depth

COUNTS, SPACINGS = (11, 21, 51), (2.0, 5.0, 10.0)


def factorial(fall, patients=8, noise=0.002, seed=0):
    """Rows whose IoU falls by `fall(steps, mm)` of the distance from a prompt at the middle slice."""
    rng, rows = np.random.default_rng(seed), []
    for patient in range(patients):
        level = 0.9 + rng.normal(0, 0.02)
        for mm in SPACINGS:
            of_slice = {d: level - fall(abs(d), abs(d) * mm) + noise * rng.normal() for d in range(-25, 26)}
            of_slice[0] = level
            for count in COUNTS:
                place = {"task": "3d", "data_set": "column", "modality": "CT", "patient_id": f"p{patient}"}
                place |= {"case_id": f"p{patient}_{count}_{mm}", "object": "organ", "model": "m"}
                place |= {"n_slices": count, "spacing_z_mm": mm, "metric": "iou"}
                half = count // 2
                rows += [
                    place | {"slice_index": half + d, "distance_slices": d, "distance_mm": d * mm}
                    | {"value": of_slice[d]}
                    for d in range(-half, half + 1)
                ]  # fmt: skip
    return as_table(rows)


def by_family(table):
    result = depth.contrasts(depth.depth_pairs(table))
    return dict(list(result.groupby("family")))


def test_a_loss_by_mm_is_no_loss_by_slices():
    """Over one extent the number of slices changes nothing; slices farther apart lose more."""
    found = by_family(factorial(lambda steps, mm: 0.001 * mm))
    assert found["same extent, more slices"]["difference"].abs().max() < 0.01
    farther = found["same number of slices, farther apart"]
    assert (farther["holm_high"] < 0).all() and (farther["finding"] == "b is higher").all()
    one = farther[farther["comparison"] == "11 slices 10 mm apart against 2 mm"]["difference"].item()
    assert one == pytest.approx(-0.001 * (10 - 2) * np.mean([1, 2, 3, 4, 5]), abs=0.002)


def test_a_loss_by_slices_is_no_loss_by_mm():
    found = by_family(factorial(lambda steps, mm: 0.01 * steps))
    assert found["same number of slices, farther apart"]["difference"].abs().max() < 0.002
    longer = found["same distance, longer object"]
    expected = -0.01 * (np.mean(range(1, 26)) - np.mean(range(1, 6)))
    assert longer["difference"].tolist() == pytest.approx([expected] * 3, abs=0.002)
    assert (found["same extent, more slices"]["holm_high"] < 0).all()
    crops = found["same slices, cut out or not"]
    assert len(crops) == 3 and crops["difference"].eq(0).all() and crops["n"].eq(8).all()


def test_every_contrast_says_what_it_compares_and_needs_its_cells():
    table = factorial(lambda steps, mm: 0.0)
    pairs = depth.depth_pairs(table)
    assert len(pairs) == 3 + 3 + 3 + 3
    assert ("same extent, more slices", "51 slices against 11 over 100 mm") in pairs
    only = table[(table["spacing_z_mm"] == 2.0) & (table["n_slices"] == 11)]
    assert depth.depth_pairs(only) == {} and depth.contrasts({}).empty
    means = depth.cell_means(depth.losses(table))
    assert len(means) == 9 and means["n_patients"].eq(8).all() and means["ci_low"].lt(means["mean"]).all()


def modalities():
    rng, rows = np.random.default_rng(1), []
    for name, slope in (("CT", 0.01), ("MRI", 0.01), ("PET", 0.03)):
        for patient in range(8):
            level, hard = 0.9 - 0.1 * (name == "MRI"), 0.05 * patient  # a patient is as hard in all of them
            for d in range(-4, 5):
                place = {"task": "3d", "data_set": f"same_{name}", "modality": name, "object": "organ"}
                place |= {"patient_id": f"p{patient}", "case_id": f"p{patient}", "model": "m"}
                value = level - hard - (slope + 0.001 * rng.normal()) * abs(d)
                place |= {"slice_index": 4 + d, "distance_slices": d, "distance_mm": 4.0 * d, "n_slices": 9}
                rows.append(place | {"spacing_z_mm": 4.0, "metric": "iou", "value": value})
    return as_table(rows)


def test_modalities_are_paired_within_patients_and_a_lower_level_is_no_loss():
    result = depth.contrasts(depth.modality_pairs(modalities(), "CT")).set_index("comparison")
    assert abs(result.loc["MRI against CT", "difference"]) < 0.002
    assert result.loc["PET against CT", "difference"] == pytest.approx(0.02 * 2.5, abs=0.002)
    assert result.loc["PET against CT", "holm_low"] > 0 and result["n"].eq(8).all()
    propagated = depth.contrasts(depth.modality_pairs(modalities(), "CT", "propagated"))
    assert propagated["difference"].tolist() == pytest.approx([-0.1, -0.05], abs=0.003)


def test_losses_of_slices_name_patients_that_data_sets_share():
    rows = depth.slice_losses(modalities(), ["same_CT", "same_PET"])
    assert rows["steps"].min() == 1 and len(rows) == 3 * 8 * 8
    assert set(rows["stratum"]) == {"same anatomy", "same_MRI"} and rows["patient"].nunique() == 16
    far = rows[(rows["modality"] == "PET") & (rows["steps"] == 4)]["loss"]
    assert far.mean() == pytest.approx(0.12, abs=0.005)
