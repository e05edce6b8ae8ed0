"""What the miniature models are measured on: simulated images and volumes, MNI152, real samples, as cases.

Simulated ones come from a part of the validation seeds that training does not watch; MNI152 is nilearn's
template with nilearn's masks; real cases are those that the study `samples` has prepared and whose masks are
a truth to measure against.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.manifest.rows import Manifest
from medsam_nb.protocol.designs import prompted_slices
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.volume import Case, Volume
from training import label_volumes
from training import samples as data

# Volumes 0..23 of the validation seeds are watched during training; the report starts here.
FIRST_VOLUME = 1000
VOLUMES = 24
LEAST_PIXELS = 30  # a real object is scored on slices where it has as many
MOST_SLICES_2D, MOST_SLICES_3D = 6, 16  # of one real object
GREY = Intensity("window", 0.0, 1.0)


def is_compact(mask: np.ndarray) -> bool:
    """Return whether a 2D mask has one component, is not thin, and has a solidity of at least 0.7."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if len(outlines) != 1:
        return False
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5).max()
    hull = cv2.convexHull(outlines[0])
    solid = mask.sum() / max(1.0, cv2.contourArea(hull) + 0.5 * len(hull))
    return bool(depth >= 0.13 * np.sqrt(mask.sum()) and solid >= 0.7)


def _simulated(image: np.ndarray, mask: np.ndarray, data_set: str, case_id: str) -> Case:
    volume = Volume(np.asarray(image, np.float32), np.eye(4))
    return Case(data_set, case_id, "simulated", volume, mask.astype(np.uint8), {"target": (1,)}, GREY)


def held_out_pool(path: Path) -> data.Pool:
    """Return the simulated volumes of the report, drawn and written to `path` where they are not yet."""
    data.build_pool(path, label_volumes.VALIDATION_SEED_BASE + FIRST_VOLUME, VOLUMES)
    return data.open_pool(path)


def simulated_slices(pool: data.Pool, images: int) -> Iterator[Case]:
    """Yield one single-slice case per target of random images of held-out volumes, 256 pixels."""
    for item in range(images):
        rng = np.random.default_rng([733, item])
        image, masks, _ = data.image_sample(pool, rng, data.SampleOptions(size=256))
        for number, mask in enumerate(masks):
            yield _simulated(image[None], mask[None], "simulated_2d", f"{item}-{number}")


def simulated_volumes(pool: data.Pool, objects: int) -> Iterator[Case]:
    """Yield one case of 16 slices per object; objects are compact on their centre slice."""
    found, item = 0, 0
    while found < objects:
        options = data.SampleOptions(size=256, slices=pool.labels.shape[1])
        images, masks, _ = data.video_sample(pool, np.random.default_rng([734, item]), options, objects=1)
        item += 1
        areas = masks[0].sum((1, 2))
        centre = masks[0][prompted_slices(areas, "centre_slice")[0]]
        if np.count_nonzero(areas) >= 3 and centre.sum() >= 80 and is_compact(centre):
            found += 1
            yield _simulated(images, masks[0], "simulated_3d", str(item - 1))


def template() -> Case:
    """Return six axial slices of nilearn's MNI152 template with its brain, grey and white matter masks.

    The masks overlap: each is a bit of the label map. They are wider than the tissues of the
    demonstration's case, where a voxel belongs to one tissue only.
    """
    from nilearn import datasets

    load = (datasets.load_mni152_brain_mask, datasets.load_mni152_gm_mask, datasets.load_mni152_wm_mask)
    slices = np.linspace(28, 62, 6).astype(int)

    def shown(image) -> np.ndarray:
        return image.get_fdata().transpose(2, 1, 0)[slices, ::-1]

    labels = sum((shown(mask(resolution=2)) > 0.5).astype(np.uint8) << bit for bit, mask in enumerate(load))
    objects = {
        name: tuple(value for value in range(8) if value >> bit & 1)
        for bit, name in enumerate(("brain", "grey_matter", "white_matter"))
    }
    image = np.ascontiguousarray(shown(datasets.load_mni152_template(resolution=2)), np.float32)
    volume = Volume(image, np.diag([2.0, 2.0, 2.0, 1.0]))
    return Case("mni152", "six_slices", "MRI T1 (template)", volume, np.ascontiguousarray(labels), objects)


def real_cases(manifest: Manifest, prepared_dir: Path) -> list[Case]:
    """Return prepared real cases with masks to measure against; none where `samples` was not run."""
    rows = [row for row in manifest.data_sets.values() if row.name.startswith("sample_") and row.accuracy]
    return [load_case(folder) for row in rows for folder in case_folders(prepared_dir, row.name)]


def _single(case: Case, name: str, slices: Sequence[int] | slice) -> Case:
    """Return a case with one object on some of its slices."""
    # What is shown is what the whole volume shows: percentiles of a part would differ.
    shown, labels = case.slices_uint8()[slices], case.mask(name)[slices].astype(np.uint8)
    colours = None if case.colours is None else shown
    image = shown.astype(np.float32) if colours is None else case.image.array[slices]
    return Case(
        *(case.data_set, case.case_id, case.modality, Volume(image, case.image.affine), labels),
        *({name: (1,)}, Intensity("window", 0, 255), case.patient_id, colours),
    )


def real_slices(cases: Sequence[Case]) -> Iterator[Case]:
    """Yield every object of real cases on at most six slices, spread over it."""
    for case in cases:
        for name in case.objects:
            usable = np.flatnonzero(case.mask(name).sum((1, 2)) >= LEAST_PIXELS)
            if len(usable):
                spread = np.linspace(0, len(usable) - 1, MOST_SLICES_2D).round().astype(int)
                yield _single(case, name, usable[np.unique(spread)])


def real_volumes(cases: Sequence[Case]) -> Iterator[Case]:
    """Yield the two largest objects of real volumes, on at most sixteen slices around their centre."""
    for case in cases:
        by_size = sorted(case.objects, key=lambda name: -int(case.mask(name).sum()))
        for name in by_size[:2]:
            usable = np.flatnonzero(case.mask(name).sum((1, 2)) >= LEAST_PIXELS)
            if len(usable) >= 3:
                start = max(0, int(usable[len(usable) // 2]) - MOST_SLICES_3D // 2)
                yield _single(case, name, slice(start, start + MOST_SLICES_3D))
