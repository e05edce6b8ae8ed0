"""Training samples from a pool of simulated label volumes: crops, appearance, targets.

The label volumes are made once and memory-mapped; every sample takes a new random crop and a new random
appearance, so the pool is small but no image is seen twice.  What is asked for follows `targets`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from scipy import ndimage
from tqdm import tqdm

from medsam_nb.data.simulated.appearance import xray
from medsam_nb.finetuning import targets
from training import appearance, label_volumes


@dataclass(frozen=True)
class Pool:
    """Label volumes (memory-mapped, shape (n, z, y, x)) and the objects of each."""

    labels: np.ndarray
    objects: list[list[list[int]]]


@dataclass(frozen=True)
class SampleOptions:
    """How samples are drawn.

    Attributes
    ----------
    size : int
        Side of the image in pixels.
    images, objects : int
        Images per batch and objects per image, at most.
    videos, slices : int
        Sequences per video batch and slices per sequence.
    video_fraction : float
        Share of steps that train on sequences.
    front_to_end : float
        Share of the sequence batches that are tracked from the first slice to the last.
    ease : int
        Number of first steps with larger objects and a simpler appearance.
    coarse : float
        Share of the images and sequences that have larger pixels than the input (up to three times).
    whole_body : float
        Share of the images and sequences of which the body with its shells is asked for, where that is fair.
    rules : targets.Rules
    """

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}  # a plan refuses misspelt keys

    size: int = 128
    images: int = 6
    objects: int = 4
    videos: int = 2
    slices: int = 5
    video_fraction: float = 0.0
    front_to_end: float = 0.0
    ease: int = 0
    coarse: float = 0.0
    whole_body: float = 0.0
    rules: targets.Rules = targets.Rules()


def build_pool(path: Path, first_seed: int, count: int, workers: int = 2) -> None:
    """Write `count` random label volumes (seeds from `first_seed`) to `path` (.npy) and a .json of objects.

    An existing pool is left as it is.  The result does not depend on the number of workers.
    """
    path = Path(path)
    if path.is_file() and path.with_suffix(".json").is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    store = np.lib.format.open_memmap(
        partial, mode="w+", dtype=np.uint8, shape=(count, *label_volumes.POOL_SHAPE)
    )
    objects = []
    seeds = range(first_seed, first_seed + count)
    with multiprocessing.get_context("spawn").Pool(workers) as workers_pool:
        volumes = workers_pool.imap(label_volumes.random_label_volume, seeds, chunksize=4)
        for i, volume in enumerate(tqdm(volumes, total=count, desc=f"label volumes {path.stem}")):
            store[i] = volume.labels
            objects.append([list(map(int, labels)) for labels in volume.objects])
    store.flush()
    path.with_suffix(".json").write_text(
        json.dumps({"first_seed": first_seed, "objects": objects}), encoding="utf-8"
    )
    os.replace(partial, path)


def open_pool(path: Path) -> Pool:
    """Memory-map a pool written by `build_pool`."""
    path = Path(path)
    return Pool(
        np.load(path, mmap_mode="r"),
        json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["objects"],
    )


def random_affine(rng: np.random.Generator, source: int, size: int) -> np.ndarray:
    """2 x 3 matrix from output pixels to source pixels: zoom, anisotropy, rotation, flip, shift."""
    zoom = np.exp(rng.uniform(np.log(0.75), np.log(1.9))) if rng.random() < 0.8 else 1.0
    stretch = np.exp(rng.uniform(-0.2, 0.2))
    angle = rng.uniform(-0.5, 0.5) if rng.random() < 0.5 else 0.0
    if rng.random() < 0.2:
        angle += np.pi / 2 * rng.integers(1, 4)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = matrix @ np.diag([stretch / zoom, 1 / (stretch * zoom)])
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    room = max(0.05, 1 - 1 / zoom)
    shift = rng.uniform(-room, room, 2)
    scale = source / size
    linear = matrix * scale
    centre = (source - 1) / 2 + shift * source / 2
    return np.concatenate([linear, (centre - linear @ np.full(2, (size - 1) / 2))[:, None]], axis=1)


def crop(labels: np.ndarray, affine: np.ndarray, size: int) -> np.ndarray:
    """Nearest-neighbour resampling of every slice to (n, size, size)."""
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return np.stack(
        [cv2.warpAffine(np.ascontiguousarray(s), affine, (size, size), flags=flags) for s in labels]
    )


def object_mask(labels: np.ndarray, values) -> np.ndarray:
    """Boolean mask of a set of label values."""
    table = np.zeros(256, bool)
    table[list(values)] = True
    return table[labels]


def _objects_in_turn(objects: list[list[int]], rng: np.random.Generator, whole_body: float):
    """Label values of a volume's objects in random order; the whole body before them in a share of the cases.

    Of a body with shells only the inside is an object of its volume.  Real masks often end outside of the
    brightest edge (a brain mask holds the dark rim of the brain), and so does the whole body's.
    """
    if whole_body and rng.random() < whole_body:
        yield range(1, 256)  # all that is not background
    for i in rng.permutation(len(objects)):
        yield objects[i]


def image_sample(pool: Pool, rng: np.random.Generator, options: SampleOptions, hardness: float = 1.0):
    """One 2D image with its targets.

    Returns
    -------
    image : ndarray of float32, shape (y, x), 0 to 1
    masks : list of ndarray of bool, shape (y, x)
        Up to `options.objects`, at least one.
    labels : ndarray of int16, shape (y, x)
        For the metric loss; -1 where it does not apply.
    """
    size = options.size
    rules = replace(options.rules, least_share=options.rules.least_share + 0.008 * (1 - hardness))
    while True:
        volume = int(rng.integers(len(pool.labels)))
        draw = rng.random() if rng.random() < hardness else 1.0
        if draw < 0.06:
            row = int(rng.integers(40, 216))
            source = cv2.resize(
                np.ascontiguousarray(pool.labels[volume, :, row, :]),
                (256, 256),
                interpolation=cv2.INTER_NEAREST,
            )[None]
        elif draw < 0.15:
            source = pool.labels[volume]
        else:
            source = pool.labels[volume, int(rng.integers(pool.labels.shape[1]))][None]
        stack = crop(source, random_affine(rng, source.shape[-1], size), size)
        if len(stack) == 1:
            easy = rng.random() > hardness
            image = appearance.render_random(stack, rng, "mri" if easy else None)[0]
            labels = stack[0].astype(np.int16)
        else:
            n = int(stack.max()) + 1
            dense = np.where(rng.random(n) < 0.35, rng.uniform(0.6, 1.6, n), rng.uniform(0, 0.35, n))
            dense[0] = 0
            line = xray(dense.astype(np.float32)[stack], rng, strength=1.0, sigma=rng.uniform(0, 0.02))
            line = np.exp(-rng.uniform(0.5, 3) * line) if rng.random() < 0.5 else line
            image = appearance.finish(line, rng)[0]
            labels = np.full(image.shape, -1, np.int16)
        masks = []
        for values in _objects_in_turn(pool.objects[volume], rng, options.whole_body):
            whole = object_mask(stack, values).any(axis=0)
            mask = targets.clean_target(whole, rng, rules)
            if mask is None or not targets.is_visible(image, mask):
                continue
            if any(np.array_equal(mask, other) for other in masks):
                continue
            masks.append(mask)
            if len(masks) == options.objects:
                break
        if masks:
            return image, masks, labels


def video_sample(pool: Pool, rng: np.random.Generator, options: SampleOptions, objects: int = 3):
    """One sequence of neighbouring slices with objects prompted on a common slice.

    Returns
    -------
    images : ndarray of float32, shape (slices, y, x)
    masks : ndarray of bool, shape (objects, slices, y, x)
        At least one object, at most `objects`.
    prompted : int
        Index of the prompted slice.
    """
    size, n, rules = options.size, options.slices, options.rules
    while True:
        volume = int(rng.integers(len(pool.labels)))
        stride = 2 if rng.random() < 0.25 and 2 * (n - 1) < pool.labels.shape[1] else 1
        start = int(rng.integers(0, max(1, pool.labels.shape[1] - (n - 1) * stride)))
        source = pool.labels[volume, start : start + (n - 1) * stride + 1 : stride]
        if rng.random() < 0.5:
            source = source[::-1]
        stack = crop(source, random_affine(rng, source.shape[-1], size), size)
        prompted = int(rng.integers(n))
        images, masks = None, []
        for values in _objects_in_turn(pool.objects[volume], rng, options.whole_body):
            whole = object_mask(stack, values)
            if whole[prompted].sum() < rules.least_pixels:
                continue
            if rng.random() < 0.85:
                components, _ = ndimage.label(whole, structure=np.ones((3, 3, 3)))
                inside = components[prompted][whole[prompted]]
                whole = components == inside[int(rng.integers(len(inside)))]
            if rng.random() < 0.9:
                whole = np.stack([targets.fill_holes(m) for m in whole])
            if not targets.is_acceptable(whole[prompted], rng, rules):
                continue
            if images is None:
                images = appearance.render_random(stack, rng)
            if targets.is_visible(images[prompted], whole[prompted]):
                masks.append(whole)
            if len(masks) == objects:
                break
        # A sequence in which something ends teaches more than one where all objects run through.
        if masks and (any(not m.any(axis=(1, 2)).all() for m in masks) or rng.random() < 0.6):
            return images, np.stack(masks), prompted
