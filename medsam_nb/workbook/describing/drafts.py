"""Which layout of the manifest fits a folder: by a description in it, arrays, patterns, or case by case."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from medsam_nb.data.arrays import names_of_arrays
from medsam_nb.data.layouts.nnunet import channels_of, file_ending, labels_of
from medsam_nb.data.reading import suffix_of
from medsam_nb.errors import InputError
from medsam_nb.files import read_json
from medsam_nb.workbook.describing.listing import (
    SHOWN,
    Draft,
    Group,
    cases_one_by_one,
    draft_list,
    object_name,
)
from medsam_nb.workbook.describing.pairing import Pairing, find_pairing
from medsam_nb.workbook.describing.survey import ImageFile, Survey

MANY_LEFT = 0.1  # of the masks
FEW = 2000  # files for which patterns are compared with a list
# What arrays are usually called, the likeliest first.
IMAGE_ARRAYS = ("imgs", "img", "images", "image", "data", "ct", "mr", "volume", "x", "raw")
MASK_ARRAYS = ("gts", "gt", "labels", "label", "masks", "mask", "segmentation", "seg", "y", "target")
SPACING_ARRAYS = ("spacing", "voxel_spacing", "voxel_size", "pixdim", "spacing_mm", "voxel_mm")


def draft_layout(survey: Survey, images: Sequence[ImageFile], masks: Sequence[ImageFile]) -> Draft:
    """Return the layout that fits a folder.

    Raises
    ------
    InputError
        If no image has a mask; it says what is there.
    """
    if len(survey.descriptions) == 1:
        described = _described(survey)
        if described is not None:
            return described
    arrays = [one.path for one in survey.files if one.kind == "arrays"]
    if arrays and not masks:
        return _of_arrays(survey, arrays)
    with_segments = [one for one in masks if one.kind == "segmentation"]
    pairing = None if with_segments else find_pairing([i.path for i in images], [m.path for m in masks])
    listed = cases_one_by_one(images, masks) if pairing is None or len(images) + len(masks) <= FEW else []
    if pairing is None or _says_more(listed, pairing, len(masks)):
        if listed:
            return draft_list(survey, listed, [*images, *masks])
        raise InputError(
            survey.folder,
            f"no image with a mask was found ({len(images)} images, {len(masks)} masks, by their names).",
            "Give a folder with both. Masks have a word such as mask, label or seg in their path, "
            "or hold few whole numbers.",
        )
    return _of_pairing(images, pairing)


def _says_more(listed: Sequence[Group], pairing: Pairing, masks: int) -> bool:
    """Whether a list has more cases than patterns, or as many while these leave many masks over."""
    held = sum(len(one) for _, one in listed)
    return len(listed) > pairing.cases or (
        len(listed) == pairing.cases
        and held - (masks - len(pairing.left)) > MANY_LEFT * masks
        and len(pairing.left) > MANY_LEFT * masks
    )


def _described(survey: Survey) -> Draft | None:
    """Return the draft of an nnU-Net or decathlon folder, or None where its description is something else."""
    path = survey.folder / survey.descriptions[0]
    try:
        content = read_json(path)
        labels, channels = labels_of(path, content), channels_of(path, content)
        ending = file_ending(path, content)
    except InputError:
        return None
    objects: dict[str, list[int]] = {}
    for name, values in labels.items():
        kept = [value for value in values if 0 < value <= 65535]
        if kept and name.lower() not in ("background", "ignore"):
            objects[object_name(name, objects)] = kept
    ignored = [value for value in labels.get("ignore", ()) if 0 < value <= 65535]
    words = " ".join(channels.values())
    kind = "picture" if ending not in (".nii", ".nii.gz", ".nrrd", ".mha") else "volume"
    images = [one.path for one in survey.files if "/imagesTr/" in f"/{one.path}"]
    if not objects or not images:
        return None
    numbered = [one for one in images if re.search(rf"_\d{{4}}{re.escape(ending)}$", one)]
    if len(numbered) < len(images) and isinstance(content.get("training"), list):
        draft = Draft({"name": "msd"}, objects, kind=kind, words=words, ignored=ignored)
        if len(channels) > 1:
            named = ", ".join(f"{number} {name}" for number, name in channels.items())
            draft.layout["frame"] = min(channels)
            draft.questions.append(f"images hold {len(channels)} channels ({named}): which `frame` is meant?")
        return draft
    draft = Draft({"name": "nnunet"}, objects, kind=kind, words=words, ignored=ignored)
    if len(channels) > 1:
        draft.layout["channel"] = min(channels)
        named = ", ".join(f"{number} {name}" for number, name in channels.items())
        draft.questions.append(f"which channel is shown to the model: {named}?")
        draft.words = channels[min(channels)]
    return draft


def _of_arrays(survey: Survey, paths: Sequence[str]) -> Draft:
    """Return the draft of a folder of .npz or HDF5 files, by the names of the arrays in the first."""
    npz = [path for path in paths if path.lower().endswith(".npz")]
    chosen = npz if len(npz) >= len(paths) / 2 else [path for path in paths if path not in npz]
    name = "npz" if chosen is npz else "hdf5"
    there = names_of_arrays(survey.folder / chosen[0], name)
    image, mask, spacing = (_first_of(words, there) for words in (IMAGE_ARRAYS, MASK_ARRAYS, SPACING_ARRAYS))
    if image is None or mask is None:
        raise InputError(
            survey.folder / chosen[0],
            f"which of its arrays are image and mask is not told by their names ({', '.join(there)}).",
            "Write a row with the layout `npz` or `hdf5` by hand; see docs/data.md.",
        )
    pattern = _one_pattern(chosen)
    layout = {"name": name, "images": pattern, "image": image, "mask": mask}
    if spacing and spacing != "spacing":
        layout["spacing"] = spacing
    draft = Draft(layout, kind="arrays", words=" ".join(chosen[:SHOWN]))
    if spacing:
        draft.questions.append(f"is `{spacing}` in mm and in the order x, y, z (`spacing_axes`)?")
    others = len(paths) - len([path for path in chosen if PurePosixPath(path).match(_glob(pattern))])
    draft.notes += [f"{others} files with arrays fit no pattern"] if others else []
    return draft


def _first_of(words: Sequence[str], there: Sequence[str]) -> str | None:
    """Return the name of an array whose last part is the first of the words that occurs."""
    for word in words:
        for name in there:
            if name.rpartition("/")[2].lower() == word:
                return name
    return None


def _one_pattern(paths: Sequence[str]) -> str:
    """Return the pattern of files that lie in one folder, or in one folder each."""
    folders = {path.rpartition("/")[0] for path in paths}
    ending = suffix_of(Path(paths[0]))
    most = max(folders, key=lambda one: sum(path.rpartition("/")[0] == one for path in paths))
    depth = {folder.count("/") for folder in folders if folder}
    if (
        len(folders) == len(paths) > 1
        and len(depth) == 1
        and len({path.split("/")[-1] for path in paths}) == 1
    ):
        above, _, name = paths[0].rpartition("/")
        parent = above.rpartition("/")[0]
        return "/".join(filter(None, (parent, "{case}", name)))
    return (f"{most}/" if most else "") + "{case}" + ending


def _glob(pattern: str) -> str:
    return re.sub(r"([\[?*])", r"[\1]", pattern).replace("{case}", "*")


def _of_pairing(images: Sequence[ImageFile], pairing: Pairing) -> Draft:
    """Return the draft of two patterns."""
    kinds = {one.path: one.kind for one in images}
    kind = next(iter(kinds.values())) if len(set(kinds.values())) == 1 else "volume"
    layout = {
        "name": "picture_pairs" if kind == "picture" else "nifti_pairs",
        "images": pairing.images,
        "masks": pairing.masks,
    }
    draft = Draft(layout, kind=kind, words=pairing.images)
    draft.objects = {name: [number] for number, name in enumerate(pairing.objects, start=1)}
    draft.words += " " + " ".join(one.path for one in images[:SHOWN])
    if pairing.patients:
        draft.questions.append(
            f"is each of the {pairing.patients} names that `{{patient}}` stands for a patient's? If they are "
            "sites or classes, give each a row of its own."
        )
    if pairing.others:
        draft.questions.append(f"these images fit as well: {', '.join(pairing.others[:SHOWN])}. Which one?")
    if pairing.left:
        shown = ", ".join(pairing.left[:SHOWN]) + (", ..." if len(pairing.left) > SHOWN else "")
        draft.notes.append(f"{len(pairing.left)} files belong to no case: {shown}")
    return draft
