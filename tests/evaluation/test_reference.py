"""The reference is the official predictor: compared with a plain use of the package, slice by slice."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import networks

from medsam_nb.errors import StudyError
from medsam_nb.evaluation import propagation, reference
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import MemoryWindow, PropagationOptions
from medsam_nb.protocol.tracks import passes, plan

DEPTH, HEIGHT, WIDTH = 9, 40, 52
POINT = Design("centre_slice", "one_point", "bidirectional", "most_confident_mask")
FRONT = dataclasses.replace(POINT, direction="front_to_end", prompt="one_box")
MASKS = dataclasses.replace(POINT, frame_choice="three_slices", prompt="mask")


def case(first: int = 2, last: int = 7):
    slices = networks.textured_slices(DEPTH, HEIGHT, WIDTH, seed=3)
    mask = np.zeros(slices.shape, bool)
    mask[first : last + 1, 8:25, 10:40] = True
    mask[first : last + 1, 30:36, 4:12] = True
    return slices, {"organ": mask}


def plain_use(model, slices, objects, design):
    """The package as its examples use it: every slice encoded by the predictor, all slices tracked."""
    network, found = model.network, {}
    (track,) = plan(objects, [design], "corrected", "volume_end")
    prompt_of = networks.drawn_prompt(objects)
    for one_pass in track.passes:
        with torch.inference_mode(), model.precision():
            state = reference.video_state(model, slices)
            state["cached_features"] = {}
            for index in track.prompted:
                prompt = prompt_of("organ", index, design.prompt)
                if prompt.mask is not None:
                    network.add_new_mask(state, index, 1, prompt.mask)
                else:
                    points = np.array(prompt.points, np.float32) if prompt.points else None
                    labels = np.ones(len(prompt.points), np.int32) if prompt.points else None
                    network.add_new_points_or_box(
                        state, index, 1, points=points, labels=labels, box=prompt.box
                    )
            start, reverse = one_pass.first, one_pass.reverse
            for index, _, logits in network.propagate_in_video(state, start, reverse=reverse):
                found[index] = logits[0, 0].float().numpy()
    return found


@pytest.mark.parametrize("version", ["2.1", "2.0"])
@pytest.mark.parametrize(
    ("design", "dtype"),
    [(POINT, "float32"), (POINT, "bfloat16"), (FRONT, "bfloat16"), (MASKS, "float32")],
    ids=lambda value: getattr(value, "name", value),
)
def test_equals_a_plain_use_of_the_package(design, dtype, version):
    model = networks.small_model(dtype, version=version)
    slices, objects = case()
    expected = plain_use(model, slices, objects, design)
    prompt_of = networks.drawn_prompt(objects)
    for until, wanted in (("volume_end", range(DEPTH)), ("last_object_slice", range(2, 8))):
        options = PropagationOptions(until=until)
        found = networks.predictions(reference.sweep, model, slices, objects, [design], prompt_of, options)
        assert sorted(index for *_, index in found) == list(wanted)
        for (*_, index), (logits, _, _) in found.items():
            np.testing.assert_array_equal(logits, expected[index])


def test_front_to_end_runs_in_float32_before_the_prompted_slice():
    model = networks.small_model("float32")
    slices, objects = case()
    with pytest.raises(RuntimeError, match="dtype"):
        plain_use(model, slices, objects, FRONT)
    prompt_of = networks.drawn_prompt(objects)
    found = networks.predictions(reference.sweep, model, slices, objects, [FRONT], prompt_of)
    assert len(found) == 6
    assert len({logits.tobytes() for logits, _, _ in found.values()}) > 2


@pytest.mark.parametrize("sweep", [reference.sweep, propagation.sweep], ids=["oracle", "engine"])
@pytest.mark.parametrize("mask_scope", ["all", "prompted"])
def test_first_mask_keeps_mask_and_pointer_of_candidate_zero(mask_scope, sweep, monkeypatch):
    model = networks.small_model("float32")
    network, seen = model.network, []
    decode, heads = network.sam_mask_decoder.predict_masks, network._forward_sam_heads
    tokens = []

    def recording_decode(**inputs):
        outputs = decode(**inputs)
        tokens.append(outputs[2])
        return outputs

    def recording_heads(**inputs):
        outputs = heads(**inputs)
        seen.append((inputs, outputs, tokens[-1]))
        return outputs

    monkeypatch.setattr(network.sam_mask_decoder, "predict_masks", recording_decode)
    monkeypatch.setattr(network, "_forward_sam_heads", recording_heads)
    slices, objects = case()
    design = dataclasses.replace(POINT, mask_choice="first_mask")
    prompt_of = networks.drawn_prompt(objects)
    options = PropagationOptions(mask_scope=mask_scope)
    networks.predictions(sweep, model, slices, objects, [design], prompt_of, options)
    others = 0
    for inputs, (many, _, scores, low, _, pointer, presence), all_tokens in seen:
        first = mask_scope == "all" or inputs["point_inputs"] is not None
        kept = 0 if first else int(scores.argmax())
        others += kept != 0
        assert torch.equal(low[0, 0], many[0, kept])
        if presence > 0:
            with torch.inference_mode():
                assert torch.equal(pointer, network.obj_ptr_proj(all_tokens[:, 1 + kept]))
    assert (others > 0) == (mask_scope == "prompted")


def test_a_pass_from_slice_zero_scores_slice_zero():
    model = networks.small_model("float32")
    slices, objects = case(first=0)
    first = dataclasses.replace(POINT, frame_choice="first_slice")
    found = networks.predictions(
        reference.sweep, model, slices, objects, [first], networks.drawn_prompt(objects)
    )
    assert sorted(index for *_, index in found) == list(range(8))
    assert found["organ", first, 0][2]


def test_bidirectional_passes_cover_every_slice_once():
    for start in range(6):
        visited = [index for one in passes("bidirectional", start, 0, 5) for index in one.slices]
        assert sorted(visited) == list(range(6))


def test_an_empty_object_yields_nothing():
    model = networks.small_model("float32")
    slices, objects = case()
    empty = {"nothing": np.zeros_like(objects["organ"])}
    assert list(reference.sweep(model, slices, empty, [POINT], networks.drawn_prompt(empty))) == []


def test_the_network_is_left_as_it_was():
    model = networks.small_model("float32")
    slices, objects = case()
    before = dict(vars(model.network)), model.network.sam_mask_decoder._forward_hooks.copy()
    options = PropagationOptions(mask_scope="all_with_boxes")
    for _ in reference.sweep(model, slices, objects, [POINT], networks.drawn_prompt(objects), options):
        assert dict(vars(model.network)) == before[0]
        assert model.network.sam_mask_decoder._forward_hooks == before[1]
        assert not torch.is_inference_mode_enabled()


def test_what_it_cannot_predict_is_refused_by_name():
    model = networks.small_model("float32")
    slices, objects = case()
    for options in (
        PropagationOptions(window=MemoryWindow(3)),
        PropagationOptions(attention="blocked"),
        PropagationOptions(frames="video"),
    ):
        with pytest.raises(StudyError, match="Only the engine"):
            next(reference.sweep(model, slices, objects, [POINT], None, options))
