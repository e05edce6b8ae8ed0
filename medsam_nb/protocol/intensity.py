"""From stored intensities to the eight bits a model of natural images expects.

The released scripts of the study do not say how volumes were windowed; the policy is therefore a
parameter of each data set in the manifest, and part of what a result is keyed by.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from medsam_nb.errors import InputError

WHITE = 255
POLICIES = ("window", "percentile", "min_max", "stored")
MOST_VALUE = 1e30  # far beyond any stored intensity, and differences still fit 32 bits


@dataclass(frozen=True)
class Intensity:
    """Which stored values become black and white; between them the mapping is linear.

    Attributes
    ----------
    policy : {"window", "percentile", "min_max", "stored"}
        "window": `low` and `high` are stored values (Hounsfield units for CT).
        "percentile": they are percentiles (0 to 100) of the whole volume's voxels.
        "min_max": least and greatest stored value; `low` and `high` are not used.
        "stored": values of 8 bits are shown as they are (0 is black, 255 white), as the study's released
        scripts show pictures; the right choice for PNG and JPEG. `low` and `high` are not used.
    low, high : float
    """

    # The manifest refuses misspelt fields and NaN.
    __pydantic_config__: ClassVar[dict] = {"extra": "forbid", "allow_inf_nan": False}

    policy: Literal["window", "percentile", "min_max", "stored"] = "percentile"
    low: float = 0.5
    high: float = 99.5

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"unknown intensity policy {self.policy!r}; known: {', '.join(POLICIES)}")
        if not (abs(self.low) <= MOST_VALUE and abs(self.high) <= MOST_VALUE):
            raise ValueError(f"low ({self.low}) and high ({self.high}) must be numbers up to {MOST_VALUE:g}")
        if self.policy in ("window", "percentile") and not self.low < self.high:
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
        If all voxels are equal, so that nothing could be seen, or values to be shown as stored are not
        of 8 bits; it names `item`.

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
    if intensity.policy != "stored":
        return low, high
    if low < 0 or high > WHITE or (array != np.rint(array)).any():
        raise InputError(
            item,
            f"its values, {low:g} to {high:g}, are no 8-bit grey levels.",
            "Choose another intensity policy in the manifest row: window, percentile or min_max.",
        )
    return 0.0, float(WHITE)


def to_uint8(
    array: np.ndarray, intensity: Intensity, item: object = "image", *, limits_of: np.ndarray | None = None
) -> np.ndarray:
    """Return the array in 256 grey levels.

    Parameters
    ----------
    array : ndarray of float, any shape
        Stored intensities of a whole volume: the percentiles are taken over all of it.
    intensity : Intensity
    item : object
        What an error message names.
    limits_of : ndarray, optional
        What decides black and white, if not the array itself: of a colour image its luminance.

    Returns
    -------
    ndarray of uint8, same shape

    Examples
    --------
    >>> to_uint8(np.array([-1000.0, -160, 40, 240, 3000]), Intensity("window", -160, 240))
    array([  0,   0, 128, 255, 255], dtype=uint8)
    >>> to_uint8(np.array([3.0, 3, 200]), Intensity("stored"))
    array([  3,   3, 200], dtype=uint8)
    """
    low, high = limits(array if limits_of is None else limits_of, intensity, item)
    array = np.asarray(array)
    grey = np.empty(array.shape, np.uint8)
    for stored, shown in zip(np.atleast_2d(array), np.atleast_2d(grey), strict=True):  # no copies of a volume
        scaled = (stored.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
        shown[...] = np.rint(np.clip(scaled, 0, 255, out=scaled), out=scaled)
    return grey
