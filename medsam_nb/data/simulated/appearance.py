"""From label volumes to images: simulated MRI, CT, ultrasound, PET and X-ray appearance.

Two uses share the effects below.  `render_random` gives every training sample a new random appearance
(random intensity per label, then texture, blur, bias, noise), the idea of SynthSeg (Billot et al., Medical
Image Analysis 2023), SynthMorph (Hoffmann et al., IEEE TMI 2022) and SynthFM-3D (2025).  `render_units`
paints a case with chosen mean values per label in the units of its modality (HU for CT).
"""

from __future__ import annotations

import cv2
import numpy as np

from medsam_nb.data.simulated.shapes import smooth_field

STYLES = ("mri", "ct", "ultrasound", "pet", "xray")
STYLE_WEIGHTS = {"mri": 0.52, "ct": 0.22, "ultrasound": 0.17, "pet": 0.09}


def blur(stack: np.ndarray, sigma: float, sigma_y: float | None = None) -> np.ndarray:
    """Gaussian blur of every slice; sigma in pixels (x, and y when it differs)."""
    if sigma < 0.2:
        return stack
    return np.stack([cv2.GaussianBlur(s, (0, 0), sigma, sigmaY=sigma_y or sigma) for s in stack])


def noise(rng: np.random.Generator, shape) -> np.ndarray:
    """Standard normal noise, float32."""
    return rng.standard_normal(shape, dtype=np.float32)


def grain(rng: np.random.Generator, shape, cell: float) -> np.ndarray:
    """Noise of unit variance and correlation length of about `cell` pixels, per slice."""
    depth, height, width = shape
    size = (max(2, int(height / cell)), max(2, int(width / cell)))
    coarse = noise(rng, (depth, *size))
    return np.stack([cv2.resize(c, (width, height), interpolation=cv2.INTER_LINEAR) for c in coarse])


def speckle(rng: np.random.Generator, shape, sigma_x: float, sigma_y: float, looks: int = 1) -> np.ndarray:
    """Rayleigh speckle of unit mean (magnitude of blurred complex noise), averaged over `looks`."""
    total = np.zeros(shape, np.float32)
    for _ in range(looks):
        real, imaginary = (blur(noise(rng, shape), sigma_x, sigma_y) for _ in range(2))
        total += np.sqrt(real * real + imaginary * imaginary)
    return total / (total.mean() + 1e-6)


def fan(shape, half_angle: float, apex: float) -> np.ndarray:
    """Boolean (y, x) sector of an ultrasound image; apex in image heights above the top."""
    height, width = shape
    y = (np.arange(height)[:, None] + 0.5) / height + apex
    x = (np.arange(width)[None] + 0.5) / width - 0.5
    return (
        (np.abs(np.arctan2(x, y)) < half_angle)
        & (np.hypot(x, y) > apex + 0.02)
        & (np.hypot(x, y) < apex + 1.0)
    )


def ultrasound(means: np.ndarray, rng: np.random.Generator, *, with_fan: bool, shadows: float) -> np.ndarray:
    """Speckled ultrasound of a mean-reflectivity image (0 to 1)."""
    depth, height, width = means.shape
    scale = height / 256
    x_sigma = rng.uniform(0.7, 1.8) * scale + 0.3
    looks = int(rng.integers(1, 4))  # scanners average several looks (spatial compounding)
    image = means * speckle(rng, means.shape, x_sigma, x_sigma * rng.uniform(0.4, 0.9), looks)
    gain = 1 + rng.uniform(-0.5, 0.3) * np.linspace(0, 1, height, dtype=np.float32)
    image = np.log1p(image * 6) / np.log(7) * gain[None, :, None]
    if rng.random() < shadows:
        column = int(rng.uniform(0, width))
        row = int(rng.uniform(0.1, 0.6) * height)
        half = rng.uniform(0.02, 0.08) * width
        lateral = np.exp(-(((np.arange(width) - column) / half) ** 2)).astype(np.float32)
        shade = np.ones((height, width), np.float32)
        shade[row:] = 1 - rng.uniform(0.4, 0.9) * lateral[None]
        image = image * shade[None]
    if with_fan:
        image = image * fan((height, width), rng.uniform(0.55, 0.95), rng.uniform(0.1, 0.5))[None]
    return image.astype(np.float32)


