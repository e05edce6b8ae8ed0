"""Corrections go into the error, come out the same for the same seed, and end with a reason."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from medsam_nb.errors import StudyError
from medsam_nb.protocol import corrections
from medsam_nb.protocol.corrections import Click, next_click
from medsam_nb.protocol.prompts import Prompt, prompts_2d

SETTINGS = settings(max_examples=150, deadline=None, derandomize=True, database=None)
SHAPE = (9, 11)
masks = arrays(bool, SHAPE)


def square(top, left, side, shape=(20, 24)):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def regions(truth, prediction):
    """The error components by scipy, which shares no code with the rule."""
    everything = np.ones((3, 3))
    found = []
    for wrong, positive in ((truth & ~prediction, True), (prediction & ~truth, False)):
        numbered, count = ndimage.label(wrong, everything)
        found += [(numbered == number, positive) for number in range(1, count + 1)]
    return found


@SETTINGS
@given(truth=masks, prediction=masks, seed=st.integers(0, 5))
def test_a_click_lies_in_a_largest_error_and_has_its_sign(truth, prediction, seed):
    found = next_click(truth, prediction, (), seed)
    errors = regions(truth, prediction)
    if not errors:
        assert found == corrections.NO_ERROR
        return
    (x, y), most = found.point, max(region.sum() for region, _ in errors)
    region, positive = next((r, p) for r, p in errors if r[y, x])
    assert region.sum() == most and found.positive == positive == truth[y, x] != prediction[y, x]
    assert found == next_click(truth, prediction, (), seed)


@SETTINGS
@given(truth=masks, prediction=masks, clicks=st.integers(1, 12))
def test_no_pixel_is_clicked_twice_and_the_last_has_a_reason(truth, prediction, clicks):
    clicked, found = [], None
    for number in range(clicks):
        found = next_click(truth, prediction, clicked, number)
        if isinstance(found, str):
            break
        assert found.point not in clicked and truth[found.point[::-1]] != prediction[found.point[::-1]]
        clicked.append(found.point)
    if isinstance(found, str):
        largest = max([int(region.sum()) for region, _ in regions(truth, prediction)], default=0)
        assert found == (corrections.ALL_CLICKED if largest else corrections.NO_ERROR)
        assert len(clicked) >= (largest > 0)


def test_a_click_is_at_the_greatest_distance_from_the_border_of_the_error():
    truth, prediction = square(2, 3, 11), square(2, 3, 11)
    prediction[4:9, 4:9] = False  # a hole of 5 x 5
    assert next_click(truth, prediction, ()) == Click((6, 6), True)
    prediction = truth | square(15, 18, 3)  # an excess of 3 x 3
    assert next_click(truth, prediction, ()) == Click((19, 16), False)
    prediction[4:7, 4:7] = False  # a hole as large as the excess: the miss goes first
    assert next_click(truth, prediction, ()) == Click((5, 5), True)


def test_the_first_click_on_nothing_is_the_protocol_s_point():
    truth = square(1, 2, 8) | square(14, 14, 4)
    parts = (1, "set", "case", "organ", 3)
    (prompt,) = prompts_2d(truth, "one_point", parts)
    assert next_click(truth, np.zeros_like(truth), (), *parts, 0).point == prompt.points[0]


def test_clicks_are_added_with_their_labels():
    prompt = Prompt(((1, 2),), box=(0, 0, 5, 5))
    more = corrections.with_click(prompt, Click((3, 4), False))
    assert more.points == ((1, 2), (3, 4)) and more.labels == (1, 0) and more.box == prompt.box
    assert corrections.with_click(prompt, Click((3, 4), True)).labels == ()


def volume(depth=40):
    truth = np.zeros((depth, 20, 24), bool)
    truth[2:38] = square(4, 5, 10)
    return truth, {index: truth[index].copy() for index in range(2, 38)}


def drawn(index, kind):
    return Prompt(points=((index, 0),)) if kind == "one_point" else Prompt(box=(0, 0, index, index))


def test_the_running_predictor_is_corrected_on_the_worst_slice_in_reach_of_each_side():
    truth, predicted = volume()
    predicted[2][:, :8] = False  # worst of all, but 18 slices from the prompted one
    predicted[10][:, :7] = False
    predicted[12][:, :6] = False
    predicted[30][:8] = False
    sides = range(20, 1, -1), range(21, 38)
    found = corrections.running_prompts(truth, predicted, sides, [20], "one_point", drawn)
    assert {index: prompt.points for index, prompt in found.items()} == {10: ((10, 0),), 30: ((30, 0),)}
    found = corrections.running_prompts(truth, predicted, sides, [10, 20, 30], "one_box", drawn)
    assert {index: prompt.box for index, prompt in found.items()} == {2: (0, 0, 2, 2)}
    clean = volume()[1]
    assert (
        corrections.running_prompts(truth, clean, sides, [20], "mask", drawn) == corrections.NOTHING_IN_REACH
    )


def test_a_fresh_start_is_told_of_the_largest_missed_region_of_the_worst_slice():
    truth, predicted = volume()
    predicted[5] = truth[5] | square(15, 16, 4)  # only an excess: nothing is missed
    predicted[9][4:10, 5:15] = False  # 60 pixels
    predicted[11][4:8, 5:15] = False  # 40 missed, and 25 too many
    predicted[11] |= square(15, 16, 5)
    index, prompt = corrections.fresh_prompt(truth, predicted, {20: Prompt(points=((9, 9),))}, "one_box", 1)
    assert (index, prompt.box, prompt.points) == (11, (5, 4, 14, 7), ())
    before = {11: Prompt(points=((14, 13),))}
    index, prompt = corrections.fresh_prompt(truth, predicted, before, "one_point", 1)
    (kept, (x, y)) = prompt.points
    assert index == 11 and kept == (14, 13) and truth[11, y, x] and not predicted[11][y, x]
    index, prompt = corrections.fresh_prompt(truth, predicted, {11: Prompt(box=(9, 9, 14, 13))}, "one_box", 1)
    assert prompt.box == (5, 4, 14, 13)
    index, prompt = corrections.fresh_prompt(truth, predicted, before, "mask", 1)
    assert index == 11 and np.array_equal(prompt.mask, truth[11])
    told = {11: prompt}
    assert corrections.fresh_prompt(truth, predicted, told, "mask", 1)[0] == 9
    clean = volume()[1]
    assert corrections.fresh_prompt(truth, clean, {}, "one_point", 1) == corrections.NOTHING_MISSED


def test_new_information_of_another_kind_is_refused_by_name():
    truth, predicted = volume()
    with pytest.raises(StudyError, match="one_pint"):
        corrections.fresh_prompt(truth, predicted, {}, "one_pint", 1)
