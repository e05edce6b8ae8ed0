"""Clicks on a slice equal the official image predictors driven by hand in the same steps, bit for bit."""

import numpy as np
import pytest
import torch
from helpers import networks
from sam2.sam2_image_predictor import SAM2ImagePredictor
from segment_anything import SamPredictor

from medsam_nb.evaluation.clicks import click_loop, click_loops
from medsam_nb.evaluation.single_slices import candidates, decoding
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol import corrections
from medsam_nb.protocol.prompts import Prompt

SLICES = networks.textured_slices(3, 40, 52, seed=5)
COLOURED = np.stack([networks.textured_slices(3, 40, 52, seed=5 + channel) for channel in range(3)], axis=-1)
TRUTH = np.zeros((40, 52), bool)
TRUTH[8:25, 10:40] = True
TRUTH[30:36, 4:12] = True
INITIAL = {
    "point": Prompt(points=((25, 16),)),
    "box": Prompt(box=(10, 8, 39, 24)),
    "both": Prompt(points=((25, 16), (2, 2)), box=(4, 8, 39, 35), labels=(1, 0)),
}
CLICKS = 5


def asked():
    return {(name, index): (index, TRUTH, prompt, (1, name, index)) for name, prompt in INITIAL.items()
            for index in (0, 2)}  # fmt: skip


def as_shown(picture):
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)


def predict_sam2(predictor, prompt, previous):
    points = np.array(prompt.points) if prompt.points else None
    labels = np.array(prompt.point_labels) if prompt.points else None
    box = None if prompt.box is None else np.array(prompt.box)
    return predictor.predict(points, labels, box, previous, multimask_output=previous is None)


def predict_sam(predictor, prompt, previous):
    """`predict_torch`, which `predict` calls: `predict` itself fails in bfloat16."""
    points = labels = box = None
    if prompt.points:
        moved = predictor.transform.apply_coords(np.array(prompt.points), (40, 52))
        points = torch.as_tensor(moved, dtype=torch.float)[None]
        labels = torch.tensor([list(prompt.point_labels)])
    if prompt.box is not None:
        moved = predictor.transform.apply_boxes(np.array(prompt.box), (40, 52))
        box = torch.as_tensor(moved, dtype=torch.float)
    given = None if previous is None else torch.as_tensor(previous)[None]
    masks, scores, logits = predictor.predict_torch(points, labels, box, given, previous is None)
    return masks[0].numpy(), scores[0].float().numpy(), logits[0]


def by_hand(model, slices, prompt, index, first):
    """The steps of a careful user, with the package's predictor: prompt, choose, click, feed back."""
    if model.family == "sam2":
        predictor, predict = SAM2ImagePredictor(model.network), predict_sam2
        side = model.image_size
        predictor._bb_feat_sizes = [(side // 4,) * 2, (side // 8,) * 2, (side // 16,) * 2]
    else:
        predictor, predict = SamPredictor(model.network), predict_sam
    found, previous, name = [], None, next(n for n, one in INITIAL.items() if one is prompt)
    with torch.inference_mode(), model.precision():
        predictor.set_image(as_shown(slices[index]))
        for number in range(CLICKS + 1):
            masks, scores, logits = predict(predictor, prompt, previous)
            best = 0 if first or len(scores) == 1 else int(np.argmax(scores))
            assert len(scores) == (3 if number == 0 else 1)
            mask, previous = masks[best].astype(bool), logits[best : best + 1]
            found.append((mask, scores[best]))
            click = corrections.next_click(TRUTH, mask, prompt.points, 1, name, index, "click", number)
            if isinstance(click, str):
                break
            prompt = corrections.with_click(prompt, click)
    return found


@pytest.mark.parametrize("first", [False, True], ids=["most confident", "first"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["sam2.1", "sam2.0", "sam"])
def test_clicks_equal_the_official_predictor(family, dtype, first):
    sam2 = family.startswith("sam2")
    model = networks.small_model(dtype, version=family[-3:]) if sam2 else networks.small_sam(dtype)
    slices = COLOURED if first else SLICES
    features = SliceFeatures(model, slices)
    found = dict(click_loops(features, asked(), CLICKS, first=first))
    assert features.encoded == 2 and found.keys() == asked().keys()
    distinct = set()
    for (name, index), steps in found.items():
        expected = by_hand(model, slices, INITIAL[name], index, first)
        assert len(steps) == len(expected)
        for step, (mask, score) in zip(steps, expected, strict=True):
            np.testing.assert_array_equal(step.mask, mask)
            assert step.score == score
            distinct.add(step.mask.tobytes())
    assert len(distinct) > 8


@pytest.mark.parametrize("family", ["sam2", "sam"])
def test_the_mask_before_the_first_click_is_that_of_2d(family):
    model = networks.small_model() if family == "sam2" else networks.small_sam()
    calls = {key: (index, prompt) for key, (index, _, prompt, _) in asked().items()}
    plain = {key: (masks, scores) for key, masks, scores in candidates(model, SLICES, calls)}
    for key, steps in click_loops(SliceFeatures(model, SLICES), asked(), 1):
        masks, scores = plain[key]
        np.testing.assert_array_equal(steps[0].mask, masks[np.argmax(scores)])
        assert steps[0].prompt is INITIAL[key[0]] and len(steps) == 2


def test_every_click_lies_in_the_error_and_the_mask_before_matters():
    model = networks.small_model()
    features = SliceFeatures(model, SLICES)
    for _, steps in click_loops(features, asked(), CLICKS):
        for before, after in zip(steps, steps[1:], strict=False):
            (x, y), label = after.prompt.points[-1], after.prompt.point_labels[-1]
            assert TRUTH[y, x] != before.mask[y, x] and label == TRUTH[y, x]
            assert after.prompt.points[:-1] == before.prompt.points and after.prompt.box == before.prompt.box
    with decoding(features, 0, {}) as decode:
        answer = decode(INITIAL["point"])
        others = [decode(INITIAL["point"], answer.logits[:, k : k + 1]) for k in range(3)]
    assert len({one.logits.numpy().tobytes() for one in others}) == 3


def test_what_cannot_be_improved_ends_with_a_reason():
    model = networks.small_model()
    with decoding(SliceFeatures(model, SLICES), 0, {}) as decode:
        mask = click_loop(decode, TRUTH, INITIAL["point"], 0, (1,))[0].mask
        assert mask.any()
        (only,) = click_loop(decode, mask, INITIAL["point"], 9, (1,))
        assert only.ended == corrections.NO_ERROR


def test_a_mask_or_nothing_is_no_initial_prompt():
    with decoding(SliceFeatures(networks.small_model(), SLICES), 0, {}) as decode:
        for prompt in (Prompt(), Prompt(mask=TRUTH)):
            with pytest.raises(ValueError, match="initial prompt"):
                click_loop(decode, TRUTH, prompt, 1, (1,))
