"""Several masks of one image as one label map: they may overlap, or be the answers of several raters."""

from collections.abc import Iterable, Mapping

import numpy as np

from medsam_nb.errors import InputError

MOST_LABELS = 65535


def combine_masks(
    masks: Iterable[tuple[str, np.ndarray]], values: Mapping[str, tuple[int, ...]]
) -> tuple[np.ndarray, dict[str, tuple[int, ...]]]:
    """Return masks that may overlap as one label map: every overlap gets a label of its own.

    Masks are taken one after the other, so that a hundred take no more memory than one and the map.

    Parameters
    ----------
    masks : iterable of (str, ndarray of bool), one shape, each object once
    values : mapping of str to tuple of int
        Label of each object where it lies alone (its first one).

    Returns
    -------
    labels : ndarray of uint16
    objects : dict of str to tuple of int
        All labels of each object, overlaps included.

    Raises
    ------
    InputError
        If there are more overlaps than labels.

    Examples
    --------
    >>> a, b = np.array([1, 1, 0], bool), np.array([0, 1, 1], bool)
    >>> labels, objects = combine_masks([("a", a), ("b", b)], {"a": (1,), "b": (2,)})
    >>> labels.tolist(), objects
    ([1, 3, 2], {'a': (1, 3), 'b': (2, 3)})
    """
    names: list[str] = []
    patterns: list[tuple[int, ...]] = [()]  # the objects that lie where the map below has this number
    numbers = np.zeros((), np.int32)
    for name, mask in masks:
        numbers = np.zeros(mask.shape, np.int32) if not names else numbers
        found = np.unique(numbers[mask])
        further = np.zeros(len(patterns), np.int32)
        further[found] = len(patterns) + np.arange(len(found))
        numbers[mask] = further[numbers[mask]]
        patterns += [(*patterns[number], len(names)) for number in found]
        names.append(name)
    used = [patterns[number] for number in np.unique(numbers) if number]
    free = max(value for group in values.values() for value in group) + 1
    objects, codes = {name: [values[name][0]] for name in names}, np.zeros(len(patterns), np.uint16)
    # In the order of the patterns as rows of 0 and 1: which overlap gets which label depends on nothing else.
    for pattern in sorted(used, key=lambda members: [int(n in members) for n in range(len(names))]):
        if len(pattern) == 1:
            code = objects[names[pattern[0]]][0]
        else:
            code, free = free, free + 1
            for member in pattern:
                objects[names[member]].append(code)
        if code > MOST_LABELS:
            raise InputError("masks", "overlap in more ways than there are labels.", "Prepare fewer objects.")
        codes[patterns.index(pattern)] = code
    return codes[numbers], {name: tuple(group) for name, group in objects.items()}


def majority(raters: list[np.ndarray]) -> np.ndarray:
    """Return the raters' consensus: foreground where more than half of them mark any label.

    The label is then the most frequent one, the lowest of equally frequent ones. Voting on each label
    alone would leave holes where raters agree on the whole but not on its parts.

    Examples
    --------
    >>> majority([np.array(labels) for labels in ([1, 1, 2], [1, 2, 2], [1, 0, 0], [0, 1, 0])]).tolist()
    [1, 1, 0]
    """
    stack = np.stack(raters)
    values = np.unique(stack[stack > 0])
    if not len(values):
        return stack[0]
    votes = np.stack([(stack == value).sum(axis=0) for value in values])
    agreed = (stack > 0).sum(axis=0) * 2 > len(raters)
    return np.where(agreed, values[votes.argmax(axis=0)], 0).astype(stack.dtype)
