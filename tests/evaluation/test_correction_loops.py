"""Corrections in 3D equal the official video predictor driven by hand, bit for bit, with less work."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from helpers import networks
from helpers.volumes import HEIGHT, WIDTH, blob, counted, shipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medsam_nb.data.simulated import anatomy
from medsam_nb.errors import StudyError
from medsam_nb.evaluation import reference
from medsam_nb.evaluation.correction_loops import correction_loops
from medsam_nb.evaluation.reference_loops import loops_by_hand
from medsam_nb.evaluation.steps import Steps
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol import corrections
from medsam_nb.protocol.designs import prompted_slices
from medsam_nb.protocol.prompts import Prompt, prompt_3d

SETTINGS = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
PARTS = (1, "set", "case", "organ")


def prompted(truth, frame_choice, kind):
    chosen = prompted_slices(truth.sum((1, 2)), frame_choice)
    return {index: prompt_3d(truth[index], kind, (*PARTS, index)) for index in chosen}


def engine(model, slices, truth, initial, **options):
    """Run the loops; return them by key, and the logits of all masks as they were made."""
    drawn, original = set(), Steps.at_slice_resolution

    def noting(self, predicted):
        for several in original(self, predicted):
            drawn.update(one.tobytes() for one in several.numpy())
            yield several

    features = SliceFeatures(model, slices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "at_slice_resolution", noting)
        found = list(correction_loops(model, truth, initial, features, PARTS, **options))
    keyed = {(one.strategy, one.new_information, one.loop): one for one in found}
    assert len(keyed) == len(found)
    return keyed, drawn


def assert_same(model, slices, truth, initial, **options):
    """Compare the engine with the package driven by hand; return what both found."""
    expected = loops_by_hand(
        model, partial(reference.video_state, model, slices), truth, initial, PARTS, **options
    )
    found, drawn = engine(model, slices, truth, initial, **options)
    assert found.keys() == expected.keys()
    for key, by_hand in expected.items():
        one = found[key]
        contents = [{i: p.content for i, p in prompts.items()} for prompts in (one.prompts, by_hand.prompts)]
        assert contents[0] == contents[1] and one.ended == by_hand.ended * (
            key[0] != corrections.RESTARTED
        ), key
        assert one.prediction.masks.keys() == by_hand.logits.keys()
        for index, logits in by_hand.logits.items():
            np.testing.assert_array_equal(one.prediction.masks[index], logits > 0, err_msg=str((key, index)))
            np.testing.assert_array_equal(one.prediction.scores[index], by_hand.scores[index])
            assert logits.tobytes() in drawn, (key, index)
    return found


@SETTINGS
@given(
    depth=st.integers(1, 14),
    data=st.data(),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    version=st.sampled_from(["2.1", "2.0"]),
    frame_choice=st.sampled_from(["first_slice", "centre_slice", "three_slices"]),
    kind=st.sampled_from(["one_point", "point_per_component", "one_box", "mask"]),
    first=st.booleans(),
    seed=st.integers(0, 3),
)
def test_any_volume_and_prompts(depth, data, dtype, version, frame_choice, kind, first, seed):
    filled = data.draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=depth, unique=True))
    information = data.draw(st.lists(st.sampled_from(corrections.NEW_INFORMATION), min_size=1, unique=True))
    truth = blob(depth, filled, seed)
    model = networks.small_model(dtype, seed, version)
    slices = networks.textured_slices(depth, HEIGHT, WIDTH, seed)
    initial = prompted(truth, frame_choice, kind)
    assert_same(model, slices, truth, initial, new_information=information, loops=2, first=first)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_long_volume_in_both_strategies_and_every_information(dtype):
    """More slices than the memory window and the pointers reach, three loops, both ends of the volume."""
    depth = 20
    model, truth = networks.small_model(dtype, seed=1), blob(depth, list(range(depth)), 4)
    slices = networks.textured_slices(depth, HEIGHT, WIDTH, 2)
    found = assert_same(model, slices, truth, prompted(truth, "centre_slice", "one_point"))
    assert len(found) == 3 * (4 + 1 + 4)
    running = [found[corrections.RUNNING, "one_box", loop].prediction.masks for loop in range(4)]
    assert all((a[3] != b[3]).any() for a, b in zip(running, running[1:], strict=False))


def test_the_shipped_weights_improve_with_the_truth_of_slices():
    model, simulated = shipped(), anatomy.simulate_case("ct", 3, shape=(8, 64, 64))
    low, high = np.percentile(simulated.image, (1, 99))
    slices = (np.clip((simulated.image - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    truth = simulated.labels == simulated.objects["organ"]
    initial = prompted(truth, "centre_slice", "one_point")
    found = assert_same(model, slices, truth, initial, new_information=["mask"], loops=2)
    values = {
        key: np.mean([(truth[i] & m).sum() / (truth[i] | m).sum() for i, m in one.prediction.masks.items()])
        for key, one in found.items()
    }
    for strategy in corrections.STRATEGIES_3D:
        assert values[strategy, "mask", 2] > values[strategy, "mask", 0]


def test_what_the_package_does_by_default_loses_a_correction():
    """Why a corrected slice has to stay prompted: otherwise it is tracked again as if nothing was said."""
    model, truth = networks.small_model(), blob(6, [0, 1, 2, 3, 4, 5], 4)
    slices, network = networks.textured_slices(6, HEIGHT, WIDTH, 2), networks.small_model().network
    masks = {}
    for stays in (False, True):
        with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(network, "add_all_frames_to_correct_as_cond", stays)
            state = reference.video_state(model, slices)
            network.add_new_mask(state, 0, 1, truth[0])
            before = {i: m.clone() for i, _, m in network.propagate_in_video(state)}
            network.add_new_mask(state, 3, 1, truth[3])
            after = {i: m.clone() for i, _, m in network.propagate_in_video(state)}
        masks[stays] = [bool((before[i] != after[i]).any()) for i in range(6)]
    assert not any(masks[False]) and masks[True][3] and any(masks[True][4:])


def test_every_distinct_piece_of_work_is_done_once():
    depth = 9
    model, truth = networks.small_model(), blob(depth, list(range(1, 8)), 4)
    slices = networks.textured_slices(depth, HEIGHT, WIDTH, 2)
    initial = prompted(truth, "centre_slice", "one_point")
    with counted(model.network) as work:
        found, _ = engine(model, slices, truth, initial)
    with counted(model.network) as by_hand:
        loops_by_hand(model, partial(reference.video_state, model, slices), truth, initial, PARTS)
    assert work["encoded"] == 7 + 1  # the slices of the object, and the package's look at a blank image
    asked = Counter()  # questions to a fresh predictor
    for (strategy, *_), one in found.items():
        if strategy != corrections.RUNNING:
            asked[frozenset((i, p.content) for i, p in one.prompts.items())] += 1
    fresh_steps = sum(7 - len(prompts) for prompts in asked)
    assert max(asked.values()) > 1 and work["attended"] < by_hand["attended"] / 1.2
    # A correction tracks the rest of its side again, and looks at its own slice unless it is a mask.
    sides = range(4, 0, -1), range(5, 8)
    running_steps = masks_into_running = 0
    for kind in corrections.NEW_INFORMATION:
        before = found[corrections.RUNNING, kind, 0]
        while (after := found.get((corrections.RUNNING, kind, before.loop + 1))) is not None:
            for side in sides:
                if new := [i for i in side if i in after.prompts and i not in before.prompts]:
                    running_steps += sum(i not in after.prompts for i in side)
                    running_steps += len(new) * (kind != "mask")
                    masks_into_running += len(new) * (kind == "mask")
            before = after
    assert work["attended"] == fresh_steps + running_steps
    distinct = {one for prompts in asked for one in prompts}
    # The decoder makes the object pointer of a mask, too.
    assert work["decoded"] == work["attended"] + len(distinct) + masks_into_running


def test_a_case_that_cannot_be_improved_ends_with_a_reason():
    model, truth = networks.small_model(), blob(5, [1, 3], 4)
    slices = networks.textured_slices(5, HEIGHT, WIDTH, 2)
    found, _ = engine(model, slices, truth, {i: Prompt(mask=truth[i]) for i in (1, 3)}, loops=4)
    assert {one.ended for one in found.values()} == {corrections.NOTHING_IN_REACH, corrections.NOTHING_MISSED}
    assert {one.loop for one in found.values()} == {0}
    found, _ = engine(model, slices, truth, {1: Prompt(mask=truth[1])}, loops=4, new_information=["mask"])
    assert found[corrections.RUNNING, "mask", 1].ended == corrections.NOTHING_IN_REACH
    assert max(loop for _, _, loop in found) == 1


def test_an_unknown_strategy_is_refused_by_name():
    model, truth = networks.small_model(), blob(5, [1, 3], 4)
    features = SliceFeatures(model, networks.textured_slices(5, HEIGHT, WIDTH, 2))
    with pytest.raises(StudyError, match="corection"):
        next(correction_loops(model, truth, {}, features, PARTS, strategies=["corection"]))
