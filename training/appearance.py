"""Random appearance of training samples: every image gets a new one.

Random intensity per label, then texture, blur, bias and noise, the idea of SynthSeg (Billot et al., Medical
Image Analysis 2023), SynthMorph (Hoffmann et al., IEEE TMI 2022) and SynthFM-3D (2025).
"""

from __future__ import annotations

import cv2
import numpy as np

from medsam_nb.data.simulated.appearance import blur, grain, mri, noise, pet, ultrasound

STYLE_WEIGHTS = {"mri": 0.52, "ct": 0.22, "ultrasound": 0.17, "pet": 0.09}


def random_means(rng: np.random.Generator, n: int) -> np.ndarray:
    """One mean in 0..1 per label: stratified (labels differ) or independent; background mostly 0."""
    if rng.random() < 0.65:
        means = (rng.permutation(n) + rng.random(n)) / n
    else:
        means = rng.random(n)
    if rng.random() < 0.75:
        means[0] = 0.0
    return means.astype(np.float32)


def _random_hounsfield(rng: np.random.Generator, n: int) -> np.ndarray:
    kind = rng.choice(4, size=n, p=[0.72, 0.12, 0.06, 0.10])
    soft = rng.uniform(-10, rng.uniform(60, 200), n)
    values = np.choose(
        kind, [soft, rng.uniform(-130, -60, n), rng.uniform(-950, -650, n), rng.uniform(300, 1400, n)]
    )
    values[0] = -1000 if rng.random() < 0.8 else rng.uniform(-100, 60)
    return values.astype(np.float32)


def _window(rng: np.random.Generator, hounsfield: np.ndarray) -> np.ndarray:
    kind = rng.random()
    if kind < 0.6:
        centre, width = rng.uniform(20, 80), rng.uniform(120, 450)
    elif kind < 0.8:
        centre, width = rng.uniform(200, 600), rng.uniform(900, 2200)
    else:
        centre, width = rng.uniform(-700, -300), rng.uniform(900, 1700)
    return np.clip((hounsfield - centre) / width + 0.5, 0, 1)


def render_random(labels: np.ndarray, rng: np.random.Generator, style: str | None = None) -> np.ndarray:
    """Image stack of random appearance for a label stack (the same appearance on all slices).

    Parameters
    ----------
    labels : ndarray of uint8, shape (n, y, x)
    rng : numpy.random.Generator
    style : str, optional
        One of "mri", "ct", "ultrasound", "pet"; drawn by `STYLE_WEIGHTS` when None.

    Returns
    -------
    ndarray of float32, shape (n, y, x)
        Intensities in 0..1.
    """
    style = style or str(rng.choice(list(STYLE_WEIGHTS), p=list(STYLE_WEIGHTS.values())))
    n, size = int(labels.max()) + 1, labels.shape[-1]
    scale = size / 256
    texture_sd = (rng.uniform(0, 0.1) * rng.random(n)).astype(np.float32)
    textures = grain(rng, labels.shape, rng.uniform(2, 16) * scale) if rng.random() < 0.7 else 0.0
    if style == "ct":
        means = _random_hounsfield(rng, n)
        image = means[labels] + 250 * texture_sd[labels] * textures
        image = blur(image.astype(np.float32), rng.uniform(0, 1.3) * scale)
        image = _window(rng, image + rng.uniform(3, 35) * blur(noise(rng, labels.shape), 0.5))
    else:
        means = random_means(rng, n)
        if style == "pet":
            hot = rng.random(n) < 0.3
            means = np.where(hot, rng.uniform(0.4, 1, n), rng.uniform(0.05, 0.3, n)).astype(np.float32)
            means[0] = rng.uniform(0, 0.06)
        image = (means[labels] + texture_sd[labels] * textures).astype(np.float32)
        if style == "pet":
            image = pet(image, rng, sigma_px=rng.uniform(1.5, 4) * scale, counts=abs(rng.normal(0, 0.04)))
        elif style == "ultrasound":
            image = blur(image, rng.uniform(0.3, 1.3) * scale)
            image = ultrasound(np.clip(image, 0, 1) + 0.03, rng, with_fan=rng.random() < 0.4, shadows=0.4)
        else:
            image = blur(image, rng.uniform(0, 1.3) * scale)
            image = mri(image, rng, bias=rng.uniform(0, 0.45), sigma=abs(rng.normal(0, 0.05)) + 0.003)
    return finish(image, rng)


def finish(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Display steps every image goes through: low resolution, percentile stretch, gamma, inversion."""
    height, width = image.shape[-2:]
    if rng.random() < 0.25:
        factor = rng.uniform(0.3, 0.9)
        small = (max(16, int(width * factor)), max(16, int(height * factor)))
        image = np.stack(
            [
                cv2.resize(cv2.resize(s, small, interpolation=cv2.INTER_AREA), (width, height))
                for s in image.astype(np.float32)
            ]
        )
    sample = image[:, ::3, ::3]
    low, high = np.percentile(sample, [rng.uniform(0, 2), rng.uniform(97.5, 100)])
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    if rng.random() < 0.5:
        image = image ** np.float32(np.exp(rng.uniform(-0.5, 0.5)))
    if rng.random() < 0.12:
        image = 1 - image
    return image.astype(np.float32)


def coarsened(images: np.ndarray, masks: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks as if the scanner had `cells` pixels a side, at the size that they have.

    Parameters
    ----------
    images : ndarray of float32, shape (slices, y, x)
    masks : ndarray of bool, shape (objects, slices, y, x)
    cells : int

    Returns
    -------
    images, masks
        Images are averaged over the larger pixels and shown as the predictors show them; masks have steps.
    """
    size = images.shape[-1]

    def through(plane, down, up):
        return cv2.resize(
            cv2.resize(plane, (cells, cells), interpolation=down), (size, size), interpolation=up
        )

    grey = [through(plane, cv2.INTER_AREA, cv2.INTER_LINEAR) for plane in images]
    nearest = cv2.INTER_NEAREST_EXACT
    flat = masks.reshape(-1, size, size).astype(np.uint8)
    stepped = np.stack([through(plane, nearest, nearest) for plane in flat]).astype(bool)
    return np.stack(grey), stepped.reshape(masks.shape)
