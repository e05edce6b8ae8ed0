"""What changes from slice to slice in a case: its truth, its image, its size; and how clear its border is."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.metrics import structural_similarity

from medsam_nb.protocol.metrics import adjacent_iou
from medsam_nb.protocol.volume import Case

AROUND_PX = 8  # of the image that is compared, around the object
RIM_PX = 2  # width of the rims inside and outside of a border
WINDOW_PX = 7  # of structural similarity
# Kinds of variation, and how they are printed; all but the last are of a slice and its neighbour.
KINDS = {
    "shape_change": "change of the truth (1 - IoU)",
    "size_change": "change of size (|log ratio of areas|)",
    "structure_change": "change of the image (1 - SSIM)",
    "grey_change": "change of the image (1 - correlation)",
    "border_contrast": "contrast at the border",
}


def slice_variation(case: Case, objects: Sequence[str] = ()) -> pd.DataFrame:
    """Return how every slice of every object differs from the next slice of the stack.

    Parameters
    ----------
    case : Case
    objects : sequence of str
        Of the case; all if empty.

    Returns
    -------
    DataFrame
        Columns `data_set`, `case_id`, `object`, `slice_index`, and those of `KINDS`. Changes are those to
        slice `slice_index` + 1, missing unless both slices hold the object; images are compared as the models
        see them, in a box around the object. The contrast is that of the slice itself: the difference of the
        means inside and outside of the border over the spread within the two.
    """
    image = case.slices_uint8()
    image = image.mean(axis=-1) if image.ndim == 4 else image.astype(float)
    tables = []
    for name in case.objects:
        mask = case.mask(name)
        if (objects and name not in objects) or not mask.any():
            continue
        place = {"data_set": case.data_set, "case_id": case.case_id, "object": name}
        rows = _of_object(image, mask)
        tables.append(pd.DataFrame([place | row for row in rows]))
    columns = ["data_set", "case_id", "object", "slice_index", *KINDS]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def _of_object(image: np.ndarray, mask: np.ndarray) -> list[dict]:
    areas, alike = mask.sum(axis=(1, 2)), adjacent_iou(mask)
    rows = []
    for z in np.flatnonzero(areas):
        row = dict.fromkeys(KINDS, np.nan)
        row |= {"slice_index": int(z), "border_contrast": border_contrast(image[z], mask[z])}
        if z + 1 < len(areas) and areas[z + 1]:
            box = _box(mask[z] | mask[z + 1])
            one, other = image[z][box], image[z + 1][box]
            row |= {
                "shape_change": 1 - alike[z],
                "size_change": abs(float(np.log(areas[z + 1] / areas[z]))),
                "structure_change": 1 - structural_similarity(one, other, data_range=255, win_size=WINDOW_PX),
                "grey_change": 1 - _correlation(one, other),
            }
        rows.append(row)
    return rows


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns around a mask, at least as many as structural similarity needs."""
    box = []
    for axis in (1, 0):
        held = np.flatnonzero(mask.any(axis=axis))
        low, high = max(0, held[0] - AROUND_PX), min(mask.shape[1 - axis], held[-1] + 1 + AROUND_PX)
        box.append(slice(int(low), int(high)))
    return tuple(box)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one - one.mean(), other - other.mean()
    spread = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / spread) if spread else float(np.array_equal(one, other))


def border_contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Return the contrast at the border of an object on a slice: how many standard deviations apart it is.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    mask : ndarray of bool, shape (y, x)
        With a pixel at least.

    Examples
    --------
    >>> mask = np.zeros((20, 20), bool)
    >>> mask[5:15, 5:15] = True
    >>> checks = np.indices((20, 20)).sum(axis=0) % 2
    >>> round(border_contrast(10.0 * mask + checks, mask), 6), border_contrast(np.ones((20, 20)), mask)
    (20.0, 0.0)
    """
    inner = mask & ~ndimage.binary_erosion(mask, iterations=RIM_PX, border_value=1)
    outer = ndimage.binary_dilation(mask, iterations=RIM_PX) & ~mask
    if not outer.any():
        return float("nan")
    inside, outside = image[inner], image[outer]
    spread = np.sqrt((inside.var() + outside.var()) / 2)
    apart = abs(inside.mean() - outside.mean())
    return float(apart / spread) if spread else (float("inf") if apart else 0.0)


def on_the_way(rows: pd.DataFrame, variation: pd.DataFrame) -> pd.DataFrame:
    """Return propagated slices with the mean variation on the way from the prompt to them.

    Parameters
    ----------
    rows : DataFrame
        Rows of slices with `data_set`, `case_id`, `object`, `slice_index`, `distance_slices`.
    variation : DataFrame
        Of `slice_variation`, of all these cases.

    Returns
    -------
    DataFrame
        Rows with a distance other than 0 and a way without gaps, with the columns of `KINDS`: the mean of all
        changes between the prompted slice and this one, and of the contrast of all slices but the prompted.
    """
    place, found = ["data_set", "case_id", "object"], []
    ways = dict(list(variation.groupby(place)))
    for key, group in rows[rows["distance_slices"] != 0].groupby(place):
        if key not in ways:
            continue
        of_slice = ways[key].set_index("slice_index")[list(KINDS)]
        of_slice = of_slice.reindex(range(int(of_slice.index.max()) + 2)).to_numpy(float)
        means = partial(_means, *_sums(of_slice))
        here = group["slice_index"].to_numpy(int)
        prompted = here - group["distance_slices"].to_numpy(int)
        low, high = np.minimum(here, prompted), np.maximum(here, prompted)
        mean = means(low, high)
        after = here > prompted  # the slices passed: without the prompted one
        contrast = list(KINDS).index("border_contrast")
        mean[:, contrast] = means(low + after, high + after)[:, contrast]
        found.append(group.assign(**dict(zip(KINDS, mean.T, strict=True))))
    return (
        pd.concat(found).dropna(subset=list(KINDS)) if found else rows[:0].assign(**dict.fromkeys(KINDS, 0.0))
    )


def _sums(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, at every place, the sum of the rows before it, and how many values of them are no numbers."""
    missing, start = ~np.isfinite(values), np.zeros((1, values.shape[1]))
    filled = np.where(missing, 0, values)
    return np.vstack([start, filled.cumsum(axis=0)]), np.vstack([start, missing.cumsum(axis=0)])


def _means(sums: np.ndarray, missing: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the means of the rows from `low` up to before `high`; NaN where one of them is missing."""
    mean = (sums[high] - sums[low]) / (high - low)[:, None]
    return np.where(missing[high] > missing[low], np.nan, mean)
