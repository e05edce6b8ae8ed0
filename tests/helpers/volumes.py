"""Objects in small volumes, the shipped model, and how often the parts of a network compute."""

from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models.checkpoints import load_model
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.volume import Case, Volume

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH = 40, 52


def blob(depth: int, filled: list[int], seed: int) -> np.ndarray:
    """Return an object on the given slices: one or two rectangles that move along z."""
    draw, mask = np.random.default_rng(seed), np.zeros((depth, HEIGHT, WIDTH), bool)
    for index in filled:
        top, left = draw.integers(0, 12), draw.integers(0, 20)
        mask[index, top : top + draw.integers(6, 16), left : left + draw.integers(6, 20)] = True
        if draw.random() < 0.5:
            mask[index, 32:37, 40 : 40 + draw.integers(4, 10)] = True
    return mask


def shipped(dtype: str = "float32"):
    checkpoint = load_manifest(ROOT / "data_manifest.yaml").checkpoint("miniature_sam2")
    return load_model(checkpoint, ROOT / "weights", device="cpu", dtype=dtype)


@contextmanager
def counted(network):
    """Count how often the four expensive parts compute, by a module within each."""
    counts = Counter()
    inner = {
        "encoded": network.image_encoder.trunk,
        "attended": network.memory_attention.norm,
        "decoded": network.sam_mask_decoder.transformer,
        "remembered": network.memory_encoder.fuser,
    }
    hooks = [
        module.register_forward_hook(lambda *_, name=name: counts.update([name]))
        for name, module in inner.items()
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def disc_case() -> Case:
    """Five slices of 48 x 60 with two bright discs (one object) and a dark bar (another)."""
    rows, columns = np.ogrid[:48, :60]
    labels = np.zeros((5, 48, 60), np.uint8)
    for index in (1, 2, 3):
        labels[index][(rows - 15) ** 2 + (columns - 15) ** 2 <= (5 + index) ** 2] = 1
        labels[index][(rows - 32) ** 2 + (columns - 42) ** 2 <= 36] = 1
    labels[2:4, 40:44, 5:30] = 2
    noise = np.random.default_rng(0).normal(0, 8, labels.shape)
    image = np.choose(labels, [100, 200, 30]) + noise
    volume = Volume.from_spacing(image.astype(np.float32), (4.0, 1.0, 1.0))
    objects = {"discs": (1,), "bar": (2,)}
    return Case("made_up", "a", "simulated", volume, labels, objects, Intensity("window", 0, 255), "p")
