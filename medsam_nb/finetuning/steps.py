"""One training step on images as a function: encode them, decode prompts, return the loss.

The same functions serve training from scratch and fine-tuning, for SAM 2 and for SAM; `sequence_steps`
builds on them.  The decoder is called below its mask selection, so that all four mask tokens learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam

from medsam_nb.finetuning import losses

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def prompt_parts(model) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Prompt encoder and mask decoder of either model."""
    if isinstance(model, Sam):
        return model.prompt_encoder, model.mask_decoder
    return model.sam_prompt_encoder, model.sam_mask_decoder


@dataclass(frozen=True)
class Features:
    """Encoder output of a batch: stride-16 embedding, optional high-resolution maps, aux-loss map."""

    embedding: torch.Tensor
    high_resolution: list[torch.Tensor] | None
    fine: torch.Tensor
    fine_stride: int


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Grey images (n, y, x), or RGB (n, y, x, 3), in 0..1 to the networks' input (n, 3, y, x)."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    channels = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return (channels - mean) / std


def encode(model, images: torch.Tensor) -> Features:
    """Image features of a batch of images (n, y, x) or (n, y, x, 3), as the mask decoder receives them."""
    if isinstance(model, Sam):
        embedding = model.image_encoder(normalise(images))
        return Features(embedding, None, embedding, 16)
    levels = model.image_encoder(normalise(images))["backbone_fpn"]
    decoder = model.sam_mask_decoder
    embedding = levels[-1] + model.no_mem_embed.view(1, -1, 1, 1)
    return Features(embedding, [decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1])], levels[0], 4)


def decode(model, features: Features, index: torch.Tensor, coordinates, point_labels, previous=None):
    """All mask tokens for one prompt per object.

    Parameters
    ----------
    model : SAM2Base or Sam
    features : Features
    index : Tensor of int, shape (n,)
        Image of each object.
    coordinates : Tensor, shape (n, points, 2)
        (x, y) in pixels; a box is two points with labels 2 and 3.
    point_labels : Tensor of int, shape (n, points)
    previous : Tensor, shape (n, 1, y, x), optional
        Previous low-resolution logits.

    Returns
    -------
    logits : Tensor, shape (n, 4, y / 4, x / 4)
    scores : Tensor, shape (n, 4)
    presence : Tensor, shape (n, 1), or None for SAM
    """
    prompts, decoder = prompt_parts(model)
    dense_pe = prompts.get_dense_pe()
    if isinstance(model, Sam) and bool((point_labels >= 2).all()):
        sparse, dense = prompts(points=None, boxes=coordinates.flatten(1), masks=previous)
    else:
        sparse, dense = prompts(points=(coordinates, point_labels), boxes=None, masks=previous)
    if isinstance(model, Sam):
        # SAM's decoder repeats one image for all its prompts: decode image by image.
        masks, scores = [], []
        for i in range(len(features.embedding)):
            chosen = index == i
            if chosen.any():
                out = decoder.predict_masks(
                    features.embedding[i : i + 1], dense_pe, sparse[chosen], dense[chosen]
                )
                masks.append(out[0])
                scores.append(out[1])
        return torch.cat(masks), torch.cat(scores), None
    masks, scores, _, presence = decoder.predict_masks(
        image_embeddings=features.embedding[index],
        image_pe=dense_pe,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[level[index] for level in features.high_resolution],
    )
    return masks, scores, presence


def soft_targets(masks: torch.Tensor, side: int) -> torch.Tensor:
    """Area averages of boolean masks (..., y, x) at `side` x `side`."""
    factor = masks.shape[-1] // side
    flat = masks.reshape(-1, 1, *masks.shape[-2:]).float()
    return F.avg_pool2d(flat, factor).reshape(*masks.shape[:-2], side, side)


