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
    """What is given to the model in one call: points, a box, both; or a mask.

    Attributes
    ----------
    points : tuple of (x, y)
        Column and row of the slice, pixels; whole numbers are the centres of pixels.
    box : (x0, y0, x1, y1) or None
        First and last column and row that belong to the object (inclusive), pixels.
    mask : ndarray of bool, shape (y, x), or None
        In place of points and box, not beside them.
    labels : tuple of {0, 1}
        1 for each point in the object (positive), 0 for each point outside (negative); empty if all
        are positive.

    Raises
    ------
    ValueError
        If labels and points differ in number, a label is neither 0 nor 1, or a mask has company.
    """

    points: tuple[tuple[float, float], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None
    labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.labels and len(self.labels) != len(self.points):
            raise ValueError(f"{len(self.points)} points with {len(self.labels)} labels")
        if not set(self.labels) <= {0, 1}:
            raise ValueError(f"labels are 0 or 1, not {self.labels}")
        if self.mask is not None and (self.points or self.box is not None):
            raise ValueError("a mask is a prompt of its own; give no points or box beside it")

    @property
    def point_labels(self) -> tuple[int, ...]:
        """One label per point: 1 in the object, 0 outside."""
        return self.labels or (1,) * len(self.points)

    @property
    def content(self) -> tuple:
        """What tells prompts apart: equal contents ask the model the same question."""
        mask = None if self.mask is None else (self.mask.shape, self.mask.tobytes())
        return self.points, self.point_labels, self.box, mask


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
    return deepest_point(border_distance(component), *seed_parts)


def border_distance(component: np.ndarray) -> np.ndarray:
    """Return how far every pixel of a component, bool (y, x), lies from its border, pixels; 0 outside."""
    return cv2.distanceTransform(np.pad(component.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]


def deepest_point(distance: np.ndarray, *seed_parts: object) -> tuple[int, int]:
    """Return the pixel (x, y) of the greatest distance, one of several drawn by `seed_parts`.

    Parameters
    ----------
    distance : ndarray, shape (y, x)
        Of `border_distance`; somewhere at least 1.
    """
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


def inscribed_radius(mask: np.ndarray, point: tuple[float, float]) -> float:
    """Return how far a point (x, y) of a mask, bool (y, x), lies from the nearest pixel outside, pixels.

    The same distance as in `central_point`; the image's edge counts as a border.
    """
    return float(border_distance(mask)[round(point[1]), round(point[0])])


def jittered(prompt: Prompt, mask: np.ndarray, share: float, *seed_parts: object) -> Prompt:
    """Return a prompt drawn from the truth as an imperfect hand would give it.

    Both coordinates of a box's two corners move by `share` of that side's length, each inwards or
    outwards, as far as the image reaches. Points move by `share` of the radius of the circle around them
    that fits into the object, in any direction, and so stay in the object.

    Parameters
    ----------
    prompt : Prompt
        Points in the object and boxes; not a mask.
    mask : ndarray of bool, shape (y, x)
        The object on this slice.
    share : float
        0 returns the prompt itself; less than 0.5 keeps boxes from turning inside out.
    *seed_parts : object
        What identifies prompt and repeat: see `prompt_seed`.

    Raises
    ------
    ValueError
        If the prompt is a mask, or the share is not in [0, 0.5).
    """
    if not 0 <= share < 0.5:
        raise ValueError(f"a share is in [0, 0.5), not {share}")
    if prompt.mask is not None:
        raise ValueError("a mask as a prompt has no corner or centre to displace")
    if share == 0:
        return prompt
    draw = generator("jitter", *seed_parts)
    height, width = mask.shape
    points = []
    for x, y in prompt.points:
        length, angle = share * inscribed_radius(mask, (x, y)), draw.uniform(0, 2 * np.pi)
        moved = x + length * np.cos(angle), y + length * np.sin(angle)
        points.append((float(np.clip(moved[0], 0, width - 1)), float(np.clip(moved[1], 0, height - 1))))
    box = prompt.box
    if box is not None:
        x0, y0, x1, y1 = box
        sides = np.array([x1 - x0 + 1, y1 - y0 + 1] * 2)
        moved = np.array(box) + share * sides * draw.choice([-1.0, 1.0], size=4)
        moved = np.clip(moved, 0, np.array([width - 1, height - 1] * 2))
        (x0, x1), (y0, y1) = sorted(moved[[0, 2]]), sorted(moved[[1, 3]])
        box = float(x0), float(y0), float(x1), float(y1)
    return Prompt(tuple(points), box, labels=prompt.labels)
