"""2D decoding equals the official image predictors, bit for bit, with less encoding."""

import numpy as np
import pytest
import torch
from helpers import networks
from sam2.sam2_image_predictor import SAM2ImagePredictor
from segment_anything import SamPredictor

from medsam_nb.evaluation.single_slices import candidates
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol.prompts import Prompt

SLICES = networks.textured_slices(4, 40, 52, seed=5)
COLOURED = np.stack([networks.textured_slices(4, 40, 52, seed=5 + channel) for channel in range(3)], axis=-1)
PROMPTS = {
    ("organ", 2, "one_point"): (2, Prompt(points=((20, 11),))),
    ("organ", 2, "point_per_component"): (2, Prompt(points=((20, 11), (45, 33)))),
    ("organ", 2, "one_box"): (2, Prompt(box=(10, 5, 33, 30))),
    ("tumour", 2, "one_point"): (2, Prompt(points=((20, 11),))),
    ("organ", 0, "one_box"): (0, Prompt(box=(0, 0, 51, 39))),
    ("organ", 2, "corrected"): (2, Prompt(points=((20, 11), (30, 25), (5, 5)), labels=(1, 0, 0))),
    ("organ", 2, "negative"): (2, Prompt(points=((20, 11),), labels=(0,))),
    ("organ", 2, "box and points"): (2, Prompt(((20, 11), (12.5, 28.25)), (10, 5, 33, 30), labels=(1, 0))),
}


def as_shown(picture):
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)


@pytest.mark.parametrize("slices", [SLICES, COLOURED], ids=["grey", "rgb"])
@pytest.mark.parametrize("version", ["2.1", "2.0"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sam2_equals_the_official_predictor(dtype, version, slices):
    model = networks.small_model(dtype, version=version)
    features = SliceFeatures(model, slices)
    found = {key: rest for key, *rest in candidates(model, slices, PROMPTS, features=features)}
    assert features.encoded == 2
    for key, (index, prompt) in PROMPTS.items():
        predictor = SAM2ImagePredictor(model.network)
        side = model.image_size
        predictor._bb_feat_sizes = [(side // 4,) * 2, (side // 8,) * 2, (side // 16,) * 2]
        with torch.inference_mode(), model.precision():
            predictor.set_image(as_shown(slices[index]))
            points = np.array(prompt.points) if prompt.points else None
            labels = np.array(prompt.labels or [1] * len(prompt.points), float) if prompt.points else None
            box = None if prompt.box is None else np.array(prompt.box)
            masks, scores, _ = predictor.predict(points, labels, box)
        np.testing.assert_array_equal(found[key][0], masks.astype(bool))
        np.testing.assert_array_equal(found[key][1], scores)
        assert found[key][0].shape == (3, 40, 52)
    assert 0 < np.mean([masks.mean() for masks, _ in found.values()]) < 1


@pytest.mark.parametrize("slices", [SLICES, COLOURED], ids=["grey", "rgb"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sam_equals_the_official_predictor(dtype, slices):
    model = networks.small_sam(dtype)
    found = {key: rest for key, *rest in candidates(model, slices, PROMPTS)}
    for key, (index, prompt) in PROMPTS.items():
        predictor = SamPredictor(model.network)
        with torch.inference_mode(), model.precision():
            predictor.set_image(as_shown(slices[index]))
            arguments = [None, None, None]
            if prompt.box is not None:
                moved = predictor.transform.apply_boxes(np.array(prompt.box), (40, 52))
                arguments[2] = torch.as_tensor(moved, dtype=torch.float)
            if prompt.points:
                moved = predictor.transform.apply_coords(np.array(prompt.points), (40, 52))
                arguments[0] = torch.as_tensor(moved, dtype=torch.float)[None]
                arguments[1] = torch.tensor([prompt.labels or [1] * len(moved)])
            masks, scores, _ = predictor.predict_torch(*arguments)
        np.testing.assert_array_equal(found[key][0], masks[0].numpy())
        np.testing.assert_array_equal(found[key][1], scores[0].float().numpy())
        if dtype == "float32":
            points = np.array(prompt.points) if prompt.points else None
            labels = np.array(prompt.labels or [1] * len(prompt.points), float) if prompt.points else None
            box = None if prompt.box is None else np.array(prompt.box)
            masks, scores, _ = predictor.predict(points, labels, box)
            np.testing.assert_array_equal(found[key][0], masks)
            np.testing.assert_array_equal(found[key][1], scores)


def test_a_negative_point_changes_the_answer():
    model = networks.small_model()
    point, negative = PROMPTS["organ", 2, "one_point"], PROMPTS["organ", 2, "negative"]
    found = {key: masks for key, masks, _ in candidates(model, SLICES, {"+": point, "-": negative})}
    assert (found["+"] != found["-"]).any()


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="organ: the prompt is empty"):
        next(candidates(networks.small_model(), SLICES, {"organ": (0, Prompt())}))


def test_a_mask_is_refused():
    model = networks.small_model()
    with pytest.raises(ValueError, match="organ"):
        next(candidates(model, SLICES, {"organ": (0, Prompt(mask=np.ones((40, 52), bool)))}))


def test_grey_and_its_three_equal_channels_are_one_picture():
    for model in (networks.small_model(), networks.small_sam()):
        grey, colours = (
            {key: rest for key, *rest in candidates(model, slices, PROMPTS)}
            for slices in (SLICES, np.repeat(SLICES[..., None], 3, axis=-1))
        )
        for key in PROMPTS:
            np.testing.assert_array_equal(grey[key][0], colours[key][0])
            np.testing.assert_array_equal(grey[key][1], colours[key][1])
