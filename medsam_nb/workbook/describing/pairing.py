"""Patterns that pair the images of a folder with their masks, found from names alone.

Every file is a source of patterns: some part of its path may be what its case is called. Of all pairs of
patterns the one that pairs most files wins, then the one with the fewest placeholders, then the one that
leaves the longest names to the cases.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import numpy as np

from medsam_nb.data.layouts.patterns import PLACEHOLDER, values_in
from medsam_nb.data.reading import suffix_of

MOST_SAMPLED = 200  # files that patterns are made from
MOST_PATTERNS = 60  # that are tried on all files, of images and of masks
MOST_CUT = 3  # words at either end of a name that may not belong to the case
MOST_OBJECTS = 250  # files of a case, one for each object
PART = re.compile(r"(.*?(?:mask|label|seg|gt)[a-z]*)((?:[-_. ]?\d+)?)", re.IGNORECASE)
SEPARATOR = re.compile(r"([-_. ]+)")
OBJECT_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,99}")


@dataclass(frozen=True)
class Pairing:
    """Two patterns, and what they leave.

    Attributes
    ----------
    images, masks : str
    cases : int
        With an image and a mask.
    left : tuple of str
        Files that belong to no such case.
    objects : tuple of str
        What `{object}` stands for.
    others : tuple of str
        Patterns of other images that fit the masks as well.
    patients : int
        How many names `{patient}` stands for; 0 without it.
    """

    images: str
    masks: str
    cases: int
    left: tuple[str, ...]
    objects: tuple[str, ...] = ()
    others: tuple[str, ...] = field(default=())
    patients: int = 0


def find_pairing(images: Sequence[str], masks: Sequence[str]) -> Pairing | None:
    """Return the patterns that pair most files, or None where none pairs any.

    Parameters
    ----------
    images, masks : sequences of str
        Paths below the folder.
    """
    several = len(masks) > len(images)
    of_images = _tried(images, _patterns(images, False))
    of_masks = _tried(masks, _patterns(masks, several))
    best: dict[tuple, list[tuple[str, str]]] = {}
    for image, found in of_images.items():
        for mask, matched in of_masks.items():
            rank = _rank(image, found, mask, matched)
            if rank is not None:
                best.setdefault(rank, []).append((image, mask))
    if not best:
        return None
    rank = max(best)
    image, mask = min(best[rank])
    # A word such as "seg" in a case's own name may have put a file on the wrong side: patterns know better.
    of_images[image] = values_in(image, (*images, *masks))
    chosen = _paired(of_images[image], of_masks[mask])
    used = {path for paths in chosen.values() for path in paths}
    values = [of_masks[mask][path] for path in used if path in of_masks[mask]]
    objects = Counter(one["object"] for one in values if "object" in one)
    patients = {one["patient"] for one in values if "patient" in one}
    others = [
        other for other in of_images if other != image
        and _keys(of_images[other]).keys() == _keys(of_images[image]).keys()
        and not set(of_images[other]) & set(of_images[image])
    ]  # fmt: skip
    used |= {path for other in others for path in of_images[other]}
    left = [path for path in (*images, *masks) if path not in used]
    return Pairing(
        image, mask, len(chosen), tuple(left), tuple(sorted(objects)), tuple(others), len(patients)
    )


def _tried(paths: Sequence[str], patterns: Counter) -> dict[str, dict[str, dict[str, str]]]:
    """Return the most promising patterns with the files that fit each."""
    likely = sorted(patterns, key=lambda one: (-patterns[one], len(PLACEHOLDER.findall(one)), one))
    return {pattern: values_in(pattern, paths) for pattern in likely[:MOST_PATTERNS]}


def _keys(found: Mapping[str, Mapping[str, str]]) -> dict[tuple, list[str]]:
    """Return the files of each case, which is named by its patient, if there is one, and its case."""
    keys: dict[tuple, list[str]] = {}
    for path, values in found.items():
        keys.setdefault((values.get("patient"), values["case"]), []).append(path)
    return keys


def _paired(images: Mapping, masks: Mapping) -> dict[tuple, list[str]]:
    """Return the files of the cases that have both; a mask that also fits the images is a mask."""
    of_images = _keys({path: values for path, values in images.items() if path not in masks})
    of_masks = _keys(masks)
    return {
        key: [*of_images[key], *of_masks[key]]
        for key in of_images
        if key in of_masks and len(of_images[key]) == 1
    }


def _rank(image: str, images: Mapping, mask: str, masks: Mapping) -> tuple | None:
    """Return how good two patterns are together; larger is better, None for those that do not go together."""
    named = [set(PLACEHOLDER.findall(pattern)) & {"case", "patient"} for pattern in (image, mask)]
    if named[0] != named[1]:
        return None
    paired = _paired(images, masks)
    together = any(word in mask for word in ("{object}", "{part}"))
    usable = {key: paths for key, paths in paired.items() if together or len(paths) == 2}
    if not usable:
        return None
    if "{object}" in mask and not _are_objects(masks, len(usable)):
        return None
    if "{part}" in mask and max(map(len, usable.values())) < 3:
        return None
    covered = sum(map(len, usable.values()))
    placeholders = len(set(PLACEHOLDER.findall(image + mask)))
    literal = len(PLACEHOLDER.sub("", image)) + len(PLACEHOLDER.sub("", mask))
    # A placeholder that stands twice binds two parts of a path: it says more than one that stands once.
    bound = len(PLACEHOLDER.findall(image + mask))
    return covered, len(usable), -placeholders, bound, -literal


def _are_objects(masks: Mapping, cases: int) -> bool:
    """Whether what `{object}` stands for comes back in most cases and may be called so."""
    counts = Counter(values["object"] for values in masks.values())
    named = all(OBJECT_NAME.fullmatch(name) and not name.isdecimal() for name in counts)
    return named and len(counts) <= MOST_OBJECTS and len(masks) >= 0.5 * len(counts) * cases


def _patterns(paths: Sequence[str], several: bool) -> Counter:
    """Return patterns that files suggest, each with how many suggest it."""
    chosen = sorted({round(n) for n in np.linspace(0, len(paths) - 1, min(len(paths), MOST_SAMPLED))})
    return Counter(
        pattern for n in chosen for pattern in {*_of_one(paths[n], several)} if "{case}" in pattern
    )


def _of_one(path: str, several: bool) -> Iterator[str]:
    """Yield the patterns that one path suggests."""
    if PLACEHOLDER.search(path):
        return
    folders, name = path.split("/")[:-1], path.split("/")[-1]
    ending = name[len(name) - len(suffix_of(Path(name))) :] if suffix_of(Path(name)) else ""
    stem = name[: len(name) - len(ending)]
    singles = [*dict.fromkeys([*folders, *_words(stem)])]
    names = [{"case": word} for word in singles]
    names += [{"patient": patient, "case": case} for patient, case in permutations(singles, 2)]
    for one in names:
        yield _replaced(folders, stem, ending, one)
    match = PART.fullmatch(stem)
    for one in names if several else ():
        if match:
            yield _replaced(folders, match[1], "{part}" + ending, one)
        if "patient" not in one:
            for word in _words(stem):
                yield _replaced(folders, stem, ending, one | {"object": word})


def _words(stem: str) -> list[str]:
    """Return what of a name may be a case's: all of it, or all but some words at its ends.

    Examples
    --------
    >>> _words("case_1_ct")
    ['case_1_ct', 'case_1', 'case', '1_ct', '1', 'ct']
    """
    pieces = SEPARATOR.split(stem)  # words at even places, separators between them
    count = (len(pieces) + 1) // 2
    found = [
        "".join(pieces[2 * first : 2 * (count - last) - 1])
        for first in range(min(MOST_CUT, count - 1) + 1)
        for last in range(min(MOST_CUT, count - 1 - first) + 1)
    ]
    return list(dict.fromkeys(word for word in found if word))


def _replaced(folders: Sequence[str], stem: str, ending: str, names: Mapping[str, str]) -> str:
    """Return a path as a pattern, in which names that stand as words of their own are placeholders.

    Longer names come first, as they may hold others. A path in which a case stands before its patient, or
    that lacks a placeholder, is no pattern: "" then.
    """
    text = "/".join([*folders, stem])
    for placeholder, name in sorted(names.items(), key=lambda item: -len(item[1])):
        word = rf"(?<![^-_. /}}]){re.escape(name)}(?![^-_. /{{])"
        text = re.sub(word, lambda _, p=placeholder: f"{{{p}}}", text)
    places = {name: text.find(f"{{{name}}}") for name in names}
    in_order = places.get("patient", -1) < places["case"]
    literal = not set("{}") & set(PLACEHOLDER.sub("", text))
    return text + ending if -1 not in places.values() and in_order and literal else ""
