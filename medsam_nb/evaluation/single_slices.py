"""2D: the candidate masks of prompted slices, each slice encoded once and each prompt decoded once.

The official image predictors do the decoding. They find a slice's features instead of computing them,
so that all objects, prompt modes and mask choices share one encoding, and 3D runs share it too. The
decoder's first look at the image is the same for every prompt on a slice, and computed once.
Prompts are decoded one by one. Grouped by their number of points they would take about half the time, but
larger matrix products round differently: masks are not bit-identical, in float32 as in bfloat16.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor
from segment_anything import SamPredictor

from medsam_nb.models.checkpoints import Model
from medsam_nb.models.encoding import quiet_transforms
from medsam_nb.models.features import SliceFeatures
from medsam_nb.models.sharing import Answers, answering_once
from medsam_nb.protocol.prompts import Prompt


def _show_to_sam2(predictor: SAM2ImagePredictor, features: SliceFeatures, index: int) -> None:
    """Bring SAM 2's image predictor into the state in which `set_image` leaves it for this slice."""
    network = features.model.network
    _, levels, _, sizes = network._prepare_backbone_features(features.backbone(index))
    if network.directly_add_no_mem_embed:
        levels[-1] = levels[-1] + network.no_mem_embed
    shaped = [level.permute(1, 2, 0).view(1, -1, *side) for level, side in zip(levels, sizes, strict=True)]
    predictor._features = {"image_embed": shaped[-1], "high_res_feats": shaped[:-1]}
    predictor._orig_hw, predictor._is_image_set = [features.slices.shape[1:3]], True


