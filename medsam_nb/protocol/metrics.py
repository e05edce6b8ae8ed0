"""Agreement of a predicted with a true mask: pure functions, the reference first.

What holds where a mask is empty:

======= ========== ========= ======= ================= ================
truth   prediction IoU, Dice NSD     HD95              over-propagation
======= ========== ========= ======= ================= ================
object  empty      0         0       volume's diagonal 0
empty   object     0         0       volume's diagonal missing
empty   empty      missing   missing missing           missing
======= ========== ========= ======= ================= ================

The diagonal is the greatest distance that the volume allows: a failed mask is the worst, and stays
in every mean.
"""

from importlib.metadata import version

import numpy as np

NSD_TOLERANCE_MM = 2.0
# Names of the values in the tidy table; the Dice of a slice follows from its IoU and is not stored.
METRICS = (
    *("iou", "dice", "volume_iou", "volume_dice", "over_propagation_slices", "over_propagation_mm"),
    *("hd95_mm", "nsd"),
)


def iou(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return intersection over union of two binary masks, without a smoothing term.

    Parameters
    ----------
    truth, prediction : ndarray of bool, same shape

    Returns
    -------
    float
        0.0 where only one of them is empty; NaN where both are (the study scores non-empty
        slices only, so an empty pair has no score).
    """
    union = np.count_nonzero(truth | prediction)
    return float(np.count_nonzero(truth & prediction) / union) if union else float("nan")


def dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return Dice's coefficient, 2 |A and B| / (|A| + |B|); empty masks as for `iou`.

    Examples
    --------
    >>> dice(np.array([True, True, False]), np.array([False, True, False]))
    0.6666666666666666
    """
    size = np.count_nonzero(truth) + np.count_nonzero(prediction)
    return float(2 * np.count_nonzero(truth & prediction) / size) if size else float("nan")


def adjacent_iou(truth: np.ndarray) -> np.ndarray:
    """Return how alike neighbouring slices of the object are: the IoU of slice z with z + 1.

    Parameters
    ----------
    truth : ndarray of bool, shape (z, y, x)

    Returns
    -------
    ndarray, shape (z - 1,)
        NaN where both slices are empty.
    """
    return np.array([iou(truth[z], truth[z + 1]) for z in range(len(truth) - 1)], float)


def over_propagation(truth: np.ndarray, prediction: np.ndarray, spacing_z_mm: float) -> tuple[float, float]:
    """Return how far a prediction goes on past the object's ends, in slices and in mm.

    Counted are slices before the first or after the last slice of the object in which something is
    predicted; their thickness is the spacing between slices.

    Parameters
    ----------
    truth, prediction : ndarray of bool, shape (z, y, x)
    spacing_z_mm : float

    Returns
    -------
    slices, millimetres : float
        NaN for an object without a voxel: it has no end.
    """
    filled = np.flatnonzero(truth.any(axis=(1, 2)))
    if not len(filled):
        return float("nan"), float("nan")
    predicted = np.flatnonzero(prediction.any(axis=(1, 2)))
    slices = float(np.count_nonzero((predicted < filled[0]) | (predicted > filled[-1])))
    return slices, slices * float(spacing_z_mm)


def surface_backend(tolerance_mm: float = NSD_TOLERANCE_MM) -> str:
    """Return what computes the surface metrics, for the record: library, version, tolerance."""
    return f"MeshMetrics {version('pymeshmetrics')}, NSD tolerance {tolerance_mm:g} mm"


def surface_distances(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float = NSD_TOLERANCE_MM,
) -> dict[str, float]:
    """Return the 95th percentile Hausdorff distance and the normalised surface Dice.

    Both by MeshMetrics (Podobnik and Vrtovec, arXiv 2509.05670), between the meshes of the masks'
    surfaces: the greater of the two directed 95th percentiles, and the share of both surfaces'
    area within the tolerance. Libraries differ here by up to a voxel, so values are comparable
    only with those of the same one (`surface_backend`).

    Parameters
    ----------
    truth, prediction : ndarray of bool, shape (z, y, x)
        A single slice is treated as an image, without a surface above and below.
    spacing_mm : (z, y, x)
    tolerance_mm : float

    Returns
    -------
    dict
        `hd95_mm` and `nsd`; see the module's table for empty masks.
    """
    filled = truth.any(), prediction.any()
    if not any(filled):
        return {"hd95_mm": float("nan"), "nsd": float("nan")}
    if not all(filled):
        diagonal = np.linalg.norm((np.array(truth.shape) - 1) * np.asarray(spacing_mm, float))
        return {"hd95_mm": float(diagonal), "nsd": 0.0}
    from meshmetrics import DistanceMetrics  # late: it loads VTK, which most users do not need

    united = np.nonzero(truth | prediction)
    # one voxel of background all around, so that an object at the border has a surface there
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in united)
    reference, tested = (np.pad(mask[box].astype(bool), 1) for mask in (truth, prediction))
    spacing = tuple(float(size) for size in spacing_mm)
    if truth.shape[0] == 1:
        reference, tested, spacing = reference[1], tested[1], spacing[1:]
    distances = DistanceMetrics()
    distances.set_input(reference, tested, spacing=spacing)
    return {"hd95_mm": float(distances.hd(95)), "nsd": float(distances.nsd(tolerance_mm))}


def volume_overlap(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: tuple[float, float, float]
) -> dict[str, float]:
    """Return the metrics of a whole volume that need no surfaces, by name in the results table.

    All slices count, so that what is predicted where the object is not lowers IoU and Dice, unlike
    in the study's own score.

    Parameters are those of `surface_distances`.
    """
    slices, millimetres = over_propagation(truth, prediction, spacing_mm[0])
    return {
        "volume_iou": iou(truth, prediction),
        "volume_dice": dice(truth, prediction),
        "over_propagation_slices": slices,
        "over_propagation_mm": millimetres,
    }
