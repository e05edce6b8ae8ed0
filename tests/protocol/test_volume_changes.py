"""Volumes shown in another way: what changes nothing, what stays, what each does."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from helpers.volumes import disc_case

from medsam_nb.errors import StudyError
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.volume import Case, Volume
from medsam_nb.protocol.volume_changes import ShownVolume, VolumeChange, shown_volume
from medsam_nb.protocol.volume_repairs import VolumeRepair, mixed, order_by_similarity, repaired

UNREPAIRED = [VolumeRepair(), *(VolumeRepair(kind, 0) for kind in ("interpolated", "registered", "repeated"))]


def moving_disc(depth: int = 13, coloured: bool = False) -> Case:
    """A bright disc that grows and moves by two pixels a slice, on all slices but the first and the last."""
    rows, columns = np.ogrid[:64, :72]
    labels = np.zeros((depth, 64, 72), np.uint8)
    for z in range(1, depth - 1):
        labels[z] = (rows - 24 - z) ** 2 + (columns - 20 - 2 * z) ** 2 <= (9 + z / 3) ** 2
    texture = np.random.default_rng(0).normal(0, 6, (64, 72))
    image = (80 + 100 * labels + texture).astype(np.float32)
    case = disc_case()
    volume = Volume.from_spacing(image, (3.0, 1.0, 1.0))
    colours = np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, -1) if coloured else None
    return replace(case, image=volume, labels=labels, objects={"disc": (1,)}, colours=colours)


@pytest.mark.parametrize("kind", ["none", "decimated", "averaged"])
def test_a_change_by_factor_1_shows_the_case_itself(kind):
    case = moving_disc()
    shown = shown_volume(case, "disc", (6,), VolumeChange(kind, 1))
    assert np.array_equal(shown.slices, case.slices_uint8()) and np.array_equal(
        shown.truth, case.mask("disc")
    )
    assert shown.stands_for == tuple(range(13)) and shown.prompted == (6,) and shown.step_mm == 3.0
    assert VolumeChange(kind, 1).name == "none"


@pytest.mark.parametrize("repair", UNREPAIRED)
def test_no_slice_between_is_the_same_object(repair):
    shown = shown_volume(moving_disc(), "disc", (6,), VolumeChange("decimated", 2))
    assert repaired(shown, repair) is shown and repair.name == "none"


@pytest.mark.parametrize("kind", ["decimated", "averaged"])
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("prompted", [(5,), (6,), (2, 6, 9)])
def test_shown_are_original_slices_at_even_steps_the_prompted_one_among_them(kind, factor, prompted):
    case = moving_disc()
    shown = shown_volume(case, "disc", prompted, VolumeChange(kind, factor))
    kept = list(shown.stands_for)
    sure = prompted[0] if len(prompted) == 1 else 1  # the object begins on slice 1
    assert sure in kept and set(np.diff(kept)) == {factor}
    assert kept[0] < factor and kept[-1] >= 13 - factor and shown.step_mm == 3.0 * factor
    assert np.array_equal(shown.truth, case.mask("disc")[kept])
    moved = [kept[place] for place in shown.prompted]
    assert len(moved) <= len(prompted) and (len(prompted) > 1 or moved == [sure])
    assert all(min(abs(z - p) for p in prompted) <= factor // 2 + 1 for z in moved)
    if kind == "decimated":
        assert np.array_equal(shown.slices, case.slices_uint8()[kept])


def test_a_thick_slice_is_the_mean_of_stored_values_before_they_become_grey_levels():
    case = moving_disc()
    window = replace(case, intensity=replace(case.intensity, policy="window", low=90, high=190))
    shown = shown_volume(window, "disc", (6,), VolumeChange("averaged", 3))
    stored = window.image.array[5:8].mean(axis=0)
    expected = np.rint(np.clip((stored - 90) * 2.55, 0, 255))
    assert np.abs(shown.slices[list(shown.stands_for).index(6)].astype(int) - expected).max() <= 1
    two = shown_volume(window, "disc", (6,), VolumeChange("averaged", 2))
    stored = np.tensordot([0.25, 0.5, 0.25], window.image.array[5:8], axes=1)
    expected = np.rint(np.clip((stored - 90) * 2.55, 0, 255))
    assert np.abs(two.slices[list(two.stands_for).index(6)].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("coloured", [False, True])
def test_a_camera_shows_the_prompted_slice_and_moves_its_truth_with_it(coloured):
    case = moving_disc(coloured=coloured)
    mask = case.mask("disc")
    speeds = [shown_volume(case, "disc", (6,), VolumeChange("camera", speed)) for speed in (1, 2)]
    for shown in speeds:
        assert np.array_equal(shown.slices[6], case.slices_uint8()[6]) and shown.prompted == (6,)
        assert np.array_equal(shown.truth[6], mask[6]) and shown.slices.shape == case.slices_uint8().shape
        assert shown.stands_for == (None, *range(1, 12), None)
        grey = shown.slices if shown.slices.ndim == 3 else shown.slices[..., 0]
        for z in range(1, 12):  # what the picture shows is what the truth says
            assert iou(shown.truth[z], grey[z] > 130) > 0.9
    slow, fast = (iou(shown.truth[6], shown.truth[7]) for shown in speeds)
    assert mask[6].any() and 0.5 < fast < slow < 1


def test_pictures_between_are_mixed_and_stand_for_no_slice():
    shown = shown_volume(moving_disc(), "disc", (6,), VolumeChange("decimated", 3))
    found = repaired(shown, VolumeRepair("interpolated", 2))
    assert np.array_equal(found.slices[::3], shown.slices) and np.array_equal(found.truth[::3], shown.truth)
    assert found.stands_for[::3] == shown.stands_for and set(found.stands_for[1::3]) == {None}
    assert not found.truth[1::3].any() and found.prompted == (3 * shown.prompted[0],)
    first, second = shown.slices[0].astype(float), shown.slices[1].astype(float)
    assert np.abs(found.slices[1] - (2 * first + second) / 3).max() <= 0.51
    assert np.array_equal(mixed(shown.slices[0], shown.slices[1], 0), shown.slices[0])


@pytest.mark.parametrize("coloured", [False, True])
def test_registered_pictures_lie_nearer_to_the_slice_that_was_left_out(coloured):
    still = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(64, 72)).astype(np.float32), (0, 0), 3)
    still = (128 + 100 * still / np.abs(still).max()).astype(np.uint8)
    moving = np.stack([np.roll(still, (z, 2 * z), axis=(0, 1)) for z in range(9)])
    moving = np.repeat(moving[..., None], 3, axis=-1) if coloured else moving
    truth = np.ones(moving.shape[:3], bool)
    shown = ShownVolume(moving[::2], truth[::2], (0, 2, 4, 6, 8), (2,), 2.0)
    errors = {}
    for kind in ("interpolated", "registered"):
        between = repaired(shown, VolumeRepair(kind, 1)).slices[1::2].astype(float)
        errors[kind] = np.abs(between - moving[1::2]).mean()
    assert errors["registered"] < 0.5 * errors["interpolated"]


def test_a_repeated_slice_counts_where_it_is_reached_last_on_the_way_from_the_prompt():
    shown = shown_volume(moving_disc(), "disc", (6,), VolumeChange("decimated", 3))
    found = repaired(shown, VolumeRepair("repeated", 1))
    # slices 0, 3, 6, 9, 12: before the prompt the first copy is reached last, behind it the second
    assert found.stands_for == (0, None, 3, None, 6, None, 9, None, 12) and found.prompted == (4,)
    assert np.array_equal(found.slices[0], found.slices[1]) and np.array_equal(
        found.slices[5], found.slices[6]
    )
    assert all(np.array_equal(found.truth[place], shown.truth[i]) for i, place in enumerate((0, 2, 4, 6, 8)))


def test_smoothing_mixes_neighbours_and_keeps_a_volume_that_does_not_vary():
    shown = shown_volume(moving_disc(), "disc", (6,), VolumeChange())
    found = repaired(shown, VolumeRepair("smoothed"))
    expected = np.tensordot([0.25, 0.5, 0.25], shown.slices[3:6].astype(float), axes=1)
    assert np.abs(found.slices[4] - expected).max() <= 0.51 and found.stands_for == shown.stands_for
    same = replace(shown, slices=np.repeat(shown.slices[:1], 13, axis=0))
    assert np.array_equal(repaired(same, VolumeRepair("smoothed")).slices, same.slices)


def test_by_similarity_the_prompted_slice_comes_first_and_then_those_most_like_it():
    draw = np.random.default_rng(1)
    base, other = draw.normal(size=(2, 20, 20))
    parts = [0.9, 0.2, 0.6, 0.0, 0.3, 0.8, 0.1]  # of the other picture; slice 3 is prompted
    slices = np.stack([120 + 30 * ((1 - part) * base + part * other) for part in parts]).astype(np.uint8)
    truth = np.zeros(slices.shape, bool)
    truth[1:6, 5:9, 5:9] = True
    shown = ShownVolume(slices, truth, tuple(range(7)), (3,), 1.0)
    assert order_by_similarity(shown) == [3, 1, 4, 2, 5]
    found = repaired(shown, VolumeRepair("by_similarity"))
    assert found.stands_for == (3, 1, 4, 2, 5) and found.prompted == (0,)
    assert np.array_equal(found.slices[1], slices[1])
    two = replace(shown, prompted=(1, 3))
    assert repaired(two, VolumeRepair("by_similarity")).prompted == (0, 1)


@pytest.mark.parametrize("make", [VolumeChange, VolumeRepair])
def test_what_cannot_be_shown_is_refused(make):
    with pytest.raises(StudyError, match="change|repair"):
        make("turned")
    for number in (-1, 1.5, True):
        with pytest.raises(StudyError, match="whole number"):
            make("none", number)


def test_of_several_prompted_slices_the_copy_counts_that_a_pass_from_the_middle_one_reaches_last():
    shown = shown_volume(moving_disc(), "disc", (2, 4, 8), VolumeChange())
    found = repaired(shown, VolumeRepair("repeated", 1))
    scored = [place for place, index in enumerate(found.stands_for) if index is not None]
    order = [0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7, 8, 9, 9, 10, 10, 11, 11, 12, 12]
    last = [max if index >= 4 else min for index in range(13)]
    copies = [[place for place, index in enumerate(order) if index == z] for z in range(13)]
    assert scored == [which(places) for which, places in zip(last, copies, strict=True)]
    assert found.prompted == tuple(scored[z] for z in (2, 4, 8))