def _show_to_sam(predictor: SamPredictor, features: SliceFeatures, index: int) -> None:
    """Bring SAM's predictor into the state in which `set_image` leaves it for this slice."""
    height, width = predictor.original_size = features.slices.shape[1:3]
    longest = predictor.transform.target_length
    predictor.input_size = predictor.transform.get_preprocess_shape(height, width, longest)
    (predictor.features,) = features[index]
    predictor.is_image_set = True


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a model answers to a prompt on a slice.

    Attributes
    ----------
    masks : ndarray of bool, shape (n, y, x)
        In the decoder's order: three candidates, or one where a previous mask was fed back.
    scores : ndarray of float, shape (n,)
        The model's estimates of their IoU.
    logits : Tensor, shape (1, n, y / 4, x / 4) of the model's input
        Of the masks, in the form in which one of them can be fed back.
    """

    masks: np.ndarray
    scores: np.ndarray
    logits: torch.Tensor


def _decode_sam2(predictor: SAM2ImagePredictor, prompt: Prompt, previous: torch.Tensor | None) -> Decoded:
    points = np.array(prompt.points) if prompt.points else None
    labels = np.array(prompt.point_labels, float) if prompt.points else None
    box = None if prompt.box is None else np.array(prompt.box)
    masks, scores, logits = predictor.predict(points, labels, box, previous, previous is None)
    return Decoded(masks > 0, scores, torch.from_numpy(logits)[None])


def _decode_sam(predictor: SamPredictor, prompt: Prompt, previous: torch.Tensor | None) -> Decoded:
    # `predict` fails in bfloat16, which NumPy does not have; `predict_torch` is what it calls.
    points = labels = box = None
    if prompt.box is not None:
        moved = predictor.transform.apply_boxes(np.array(prompt.box), predictor.original_size)
        box = torch.as_tensor(moved, dtype=torch.float, device=predictor.device)
    if prompt.points:
        moved = predictor.transform.apply_coords(np.array(prompt.points), predictor.original_size)
        points = torch.as_tensor(moved, dtype=torch.float, device=predictor.device)[None]
        labels = torch.as_tensor([prompt.point_labels], dtype=torch.int, device=predictor.device)
    masks, scores, logits = predictor.predict_torch(points, labels, box, previous, previous is None)
    return Decoded(masks[0].cpu().numpy(), scores[0].float().cpu().numpy(), logits)


@lru_cache(maxsize=2)  # making one takes as long as five prompts
def _predictor(model: Model) -> SAM2ImagePredictor | SamPredictor:
    if model.family == "sam":
        return SamPredictor(model.network)
    with quiet_transforms():
        return SAM2ImagePredictor(model.network)


@contextmanager
def _sharing(model: Model, constants: Answers, slice_answers: Answers | None) -> Iterator[None]:
    """Compute once what all prompts on a slice, or on all slices, have in common.

    Before its first layer has changed it, the decoder's image is that of the slice; without a mask as a
    prompt nothing else is added to it. With one there are no `slice_answers`.
    """
    network, is_sam2 = model.network, model.family == "sam2"
    prompts = network.sam_prompt_encoder if is_sam2 else network.prompt_encoder
    first_layer = (network.sam_mask_decoder if is_sam2 else network.mask_decoder).transformer.layers[0]
    looking, showing = first_layer.cross_attn_token_to_image, first_layer.cross_attn_image_to_token
    with ExitStack() as stack:
        stack.enter_context(answering_once(prompts, "get_dense_pe", constants))
        if slice_answers is not None:
            for projection in (looking.k_proj, looking.v_proj, showing.q_proj):
                stack.enter_context(answering_once(projection, "forward", slice_answers))
        yield


@contextmanager
def decoding(features: SliceFeatures, index: int, constants: Answers) -> Iterator[Callable[..., Decoded]]:
    """Show a slice to the official image predictor, and give a function that decodes prompts on it.

    Parameters
    ----------
    features : SliceFeatures
    index : int
        Of the slice.
    constants : dict
        What the slices of one run share; empty at first.

    Yields
    ------
    callable (prompt, previous=None) -> Decoded
        Points, a box, or both; with the logits (1, 1, y, x) of a previous mask the model is asked for one
        mask, as the package's own examples refine a mask.
    """
    model = features.model
    predictor, is_sam2 = _predictor(model), model.family == "sam2"
    show, decode = (_show_to_sam2, _decode_sam2) if is_sam2 else (_show_to_sam, _decode_sam)
    slice_answers: Answers = {}

    def decoded(prompt: Prompt, previous: torch.Tensor | None = None) -> Decoded:
        with _sharing(model, constants, slice_answers if previous is None else None):
            return decode(predictor, prompt, previous)

    with torch.inference_mode(), model.precision():
        show(predictor, features, index)
        yield decoded


def require_drawn(prompt: Prompt, item: object) -> None:
    """Raise ValueError unless a prompt has points or a box: a mask is none in 2D."""
    if prompt.mask is not None:
        raise ValueError(f"{item}: a mask is no prompt in 2D; give points or a box")
    if not prompt.points and prompt.box is None:
        raise ValueError(f"{item}: the prompt is empty; give points or a box")


def candidates(
    model: Model,
    slices: np.ndarray,
    prompts: Mapping[Hashable, tuple[int, Prompt]],
    *,
    features: SliceFeatures | None = None,
) -> Iterator[tuple[Hashable, np.ndarray, np.ndarray]]:
    """Decode prompts on single slices.

    Parameters
    ----------
    model : Model
        Of family "sam2" or "sam".
    slices : ndarray of uint8, shape (z, y, x) or, in colour, (z, y, x, 3)
    prompts : mapping of key to (slice_index, Prompt)
        Points, a box, or both; the same prompt on the same slice is decoded once, whatever its keys.
    features : SliceFeatures, optional
        Of these slices and this model, to share them with other runs.

    Yields
    ------
    key
    masks : ndarray of bool, shape (3, y, x)
        The three candidates in the decoder's order.
    scores : ndarray of float, shape (3,)
        The model's estimates of their IoU.
    """
    features = features or SliceFeatures(model, slices, budget_bytes=0)
    constants: Answers = {}
    by_slice: dict[int, dict[tuple, tuple[Prompt, list[Hashable]]]] = {}
    for key, (index, prompt) in prompts.items():
        require_drawn(prompt, key)
        by_slice.setdefault(index, {}).setdefault(prompt.content, (prompt, []))[1].append(key)
    features.expect(sorted(by_slice))
    for index in sorted(by_slice):
        with decoding(features, index, constants) as decode:
            found = [(keys, decode(prompt)) for prompt, keys in by_slice[index].values()]
        for keys, answer in found:
            for key in keys:
                yield key, answer.masks, answer.scores
