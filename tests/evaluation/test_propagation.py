"""The engine predicts what the reference predicts, bit for bit, with every distinct step made once."""

import dataclasses
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import networks
from helpers.volumes import HEIGHT, WIDTH, blob, counted, shipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medsam_nb.data.simulated import anatomy
from medsam_nb.errors import StudyError
from medsam_nb.evaluation import propagation, reference, single_slices
from medsam_nb.models.features import SliceFeatures
from medsam_nb.models.memory import looking_back, temporal_rows
from medsam_nb.protocol.designs import ALL_DESIGNS, DIRECTIONS, MASK_CHOICES_3D, PAPER_V1_DESIGNS, Design
from medsam_nb.protocol.options import MemoryWindow, PropagationOptions
from medsam_nb.protocol.prompts import Prompt

ROOT = Path(__file__).parents[2]
POINT = Design("centre_slice", "one_point", "bidirectional", "most_confident_mask")
SETTINGS = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def windowed(**window):
    return PropagationOptions(window=MemoryWindow(**window))


def assert_same(model, slices, objects, designs, **options):
    """Compare the two paths on every prediction; return how many there were."""
    prompt_of, options = networks.drawn_prompt(objects), PropagationOptions(**options)
    released = dataclasses.replace(options, window=MemoryWindow(remembered=options.window.remembered))
    with looking_back(model.network, options.window):  # the oracle knows the released window only
        expected = networks.predictions(reference.sweep, model, slices, objects, designs, prompt_of, released)
    found = networks.predictions(propagation.sweep, model, slices, objects, designs, prompt_of, options)
    assert found.keys() == expected.keys()
    for key, (logits, score, prompted) in expected.items():
        np.testing.assert_array_equal(found[key][0], logits, err_msg=str(key))
        np.testing.assert_array_equal(found[key][1], score, err_msg=str(key))
        assert found[key][2] == prompted
    return len(expected)


