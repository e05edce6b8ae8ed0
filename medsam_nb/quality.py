"""Quality control of prepared cases: what is unusual, and a picture of every case."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from medsam_nb.intensity import limits
from medsam_nb.volume import Case

TINY_PIXELS = 25  # a 5 x 5 object on its largest slice: a point prompt is nearly the whole of it
MANY_COMPONENTS = 10
CLIPPED_FRACTION = 0.2  # of the voxels inside objects
ANISOTROPY = 3.0
CONNECTED = np.ones((3, 3, 3), bool)  # across corners, as the study's 8-connected components in 2D


@dataclass(frozen=True)
class ObjectFacts:
    """What a mask looks like.

    Attributes
    ----------
    name : str
    voxels : int
    components : int
        Connected across faces, edges and corners.
    first_slice, last_slice : int
        That hold the object.
    largest_area : int
        Pixels on the slice that holds most of it.
    """

    name: str
    voxels: int
    components: int
    first_slice: int
    last_slice: int
    largest_area: int


def object_facts(name: str, mask: np.ndarray) -> ObjectFacts:
    """Return the facts of one mask, bool, shape (z, y, x), not empty."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    areas = np.count_nonzero(mask[box], axis=(1, 2))
    components = ndimage.label(mask[box], CONNECTED)[1]
    return ObjectFacts(
        name, int(areas.sum()), int(components), box[0].start, box[0].stop - 1, int(areas.max())
    )


def case_warnings(case: Case, facts: list[ObjectFacts]) -> list[str]:
    """Return what a researcher should look at before trusting a case's results."""
    warnings = []
    for fact in facts:
        if fact.largest_area < TINY_PIXELS:
            warnings.append(f"{fact.name} is tiny: at most {fact.largest_area} pixels on a slice")
        if fact.components > MANY_COMPONENTS:
            warnings.append(f"{fact.name} has {fact.components} components")
        if case.labels.shape[0] > 1 and fact.first_slice == fact.last_slice:
            warnings.append(f"{fact.name} is on one slice only")
    z, y, x = case.image.spacing_mm
    if case.labels.shape[0] > 1 and z / min(y, x) >= ANISOTROPY:
        warnings.append(f"anisotropic: slices are {z:g} mm apart, pixels {min(y, x):g} mm")
    if abs(y - x) > 0.01 * max(y, x):
        warnings.append(f"pixels are not square: {y:g} x {x:g} mm")
    low, high = limits(case.image.array, case.intensity)
    inside = case.image.array[case.labels > 0]
    for what, clipped in (("black", inside <= low), ("white", inside >= high)):
        if clipped.mean() >= CLIPPED_FRACTION and inside.min() < inside.max():
            warnings.append(f"{100 * clipped.mean():.0f} % of the labelled voxels are {what} after windowing")
    return warnings


def mosaic(case: Case, slices: int = 3) -> Figure:
    """Draw a case for inspection: slices through its objects with outlines, and its histogram.

    Parameters
    ----------
    case : Case
    slices : int
        Evenly spaced between the first and last slice that hold an object; fewer where there are
        fewer.

    Returns
    -------
    Figure
        The last panel is the histogram of all voxels on a logarithmic axis; dashed lines are the
        values that become black and white.
    """
    held = np.flatnonzero((case.labels > 0).any(axis=(1, 2)))
    chosen = np.unique(
        held[np.linspace(0, len(held) - 1, min(slices, len(held)) + 2).round().astype(int)[1:-1]]
    )
    grey = case.slices_uint8()
    _, y, x = case.image.spacing_mm
    figure = Figure(figsize=(2.4 * (len(chosen) + 1), 2.6), layout="constrained")
    axes = figure.subplots(1, len(chosen) + 1, squeeze=False)[0]
    for ax, index in zip(axes, chosen, strict=False):
        ax.imshow(grey[index], cmap="gray", vmin=0, vmax=255, aspect=y / x)
        for number, name in enumerate(case.objects):
            mask = case.mask(name)[index]
            if mask.any():
                ax.contour(mask, levels=[0.5], colors=f"C{number % 10}", linewidths=0.8)
        ax.set_title(f"slice {index} of {len(grey)}", fontsize=7)
        ax.set_axis_off()
    axes[-1].hist(case.image.array.ravel(), bins=128, color="0.4", log=True)
    for value in limits(case.image.array, case.intensity):
        axes[-1].axvline(value, color="C3", linestyle="--", linewidth=0.8)
    axes[-1].set_title(f"{case.intensity.policy}, stored values", fontsize=7)
    axes[-1].tick_params(labelsize=6)
    figure.suptitle(f"{case.data_set} / {case.case_id}", fontsize=8)
    return figure
