"""A volume along its other axes: square pixels, the same voxels, and back again."""

import numpy as np
import pytest

from medsam_nb.errors import InputError
from medsam_nb.protocol.directions import majority, turned


def volume(shape=(5, 6, 7), colour=False):
    rng = np.random.default_rng(0)
    slices = rng.integers(0, 256, (*shape, 3) if colour else shape, np.uint8)
    return slices, rng.random(shape) > 0.5


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize(("axis", "shape"), [(1, (6, 13, 7)), (2, (7, 13, 6))])
def test_slices_lie_on_rows_and_what_lies_between_is_mixed(axis, shape, colour):
    slices, truth = volume(colour=colour)
    view = turned(slices, truth, axis, 3.0, 1.0)
    assert view.slices.shape[:3] == view.truth.shape == shape and view.rows == (0, 3, 6, 9, 12)
    assert np.array_equal(np.moveaxis(view.slices[:, list(view.rows)], 0, axis), slices)
    assert np.array_equal(view.back(view.truth - 0.5), truth)
    ends = view.slices[:, 0].astype(float), view.slices[:, 3].astype(float)
    assert np.abs(view.slices[:, 1] - (2 * ends[0] + ends[1]) / 3).max() <= 0.51
    assert np.array_equal(view.truth[:, 1], view.truth[:, 0])
    assert np.array_equal(view.truth[:, 2], view.truth[:, 3])


@pytest.mark.parametrize("step_mm", [0.2, 1.0, 1.1, 2.5, 7.3])
def test_no_slice_is_lost_at_any_distance(step_mm):
    slices, truth = volume((9, 4, 3))
    view = turned(slices, truth, 2, step_mm, 1.0)
    assert len(set(view.rows)) == 9 and np.array_equal(view.back(view.truth - 0.5), truth)
    assert len(view.slices[0]) == max(9, round(8 * step_mm) + 1)


def test_between_slices_that_are_left_out_the_logits_are_mixed():
    slices, truth = volume((3, 8, 5))
    view = turned(slices, truth, 1, 1.0, 1.0, every=3)
    assert view.places == (0, 3, 6) and view.slices.shape == (3, 3, 5)
    assert np.array_equal(view.truth, np.moveaxis(truth, 1, 0)[::3])
    logits = np.zeros((3, 3, 5)) + np.array([3.0, -1.0, 0.4])[:, None, None]
    masks = view.back(logits)
    # at 0, 1, ... 7 of the axis: 3, 5/3, 1/3, -1, -8/15, -1/15, 2/5, 2/5
    assert masks.shape == (3, 8, 5) and masks[0, :, 0].tolist() == [True] * 3 + [False] * 3 + [True] * 2


def test_one_slice_is_a_row():
    slices, truth = volume((1, 4, 3))
    view = turned(slices, truth, 1, 5.0, 1.0)
    assert view.slices.shape == (4, 1, 3) and np.array_equal(view.back(view.truth - 0.5), truth)


@pytest.mark.parametrize("step_mm", [float("nan"), 0.0, float("inf")])
def test_without_a_distance_the_planes_have_no_shape(step_mm):
    with pytest.raises(InputError, match="need the distances in mm"):
        turned(*volume(), 1, step_mm, 1.0)


def test_a_tie_is_no_majority():
    assert not majority([np.array([True]), np.array([False])]).any()