def box_prompt(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (n, 4) as two labelled points each, the way both SAM 2 predictors pass them."""
    labels = torch.tensor([2, 3], dtype=torch.int32, device=boxes.device).expand(len(boxes), 2)
    return boxes.view(-1, 2, 2), labels


def point_prompt(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (n, 2) as one foreground click each."""
    return points[:, None], torch.ones(len(points), 1, dtype=torch.int32, device=points.device)


def correction_clicks(logits: torch.Tensor, masks: torch.Tensor, generator: np.random.Generator):
    """One click per object in the error of a prediction: positive in a miss, negative in a leak.

    Parameters
    ----------
    logits : Tensor, shape (n, y, x)
        Low-resolution logits.
    masks : Tensor of bool, shape (n, size, size)
    generator : numpy.random.Generator

    Returns
    -------
    coordinates : Tensor, shape (n, 1, 2)
    labels : Tensor of int32, shape (n, 1)
    """
    size = masks.shape[-1]
    predicted = (
        F.interpolate(logits[:, None].detach(), (size, size), mode="bilinear", align_corners=False)[:, 0] > 0
    )
    wrong = (predicted != masks).cpu().numpy()
    truth = masks.cpu().numpy()
    coordinates, labels = [], []
    for error, mask in zip(wrong, truth, strict=True):
        ys, xs = np.nonzero(error if error.any() else mask)
        i = int(generator.integers(len(ys)))
        coordinates.append([[xs[i], ys[i]]])
        labels.append([int(mask[ys[i], xs[i]])])
    device = logits.device
    return (
        torch.tensor(coordinates, dtype=torch.float32, device=device),
        torch.tensor(labels, dtype=torch.int32, device=device),
    )


def metric_head(model) -> torch.nn.Conv2d:
    """Head of the auxiliary metric loss: 16 channels per stride-4 cell (dropped after training)."""
    width = 128
    return torch.nn.Conv2d(width, 16 * (16 if isinstance(model, Sam) else 1), 1)


def image_step(
    model, head, batch: dict, *, balanced=0.0, aux_weight=1.0, correct: np.random.Generator | None = None
):
    """Loss of an image batch: every object by box and by point, sometimes corrected by one more click.

    Parameters
    ----------
    model, head
        `head` is `metric_head(model)` or None.
    batch : dict
        From `batches.image_batch`, on the model's device.
    balanced, aux_weight : float
    correct : numpy.random.Generator, optional
        When given, a correction step follows.

    Returns
    -------
    loss : Tensor
    parts : dict of str to float
    """
    features = encode(model, batch["images"])
    side = batch["masks"].shape[-1] // 4
    targets, index = soft_targets(batch["masks"], side), batch["index"]
    total, parts = 0.0, {}
    for kind, (coordinates, labels) in (
        ("box", box_prompt(batch["boxes"])),
        ("point", point_prompt(batch["points"])),
    ):
        logits, scores, presence = decode(model, features, index, coordinates, labels)
        loss = losses.prompt_loss(logits, scores, presence, targets, kind, balanced).mean()
        total = total + loss
        parts[kind] = loss.item()
        parts[f"{kind}_iou"] = losses.mask_iou(logits[:, :2], targets)[:, int(kind == "point")].mean().item()
    if correct is not None:
        # `logits` are those of the point: the ambiguous prompt is the one a user corrects.
        first = logits[:, 1]
        clicks, click_labels = correction_clicks(first, batch["masks"], correct)
        coordinates, labels = torch.cat([coordinates, clicks], 1), torch.cat([labels, click_labels], 1)
        previous = first[:, None].detach() if correct.random() < 0.7 else None
        logits, scores, presence = decode(model, features, index, coordinates, labels, previous)
        total = total + 0.7 * losses.prompt_loss(logits, scores, presence, targets, "box", balanced).mean()
    if head is not None and aux_weight > 0:
        embedding = head(features.fine)
        if features.fine_stride == 16:
            embedding = F.pixel_shuffle(embedding, 4)
        aux = losses.metric_loss(embedding, batch["labels"])
        total = total + aux_weight * aux
        parts["metric"] = aux.item()
    return total, parts
