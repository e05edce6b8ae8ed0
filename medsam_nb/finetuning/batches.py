"""Prepared cases as batches of a training step: slices or short sequences, with prompts from the labels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch

from medsam_nb.errors import InputError
from medsam_nb.finetuning import targets

PROMPT_KINDS = ("box", "point", "mask")
LEAST_PIXELS = 20  # of an object on a slice, at the network's input size
KEPT_BYTES = 2 << 30  # of resized cases in memory

ImageAndLabel = tuple[np.ndarray, np.ndarray]


def resize(image: np.ndarray, label: np.ndarray, size: int) -> ImageAndLabel:
    planes = [
        cv2.resize(np.asarray(s, np.float32), (size, size), interpolation=cv2.INTER_AREA) for s in image
    ]
    return np.stack(planes), _resized_label(label, size)


def _resized_label(label: np.ndarray, size: int) -> np.ndarray:
    masks = [
        cv2.resize(np.asarray(s, np.uint8), (size, size), interpolation=cv2.INTER_NEAREST) for s in label
    ]
    return np.stack(masks)


class TrainingCases:
    """Cases at the network's input size; what does not fit into memory is read again when it is needed.

    Parameters
    ----------
    loaders : sequence of callable
        Each returns an image of float in 0..1, shape (z, y, x) or in colour (z, y, x, 3), and its labels of
        int, shape (z, y, x): 0 is background and every other value an object.
    size : int
        Side of the network's input, pixels.
    kept_bytes : int

    Attributes
    ----------
    spots : list of (case, slice, value)
        Where an object of at least `LEAST_PIXELS` is.
    """

    def __init__(
        self, loaders: Sequence[Callable[[], ImageAndLabel]], size: int, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self.loaders, self.size, self.kept_bytes = list(loaders), size, kept_bytes
        self._kept: OrderedDict[int, ImageAndLabel] = OrderedDict()
        self.spots = [
            (case, z, int(value))
            for case in range(len(self.loaders))
            for z, label in enumerate(self[case][1])
            for value, count in zip(*np.unique(label, return_counts=True), strict=True)
            if value and count >= LEAST_PIXELS
        ]
        if not self.spots:
            raise InputError(
                f"{len(self.loaders)} cases",
                f"none has an object of {LEAST_PIXELS} pixels at {size} x {size}.",
                "Check the labels.",
            )

    def __getitem__(self, case: int) -> ImageAndLabel:
        if case not in self._kept:
            self._kept[case] = resize(*self.loaders[case](), self.size)
        self._kept.move_to_end(case)
        held = [image.nbytes + label.nbytes for image, label in self._kept.values()]
        while sum(held) > self.kept_bytes and len(held) > 1:
            self._kept.popitem(last=False)
            held.pop(0)
        return self._kept[case]

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Return a spot, every one of them as likely."""
        return self.spots[int(rng.integers(len(self.spots)))]


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
