"""Quality control of prepared cases: what is unusual, and what is missing."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.intensity import limits
from medsam_nb.protocol.volume import Case

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
        warnings.append(f"anisotropic: slices are {z:.3g} mm apart, pixels {min(y, x):.3g} mm")
    if abs(y - x) > 0.01 * max(y, x):
        warnings.append(f"pixels are not square: {y:.3g} x {x:.3g} mm")
    low, high = limits(case.image.array, case.intensity)
    inside = case.image.array[case.labels > 0]
    for what, clipped in (("black", inside <= low), ("white", inside >= high)):
        if clipped.mean() >= CLIPPED_FRACTION and inside.min() < inside.max():
            warnings.append(f"{100 * clipped.mean():.0f} % of the labelled voxels are {what} after windowing")
    return warnings


def against_expected(rows: Iterable[DataSet], cases: pd.DataFrame) -> pd.DataFrame:
    """Return what was found beside what a complete download holds, a line per data set.

    Returns
    -------
    DataFrame
        `found` counts every case, usable or not; `difference` is `found` less `expected`, empty where
        the manifest states no number; `slices` are those that hold an object, `study_slices` those
        the study counts.
    """
    lines = []
    for row in rows:
        of_row = cases[(cases.data_set == row.name) & (cases.case_id != "")]
        states = of_row.status.value_counts()
        expected = row.expected.cases
        lines.append(
            {
                "data_set": row.name,
                "expected": expected,
                "found": len(of_row),
                "difference": None if expected is None else len(of_row) - expected,
                "usable": int(states.get("ok", 0)),
                "without_object": int(states.get("no_object", 0)),
                "failed": int(states.get("failed", 0)),
                "slices": int(of_row.labelled_slices.sum()),
                "study_slices": row.expected.study_masks,
                "unverified": "; ".join(row.unverified) or None,
            }
        )
    table = pd.DataFrame(lines)
    whole = ["expected", "difference", "study_slices"]
    return table.astype(dict.fromkeys(whole, "Int64"))


def describe(rows: Iterable[DataSet]) -> pd.DataFrame:
    """Return a line per data set: what it is, where its masks come from, whether they count for accuracy."""
    fields = ("name", "title", "modality", "truth", "accuracy", "licence")
    return pd.DataFrame({field: getattr(row, field) for field in fields} for row in rows)
