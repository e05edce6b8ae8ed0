"""Prepared cases as batches of a training step: slices or short sequences, with prompts from the labels."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from medsam_nb.finetuning import targets

PROMPT_KINDS = ("box", "point", "mask")


def resize(image: np.ndarray, label: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    planes = [
        cv2.resize(np.asarray(s, np.float32), (size, size), interpolation=cv2.INTER_AREA) for s in image
    ]
    masks = [
        cv2.resize(np.asarray(s, np.uint8), (size, size), interpolation=cv2.INTER_NEAREST) for s in label
    ]
    return np.stack(planes), np.stack(masks)


def to_device(batch: dict, device) -> dict:
    return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def _prompts(masks: np.ndarray, rng: np.random.Generator) -> dict:
    return {
        "boxes": torch.from_numpy(np.stack([targets.sample_box(m, rng, targets.Rules()) for m in masks])),
        "points": torch.from_numpy(np.stack([targets.sample_point(m, rng) for m in masks])),
    }


def image_batch(prepared, chosen, rng: np.random.Generator) -> dict:
    images = [prepared[c][0][z] for c, z, _ in chosen]
    if any(image.ndim == 3 for image in images):  # grey among colours is shown as three equal channels
        images = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1) for image in images]
    masks = np.stack([prepared[c][1][z] == value for c, z, value in chosen])
    return {
        "kind": "image",
        "images": torch.from_numpy(np.stack(images)),
        "masks": torch.from_numpy(masks),
        "index": torch.arange(len(chosen)),
        **_prompts(masks, rng),
    }


def video_batch(prepared, spot, slices: int, rng: np.random.Generator) -> dict:
    case, z, value = spot
    image, label = prepared[case]
    n = min(slices, len(image))
    start = int(np.clip(z - rng.integers(n), 0, len(image) - n))
    masks = (label[start : start + n] == value)[None]
    prompted = z - start
    return {
        "kind": "video",
        "images": torch.from_numpy(image[start : start + n])[None],
        "masks": torch.from_numpy(masks),
        "index": torch.zeros(1, dtype=torch.long),
        "prompted": prompted,
        "prompt": str(rng.choice(PROMPT_KINDS)),
        **_prompts(masks[:, prompted], rng),
    }