def mri(means: np.ndarray, rng: np.random.Generator, *, bias: float, sigma: float) -> np.ndarray:
    """Bias field and Gaussian, Rician or correlated noise on a mean image (about 0 to 1)."""
    field = smooth_field(rng, 2, int(rng.integers(2, 5)), means.shape)
    image = means * np.clip(1 + bias * field, 0.2, 2.5)
    kind = rng.random()
    if kind < 0.4:
        return (image + sigma * noise(rng, means.shape)).astype(np.float32)
    if kind < 0.75:
        return np.hypot(image + sigma * noise(rng, means.shape), sigma * noise(rng, means.shape)).astype(
            np.float32
        )
    correlated = blur(noise(rng, means.shape), 0.8)
    return (image + sigma * correlated * 1.6).astype(np.float32)


def pet(means: np.ndarray, rng: np.random.Generator, *, sigma_px: float, counts: float) -> np.ndarray:
    """Blurred uptake with noise that grows with the root of the signal."""
    image = blur(means, sigma_px)
    field = blur(noise(rng, means.shape), max(0.6, sigma_px * 0.6)) * max(1.0, sigma_px * 1.6)
    return (image + counts * np.sqrt(np.maximum(image, 0.0)) * field).astype(np.float32)


def xray(attenuation: np.ndarray, rng: np.random.Generator, *, strength: float, sigma: float) -> np.ndarray:
    """Projection of an attenuation volume (z, y, x) along z; shape (1, y, x), bright where dense."""
    line = attenuation.mean(axis=0, keepdims=True) * strength
    image = line + blur(noise(rng, line.shape), 0.6) * sigma
    return blur(image, 0.7).astype(np.float32)


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


def render_units(
    labels: np.ndarray, means: np.ndarray, modality: str, rng: np.random.Generator
) -> np.ndarray:
    """Image of a case in the units of its modality, from one mean value per label.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    means : ndarray, shape (n_labels,)
        HU for "ct", SUV for "pet", attenuation for "xray", arbitrary 0..1 otherwise.
    modality : {"mri", "ct", "pet", "ultrasound", "xray"}
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float32, shape (z, y, x), or (1, y, x) for "xray"
    """
    means = np.asarray(means, dtype=np.float32)
    base = means[labels]
    scale = labels.shape[-1] / 192
    if modality == "ct":
        texture = grain(rng, labels.shape, 7 * scale) * 6 * (base > -200)
        image = blur(base + texture, 0.7 * scale)
        return (image + blur(noise(rng, labels.shape), 0.6) * 28).astype(np.float32)
    if modality == "mri":
        image = base * (1 + 0.06 * grain(rng, labels.shape, 5 * scale))
        return 1000 * mri(blur(image.astype(np.float32), 0.7 * scale), rng, bias=0.15, sigma=0.025)
    if modality == "pet":
        return np.maximum(0, pet(base, rng, sigma_px=2.2 * scale, counts=0.12)).astype(np.float32)
    if modality == "ultrasound":
        image = base * (1 + 0.25 * grain(rng, labels.shape, 9 * scale)) + 0.02
        image = ultrasound(
            blur(np.maximum(image, 0).astype(np.float32), 0.8 * scale), rng, with_fan=True, shadows=0.3
        )
        return 255 * np.clip(image / np.percentile(image, 99.7), 0, 1).astype(np.float32)
    if modality == "xray":
        return 4000 * np.clip(xray(base, rng, strength=1.0, sigma=0.006), 0, None)
    raise ValueError(f"unknown modality {modality!r}: use one of {', '.join(STYLES)}")
