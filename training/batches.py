"""Batches of training samples, with the prompts of their objects, as tensors.

A batch is a function of (seed, rank, step): any step can be made again, on any worker, in any order.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from medsam_nb.finetuning import targets
from medsam_nb.finetuning.batches import PROMPT_KINDS
from training import appearance
from training.samples import Pool, SampleOptions, image_sample, open_pool, video_sample


def random_pixel(images, masks, prompted: int, rng: np.random.Generator, options: SampleOptions):
    """Draw the pixel of an image or sequence; returns images, masks and the side of the pixel.

    A sample of which a prompted mask would get too small keeps its pixels.
    """
    if options.coarse == 0 or rng.random() >= options.coarse:
        return images, masks, 1.0
    cells = round(options.size / np.exp(rng.uniform(0, np.log(3))))
    coarse_images, coarse_masks = appearance.coarsened(images, masks, cells)
    if coarse_masks[:, prompted].sum(axis=(1, 2)).min() < options.rules.least(options.size):
        return images, masks, 1.0
    return coarse_images, coarse_masks, options.size / cells


def image_batch(pool: Pool, rng: np.random.Generator, options: SampleOptions, hardness: float = 1.0) -> dict:
    """Batch of images with a box and a point for every object, as tensors."""
    images, masks, index, boxes, points, labels = [], [], [], [], [], []
    for i in range(options.images):
        image, wanted, label = image_sample(pool, rng, options, hardness)
        (image,), wanted, pixel = random_pixel(image[None], np.stack(wanted)[:, None], 0, rng, options)
        images.append(image)
        labels.append(label[2::4, 2::4])
        for mask in wanted[:, 0]:
            masks.append(mask)
            index.append(i)
            boxes.append(targets.sample_box(mask, rng, options.rules, pixel))
            points.append(targets.sample_point(mask, rng))
    return {
        "kind": "image",
        "images": torch.from_numpy(np.stack(images)),
        "masks": torch.from_numpy(np.stack(masks)),
        "index": torch.tensor(index),
        "boxes": torch.from_numpy(np.stack(boxes)),
        "points": torch.from_numpy(np.stack(points)),
        "labels": torch.from_numpy(np.stack(labels)),
    }


def video_batch(pool: Pool, rng: np.random.Generator, options: SampleOptions) -> dict:
    """Batch of sequences with one prompt kind; prompts lie on each sequence's own prompted slice.

    All sequences are turned so that the prompted slice has the same index (they are drawn until it has).
    `single` holds (object, slice) where an object may also be prompted on one slice alone, with a box and
    a point for each.
    """
    rules = options.rules
    images, masks, index, pixels, prompted = [], [], [], [], None
    while len(images) < options.videos:
        image, mask, slice_index = video_sample(pool, rng, options)
        if prompted is None:
            prompted = slice_index
        elif slice_index != prompted:
            if options.slices - 1 - slice_index != prompted:
                continue
            image, mask = image[::-1], mask[:, ::-1]
        image, mask, pixel = random_pixel(image, mask, prompted, rng, options)
        pixels += [pixel] * len(mask)
        index += [len(images)] * len(mask)
        images.append(image)
        masks.append(mask)
    masks = np.concatenate(masks)
    # Where an object could also be prompted on a single slice, as in an image batch.
    single = [
        (k, t)
        for k, mask in enumerate(masks)
        for t in np.flatnonzero(mask.sum(axis=(1, 2)) >= rules.least(options.size))
        if t == prompted or targets.is_visible(images[index[k]][t], mask[t])
    ]
    kind = str(rng.choice(PROMPT_KINDS, p=(0.45, 0.15, 0.40)))
    return {
        "kind": "video",
        "images": torch.from_numpy(np.stack(images)),
        "masks": torch.from_numpy(np.ascontiguousarray(masks)),
        "index": torch.tensor(index),
        "prompted": prompted,
        "prompt": kind,
        "front_to_end": options.front_to_end > 0 and bool(rng.random() < options.front_to_end),
        "boxes": torch.from_numpy(
            np.stack(
                [targets.sample_box(m[prompted], rng, rules, p) for m, p in zip(masks, pixels, strict=True)]
            )
        ),
        "points": torch.from_numpy(np.stack([targets.sample_point(m[prompted], rng) for m in masks])),
        "single": torch.tensor(np.array(single)),
        "single_prompt": str(rng.choice(("box", "point"))),
        "single_boxes": torch.from_numpy(
            np.stack([targets.sample_box(masks[at], rng, rules, pixels[at[0]]) for at in single])
        ),
        "single_points": torch.from_numpy(np.stack([targets.sample_point(masks[at], rng) for at in single])),
    }


class Batches(torch.utils.data.IterableDataset):
    """Endless batches of one training stage, starting at any step.

    Parameters
    ----------
    pool_path : pathlib.Path
    options : SampleOptions
    seed : int
        Of the stage.
    rank : int
        Each rank sees its own batches; whether a step is an image or a video step is common to all.
    first_step : int
    """

    def __init__(
        self, pool_path: Path, options: SampleOptions, seed: int, rank: int = 0, first_step: int = 0
    ):
        super().__init__()
        self.pool_path, self.options = Path(pool_path), options
        self.seed, self.rank, self.first_step = seed, rank, first_step

    def __iter__(self):
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        pool = open_pool(self.pool_path)
        worker = torch.utils.data.get_worker_info()
        step, stride = self.first_step, 1
        if worker is not None:
            step, stride = step + worker.id, worker.num_workers
        while True:
            yield self.batch(pool, step)
            step += stride

    def batch(self, pool: Pool, step: int) -> dict:
        """The batch of one step."""
        is_video = step_generator(self.seed, step).random() < self.options.video_fraction
        rng = np.random.default_rng([self.seed, self.rank, step, 1])
        if is_video:
            return video_batch(pool, rng, self.options)
        hardness = 1.0 if step >= self.options.ease else 0.25 + 0.75 * step / self.options.ease
        return image_batch(pool, rng, self.options, hardness)


def step_generator(seed: int, step: int) -> np.random.Generator:
    """Generator of the decisions that all ranks must share at a step."""
    return np.random.default_rng([seed, step, 0])
