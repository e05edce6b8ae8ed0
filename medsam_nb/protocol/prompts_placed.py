"""Prompts of a file on a case: each on its slice and its pixels, or an error that names the line."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from medsam_nb.errors import InputError, require_known
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.protocol.prompts_file import MASK_PIXELS, WHOLE, Prompted, PromptLine, from_runs, hashes, to_mm
from medsam_nb.protocol.volume import GRID_TOLERANCE, words_mm


def prompts_on(
    case: Prompted, lines: Iterable[PromptLine], objects: Iterable[str] | None = None
) -> Mapping[tuple[str, int], Prompt]:
    """Return the prompts of a case, by object and slice; lines of other cases are passed over.

    Points of one slice become one prompt, with the box if there is one; of several boxes or masks on one
    slice the last counts.

    Parameters
    ----------
    case : Case, or an image without a truth
    lines : iterable of PromptLine
    objects : iterable of str, optional
        The names there are; others are refused.

    Raises
    ------
    InputError
        If a prompt was given on another image, does not lie on it, or crosses its slices.
    """
    parts: dict[tuple[str, int], list[tuple[PromptLine, Any]]] = defaultdict(list)
    for line in lines:
        if (line.data_set, line.case_id) != (case.data_set, case.case_id):
            continue
        if objects is not None:
            require_known(line.where, line.object, objects, what="object of the case", error=InputError)
        index, value = _on(case, line)
        parts[line.object, index].append((line, value))
    return {key: _together(found) for key, found in parts.items()}


def _together(parts: Sequence[tuple[PromptLine, Any]]) -> Prompt:
    masks = [value for line, value in parts if line.kind == "mask"]
    if masks and len(masks) < len(parts):
        raise InputError(parts[0][0].where, "a mask stands beside points or a box.", "Leave out one of them.")
    if masks:
        return Prompt(mask=masks[-1])
    boxes = [value for line, value in parts if line.kind == "box"]
    points = [(value, line.label) for line, value in parts if line.kind == "point"]
    labels = tuple(label for _, label in points)
    return Prompt(
        tuple(value for value, _ in points),
        boxes[-1] if boxes else None,
        labels=() if all(labels) else labels,
    )


def _whole(value: float) -> float:
    """Return a coordinate, as an int where it is one up to rounding."""
    return int(round(value)) if abs(value - round(value)) < WHOLE else float(value)


def _on(case: Prompted, line: PromptLine) -> tuple[int, Any]:
    """Return the slice of a line on this case and its point (x, y), box or mask there."""
    data, image = hashes(case)
    if line.data_sha256 != data and line.image_sha256 != image:
        raise InputError(
            line.where,
            f"it was given on another image than {case.data_set}/{case.case_id} is now.",
            "Prompt this image again, or prepare it from the files it was prepared from.",
        )
    places = np.array(line.ras_mm)
    moved = np.vstack([places.T, np.ones(len(places))])
    zyx = np.linalg.solve(case.image.affine, moved)[:3].T
    if line.data_sha256 == data:
        x, y, *corner = line.pixels
        pixels = {"point": [(x, y)], "box": [(x, y), tuple(corner)], "mask": MASK_PIXELS}[line.kind]
        said = np.array([to_mm(case.image, line.slice_index, *pixel) for pixel in pixels])
        apart = np.abs(said - places).max()
        if apart > GRID_TOLERANCE * min(case.image.spacing_mm):
            raise InputError(
                line.where, f"its pixels and millimetres lie {words_mm(apart)} apart.", "Correct one of them."
            )
        zyx = np.array([[line.slice_index, b, a] for a, b in pixels], float)
    if line.kind == "mask":
        rows, columns = np.nonzero(from_runs(line.runs, int(line.pixels[0]), int(line.pixels[1])))
        first, right, down = zyx
        inside = first + columns[:, None] * (right - first) + rows[:, None] * (down - first)
        zyx = np.rint(inside) if len(inside) else zyx[:1]
    slices = np.rint(zyx[:, 0]).astype(int)
    if np.ptp(slices) or np.abs(zyx[:, 0] - slices).max() > WHOLE:
        raise InputError(
            line.where,
            "it does not lie in one slice of this case.",
            "Prompt the case in the plane in which it is cut, or cut it as it was when prompted.",
        )
    shape = np.array(case.image.array.shape)
    if (zyx < -0.5).any() or (zyx > shape - 0.5).any():
        size = " x ".join(map(str, shape))
        raise InputError(line.where, f"it lies outside the image ({size}).", "Leave it out.")
    index, at = int(slices[0]), [(_whole(x), _whole(y)) for _, y, x in zyx]
    if line.kind == "point":
        return index, at[0]
    if line.kind == "box":
        (x0, x1), (y0, y1) = sorted(x for x, _ in at), sorted(y for _, y in at)
        return index, (x0, y0, x1, y1)
    mask = np.zeros(shape[1:], bool)
    if line.runs[1:]:
        mask[zyx[:, 1].astype(int), zyx[:, 2].astype(int)] = True
    return index, mask
