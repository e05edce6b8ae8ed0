"""What a simulated sample asks for: which masks are fair targets, and the prompts drawn from them.

Holes are filled in 90 %, of several components the one at a random place is asked for in 85 %; never more
than 70 % of the image, never a contrast below 0.05 on more than 45 % of the border. How small and how thin
targets may be, and how often boxes are exact, is a `Rules`: its defaults hold for every held-out
measure, and a training stage may ask for more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np


@dataclass(frozen=True)
class Rules:
    """What is asked for.

    Attributes
    ----------
    least_share : float
        Smallest target, as a share of the image.
    least_pixels : int
        Smallest target, in pixels.
    thin : float
        Share of the thin structures that are not rejected.
    exact_boxes : float
        Share of the boxes that are exact; the others have jittered edges.
    """

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}  # a training plan refuses misspelt keys

    least_share: float = 0.0012
    least_pixels: int = 40
    thin: float = 0.1
    exact_boxes: float = 0.4

    def least(self, size: int) -> float:
        """Smallest target in pixels, in an image of this side."""
        return max(self.least_pixels, self.least_share * size**2)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of a 2D mask (uint8 or bool); returns bool."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return filled.astype(bool)


def is_visible(image: np.ndarray, mask: np.ndarray, share: float = 0.55) -> bool:
    """Whether at least `share` of a mask's border shows a local contrast of 0.05 in an image of 0..1."""
    kernel = np.ones((5, 5), np.uint8)
    mask8 = mask.astype(np.uint8)
    inner = (mask8 > cv2.erode(mask8, kernel)).astype(np.float32)
    outer = (cv2.dilate(mask8, kernel) > mask8).astype(np.float32)
    window = (image.shape[0] // 24 | 1,) * 2
    weights = [cv2.blur(side, window) for side in (inner, outer)]
    inside, outside = (
        cv2.blur(image * side, window) / np.maximum(weight, 1e-6)
        for side, weight in zip((inner, outer), weights, strict=True)
    )
    both = (inner > 0) & (weights[1] > 1e-6)
    return bool(both.any()) and float((np.abs(inside - outside)[both] >= 0.05).mean()) >= share


def clean_target(mask: np.ndarray, rng: np.random.Generator, rules: Rules) -> np.ndarray | None:
    """Apply the target rules to a 2D object mask; None when it is rejected."""
    if mask.sum() < min(30, rules.least_pixels):
        return None
    count, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    if count > 2 and rng.random() < 0.85:
        mask = components == components[mask][int(rng.integers(int(mask.sum())))]
    if rng.random() < 0.9:
        mask = fill_holes(mask)
    return mask if is_acceptable(mask, rng, rules) else None


def is_acceptable(mask: np.ndarray, rng: np.random.Generator, rules: Rules) -> bool:
    """Whether a 2D mask has a size and thickness that are asked for."""
    area = int(mask.sum())
    if area < rules.least(mask.shape[0]) or area > 0.7 * mask.size:
        return False
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5).max()
    return depth >= 0.13 * np.sqrt(area) or rng.random() > 1 - rules.thin


def sample_box(mask: np.ndarray, rng: np.random.Generator, rules: Rules, pixel: float = 1.0) -> np.ndarray:
    """Box (x0, y0, x1, y1) of a mask, in input pixels, inclusive: exact, or with jittered edges.

    `pixel` is the side of one of the image's own pixels. The predictors scale the index of the first and of
    the last of them, so that the box of a coarse image ends up to one of its pixels too early.
    """
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([xs[0], ys[0], xs[-1], ys[-1]], np.float32)
    box = (np.floor((box + 0.5) / pixel) * pixel).astype(np.float32)
    if rng.random() < rules.exact_boxes:
        return box
    size = np.array([box[2] - box[0] + 1, box[3] - box[1] + 1] * 2)
    box = box + rng.normal(0, 0.05, 4) * size + rng.normal(0, 0.7, 4)
    return np.clip(box, 0, mask.shape[0] - 1).astype(np.float32)


def sample_point(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Point (x, y) in a mask: its deepest pixel in 70 %, the inner half in 15 %, anywhere in 15 %."""
    draw = rng.random()
    distance = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    if draw < 0.7:
        ys, xs = np.nonzero(distance >= distance.max() - 1e-3)
    elif draw < 0.85:
        ys, xs = np.nonzero(distance >= 0.5 * distance.max())
    else:
        ys, xs = np.nonzero(mask)
    i = int(rng.integers(len(ys)))
    return np.array([xs[i], ys[i]], np.float32)
