"""How predictions of a slice overlap with the truth, counted on the device that made them.

A GPU then sends a few numbers per slice instead of every mask. On a CPU NumPy counts, which is faster there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Counts:
    """Pixels of a predicted mask and its truth.

    Attributes
    ----------
    overlap, union, predicted : int
    is_finite : bool
        Whether all logits are numbers: thresholded, NaN would pass for background.
    """

    overlap: int
    union: int
    predicted: int
    is_finite: bool

    @property
    def iou(self) -> float:
        """Intersection over union, as `metrics.iou` defines it.

        Examples
        --------
        >>> Counts(2, 3, 2, True).iou, Counts(0, 0, 0, True).iou
        (0.6666666666666666, nan)
        """
        return self.overlap / self.union if self.union else float("nan")


def counted(logits: torch.Tensor, truth: Mapping[str, np.ndarray], names: Sequence[str]) -> list[Counts]:
    """Count the pixels of several predictions of a slice.

    Parameters
    ----------
    logits : Tensor of float32, shape (n, y, x)
        Positive inside.
    truth : mapping of str to ndarray of bool, shape (y, x)
        Of the objects on this slice.
    names : sequence of n str
        Whose prediction each one is.
    """
    count = on_host if logits.device.type == "cpu" else on_device
    return [Counts(*map(int, row[:3]), bool(row[3])) for row in count(logits, truth, names)]


def on_host(logits: torch.Tensor, truth: Mapping[str, np.ndarray], names: Sequence[str]) -> list[list[int]]:
    """Count with NumPy; see `counted`."""
    rows = []
    for values, name in zip(logits.numpy(), names, strict=True):
        mask, true = values > 0, truth[name]
        pixels = map(np.count_nonzero, (mask & true, mask | true, mask))
        rows.append([*pixels, int(np.isfinite(values).all())])
    return rows


def on_device(logits: torch.Tensor, truth: Mapping[str, np.ndarray], names: Sequence[str]) -> list[list[int]]:
    """Count where the logits are, and copy the counts together; see `counted`."""
    distinct = list(dict.fromkeys(names))
    sent = torch.from_numpy(np.stack([truth[name] for name in distinct])).to(logits.device)
    masks, true = logits > 0, sent[[distinct.index(name) for name in names]]
    counts = [both.sum((1, 2), dtype=torch.int32) for both in (masks & true, masks | true, masks)]
    return torch.stack([*counts, logits.isfinite().all(-1).all(-1).int()], dim=1).tolist()