@SETTINGS
@given(
    depth=st.integers(1, 19),
    data=st.data(),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    version=st.sampled_from(["2.1", "2.0"]),
    mask_scope=st.sampled_from(["all", "prompted", "all_with_boxes"]),
    protocol=st.sampled_from(["corrected", "released"]),
    until=st.sampled_from(["last_object_slice", "volume_end"]),
    seed=st.integers(0, 3),
)
def test_any_volume_and_designs(depth, data, dtype, version, mask_scope, protocol, until, seed):
    every = st.lists(st.integers(0, depth - 1), max_size=depth, unique=True)
    objects = {name: blob(depth, data.draw(every), seed + len(name)) for name in ("organ", "tumour")}
    designs = data.draw(st.lists(st.sampled_from(ALL_DESIGNS), min_size=1, max_size=5, unique=True))
    model = networks.small_model(dtype, seed, version)
    slices = networks.textured_slices(depth, HEIGHT, WIDTH, seed)
    options = {"mask_scope": mask_scope, "protocol": protocol, "until": until}
    assert_same(model, slices, objects, designs, **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("depth", "filled"),
    [
        (1, [0]),
        (2, [1]),
        (6, [0, 1, 2, 3, 4, 5]),
        (12, [0, 3, 4, 9, 11]),
        (20, [9, 10, 11, 12, 13]),
    ],
    ids=["one slice", "last of two", "all slices, first and last", "gaps", "more than 16 slices"],
)
def test_cases_that_are_easily_wrong(depth, filled, dtype):
    model = networks.small_model(dtype, seed=1)
    slices = networks.textured_slices(depth, HEIGHT, WIDTH, 2)
    objects = {"organ": blob(depth, filled, 4), "nothing": np.zeros((depth, HEIGHT, WIDTH), bool)}
    designs = [
        design
        for design in ALL_DESIGNS
        if (design.frame_choice == "three_slices" or design.prompt == "one_point")
        and (depth < 20 or design.frame_choice in ("first_slice", "three_slices"))
        and (depth < 20 or design.prompt in ("one_point", "mask"))
    ]
    assert assert_same(model, slices, objects, designs) == len(designs) * len(filled)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_shipped_weights(dtype):
    model = shipped(dtype)
    simulated = anatomy.simulate_case("ct", 3, shape=(8, 64, 64))
    low, high = np.percentile(simulated.image, (1, 99))
    slices = (np.clip((simulated.image - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    objects = {"organ": simulated.labels == simulated.objects["organ"]}
    assert objects["organ"].any((1, 2)).sum() >= 3
    designs = [
        dataclasses.replace(POINT, direction=direction, mask_choice=choice)
        for direction in ("front_to_end", "bidirectional")
        for choice in ("first_mask", "most_confident_mask")
    ]
    assert_same(model, slices, objects, designs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_volume_in_colour(dtype):
    model = networks.small_model(dtype, seed=1)
    slices = np.stack([networks.textured_slices(6, HEIGHT, WIDTH, seed) for seed in range(3)], axis=-1)
    objects = {"organ": blob(6, [1, 2, 3, 4], 1)}
    designs = [POINT, dataclasses.replace(POINT, prompt="one_box", mask_choice="first_mask")]
    assert_same(model, slices, objects, designs)
    prompt_of = networks.drawn_prompt(objects)
    colour = networks.predictions(propagation.sweep, model, slices, objects, designs, prompt_of)
    grey = networks.predictions(propagation.sweep, model, slices[..., 0], objects, designs, prompt_of)
    assert any(not np.array_equal(colour[key][0], grey[key][0]) for key in grey)


RICH = {
    3: Prompt(((20, 11), (30.5, 25.25), (5, 5)), labels=(1, 0, 0)),
    7: Prompt(((20, 11), (12, 28)), (10, 5, 33, 30), labels=(1, 0)),
    8: Prompt(((20, 11),), labels=(0,)),
}


@pytest.mark.parametrize("mask_scope", ["all", "all_with_boxes"])
@pytest.mark.parametrize("name", ["small", "miniature"])
def test_richer_prompts_on_given_slices_of_an_object_without_truth(name, mask_scope):
    """Negative points, box and points together, slices chosen by hand; nothing is known of the object."""
    depth = 6 if name == "miniature" else 12
    model = networks.small_model() if name == "small" else shipped()
    slices = networks.textured_slices(depth, HEIGHT, WIDTH, 4)
    given = {"organ": [index for index in RICH if index < depth]}
    designs = [
        dataclasses.replace(POINT, direction=d, mask_choice=m)
        for d, m in product(DIRECTIONS, MASK_CHOICES_3D)
    ]
    options = PropagationOptions(mask_scope=mask_scope, until="volume_end")
    arguments = model, slices, {"organ": np.zeros(slices.shape, bool)}, designs
    asked = lambda _name, index, _kind: RICH[index]  # noqa: E731
    expected = networks.predictions(reference.sweep, *arguments, asked, options, given)
    found = networks.predictions(propagation.sweep, *arguments, asked, options, given=given)
    assert found.keys() == expected.keys() and len(found) == depth * len(designs)
    for key, (logits, score, prompted) in expected.items():
        np.testing.assert_array_equal(found[key][0], logits, err_msg=str(key))
        assert found[key][1:] == (score, prompted)
    as_positive = lambda _name, index, _kind: dataclasses.replace(RICH[index], labels=())  # noqa: E731
    other = networks.predictions(propagation.sweep, *arguments, as_positive, options, given=given)
    assert any((other[key][0] != found[key][0]).any() for key in found)


def test_all_designs_to_the_ends_of_the_volume():
    model = networks.small_model("float32")
    slices = networks.textured_slices(8, HEIGHT, WIDTH, 1)
    objects = {"organ": blob(8, [2, 3, 4, 5], 1)}
    assert assert_same(model, slices, objects, ALL_DESIGNS, until="volume_end") == 64 * 8


@pytest.mark.parametrize(
    "window",
    [MemoryWindow(memories=k) for k in range(1, 8)]
    + [MemoryWindow(memories=9), MemoryWindow(memories=9, beyond="interpolated")]
    + [MemoryWindow(stride=2), MemoryWindow(memories=4, stride=3), MemoryWindow(memories=2, pointers=3)],
    ids=str,
)
def test_memory_windows(window):
    model = networks.small_model("float32", seed=2)
    slices = networks.textured_slices(18, HEIGHT, WIDTH, 3)
    objects = {"organ": blob(18, list(range(1, 17)), 3)}
    designs = [POINT, dataclasses.replace(POINT, frame_choice="first_slice", mask_choice="first_mask")]
    assert_same(model, slices, objects, designs, window=window)


def test_six_previous_slices_are_the_predictor_as_it_is():
    """Seven memories, the prompted slices counted as one, against the package with nothing put over it."""
    model, slices = shipped("float32"), networks.textured_slices(12, HEIGHT, WIDTH, 3)
    objects = {"organ": blob(12, list(range(11)), 3)}
    prompt_of, designs = networks.drawn_prompt(objects), [dataclasses.replace(POINT, prompt="one_box")]
    expected = networks.predictions(reference.sweep, model, slices, objects, designs, prompt_of)
    window = windowed(memories=7, stride=1, pointers=16)
    found = networks.predictions(propagation.sweep, model, slices, objects, designs, prompt_of, window)
    assert found.keys() == expected.keys() and len(found) == 11
    assert all(np.array_equal(found[key][0], expected[key][0]) for key in expected)
    assert all(np.array_equal(found[key][1], expected[key][1]) for key in expected)


@pytest.mark.parametrize("until", ["last_object_slice", "volume_end"])
@pytest.mark.parametrize("remembered", ["truth", "nothing"])
def test_the_bounds_of_what_a_memory_holds(remembered, until):
    model = networks.small_model("float32", seed=2)
    slices = networks.textured_slices(11, HEIGHT, WIDTH, 3)
    objects = {"organ": blob(11, [1, 2, 3, 4, 6, 7, 8], 3), "tumour": blob(11, [4, 5], 1)}
    designs = [POINT, dataclasses.replace(POINT, frame_choice="three_slices", direction="front_to_end")]
    designs.append(dataclasses.replace(designs[1], prompt="one_box", mask_choice="first_mask"))
    window = MemoryWindow(remembered=remembered)
    count = assert_same(model, slices, objects, designs, window=window, until=until)
    assert count == len(designs) * (22 if (remembered, until) == ("truth", "volume_end") else 9)
    arguments = model, slices, objects, designs, networks.drawn_prompt(objects)
    bound, plain = (
        networks.predictions(propagation.sweep, *arguments, options)
        for options in (windowed(remembered=remembered), windowed())
    )
    assert bound.keys() == plain.keys()
    for key, (logits, _, prompted) in plain.items():
        same = np.array_equal(bound[key][0], logits)
        assert same if prompted else bound[key][2] == (remembered == "nothing")
    apart = [key for key, (logits, _, prompted) in plain.items() if not (bound[key][0] == logits).all()]
    assert apart and not any(plain[key][2] for key in apart)


def test_only_the_content_of_a_memory_is_changed_by_the_truth():
    """Slices next to the prompted one have no other memory yet; those farther are told of the true masks."""
    model, slices = networks.small_model("float32", seed=2), networks.textured_slices(6, HEIGHT, WIDTH, 3)
    mask = blob(6, list(range(6)), 3)
    front = dataclasses.replace(POINT, frame_choice="first_slice", direction="front_to_end")
    prompt_of = networks.drawn_prompt({"organ": mask})
    other = mask.copy()
    other[1] = np.roll(mask[1], 5, axis=-1)
    first, second = (
        networks.predictions(
            propagation.sweep, model, slices, {"organ": one}, [front], prompt_of, windowed(remembered="truth")
        )
        for one in (mask, other)
    )
    same = [np.array_equal(first["organ", front, z][0], second["organ", front, z][0]) for z in range(6)]
    assert same[:2] == [True, True] and not any(same[2:])


def test_a_shorter_pointer_horizon_is_the_package_own_where_it_has_one():
    # SAM 2.0 gives pointers no position in time, so there their number can simply be set.
    model = networks.small_model("float32", version="2.0", seed=2)
    slices = networks.textured_slices(14, HEIGHT, WIDTH, 3)
    objects = {"organ": blob(14, list(range(14)), 3)}
    designs, prompt_of = [POINT], networks.drawn_prompt(objects)
    cut = networks.predictions(
        propagation.sweep, model, slices, objects, designs, prompt_of, windowed(pointers=3)
    )
    whole = networks.predictions(propagation.sweep, model, slices, objects, designs, prompt_of)
    model.network.max_obj_ptrs_in_encoder = 3
    try:
        official = networks.predictions(reference.sweep, model, slices, objects, designs, prompt_of)
    finally:
        model.network.max_obj_ptrs_in_encoder = 16
    assert all(np.array_equal(cut[key][0], official[key][0]) for key in official)
    assert any(not np.array_equal(cut[key][0], whole[key][0]) for key in official)


def test_windows_keep_trained_embeddings():
    trained = torch.arange(7.0).reshape(7, 1, 1, 1)
    rows = {k: temporal_rows(MemoryWindow(k), trained).flatten().tolist() for k in (1, 3, 7, 9)}
    assert rows == {1: [6], 3: [0, 1, 6], 7: [0, 1, 2, 3, 4, 5, 6], 9: [0, 1, 2, 3, 4, 5, 5, 5, 6]}
    stretched = temporal_rows(MemoryWindow(12, beyond="interpolated"), trained).flatten().tolist()
    assert stretched == pytest.approx([k / 2 for k in range(11)] + [6])
    assert [MemoryWindow(k).is_exact for k in (7, 8)] == [True, False]
    for wrong in (
        {"memories": 0},
        {"stride": 0},
        {"pointers": 17},
        {"beyond": "guessed"},
        {"remembered": "all"},
    ):
        with pytest.raises(StudyError, match=next(iter(wrong))):
            MemoryWindow(**wrong)
    with pytest.raises(StudyError, match="of which none is read"):
        MemoryWindow(3, remembered="nothing")


def test_every_distinct_step_is_made_once():
    model = networks.small_model("float32")
    depth, filled = 12, list(range(3, 9))
    slices, mask = networks.textured_slices(depth, HEIGHT, WIDTH, 5), blob(depth, filled, 6)
    mask[:, 30:] = False  # one component, so that two kinds of points are the same prompt
    objects = {"organ": mask}
    designs = [
        dataclasses.replace(POINT, prompt=prompt, direction=direction, mask_choice=choice)
        for prompt in ("one_point", "point_per_component")
        for direction in ("front_to_end", "bidirectional")
        for choice in ("first_mask", "most_confident_mask")
    ]
    with counted(model.network) as counts:
        items = list(
            propagation.sweep(
                model,
                slices,
                objects,
                designs,
                networks.drawn_prompt(objects),
                PropagationOptions(mask_scope="prompted"),
            )
        )
    # Opening a state encodes slice 0, and 0 to 8 are tracked or prompted.
    assert counts["encoded"] == 9
    # One decoding of the only prompt; 8 slices front to end; 3 back and 2 on: twice if choices differ.
    states = len({item.logits.tobytes() for item in items if item.prompted})
    assert counts["decoded"] == 1 + states * (8 + 5)
    assert counts["attended"] == states * (8 + 5)
    assert counts["remembered"] == states * (1 + 7 + 2 + 1)


def test_features_are_shared_between_runs():
    model = networks.small_model("float32")
    slices, objects = networks.textured_slices(6, HEIGHT, WIDTH, 5), {"organ": blob(6, [1, 2, 3, 4], 6)}
    features = SliceFeatures(model, slices)
    for memories in (2, 7):
        prompt_of, options = networks.drawn_prompt(objects), windowed(memories=memories)
        list(propagation.sweep(model, slices, objects, [POINT], prompt_of, options, features=features))
    assert features.encoded == 5
    video = PropagationOptions(frames="video")
    with pytest.raises(ValueError, match="frames 'image' given"):
        next(propagation.sweep(model, slices, objects, [POINT], prompt_of, video, features=features))


def test_an_abandoned_sweep_leaves_the_network_as_it_was():
    model = networks.small_model("float32")
    slices, objects = networks.textured_slices(6, HEIGHT, WIDTH, 5), {"organ": blob(6, [1, 2, 3, 4], 6)}
    modules = dict(model.network.named_modules())
    before = {name: set(vars(module)) for name, module in modules.items()}
    hooks = {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in modules.items()}
    run = propagation.sweep(
        model, slices, objects, PAPER_V1_DESIGNS, networks.drawn_prompt(objects), windowed(memories=3)
    )
    for _ in range(9):
        next(run)
        assert {name: set(vars(module)) for name, module in modules.items()} == before
        after = {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in modules.items()}
        assert after == hooks
        assert not torch.is_inference_mode_enabled()
    assert model.network.num_maskmem == 7


def test_blocked_attention_is_close_and_only_on_request():
    model = networks.small_model("bfloat16", seed=2)
    slices, objects = networks.textured_slices(6, HEIGHT, WIDTH, 5), {"organ": blob(6, [1, 2, 3, 4], 6)}
    prompt_of = networks.drawn_prompt(objects)
    front = dataclasses.replace(POINT, frame_choice="first_slice", prompt="mask")
    exact = networks.predictions(propagation.sweep, model, slices, objects, [front], prompt_of)
    faster = PropagationOptions(attention="blocked")
    blocked = networks.predictions(propagation.sweep, model, slices, objects, [front], prompt_of, faster)
    first_tracked = "organ", front, 2
    assert not np.array_equal(blocked[first_tracked][0], exact[first_tracked][0])
    spread = exact[first_tracked][0].std()
    assert np.abs(blocked[first_tracked][0] - exact[first_tracked][0]).max() < 0.5 * spread
    single = networks.small_model("float32", seed=2)
    exact = networks.predictions(propagation.sweep, single, slices, objects, [front], prompt_of)
    same = networks.predictions(
        propagation.sweep,
        single,
        slices,
        objects,
        [front],
        prompt_of,
        faster,
    )
    assert all(np.array_equal(same[key][0], exact[key][0]) for key in exact)
    with pytest.raises(StudyError, match="sparse.*exact, blocked"):
        PropagationOptions(attention="sparse")


def test_boxes_have_candidates_where_the_scope_says_so():
    model = networks.small_model("float32", seed=1)
    slices, objects = networks.textured_slices(6, HEIGHT, WIDTH, 5), {"organ": blob(6, [1, 2, 3, 4], 6)}
    designs = [
        dataclasses.replace(POINT, prompt="one_box", mask_choice=choice)
        for choice in ("first_mask", "most_confident_mask")
    ]
    prompt_of = networks.drawn_prompt(objects)
    masks = {}
    for scope in ("all", "all_with_boxes"):
        options = PropagationOptions(mask_scope=scope)
        found = networks.predictions(
            propagation.sweep,
            model,
            slices,
            objects,
            designs,
            prompt_of,
            options,
        )
        masks[scope] = [found["organ", design, 3][0] for design in designs]
        assert model.network.multimask_max_pt_num == 1
    assert np.array_equal(*masks["all"])
    assert not np.array_equal(*masks["all_with_boxes"])
    # The image predictor gives a box the same three candidates.
    prompt = prompt_of("organ", 3, "one_box")
    ((_, candidates, scores),) = single_slices.candidates(model, slices, {"box": (3, prompt)})
    first, confident = (logits > 0 for logits in masks["all_with_boxes"])
    assert np.array_equal(first, candidates[0])
    assert np.array_equal(confident, candidates[np.argmax(scores)])
