"""One training step on sequences of slices: through the memory, both ways from the prompted slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from medsam_nb.finetuning import losses, steps

# Sequences are announced to the tracker with this length (temporal codes are relative to it).
ANNOUNCED_SLICES = 16


class _Captured:
    """Collects what the mask decoder predicts inside `track_step` (all tokens, before selection)."""

    def __init__(self, decoder):
        self.decoder, self.calls = decoder, []

    def __enter__(self):
        original = type(self.decoder).predict_masks

        def predict_masks(*args, **kwargs):
            out = original(self.decoder, *args, **kwargs)
            self.calls.append(out)
            return out

        self.decoder.predict_masks = predict_masks
        return self

    def __exit__(self, *_):
        del self.decoder.predict_masks


@dataclass(frozen=True)
class SequenceFeatures:
    """Encoder output of sequences: maps and position codes of all levels, sequence by sequence."""

    levels: list[torch.Tensor]
    positions: list[torch.Tensor]
    slices: int

    def of_slice(self, t: int, index: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Maps and position codes of slice `t` for every object, shape (y * x, objects, channels)."""

        def chosen(level):
            return level.unflatten(0, (-1, self.slices))[:, t][index].flatten(2).permute(2, 0, 1)

        return [chosen(level) for level in self.levels], [chosen(code) for code in self.positions]


def encode_sequences(model, images: torch.Tensor, encoder_grad: bool = False) -> SequenceFeatures:
    """Image features of sequences (n, slices, y, x) or (n, slices, y, x, 3).

    Without `encoder_grad` they do not train the encoder.
    """
    with torch.set_grad_enabled(encoder_grad and torch.is_grad_enabled()):
        out = model.image_encoder(steps.normalise(images.flatten(0, 1)))
    levels, decoder = list(out["backbone_fpn"]), model.sam_mask_decoder
    levels[:2] = decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1])
    return SequenceFeatures(levels, out["vision_pos_enc"], images.shape[1])


def _route(prompted: int, slices: int, front_to_end: bool) -> list[tuple[int, bool]]:
    """Return the slices in the order of their tracking, the prompted one first, and whether backwards."""
    if front_to_end:
        return [(prompted, False)] + [(t, False) for t in range(slices) if t != prompted]
    return [(t, False) for t in range(prompted, slices)] + [(t, True) for t in range(prompted - 1, -1, -1)]


def _remember_mask(model, current: dict, mask: torch.Tensor, maps: list[torch.Tensor], sizes) -> None:
    """Give a slice prompted by its mask the memory that the video predictor gives it.

    `track_step` would remember the mask as it was drawn; the predictor remembers what it shows of it, which
    went through the decoder's resolution, a quarter of the input's.
    """
    shown = torch.nn.functional.interpolate(
        current["pred_masks"], (model.image_size,) * 2, mode="bilinear", align_corners=False
    )
    # `track_step` says whether the object is there in evaluation mode only.
    is_there = mask.flatten(1).amax(1, keepdim=True)
    current["maskmem_features"], current["maskmem_pos_enc"] = model._encode_new_memory(
        maps, sizes, shown, is_there, is_mask_from_pts=True
    )


