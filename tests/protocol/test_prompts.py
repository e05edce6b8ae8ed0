"""Prompts against masks whose answer can be worked out by hand."""

import numpy as np
import pytest

from medsam_nb.errors import StudyError
from medsam_nb.protocol.prompts import (
    Prompt,
    central_point,
    inscribed_radius,
    jittered,
    largest_components,
    prompt_3d,
    prompts_2d,
    tight_box,
)


def disc(shape, centre, radius):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def test_diagonal_pixels_are_one_component():
    mask = np.eye(4, dtype=bool)
    assert len(largest_components(mask)) == 1


def test_components_are_ranked_by_area_and_at_most_three():
    mask = np.zeros((20, 20), bool)
    mask[0:2, 0:2] = mask[5:8, 5:8] = mask[10:14, 10:14] = mask[16:17, 0:2] = True
    areas = [int(component.sum()) for component in largest_components(mask)]
    assert areas == [16, 9, 4]


def test_of_two_equal_components_the_later_one_is_first():
    mask = np.zeros((5, 9), bool)
    mask[1:3, 1:3] = mask[1:3, 6:8] = True
    assert largest_components(mask)[0][1, 6]


def test_the_point_is_the_centre_of_a_disc_as_column_and_row():
    assert central_point(disc((40, 60), (12, 30), 9), 1) == (30, 12)


def test_the_image_edge_counts_as_a_border():
    mask = np.zeros((9, 9), bool)
    mask[:, :5] = True  # touches three edges: farthest from all borders is column 2
    x, y = central_point(mask, 1)
    assert x == 2 and 2 <= y <= 6


def test_ties_depend_on_the_seed_parts_alone():
    bar = np.zeros((5, 40), bool)
    bar[2, 3:35] = True
    drawn = [central_point(bar, "case", index) for index in range(20)]
    assert drawn == [central_point(bar, "case", index) for index in range(20)]
    assert len(set(drawn)) > 5
    assert all(bar[y, x] for x, y in drawn)


def test_a_box_is_tight_and_inclusive():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 7:11] = True
    assert tight_box(mask) == (7, 2, 10, 4)
    one = np.zeros((3, 3), bool)
    one[1, 2] = True
    assert tight_box(one) == (2, 1, 2, 1)


def test_modes_give_the_calls_that_the_protocol_names():
    mask = np.zeros((30, 30), bool)
    mask[2:12, 2:12] = mask[20:26, 20:26] = True
    seed = (1, "set", "case", "object", 0)
    (one_point,) = prompts_2d(mask, "one_point", seed)
    (points,) = prompts_2d(mask, "point_per_component", seed)
    (one_box,) = prompts_2d(mask, "one_box", seed)
    boxes = prompts_2d(mask, "box_per_component", seed)
    assert len(one_point.points) == 1 and points.points[0] == one_point.points[0]
    assert len(points.points) == 2
    assert one_box.box == (2, 2, 11, 11)
    assert [prompt.box for prompt in boxes] == [(2, 2, 11, 11), (20, 20, 25, 25)]


def test_3d_prompts():
    mask = disc((20, 20), (8, 9), 5)
    assert prompt_3d(mask, "mask", ()).mask is mask
    assert prompt_3d(mask, "one_box", ()).box == (4, 3, 14, 13)
    with pytest.raises(StudyError, match="box_per_component"):
        prompt_3d(mask, "box_per_component", ())


def test_an_empty_mask_and_an_unknown_mode_are_refused():
    with pytest.raises(ValueError, match="empty"):
        prompts_2d(np.zeros((4, 4), bool), "one_box", ())
    with pytest.raises(StudyError, match="one_point"):
        prompts_2d(np.ones((4, 4), bool), "two_points", ())


def test_a_prompt_is_whole_or_refused():
    assert Prompt(((1, 2), (3, 4))).point_labels == (1, 1)
    assert Prompt(((1, 2),)).content == Prompt(((1, 2),), labels=(1,)).content
    assert Prompt(((1, 2),)).content != Prompt(((1, 2),), labels=(0,)).content
    for wrong in (
        {"points": ((1, 2),), "labels": (1, 0)},
        {"points": ((1, 2),), "labels": (2,)},
        {"points": ((1, 2),), "mask": np.ones((4, 4), bool)},
        {"box": (0, 0, 1, 1), "mask": np.ones((4, 4), bool)},
    ):
        with pytest.raises(ValueError):
            Prompt(**wrong)


def test_a_jittered_box_moves_each_corner_by_the_share_of_its_side():
    mask = np.zeros((100, 120), bool)
    mask[30:50, 40:80] = True  # 40 wide, 20 high
    truth = Prompt(box=tight_box(mask))
    moved = [jittered(truth, mask, 0.1, "case", k).box for k in range(20)]
    steps = np.array(moved) - np.array(truth.box)
    np.testing.assert_allclose(np.abs(steps), np.tile([4.0, 2.0, 4.0, 2.0], (20, 1)))
    assert len(set(moved)) > 8
    assert moved == [jittered(truth, mask, 0.1, "case", k).box for k in range(20)]


def test_a_jittered_point_moves_by_the_share_of_the_radius_and_stays_inside():
    mask = disc((60, 60), (30, 25), 12)
    truth = prompts_2d(mask, "one_point", (1,))[0]
    radius = inscribed_radius(mask, truth.points[0])
    assert radius == pytest.approx(12.5, abs=0.6)
    for k in range(30):
        ((x, y),) = jittered(truth, mask, 0.4, "case", k).points
        assert np.hypot(x - 25, y - 30) == pytest.approx(0.4 * radius)
        assert mask[round(y), round(x)]


def test_a_share_of_zero_is_the_truth_itself_and_boxes_stay_in_the_image():
    mask = np.zeros((20, 20), bool)
    mask[:, :12] = True
    for mode in ("one_point", "one_box"):
        (truth,) = prompts_2d(mask, mode, (1,))
        assert jittered(truth, mask, 0.0, 1) is truth
    for k in range(30):
        x0, y0, x1, y1 = jittered(Prompt(box=tight_box(mask)), mask, 0.2, k).box
        assert 0 <= x0 < x1 <= 19 and 0 <= y0 < y1 <= 19


def test_what_has_no_corner_cannot_be_jittered():
    mask = np.ones((9, 9), bool)
    with pytest.raises(ValueError, match="mask"):
        jittered(Prompt(mask=mask), mask, 0.1, 1)
    with pytest.raises(ValueError, match="share"):
        jittered(Prompt(box=(0, 0, 8, 8)), mask, 0.5, 1)
