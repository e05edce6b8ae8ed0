"""Metrics against answers known beforehand: counted voxels, concentric spheres, empty masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from medsam_nb.protocol import metrics


def sphere(radius_mm, spacing_mm, half_mm):
    """A sphere in the middle of a grid that reaches `half_mm` to either side."""
    axes = [np.arange(-np.ceil(half_mm / s), np.ceil(half_mm / s) + 1) * s for s in spacing_mm]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return z**2 + y**2 + x**2 <= radius_mm**2


def test_overlaps_on_counted_voxels():
    truth = np.zeros((1, 4, 4), bool)
    truth[0, :2, :2] = True
    prediction = np.zeros_like(truth)
    prediction[0, 1:3, :2] = True
    assert metrics.iou(truth, prediction) == pytest.approx(2 / 6)
    assert metrics.dice(truth, prediction) == pytest.approx(2 * 2 / 8)


@settings(max_examples=40, deadline=None)
@given(arrays(bool, (2, 3, 4)), arrays(bool, (2, 3, 4)))
def test_dice_follows_from_iou_and_both_are_symmetric(a, b):
    i, d = metrics.iou(a, b), metrics.dice(a, b)
    if (a | b).any():
        assert d == pytest.approx(2 * i / (1 + i))
        assert (i, d) == (metrics.iou(b, a), metrics.dice(b, a))
    else:
        assert np.isnan(i) and np.isnan(d)


def test_over_propagation_counts_slices_past_both_ends_but_not_gaps():
    truth = np.zeros((12, 3, 3), bool)
    truth[[4, 5, 7], 1, 1] = True  # with a gap at 6
    prediction = np.zeros_like(truth)
    prediction[[1, 3, 5, 6, 8, 9], 1, 1] = True
    assert metrics.over_propagation(truth, prediction, 2.5) == (4.0, 10.0)
    assert metrics.over_propagation(truth, truth, 2.5) == (0.0, 0.0)
    assert metrics.over_propagation(truth, np.zeros_like(truth), 2.5) == (0.0, 0.0)
    assert np.isnan(metrics.over_propagation(np.zeros_like(truth), prediction, 2.5)).all()


def test_adjacent_iou():
    truth = np.zeros((4, 2, 2), bool)
    truth[0, 0] = truth[1, 0, 0] = True
    assert metrics.adjacent_iou(truth) == pytest.approx([0.5, 0.0, np.nan], nan_ok=True)


@pytest.mark.parametrize("spacing", [(3.0, 0.8, 0.8), (1.0, 1.0, 1.0), (2.0, 0.5, 1.0)])
@pytest.mark.parametrize(("truth_mm", "prediction_mm"), [(18, 16), (14, 17), (9, 9)])
def test_surface_distances_of_concentric_spheres(spacing, truth_mm, prediction_mm):
    half = max(truth_mm, prediction_mm) + 3
    truth, prediction = (sphere(r, spacing, half) for r in (truth_mm, prediction_mm))
    found = metrics.surface_distances(truth, prediction, spacing, tolerance_mm=1.0)
    gap = abs(truth_mm - prediction_mm)
    # half a voxel's diagonal is the resolution of these numbers
    assert found["hd95_mm"] == pytest.approx(gap, abs=np.linalg.norm(spacing) / 2)
    if gap == 0:
        assert found == {"hd95_mm": pytest.approx(0, abs=1e-9), "nsd": pytest.approx(1)}
    else:
        assert found["nsd"] < 0.25  # the truth is 0; thick slices blur it
        wide = metrics.surface_distances(truth, prediction, spacing, gap + np.linalg.norm(spacing) / 2)
        assert wide["nsd"] == pytest.approx(1.0, abs=0.02)


def test_the_spacing_goes_with_the_axes():
    """Two plates 4 slices apart: 12 mm along z, whatever the spacing in the plane."""
    truth = np.zeros((20, 16, 16), bool)
    truth[4, 2:14, 2:14] = True
    prediction = np.roll(truth, 4, axis=0)
    assert metrics.surface_distances(truth, prediction, (3.0, 0.8, 0.5))["hd95_mm"] == pytest.approx(12.0)
    turned = (truth.transpose(1, 0, 2), prediction.transpose(1, 0, 2))
    assert metrics.surface_distances(*turned, (0.8, 3.0, 0.5))["hd95_mm"] == pytest.approx(12.0)


def test_a_single_slice_is_an_image():
    y, x = np.mgrid[:60, :60]
    truth, prediction = ((((y - 30) ** 2 + (x - 30) ** 2) <= r * r)[None] for r in (20, 16))
    found = metrics.surface_distances(truth, prediction, (5.0, 1.0, 1.0), 1.0)
    assert found["hd95_mm"] == pytest.approx(4.0, abs=0.75)
    assert found["nsd"] < 0.1  # the faces of a slab would all agree


def test_an_object_at_the_border_has_a_surface_there():
    truth = np.zeros((6, 6, 6), bool)
    truth[:3] = True
    assert metrics.surface_distances(truth, truth, (1, 1, 1)) == {
        "hd95_mm": pytest.approx(0, abs=1e-9),
        "nsd": pytest.approx(1),
    }


def whole(truth, prediction, spacing_mm):
    """Every metric of a whole volume."""
    surfaces = metrics.surface_distances(truth, prediction, spacing_mm)
    return metrics.volume_overlap(truth, prediction, spacing_mm) | surfaces


def test_empty_masks_follow_the_table():
    truth = np.zeros((4, 5, 6), bool)
    truth[1:3, 2, 2] = True
    empty = np.zeros_like(truth)
    spacing = (2.0, 1.0, 1.0)
    worst = float(np.sqrt(6**2 + 4**2 + 5**2))
    missed = whole(truth, empty, spacing)
    assert missed == {
        "volume_iou": 0.0,
        "volume_dice": 0.0,
        "over_propagation_slices": 0.0,
        "over_propagation_mm": 0.0,
        "hd95_mm": pytest.approx(worst),
        "nsd": 0.0,
    }
    invented = whole(empty, truth, spacing)
    assert [invented[name] for name in ("volume_iou", "volume_dice", "nsd")] == [0.0, 0.0, 0.0]
    assert invented["hd95_mm"] == pytest.approx(worst)
    assert np.isnan(invented["over_propagation_mm"])
    assert all(np.isnan(value) for value in whole(empty, empty, spacing).values())


def test_the_backend_is_named_with_version_and_tolerance():
    assert metrics.surface_backend(1.5).startswith("MeshMetrics 1.")
    assert metrics.surface_backend(1.5).endswith("NSD tolerance 1.5 mm")