def track(model, features: SequenceFeatures, index, prompted: int, prompt: dict, front_to_end: bool = False):
    """Propagate prompts through sequences with the model's own `track_step`.

    In both directions, each from the prompted slice alone, or from the first slice to the last, as the
    workbook's designs do. Front to end, an object may come after slices without it, and the prompted slice
    lies ahead: what the model reads of it is then what it reads in evaluation mode.

    Parameters
    ----------
    model : SAM2Base
    features : SequenceFeatures
    index : Tensor of int, shape (objects,)
        Sequence of each object.
    prompted : int
        Prompted slice.
    prompt : dict
        Either {"mask_inputs": (objects, 1, y, x)} or {"point_coords", "point_labels"}.
    front_to_end : bool

    Returns
    -------
    dict of int to (logits, scores, presence)
        All four mask tokens per slice, as decoded.
    """
    sizes = [tuple(level.shape[-2:]) for level in features.levels]
    results, output_dict = {}, {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    # The network's own flag only, not its parts': which pointers are read hangs on it.
    training = model.training
    model.training = training and not front_to_end
    for t, reverse in _route(prompted, features.slices, front_to_end):
        first = t == prompted
        if reverse and t == prompted - 1:
            output_dict["non_cond_frame_outputs"] = {}
        maps, codes = features.of_slice(t, index)
        points = prompt if first and "point_coords" in prompt else None
        mask = prompt.get("mask_inputs") if first else None
        with _Captured(model.sam_mask_decoder) as captured:
            current = model.track_step(
                frame_idx=t,
                is_init_cond_frame=first,
                current_vision_feats=maps,
                current_vision_pos_embeds=codes,
                feat_sizes=sizes,
                point_inputs=points,
                mask_inputs=mask,
                output_dict=output_dict,
                num_frames=ANNOUNCED_SLICES,
                track_in_reverse=reverse,
                run_mem_encoder=mask is None,
            )
        if mask is not None:
            _remember_mask(model, current, mask, maps, sizes)
        output_dict["cond_frame_outputs" if first else "non_cond_frame_outputs"][t] = current
        masks, scores, _, presence = captured.calls[-1]
        results[t] = (masks, scores, presence)
    model.training = training
    return results


def video_prompt(batch: dict) -> dict:
    """The prompt of a video batch in the form that `track` takes."""
    if batch["prompt"] == "mask":
        return {"mask_inputs": batch["masks"][:, batch["prompted"], None].float()}
    coordinates, labels = (
        steps.box_prompt(batch["boxes"]) if batch["prompt"] == "box" else steps.point_prompt(batch["points"])
    )
    return {"point_coords": coordinates, "point_labels": labels}


def video_step(model, batch: dict, *, balanced=0.0, presence_weight=1.0, encoder_grad: bool = False):
    """Loss of a sequence batch: presence and masks on every slice (not on a slice prompted by its mask).

    Where the encoder learns too, its features are used once more: objects prompted on single slices, as in
    an image batch, if the batch has such prompts.

    Returns
    -------
    loss : Tensor
    parts : dict of str to float
    """
    prompted = batch["prompted"]
    features = encode_sequences(model, batch["images"], encoder_grad)
    front_to_end = batch.get("front_to_end", False)
    results = track(model, features, batch["index"], prompted, video_prompt(batch), front_to_end)
    side = batch["masks"].shape[-1] // 4
    targets = steps.soft_targets(batch["masks"], side)
    terms, ious, right = [], [], []
    for t, (logits, scores, presence) in results.items():
        target = targets[:, t]
        present = target.sum(dim=(1, 2)) > 0
        if t == prompted:
            if batch["prompt"] == "mask":
                continue
            terms.append(
                losses.prompt_loss(logits, scores, presence, target, batch["prompt"], balanced).mean()
            )
            continue
        terms.append(losses.slice_loss(logits, scores, presence, target, balanced, presence_weight).mean())
        best = scores[:, 1:].argmax(dim=1)
        iou = losses.mask_iou(logits[:, 1:], target)[torch.arange(len(best)), best]
        # The tracker hides the mask where the object score is negative: count it as such.
        iou = torch.where(presence[:, 0] > 0, iou, torch.zeros_like(iou))
        ious += iou[present].tolist()
        right += ((presence[:, 0] > 0) == present).float().tolist()
    loss = torch.stack(terms).mean()
    parts = {"video": loss.item(), "video_iou": float(np.mean(ious)) if ious else float("nan"),
             "presence": float(np.mean(right))}  # fmt: skip
    if encoder_grad and "single" in batch:
        loss = loss + _single_slices_loss(model, features, batch, targets, balanced)
    return loss, parts


def _single_slices_loss(model, features: SequenceFeatures, batch: dict, targets, balanced: float):
    """Loss of objects prompted on single slices of sequences, without memory."""
    objects, slices = batch["single"].unbind(1)
    kind = batch["single_prompt"]
    as_prompt = steps.box_prompt if kind == "box" else steps.point_prompt
    prompt = as_prompt(batch[f"single_{'boxes' if kind == 'box' else 'points'}"])
    embedding = features.levels[2] + model.no_mem_embed.view(1, -1, 1, 1)
    images = steps.Features(embedding, features.levels[:2], features.levels[0], 4)
    index = batch["index"][objects] * features.slices + slices
    logits, scores, presence = steps.decode(model, images, index, *prompt)
    return losses.prompt_loss(logits, scores, presence, targets[objects, slices], kind, balanced).mean()
