"""From label volumes to images: simulated MRI, CT, ultrasound, PET and X-ray appearance.

`render_units` paints a case with chosen mean values per label in the units of its modality (HU for CT).
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import uniform_filter1d

from medsam_nb.data.simulated.shapes import smooth_field

STYLES = ("mri", "ct", "ultrasound", "pet", "xray")
SLAB = 5  # slices that a slice of an X-ray-like stack averages


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


def xray_stack(attenuation: np.ndarray, rng: np.random.Generator, *, slab: int, sigma: float) -> np.ndarray:
    """Slices (z, y, x) as of tomosynthesis: each the mean attenuation of `slab` slices."""
    image = uniform_filter1d(attenuation, slab, axis=0, mode="nearest")
    return blur(image + blur(noise(rng, image.shape), 0.6) * sigma, 0.7).astype(np.float32)


def render_units(
    labels: np.ndarray,
    means: np.ndarray,
    modality: str,
    rng: np.random.Generator,
    *,
    controlled: bool = False,
) -> np.ndarray:
    """Image of a case in the units of its modality, from one mean value per label.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    means : ndarray, shape (n_labels,)
        HU for "ct", SUV for "pet", attenuation for "xray", arbitrary 0..1 otherwise.
    modality : {"mri", "ct", "pet", "ultrasound", "xray"}
    rng : numpy.random.Generator
    controlled : bool
        Show every voxel in every modality: no sector and no shadow in ultrasound, a stack as "xray".

    Returns
    -------
    ndarray of float32, shape (z, y, x), or (1, y, x) for "xray" unless controlled
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
        image = blur(np.maximum(image, 0).astype(np.float32), 0.8 * scale)
        image = ultrasound(image, rng, with_fan=not controlled, shadows=0.0 if controlled else 0.3)
        return 255 * np.clip(image / np.percentile(image, 99.7), 0, 1).astype(np.float32)
    if modality == "xray" and controlled:
        return 4000 * np.clip(xray_stack(base, rng, slab=SLAB, sigma=0.01), 0, None)
    if modality == "xray":
        return 4000 * np.clip(xray(base, rng, strength=1.0, sigma=0.006), 0, None)
    raise ValueError(f"unknown modality {modality!r}: use one of {', '.join(STYLES)}")
