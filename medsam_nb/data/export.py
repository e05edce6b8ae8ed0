"""Masks out: predictions as files that open over the original, in any viewer.

NIfTI masks lie on the grid of the file the image came from and are named as derivatives of BIDS; where the
source is a DICOM series, one DICOM segmentation holds all objects and refers to its slices.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medsam_nb.data.dicom import series_files
from medsam_nb.data.formats import read_volume
from medsam_nb.data.prepared import write_result
from medsam_nb.errors import InputError
from medsam_nb.files import read_json, write_atomically
from medsam_nb.protocol.volume import GRID_TOLERANCE, Volume, corner_distance_voxels, place
from medsam_nb.provenance import package_versions

BIDS_VERSION = "1.10.0"
DESCRIPTION = "dataset_description.json"


def bids_label(text: str) -> str:
    """Return a text as a value in a BIDS file name: letters and digits, words told apart by capitals.

    Between numbers stands an x, which keeps "1_12" and "11_2" apart.

    Examples
    --------
    >>> bids_label("centre_slice/one_box/bidirectional"), bids_label("case 12"), bids_label("case 1-12")
    ('centreSliceOneBoxBidirectional', 'case12', 'case1x12')
    """
    first, *others = re.findall(r"[A-Za-z0-9]+", text) or ["unnamed"]
    label = first
    for word in others:
        between = "x" if label[-1].isdigit() and word[0].isdigit() else ""
        label += between + word[:1].upper() + word[1:]
    return label


def mask_path(
    folder: Path, case_id: str, object_name: str, description: str, suffix: str = ".nii.gz"
) -> Path:
    """Return where the mask of an object of a case belongs in a folder of BIDS derivatives.

    Parameters
    ----------
    folder : Path
        Of the derivatives: it holds `dataset_description.json`.
    case_id, object_name : str
    description : str
        Model and design, for example; what tells masks of one object apart.
    """
    subject = bids_label(case_id)
    name = f"sub-{subject}_label-{bids_label(object_name)}_desc-{bids_label(description)}_mask{suffix}"
    return Path(folder) / f"sub-{subject}" / "anat" / name


def write_masks(
    folder: Path,
    masks: Mapping[str, np.ndarray],
    case_folder: Path,
    description: str,
    record: Mapping[str, object] | None = None,
) -> list[Path]:
    """Write the masks of a prepared case as NIfTI on the grid of its source, a file per object.

    Objects may overlap, so each has a file of its own. Beside each stands a JSON file of what made it.

    Parameters
    ----------
    folder : Path
        Gets `dataset_description.json`, and masks where `mask_path` says.
    masks : mapping of object to ndarray of bool, shape (z, y, x)
        In the prepared case's order.
    case_folder : Path
        Of the prepared case.
    description : str
        See `mask_path`.
    record : mapping, optional
        Plain values that say what made the masks, such as model, design and run key.

    Returns
    -------
    list of Path
        Of the masks.
    """
    case = json.loads((Path(case_folder) / "case.json").read_text(encoding="utf-8"))
    _describe(Path(folder))
    paths = []
    for name, mask in masks.items():
        path = mask_path(folder, case["case_id"], name, description)
        _require_own(path, case)
        write_result(path, mask.astype(np.uint8), case_folder)
        facts = {
            "Description": description,
            "Object": name,
            "DataSet": case["data_set"],
            "CaseID": case["case_id"],
            "SourceFiles": case["source"]["files"],
            "DataSHA256": case["data_sha256"],
        }
        text = json.dumps(facts | dict(record or {}), indent=1)
        write_atomically(_beside(path), text.encode())
        paths.append(path)
    return paths


def _beside(path: Path) -> Path:
    """Return where it is said what made a mask."""
    return path.with_name(path.name.removesuffix(".nii.gz") + ".json")


def _require_own(path: Path, case: Mapping[str, object]) -> None:
    """Raise InputError if another case's mask has this name: names in BIDS have letters and digits only."""
    if not _beside(path).is_file():
        return
    facts = read_json(_beside(path))
    if (facts.get("DataSet"), facts.get("CaseID")) != (case["data_set"], case["case_id"]):
        raise InputError(
            path,
            f"is the mask of {facts.get('CaseID')!r}; {case['case_id']!r} would have the same name.",
            "Rename a case, or write to another folder.",
        )


def _describe(folder: Path) -> None:
    """Write what BIDS asks for at the root of derivatives."""
    made_by = {"Name": "medsam-nb", "Version": package_versions(["medsam-nb"])["medsam-nb"]}
    described = {
        "Name": "Masks predicted with medsam-nb", "BIDSVersion": BIDS_VERSION, "DatasetType": "derivative",
        "GeneratedBy": [made_by],
    }  # fmt: skip
    write_atomically(folder / DESCRIPTION, json.dumps(described, indent=1).encode())


def on_source_grid(mask: np.ndarray, case_folder: Path, item: object) -> Volume:
    """Return a mask of a prepared case, bool (z, y, x), on the grid of the file its image came from."""
    record = json.loads((Path(case_folder) / "case.json").read_text(encoding="utf-8"))
    shape, affine = tuple(record["source"]["shape"]), np.array(record["source"]["affine_zyx_to_ras_mm"])
    volume = Volume(mask.astype(np.uint8), np.array(record["affine_zyx_to_ras_mm"]))
    return Volume(place(volume, shape, affine, item), affine)


def write_dicom_segmentation(
    path: Path, masks: Mapping[str, np.ndarray], case_folder: Path, series: Path, *, made_by: str
) -> None:
    """Write the masks of a prepared case as one DICOM segmentation of the series it came from.

    Parameters
    ----------
    path : Path
        Ends in ".dcm".
    masks : mapping of object to ndarray of bool, shape (z, y, x)
        Segments, in this order; empty ones are left out.
    case_folder : Path
        Of the prepared case.
    series : Path
        Folder of the DICOM series.
    made_by : str
        Name of the model.

    Raises
    ------
    InputError
        If the series is not the one that was prepared, or all masks are empty.
    """
    filled = {name: on_source_grid(mask, case_folder, name) for name, mask in masks.items() if mask.any()}
    write_segmentation_of_series(path, filled, series, made_by=made_by)


def write_segmentation_of_series(
    path: Path, volumes: Mapping[str, Volume], series: Path, *, made_by: str
) -> None:
    """Write masks that lie on the grid of a DICOM series as one segmentation of it.

    Parameters
    ----------
    path, series, made_by
        See `write_dicom_segmentation`.
    volumes : mapping of object to Volume
        Of 0 and 1, as `read_volume` gives the series; empty ones are left out.
    """
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    filled = {name: volume for name, volume in volumes.items() if volume.array.any()}
    if not filled:
        raise InputError(path, "every mask is empty.", "A DICOM segmentation has at least one segment.")
    image, (first, *_) = read_volume(series, colour=True), filled.values()
    shape = image.array.shape[:3]
    if shape != first.array.shape or (
        corner_distance_voxels(shape, image.affine, first.affine, image.affine) > GRID_TOLERANCE
    ):
        raise InputError(series, "is not the series that was prepared.", "Give the folder of that series.")
    files = series_files(series)
    version = package_versions(["medsam-nb"])["medsam-nb"]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=made_by, version=version, family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.AnatomicalStructure,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(filled, 1)
    ]
    segmentation = highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in files],
        pixel_array=np.stack([volume.array for volume in filled.values()], axis=-1),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=900,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="medsam-nb",
        manufacturer_model_name=made_by,
        software_versions=version,
        device_serial_number="0",
        series_description=f"Masks predicted by {made_by}",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)
