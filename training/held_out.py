"""Held-out IoU during training: fixed samples of the validation pool, at the size that is being trained."""

from __future__ import annotations

import numpy as np
import torch

from medsam_nb.finetuning import losses, sequence_steps, steps, targets
from training import samples

IMAGES = 48
SEQUENCES = 36  # with 12, the mean moved by 0.04 where that of forty other objects rose by 0.015


def _exact_box(mask: np.ndarray) -> np.ndarray:
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([xs[0], ys[0], xs[-1], ys[-1]], np.float32)


@torch.no_grad()
def image_scores(model, pool: samples.Pool, size: int, items, device="cpu") -> dict[str, list[float]]:
    """IoU per object of fixed held-out images, at the stride of the mask logits.

    Parameters
    ----------
    model : SAM2Base or Sam
    pool : samples.Pool
    size : int
    items : iterable of int
        Numbers of the fixed samples.
    device : str

    Returns
    -------
    dict
        "box" (first token), "point_first", "point_confident", "point_best" (IoU lists, one per object).
    """
    found: dict[str, list[float]] = {k: [] for k in ("box", "point_first", "point_confident", "point_best")}
    for item in items:
        rng = np.random.default_rng([731, item])
        image, masks, _ = samples.image_sample(pool, rng, samples.SampleOptions(size=size))
        truth = torch.from_numpy(np.stack(masks)).to(device)
        boxes = torch.from_numpy(np.stack([_exact_box(m) for m in masks])).to(device)
        points = torch.from_numpy(np.stack([targets.sample_point(m, rng) for m in masks])).to(device)
        index = torch.zeros(len(masks), dtype=torch.long, device=device)
        features = steps.encode(model, torch.from_numpy(image)[None].to(device))
        soft = steps.soft_targets(truth, size // 4)
        logits, _, _ = steps.decode(model, features, index, *steps.box_prompt(boxes))
        found["box"] += losses.mask_iou(logits, soft)[:, 1].tolist()
        logits, scores, _ = steps.decode(model, features, index, *steps.point_prompt(points))
        iou = losses.mask_iou(logits[:, 1:], soft)
        found["point_first"] += iou[:, 0].tolist()
        found["point_confident"] += iou.gather(1, scores[:, 1:].argmax(1, keepdim=True))[:, 0].tolist()
        found["point_best"] += iou.max(dim=1).values.tolist()
    return found


@torch.no_grad()
def video_scores(model, pool: samples.Pool, size: int, items, device="cpu") -> dict[str, list[float]]:
    """IoU of propagated, non-empty slices and correctness of the presence answer, box on one slice.

    Returns
    -------
    dict
        "video" (IoU list) and "absent_found" (1.0 where an absent object was said to be absent).
    """
    found: dict[str, list[float]] = {"video": [], "absent_found": []}
    options = samples.SampleOptions(size=size, videos=1, slices=6)
    for item in items:
        rng = np.random.default_rng([732, item])
        images, masks, prompted = samples.video_sample(pool, rng, options)
        truth = torch.from_numpy(np.ascontiguousarray(masks)).to(device)
        boxes = torch.from_numpy(np.stack([_exact_box(m[prompted]) for m in masks])).to(device)
        coordinates, labels = steps.box_prompt(boxes)
        sequence = torch.from_numpy(np.ascontiguousarray(images))[None].to(device)
        index = torch.zeros(len(masks), dtype=torch.long, device=device)
        prompt = {"point_coords": coordinates, "point_labels": labels}
        results = sequence_steps.track(
            model, sequence_steps.encode_sequences(model, sequence), index, prompted, prompt
        )
        soft = steps.soft_targets(truth, size // 4)
        for t, (logits, scores, presence) in results.items():
            if t == prompted:
                continue
            best = scores[:, 1:].argmax(dim=1)
            iou = losses.mask_iou(logits[:, 1:], soft[:, t])[torch.arange(len(best)), best]
            shown, present = presence[:, 0] > 0, soft[:, t].amax(dim=(1, 2)) > 0.5
            found["video"] += (iou * shown)[present].tolist()
            found["absent_found"] += (~shown)[~present].float().tolist()
    return found
