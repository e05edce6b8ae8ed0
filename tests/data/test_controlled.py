"""Cases of controlled comparisons differ in what they say they differ in, and in nothing else."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from medsam_nb.data.layouts.readers import find_cases, read_case
from medsam_nb.data.patients import patient_of
from medsam_nb.data.simulated.controlled import draw_column, heights_mm, simulate_controlled
from medsam_nb.manifest.layouts import SimulatedGridLayout
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.protocol.metrics import adjacent_iou

ROOT = Path(__file__).parents[2]
MODALITIES = ("ct", "mri", "pet", "ultrasound", "xray")
MANIFEST = load_manifest(ROOT / "data_manifest.yaml")


def column(count, spacing, seed=3):
    return simulate_controlled("column", "ct", seed, shape=(count, 64, 64), spacing_mm=(spacing, 4, 4))


def test_one_anatomy_in_five_modalities():
    cases = [
        simulate_controlled("torso", modality, 2, shape=(12, 64, 64), spacing_mm=(4, 2, 2))
        for modality in MODALITIES
    ]
    for case in cases:
        assert np.array_equal(case.labels, cases[0].labels) and case.objects == cases[0].objects
        assert case.image.shape == case.labels.shape and np.isfinite(case.image).all()
        inside = case.image[case.labels > 0]
        assert len(np.unique(inside)) > 1000  # no part of it is hidden by a sector
    images = [(case.image - case.image.mean()) / case.image.std() for case in cases]
    assert all(not np.allclose(one, images[0], atol=0.1) for one in images[1:])
    other = simulate_controlled("torso", "ct", 3, shape=(12, 64, 64), spacing_mm=(4, 2, 2))
    assert not np.array_equal(other.labels, cases[0].labels)


def test_a_slice_at_a_height_is_the_same_in_every_volume():
    """Same extent, other distance: shared slices are equal. Same distance, fewer slices: a crop."""
    fine, coarse, middle = column(51, 2.0), column(11, 10.0), column(21, 5.0)
    assert np.array_equal(fine.image[::5], coarse.image)
    assert np.array_equal(fine.labels[::5], coarse.labels)
    assert np.array_equal(middle.image[::2], coarse.image) and np.array_equal(
        middle.labels[::2], coarse.labels
    )
    crop = column(11, 2.0)
    assert np.array_equal(crop.image, fine.image[20:31]) and np.array_equal(crop.labels, fine.labels[20:31])
    assert len({one.tobytes() for one in fine.image}) == 51  # noise of its own on every slice
    assert not np.array_equal(column(11, 2.0, seed=4).labels, crop.labels)


def test_the_rate_of_change_is_that_of_the_distance_all_along():
    long = column(101, 2.0)
    for name in ("organ", "vessel"):
        alike = adjacent_iou(long.labels == long.objects[name])
        thirds = [part.mean() for part in np.array_split(alike, 3)]
        assert len(alike) == 100 and min(alike) > 0 and np.ptp(thirds) < 0.1
        apart = adjacent_iou(column(21, 10.0).labels == long.objects[name]).mean()
        assert apart < alike.mean() - 0.05
    assert heights_mm(5, 2.0).tolist() == [-4, -2, 0, 2, 4]
    shared = draw_column(np.random.default_rng(1), np.array([0.0, 7.0]), (48, 48))
    assert np.array_equal(shared[1], draw_column(np.random.default_rng(1), np.array([7.0]), (48, 48))[0])


def test_the_rows_of_the_manifest_hold_the_same_patients():
    rows = [MANIFEST.data_set(f"same_torso_{modality}") for modality in MODALITIES]
    found = [dict.fromkeys(find_cases(row, ROOT)) for row in rows]
    assert all(one == found[0] for one in found) and len(found[0]) == rows[0].expected.cases
    raw = [read_case(row, "seed1_24x4mm", None) for row in rows]
    assert all(np.array_equal(one.labels.array, raw[0].labels.array) for one in raw)
    depth = MANIFEST.data_set("column_ct")
    names = list(find_cases(depth, ROOT))
    assert len(names) == depth.expected.cases and "seed8_51x10mm" in names
    assert len({patient_of(depth, name, None) for name in names}) == len(depth.layout.seeds)
    case = read_case(depth, "seed1_11x10mm", None)
    assert case.image.spacing_mm == (10.0, 2.0, 2.0) and case.image.array.shape == (11, 160, 160)


def test_wrong_requests_are_refused():
    plain = {"shape": (8, 32, 32), "spacing_mm": (1, 1, 1)}
    for arguments, words in (
        (("rod", "ct", 1), "unknown anatomy"),
        (("torso", "mr", 1), "modality 'mr'"),
        (("column", "mri", 1), "rendered as ct or pet"),
        (("torso", "ct", -1), "outside 0"),
    ):
        with pytest.raises(ValueError, match=words):
            simulate_controlled(*arguments, **plain)
    layout = {"name": "simulated_grid", "anatomy": "column", "modality": "ct", "seeds": [1], "slices": [11]}
    layout |= {"slice_mm": [2.0]}
    SimulatedGridLayout(**layout)
    for wrong, words in (
        ({"modality": "mri"}, "ct or pet"),
        ({"seeds": [1, 1]}, "stands twice"),
        ({"slices": [2048], "pixels": 2048}, "voxels"),
    ):
        with pytest.raises(ValidationError, match=words):
            SimulatedGridLayout(**layout | wrong)
