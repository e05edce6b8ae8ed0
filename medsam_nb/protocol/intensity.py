"""From stored intensities to the eight bits a model of natural images expects.

The released scripts of the study do not say how volumes were windowed; the policy is therefore a
parameter of each data set in the manifest, and part of what a result is keyed by.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from medsam_nb.errors import InputError

POLICIES = ("window", "percentile", "min_max")
MOST_VALUE = 1e30  # far beyond any stored intensity, and differences still fit 32 bits


@dataclass(frozen=True)
class Intensity:
    """Which stored values become black and white; between them the mapping is linear.

    Attributes
    ----------
    policy : {"window", "percentile", "min_max"}
        "window": `low` and `high` are stored values (Hounsfield units for CT).
        "percentile": they are percentiles (0 to 100) of the whole volume's voxels.
        "min_max": least and greatest stored value; `low` and `high` are not used.
    low, high : float
    """

    # The manifest refuses misspelt fields and NaN.
    __pydantic_config__: ClassVar[dict] = {"extra": "forbid", "allow_inf_nan": False}

    policy: Literal["window", "percentile", "min_max"] = "percentile"
    low: float = 0.5
    high: float = 99.5

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"unknown intensity policy {self.policy!r}; known: {', '.join(POLICIES)}")
        if not (abs(self.low) <= MOST_VALUE and abs(self.high) <= MOST_VALUE):
            raise ValueError(f"low ({self.low}) and high ({self.high}) must be numbers up to {MOST_VALUE:g}")
        if self.policy != "min_max" and not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.policy == "percentile" and not (self.low >= 0 and self.high <= 100):
            raise ValueError("percentiles lie between 0 and 100")


def limits(array: np.ndarray, intensity: Intensity, item: object = "image") -> tuple[float, float]:
    """Return the stored values that become 0 and 255.

    Where the percentiles coincide (an image that is almost everywhere zero), the least and
    greatest value take their place.

    Raises
    ------
    InputError
        If all voxels are equal, so that nothing could be seen; it names `item`.

    Examples
    --------
    >>> limits(np.arange(5.0), Intensity("min_max"))
    (0.0, 4.0)
    >>> limits(np.arange(5.0), Intensity("window", -160, 240))
    (-160.0, 240.0)
    """
    if intensity.policy == "window":
        return float(intensity.low), float(intensity.high)
    if intensity.policy == "percentile":
        low, high = np.percentile(array, (intensity.low, intensity.high))
        if high > low:
            return float(low), float(high)
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise InputError(item, f"all voxels have the value {low:g}.", "Give an image that shows something.")
    return low, high


def to_uint8(array: np.ndarray, intensity: Intensity, item: object = "image") -> np.ndarray:
    """Return the array in 256 grey levels.

    Parameters
    ----------
    array : ndarray of float, any shape
        Stored intensities of a whole volume: the percentiles are taken over all of it.
    intensity : Intensity
    item : object
        What an error message names.

    Returns
    -------
    ndarray of uint8, same shape

    Examples
    --------
    >>> to_uint8(np.array([-1000.0, -160, 40, 240, 3000]), Intensity("window", -160, 240))
    array([  0,   0, 128, 255, 255], dtype=uint8)
    """
    low, high = limits(array, intensity, item)
    scaled = (np.asarray(array, np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
