"""Losses of promptable segmentation: masks, quality scores, object presence, and an auxiliary metric loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# Cell offsets (dy, dx) of the metric loss, 1 to 14 cells long, in all directions.
METRIC_OFFSETS = (
    (0, 1), (1, 0), (1, 1), (1, -1), (0, 3), (3, 0), (2, 2), (2, -2),
    (0, 7), (7, 0), (5, 5), (5, -5), (0, 14), (14, 0),
)  # fmt: skip


def mask_loss(logits: torch.Tensor, targets: torch.Tensor, balanced: float = 0.0) -> torch.Tensor:
    """Cross-entropy plus soft Dice per mask.

    Parameters
    ----------
    logits : Tensor, shape (n, tokens, y, x)
    targets : Tensor, shape (n, y, x)
        Soft masks, 0 to 1 (area averages at the stride of the logits).
    balanced : float
        0 to 1: share of the balanced cross-entropy (mean over the object plus mean over the background),
        which keeps an untrained model from answering "empty" everywhere.

    Returns
    -------
    Tensor, shape (n, tokens)
    """
    target = targets[:, None].expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    area = target.sum(dim=(2, 3))
    pixels = target.shape[2] * target.shape[3]
    cross = bce.sum(dim=(2, 3)) / (area + 0.1 * pixels)
    if balanced > 0:
        inside = (bce * target).sum(dim=(2, 3)) / (area + 1)
        outside = (bce * (1 - target)).sum(dim=(2, 3)) / (pixels - area + 1)
        cross = balanced * (inside + outside) + (1 - balanced) * cross
    probability = logits.sigmoid()
    overlap = 2 * (probability * target).sum(dim=(2, 3)) + 1
    dice = 1 - overlap / (probability.sum(dim=(2, 3)) + area + 1)
    return cross + dice


@torch.no_grad()
def mask_iou(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """IoU of thresholded masks, shape (n, tokens); an empty prediction of an empty target scores 1."""
    predicted, target = logits > 0, (targets > 0.5)[:, None]
    intersection = (predicted & target).sum(dim=(2, 3)).float()
    union = (predicted | target).sum(dim=(2, 3)).float()
    return torch.where(union > 0, intersection / union.clamp(min=1), torch.ones_like(union))


def prompt_loss(logits, scores, presence, targets, kind: str, balanced: float = 0.0) -> torch.Tensor:
    """Loss of one prompted decoding with all four mask tokens.

    Parameters
    ----------
    logits : Tensor, shape (n, 4, y, x)
    scores : Tensor, shape (n, 4)
        Predicted IoU.
    presence : Tensor, shape (n, 1), or None
        Object score logits.
    targets : Tensor, shape (n, y, x)
    kind : {"box", "point"}
        A box is unambiguous: every token learns it.  For a point the three candidates may differ: the best
        one learns most, and the first stays a sane answer.
    balanced : float

    Returns
    -------
    Tensor, shape (n,)
    """
    per_token = mask_loss(logits, targets, balanced)
    if kind == "box":
        loss = per_token[:, 0] + per_token[:, 1:].mean(dim=1)
    elif kind == "point":
        candidates = per_token[:, 1:]
        loss = 0.6 * per_token[:, 0] + 0.6 * candidates[:, 0]
        loss = loss + 0.8 * candidates.min(dim=1).values + 0.05 * candidates.mean(dim=1)
    else:
        raise ValueError(f"unknown prompt kind {kind!r}: use 'box' or 'point'")
    loss = loss + ((scores - mask_iou(logits, targets)) ** 2).mean(dim=1)
    if presence is not None:
        loss = loss + 0.05 * F.softplus(-presence[:, 0])
    return loss


def slice_loss(logits, scores, presence, targets, balanced: float = 0.0, presence_weight: float = 1.0):
    """Loss of one tracked slice: object presence always, masks only where the object is.

    Parameters
    ----------
    logits, scores, presence, targets
        As in `prompt_loss`; a target without any pixel is an absent object.
    balanced : float
    presence_weight : float
        Weight of the presence term. Present and absent objects count alike: a heavier absence made
        the tracker hide small objects that it had outlined well.

    Returns
    -------
    Tensor, shape (n,)
    """
    present = (targets.sum(dim=(1, 2)) > 0).float()
    loss = presence_weight * F.binary_cross_entropy_with_logits(presence[:, 0], present, reduction="none")
    per_token = mask_loss(logits, targets, balanced)
    masks = per_token[:, 0] + per_token[:, 1:].mean(dim=1)
    quality = ((scores - mask_iou(logits, targets)) ** 2).mean(dim=1)
    return loss + present * (masks + quality)


def metric_loss(embedding: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Pairs of cells with the same label should have close embeddings, others distant ones.

    Parameters
    ----------
    embedding : Tensor, shape (n, channels, y, x)
    labels : Tensor of int, shape (n, y, x)
        At the same stride; -1 is ignored.

    Returns
    -------
    Tensor
        Scalar: balanced cross-entropy of logit 1.5 - squared distance over `METRIC_OFFSETS`.
    """
    height, width = labels.shape[-2:]
    total, count = embedding.new_zeros(()), 0
    for dy, dx in METRIC_OFFSETS:
        if dy >= height or abs(dx) >= width:
            continue
        first = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        second = (slice(dy, height), slice(max(0, dx), width - max(0, -dx)))
        a, b = labels[:, first[0], first[1]], labels[:, second[0], second[1]]
        distance = (embedding[:, :, first[0], first[1]] - embedding[:, :, second[0], second[1]]).pow(2).sum(1)
        valid = ((a >= 0) & (b >= 0)).float()
        same = (a == b).float() * valid
        other = valid - same
        positive = (F.softplus(distance - 1.5) * same).sum() / (same.sum() + 1)
        negative = (F.softplus(1.5 - distance) * other).sum() / (other.sum() + 1)
        total, count = total + 0.5 * (positive + negative), count + 1
    return total / max(1, count)
