"""Is it plausible? Cases that can be read and are probably not what was meant.

A warning in the case table is worth a look; a doubt puts a case's results in question, and stands at the top
of the report.
"""

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from medsam_nb.protocol.intensity import limits
from medsam_nb.protocol.volume import Case

FEW_LEVELS = 16  # of 256
SATURATED = 0.9  # of an object's voxels all black or all white
FULL = 0.95  # of a picture
NEAR = 0.04  # of the range between least and greatest value
TWO_VALUED, EACH_VALUE = 0.98, 0.005  # of the voxels, together and each
NAMED = 3  # cases in a sentence
INTENSITY = "Does `intensity` of the row fit the values that are stored?"
# What is said of the cases in doubt together, and what to do.
KINDS = {
    "few_levels": (f"show fewer than {FEW_LEVELS} grey levels to the models", INTENSITY),
    "saturated": ("have objects that are all black or all white to the models", INTENSITY),
    "full": ("have masks that fill their slices", "Are these the right files?"),
    "like_a_mask": ("have images that look like masks", "Have image and mask changed places?"),
}


def case_doubts(case: Case) -> dict[str, str]:
    """Return what puts a case in question, by kind (`KINDS`), in words for the case table."""
    found = {}
    shown = np.zeros(256, bool)
    for part in case.slices_uint8():
        shown[part] = True
    levels = int(shown.sum())
    if levels < FEW_LEVELS:
        found["few_levels"] = f"only {levels} of 256 grey levels are left by `{case.intensity.policy}`"
    low, high = limits(case.image.array, case.intensity)
    labelled = case.labels > 0
    inside = case.image.array[labelled]
    for what, share in (("black", (inside <= low).mean()), ("white", (inside >= high).mean())):
        if share >= SATURATED and inside.min() < inside.max():
            found["saturated"] = f"{100 * share:.0f} % of the labelled voxels are {what} after windowing"
    held = labelled.any(axis=(1, 2))
    share = labelled[held].mean()
    if share >= FULL:
        found["full"] = f"the mask fills {100 * share:.0f} % of its slices"
    least, most = float(case.image.array.min()), float(case.image.array.max())
    dark = (case.image.array <= least + NEAR * (most - least)).mean()
    bright = (case.image.array >= most - NEAR * (most - least)).mean()
    if dark + bright >= TWO_VALUED and min(dark, bright) >= EACH_VALUE:
        found["like_a_mask"] = f"{100 * (dark + bright):.0f} % of the voxels have nearly one of two values"
    return found


def plausibility(cases: pd.DataFrame) -> list[str]:
    """Return in sentences what puts results in question, for the top of a report; nothing if all is well.

    Parameters
    ----------
    cases : DataFrame
        The case table, of one or several data sets.

    Returns
    -------
    list of str
        By data set: cases in doubt, cases that are one image or have one mask, and files that belong to no
        case.
    """
    usable = cases[cases["status"] == "ok"]
    sentences = []
    for name, group in cases.groupby("data_set", sort=False):
        own = usable[usable["data_set"] == name]
        doubts = {line.case_id: json.loads(line.doubts or "{}") for line in own.itertuples()}
        for kind, (words, advice) in KINDS.items():
            doubtful = [case for case, kinds in doubts.items() if kind in kinds]
            if doubtful:
                counted = f"{len(doubtful)} of {len(own)} cases {words} ({_some(doubtful)})"
                sentences.append(f"{name}: {counted}. {advice}")
        sentences += [f"{name}: {sentence}" for sentence in _repeated(own)]
        sentences += [f"{name}: {note}." for note in dict.fromkeys(group["data_set_notes"]) if note]
    return sentences + list(_in_two_sets(usable[usable["accuracy"]]))


def _repeated(cases: pd.DataFrame) -> Iterator[str]:
    """Yield what cases of one data set have in common that should differ."""
    told = cases[(cases["image_sha256"] != "") & (cases["labels_sha256"] != "")]
    for _, group in told.groupby(["image_sha256", "labels_sha256"], sort=False):
        if len(group) > 1:
            yield f"{len(group)} cases are one and the same ({_some(group['case_id'])}): they count apart."
    for _, group in told.groupby("image_sha256", sort=False):
        if group["labels_sha256"].nunique() > 1:
            named = _some(group["case_id"])
            yield f"{len(group)} cases have one image with different masks ({named}): they count apart."
    for _, group in told.groupby("labels_sha256", sort=False):
        if group["image_sha256"].nunique() > 1 and group["patient_id"].nunique() > 1:
            named = _some(group["case_id"])
            yield (
                f"{len(group)} of {len(cases)} cases have one and the same mask on different images "
                f"({named}). Were files mixed up? If they are of one patient, say so in the row (`patient`)."
            )


def _in_two_sets(cases: pd.DataFrame) -> Iterator[str]:
    """Yield cases that are measured in more than one data set."""
    told = cases[cases["image_sha256"] != ""]
    for _, group in told.groupby(["image_sha256", "labels_sha256"], sort=False):
        if group["data_set"].nunique() > 1:
            names = group["data_set"] + "/" + group["case_id"]
            yield f"{_some(names)}: one case in several data sets. It counts in each."


def _some(names) -> str:
    names = list(names)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
