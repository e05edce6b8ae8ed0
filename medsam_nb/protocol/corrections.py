"""Where a correction goes: the next click on a slice, the next prompts of a volume, and why there are none.

Simulated from the truth, as a person would correct who sees every error. Nothing here looks at a network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medsam_nb.errors import require_known
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.prompts import Prompt, border_distance, deepest_point, largest_components, prompt_3d

# What a correction tells the model. A mask is the truth of its slice.
NEW_INFORMATION = ("one_point", "one_box", "mask")
# What is corrected begins with one prompt, given in one call.
INITIAL_PROMPTS = ("one_point", "point_per_component", "one_box")
CLICKS = "clicks"  # the strategy in 2D
# In 3D: prompts into the running predictor; the same prompts, at the end, into a fresh one; and a fresh
# predictor in every loop.
RUNNING, RESTARTED, FRESH = "correction", "correction_reinitialised", "reinitialisation"
STRATEGIES_3D = (RUNNING, FRESH)  # what a study chooses from; RUNNING brings RESTARTED with it
REACH = 16  # slices from an annotated one within which the running predictor is corrected

NO_ERROR = "no error is left"
ALL_CLICKED = "every wrong pixel of the largest error has been clicked"
NOTHING_IN_REACH = f"no slice with an error is free within {REACH} slices of a prompted one"
NOTHING_MISSED = "no missed region is left on a slice without a mask"


@dataclass(frozen=True)
class Click:
    """A point (x, y), pixels, and whether it lies in the object (a miss) or outside (an excess)."""

    point: tuple[int, int]
    positive: bool


def next_click(
    truth: np.ndarray, prediction: np.ndarray, clicked: Sequence[tuple[float, float]], *seed_parts: object
) -> Click | str:
    """Return the next click on a slice: deep inside its largest error.

    Errors are the 8-connected components of what was missed (truth without prediction) and of the excess
    (prediction without truth). The largest by area is clicked, a missed one before an excess of the same
    area, where it is farthest from its border (Xu et al., CVPR 2016; later benchmarks, such as Sofiiuk et
    al., ICIP 2022, choose the error with the deepest inside instead). A pixel is not clicked twice.

    Parameters
    ----------
    truth, prediction : ndarray of bool, shape (y, x)
    clicked : sequence of (x, y)
        Points given before.
    *seed_parts : object
        What identifies the click; of equally deep pixels one is drawn.

    Returns
    -------
    Click, or str
        The reason why there is none.

    Examples
    --------
    >>> truth = np.zeros((7, 9), bool); truth[1:6, 1:6] = True
    >>> next_click(truth, np.zeros_like(truth), ())
    Click(point=(3, 3), positive=True)
    >>> next_click(truth, truth, ())
    'no error is left'
    """
    missed = largest_components(truth & ~prediction, most=1)
    excess = largest_components(prediction & ~truth, most=1)
    if not missed and not excess:
        return NO_ERROR
    areas = [int(found[0].sum()) if found else 0 for found in (missed, excess)]
    positive = areas[0] >= areas[1]
    distance = border_distance(missed[0] if positive else excess[0])
    for x, y in clicked:
        distance[round(y), round(x)] = 0
    if not distance.any():
        return ALL_CLICKED
    return Click(deepest_point(distance, *seed_parts), positive)


def with_click(prompt: Prompt, click: Click) -> Prompt:
    """Return a prompt of points, a box or both with one more point."""
    labels = (*prompt.point_labels, int(click.positive))
    return Prompt((*prompt.points, click.point), prompt.box, labels=() if all(labels) else labels)


def lowest_slice(
    truth: np.ndarray, predicted: Mapping[int, np.ndarray], slices: Sequence[int], annotated: Sequence[int]
) -> int | None:
    """Return the slice of the lowest IoU within `REACH` slices of an annotated one.

    Parameters
    ----------
    truth : ndarray of bool, shape (z, y, x)
    predicted : mapping of slice to ndarray of bool, shape (y, x)
        At least of those of `slices` that hold the object.
    slices : sequence of int
        One side of the volume.
    annotated : sequence of int
        Prompted slices, which are not prompted again.

    Returns
    -------
    int or None
        Of equal slices the first in `slices`; None where none is free, or all are without an error.
    """
    values = {
        index: iou(truth[index], predicted[index])
        for index in slices
        if index not in annotated
        and truth[index].any()
        and min(abs(index - other) for other in annotated) <= REACH
    }
    index = min(values, key=values.__getitem__, default=None)
    return None if index is None or values[index] == 1 else index


def running_prompts(
    truth: np.ndarray,
    predicted: Mapping[int, np.ndarray],
    sides: Sequence[Sequence[int]],
    annotated: Sequence[int],
    kind: str,
    drawn: Callable[[int, str], Prompt],
) -> Mapping[int, Prompt] | str:
    """Return the new prompts of a loop of corrections of the running predictor, by slice.

    On every side of the start the slice of the lowest IoU (`lowest_slice`) gets a prompt of its own, drawn
    from the truth as the first prompts are (last version of the paper, first interactive algorithm).

    Parameters
    ----------
    truth, predicted, annotated
        As for `lowest_slice`.
    sides : sequence of sequence of int
        The slices of each pass.
    kind : {"one_point", "one_box", "mask"}
    drawn : callable (slice_index, kind) -> Prompt

    Returns
    -------
    mapping, or str
        The reason why there is none.
    """
    require_known("new_information", kind, NEW_INFORMATION, what="new information")
    chosen = [lowest_slice(truth, predicted, slices, annotated) for slices in sides]
    found = {index: drawn(index, kind) for index in chosen if index is not None}
    return found or NOTHING_IN_REACH


def fresh_prompt(
    truth: np.ndarray,
    predicted: Mapping[int, np.ndarray],
    prompts: Mapping[int, Prompt],
    kind: str,
    *seed_parts: object,
) -> tuple[int, Prompt] | str:
    """Return the slice that gets new information before the next fresh start, and all that is said there.

    Of the slices that hold the object and miss a part of it, the one with the most wrong pixels; on it the
    largest missed region is prompted (last version of the paper, second interactive algorithm). A point is
    added to those of the slice, a box is widened by that of the region (the predictor takes one per slice),
    and the truth's mask replaces both. A slice that has a mask is told nothing more.

    Parameters
    ----------
    truth : ndarray of bool, shape (z, y, x)
    predicted : mapping of slice to ndarray of bool, shape (y, x)
        Of all slices that hold the object.
    prompts : mapping of slice to Prompt
        Given so far.
    kind : {"one_point", "one_box", "mask"}
    *seed_parts : object
        What identifies object and loop.

    Returns
    -------
    (int, Prompt), or str
        The reason why there is none.
    """
    require_known("new_information", kind, NEW_INFORMATION, what="new information")
    wrong = {
        index: int((truth[index] ^ mask).sum())
        for index, mask in predicted.items()
        if (truth[index] & ~mask).any() and (index not in prompts or prompts[index].mask is None)
    }
    if not wrong:
        return NOTHING_MISSED
    index = max(sorted(wrong), key=wrong.__getitem__)
    if kind == "mask":
        return index, Prompt(mask=truth[index])
    region = largest_components(truth[index] & ~predicted[index], most=1)[0]
    new, before = prompt_3d(region, kind, (*seed_parts, index)), prompts.get(index, Prompt())
    points = tuple(dict.fromkeys((*before.points, *new.points)))
    boxes = [prompt.box for prompt in (before, new) if prompt.box is not None]
    if not boxes:
        return index, Prompt(points)
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return index, Prompt(points, (min(x0), min(y0), max(x1), max(y1)))
