"""Where a data set's cases lie: one small function per layout, and the embedded data sets.

A layout finds its cases without reading them; `read_case` reads one.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from medsam_nb.data.layouts import images as pictures
from medsam_nb.data.layouts import volumes
from medsam_nb.data.layouts.nnunet import find_nnunet
from medsam_nb.data.layouts.pairs import find_arrays, find_pairs, unused_files
from medsam_nb.data.sources import RawCase, Source, read_source, require_found
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.volume import Volume

SIMULATED = ("simulated", "simulated_grid")  # layouts whose cases are computed


def find_listed(folder: Path, row: DataSet) -> list[Source]:
    """Return the cases whose files the manifest names one by one."""
    sources = []
    for case in row.layout.cases:
        if case.masks:
            rule, masks = "by_object", tuple(path for paths in case.masks.values() for path in paths)
            names = tuple((name, "") for name, paths in case.masks.items() for _ in paths)
        else:
            rule, masks = "segments" if case.segments else "labels", (case.mask,)
            names = tuple((case.segments or {}).items())
        sources.append(
            Source(
                case.case_id,
                folder / case.image,
                tuple(folder / mask for mask in masks),
                rule,
                names,
                patient=case.patient or "",
            )
        )
    return require_found(sources, folder, "the files of the row")


def read_mni152(row: DataSet) -> RawCase:
    """Return a slab of nilearn's MNI152 template: brain, and the tissue that is more probable.

    Labels are 1 (brain, neither tissue), 2 (grey matter) and 3 (white matter). A voxel of the brain
    mask is the tissue whose probability is greater, if that is above 0.2 (nilearn's own threshold).
    """
    from nilearn import datasets

    layout = row.layout
    template = datasets.load_mni152_template(layout.resolution_mm)
    brain = datasets.load_mni152_brain_mask(layout.resolution_mm).get_fdata() > 0
    grey = datasets.load_mni152_gm_template(layout.resolution_mm).get_fdata()
    white = datasets.load_mni152_wm_template(layout.resolution_mm).get_fdata()
    labels = np.where(brain, np.where(np.maximum(grey, white) > 0.2, np.where(grey >= white, 2, 3), 1), 0)
    image = Volume(np.asarray(template.get_fdata(), np.float32).T, template.affine[:, [2, 1, 0, 3]])
    first, last = layout.first_slice, layout.first_slice + (layout.slice_count or image.array.shape[0])
    affine = image.affine.copy()
    affine[:3, 3] += first * affine[:3, 0]
    slab = Volume(image.array[first:last], affine)
    objects = {name: tuple(values) for name, values in row.objects.items()}
    return RawCase(slab, Volume(labels.T[first:last].astype(np.uint8), affine), objects)


def read_simulated(row: DataSet, case_id: str) -> RawCase:
    """Return a simulated case, computed from its seed."""
    from medsam_nb.data.simulated.anatomy import simulate_case
    from medsam_nb.data.simulated.controlled import simulate_controlled

    layout = row.layout
    if layout.name == "simulated_grid":
        seed, count, slice_mm = layout.cases[case_id]
        shape, spacing = (count, *[layout.pixels] * 2), (slice_mm, *[layout.pixel_mm] * 2)
        case = simulate_controlled(layout.anatomy, layout.modality, seed, shape=shape, spacing_mm=spacing)
    else:
        wanted = dict(zip(simulated_ids(row), layout.cases, strict=True))[case_id]
        case = simulate_case(layout.modality, wanted.seed, shape=wanted.shape, spacing_mm=wanted.spacing_mm)
    image = Volume.from_spacing(np.asarray(case.image, np.float32), case.spacing_mm)
    wrong = [name for name, value in case.objects.items() if value not in row.objects.get(name, ())]
    if wrong:
        raise InputError(row.name, f"the phantom's objects are {case.objects}.", "Correct the manifest row.")
    objects = {name: tuple(row.objects[name]) for name in case.objects}
    return RawCase(image, Volume(case.labels, image.affine), objects)


def simulated_ids(row: DataSet) -> list[str]:
    """Return the names of simulated cases, which tell seed and slice thickness.

    They are like "seed3_5mm", or "seed3_21x5mm" where the number of slices varies, too.
    """
    if row.layout.name == "simulated_grid":
        return list(row.layout.cases)
    return [f"seed{case.seed}_{case.spacing_mm[0]:g}mm" for case in row.layout.cases]


FINDERS: dict[str, Callable[[Path, DataSet], list[Source]]] = {
    "nifti_pairs": find_pairs,
    "picture_pairs": find_pairs,
    "npz": find_arrays,
    "hdf5": find_arrays,
    "nnunet": find_nnunet,
    "listed": find_listed,
    "msd": volumes.find_msd,
    "lits": volumes.find_lits,
    "ct_org": volumes.find_ct_org,
    "autopet": volumes.find_autopet,
    "brats": volumes.find_brats,
    "scgm": volumes.find_scgm,
    "i2cvb": volumes.find_i2cvb,
    "saml": volumes.find_saml,
    "duke_breast": volumes.find_duke_breast,
    "kaggle_chest": pictures.find_kaggle_chest,
    "montgomery": pictures.find_montgomery,
    "hip_xray": pictures.find_hip_xray,
    "busi": pictures.find_busi,
    "ct2us": pictures.find_ct2us,
    "marzola": pictures.find_marzola,
    "mmotu": pictures.find_mmotu,
    "us_nerve": pictures.find_us_nerve,
}


def find_cases(row: DataSet, raw_root: Path) -> dict[str, Source | None]:
    """Return the cases of a data set by name; embedded ones have no files.

    Raises
    ------
    InputError
        If the folder of the download is missing or holds no case.
    """
    if row.layout.name == "mni152":
        return {"mni152": None}
    if row.layout.name in SIMULATED:
        return dict.fromkeys(simulated_ids(row))
    folder = Path(raw_root) / row.raw_folder
    if not folder.is_dir():
        how = " ".join(row.steps) if row.steps else f"Run `medsam-nb fetch {row.name}`."
        raise InputError(
            folder,
            f"the data set {row.name} is not there.",
            how if row.access != "own" else "Put your data there.",
        )
    found = FINDERS[row.layout.name](folder, row)
    return {
        source.case_id: source for source in require_found(found, folder, f"the layout {row.layout.name}")
    }


def notes(row: DataSet, raw_root: Path, cases: Mapping[str, Source | None]) -> str:
    """Return what is to be said of a data set's folder as a whole: image files that belong to no case."""
    if row.layout.name not in ("nifti_pairs", "picture_pairs", "npz", "hdf5"):
        return ""  # archives hold much that is no case, and listed cases are all that is wanted
    return unused_files(Path(raw_root) / row.raw_folder, row, list(cases.values()))


def read_case(row: DataSet, case_id: str, source: Source | None) -> RawCase:
    """Read one case in its stored orientation."""
    if row.layout.name == "mni152":
        return read_mni152(row)
    if row.layout.name in SIMULATED:
        return read_simulated(row, case_id)
    return read_source(source, row)
