"""Prompts drawn from a ground-truth mask, as the study's protocol defines them.

A slice's object is split into 8-connected components, ranked by area; at most the three largest
are prompted. A point lies where the distance to the component's border is greatest; a box is tight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from skimage.measure import label

from medsam_nb.errors import require_known
from medsam_nb.protocol.seeds import generator
from medsam_nb.protocol.volume import Case

PROMPTS_2D = ("one_point", "point_per_component", "one_box", "box_per_component")
PROMPTS_3D = ("one_point", "point_per_component", "one_box", "mask")
MAX_COMPONENTS = 3


@dataclass(frozen=True, eq=False)
class Prompt:
    """What is given to the model in one call: points, or one box, or a mask.

    Attributes
    ----------
    points : tuple of (x, y)
        Positive points, column and row of the slice, pixels.
    box : (x0, y0, x1, y1) or None
        First and last column and row that belong to the object (inclusive), pixels.
    mask : ndarray of bool, shape (y, x), or None
    """

    points: tuple[tuple[int, int], ...] = ()
    box: tuple[int, int, int, int] | None = None
    mask: np.ndarray | None = None


def largest_components(mask: np.ndarray, most: int = MAX_COMPONENTS) -> list[np.ndarray]:
    """Return the largest 8-connected components of a slice, largest first.

    Parameters
    ----------
    mask : ndarray of bool, shape (y, x)
    most : int
        How many components at most.

    Returns
    -------
    list of ndarray of bool, shape (y, x)
        Empty for an empty mask. Of two components of the same area, the one that comes later in
        raster order is first, as in the study.
    """
    numbered, count = label(mask, connectivity=2, return_num=True)
    areas = np.bincount(numbered.ravel(), minlength=count + 1)
    ranked = sorted(range(1, count + 1), key=lambda number: (areas[number], number), reverse=True)
    return [numbered == number for number in ranked[:most]]


def central_point(component: np.ndarray, *seed_parts: object) -> tuple[int, int]:
    """Return the pixel of a component that is farthest from its border, as (x, y).

    The distance is OpenCV's L2 transform with a 5 x 5 mask, after padding with one background
    pixel (so the image edge counts as a border), as in the study. Where several pixels share the
    greatest distance, one is drawn with a generator seeded by `seed_parts`.
    """
    padded = np.pad(component.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    rows, columns = np.nonzero(distance >= max(distance.max(), 1.0))
    pick = generator("point", *seed_parts).integers(len(rows))
    return int(columns[pick]), int(rows[pick])


def tight_box(component: np.ndarray) -> tuple[int, int, int, int]:
    """Return the tight box (x0, y0, x1, y1) of a component; the last row and column belong to it.

    Examples
    --------
    >>> mask = np.zeros((5, 6), bool); mask[1:3, 2:5] = True
    >>> tight_box(mask)
    (2, 1, 4, 2)
    """
    rows, columns = np.nonzero(component)
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def prompt_seed(seed: int, case: Case, object_name: str, slice_index: int) -> tuple[object, ...]:
    """Return what identifies the prompts of one slice of one object: their `seed_parts`.

    Tables, figures and the explorer draw the same prompt because all of them take it from here.
    """
    return seed, case.data_set, case.case_id, object_name, slice_index


def prompts_2d(mask: np.ndarray, mode: str, seed_parts: Sequence[object]) -> tuple[Prompt, ...]:
    """Return the model calls of one slice; the masks of several calls are united.

    Parameters
    ----------
    mask : ndarray of bool, shape (y, x)
        The object on this slice; not empty.
    mode : {"one_point", "point_per_component", "one_box", "box_per_component"}
    seed_parts : sequence
        What identifies study, case, slice and object; a component's rank is added to it.

    Returns
    -------
    tuple of Prompt
        One call, but for "box_per_component", which is one call per box.
    """
    components = largest_components(mask)
    if not components:
        raise ValueError("an empty mask has no prompt")
    if mode == "one_box":
        return (Prompt(box=tight_box(components[0])),)
    if mode == "box_per_component":
        return tuple(Prompt(box=tight_box(component)) for component in components)
    if mode == "one_point":
        components = components[:1]
    elif mode != "point_per_component":
        require_known("prompts", mode, PROMPTS_2D, what="prompt in 2D")
    points = [central_point(component, *seed_parts, rank) for rank, component in enumerate(components)]
    return (Prompt(points=tuple(points)),)


def prompt_3d(mask: np.ndarray, kind: str, seed_parts: Sequence[object]) -> Prompt:
    """Return the prompt given to the video model on one slice.

    Parameters are those of `prompts_2d`; `kind` is one of "one_point", "point_per_component",
    "one_box" or "mask" (the ground truth itself). The video model takes one box per object, so
    there is no box per component.
    """
    if kind == "mask":
        return Prompt(mask=mask)
    require_known("prompts", kind, PROMPTS_3D, what="prompt in 3D")
    return prompts_2d(mask, kind, seed_parts)[0]
