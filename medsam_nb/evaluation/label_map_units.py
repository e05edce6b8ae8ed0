"""Masks from elsewhere as units of work: label maps of any program or reader, scored like those of a model.

Their rows stand in the same table with the same measures, without prompt and design. No network runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np

from medsam_nb.data.formats import as_labels, read_volume, with_data
from medsam_nb.data.prepared import load_case
from medsam_nb.errors import InputError, require_known
from medsam_nb.evaluation.facts import case_facts, object_masks, slice_facts
from medsam_nb.evaluation.rows import VOLUME_METRICS, measured
from medsam_nb.evaluation.unit import case_names, run_facts
from medsam_nb.manifest.label_maps import LabelMaps
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.table import RunKey
from medsam_nb.protocol.volume import Case, place
from medsam_nb.provenance import COMPUTING_PACKAGES, ROWS, as_json, code_sha256, file_sha256, package_versions


@dataclass(frozen=True)
class LabelMapUnit:
    """One case with its label map from elsewhere.

    Attributes
    ----------
    task : {"2d", "3d"}
        Beside which rows of models they stand; the values are the same.
    case_folder : Path
        Of the prepared case.
    source : LabelMaps
    path : Path
        Of the label map.
    parameters : tuple of (str, value)
        Keyword arguments of `score_label_map`.
    key : RunKey
        The label map's SHA-256 stands where that of weights does; it is empty if there is no file.
    """

    task: str
    case_folder: Path
    source: LabelMaps
    path: Path
    parameters: tuple[tuple[str, object], ...]
    key: RunKey

    @property
    def plain_parameters(self) -> dict[str, object]:
        """The parameters as they stand in the key."""
        return dict(self.parameters)


def plan_label_map_units(
    task: str,
    case_folders: Sequence[Path],
    sources: Sequence[LabelMaps],
    root: Path,
    *,
    seed: int,
    objects: Sequence[str] = (),
    protocol: str = "corrected",
    volume_metrics: str = "none",
) -> list[LabelMapUnit]:
    """Return a unit for every case that a row of label maps covers.

    Parameters
    ----------
    root : Path
        Of the workbook: `LabelMaps.files` lie below it.
    seed, protocol
        Of the study whose rows they stand beside.
    objects, volume_metrics
        See `score_label_map`.
    """
    parameters = {"objects": list(objects), "protocol": protocol, "volume_metrics": volume_metrics}
    units = []
    for source in sources:
        for folder in case_folders:
            names = case_names(folder)
            if not source.covers(names["data_set"]):
                continue
            path = source.path(root, names["data_set"], names["case_id"])
            key = RunKey(
                task=task,
                **names,
                model=source.name,
                checkpoint_sha256=files_sha256(path) if path.exists() else "",
                network="",
                device="",
                dtype="",
                device_facts="{}",
                seed=seed,
                parameters=as_json(parameters | {"label values": source.objects}),
                code_sha256=code_sha256(*ROWS),
                packages=as_json(package_versions(COMPUTING_PACKAGES)),
            )
            units.append(LabelMapUnit(task, folder, source, path, tuple(parameters.items()), key))
    return units


def files_sha256(path: Path) -> str:
    """Return the hash of a label map: of its file with those that hold its data, or of a folder's files."""
    files = sorted(path.rglob("*")) if path.is_dir() else with_data(path)
    hashes = [file_sha256(file) for file in files if file.is_file()]
    return sha256("".join(hashes).encode()).hexdigest()


def run_label_map_unit(unit: LabelMapUnit) -> tuple[list[dict], dict]:
    """Score one label map; return its rows and its provenance."""
    started, case = datetime.now(UTC), load_case(unit.case_folder)
    masks = read_label_map(unit.path, case, unit.source.objects)
    changed = case.sha256() != unit.key.data_sha256 or files_sha256(unit.path) != unit.key.checkpoint_sha256
    if changed:
        raise InputError(unit.path, "it or its case has changed since the study was planned.", "Start again.")
    rows = score_label_map(masks, case, unit.source.name, task=unit.task, **dict(unit.parameters))
    return rows, run_facts(started) | {"device_name": "", "hole_filling": False, "weights_verified": True}


def read_label_map(
    path: Path, case: Case, objects: Mapping[str, Sequence[int]] | None = None
) -> dict[str, np.ndarray]:
    """Return the objects of a label map on a case's grid, bool (z, y, x).

    Parameters
    ----------
    path : Path
        Any file that holds labels and can be read as a mask of a data set.
    case : Case
    objects : mapping of str to label values, optional
        Where they are not the case's own.

    Raises
    ------
    InputError
        If it is not there, cannot be read, or its voxels are not those of the image; nothing is resampled.
    """
    if not Path(path).exists():
        raise InputError(
            path,
            f"there is no label map of {case.data_set}/{case.case_id}.",
            "Put it there; if the row has none of this data set, name those it has in `data_sets`.",
        )
    volume = as_labels(read_volume(path, labels=True), path)
    if sorted(volume.array.shape) != sorted(case.labels.shape):
        raise InputError(
            path,
            f"has shape {volume.array.shape}, the image {case.labels.shape} (z, y, x).",
            "Give a label map on the image's grid; nothing is resampled here.",
        )
    labels = place(volume, case.labels.shape, case.image.affine, path)
    values = case.objects | dict(objects or {})
    return {name: np.isin(labels, list(values[name])) for name in case.objects}


def score_label_map(
    masks: Mapping[str, np.ndarray],
    case: Case,
    model: str,
    *,
    task: str = "3d",
    protocol: str = "corrected",
    volume_metrics: str = "none",
    objects: Sequence[str] = (),
) -> list[dict]:
    """Score masks from elsewhere: rows like those of a model.

    Parameters
    ----------
    masks : mapping of object to ndarray of bool, shape (z, y, x)
        See `read_label_map`.
    case : Case
    model : str
        What the rows call it.
    task, protocol : str
        Of the rows beside which they stand; values are the same.
    volume_metrics : {"none", "overlap", "all"}
        As for `rows.evaluate_3d`.
    objects : sequence of str
        Only these of the case's objects; all if empty.

    Returns
    -------
    list of dict
        Rows of `table.COLUMNS`, without prompt and design.
    """
    require_known("volume_metrics", volume_metrics, VOLUME_METRICS, what="choice of volume metrics")
    common = case_facts(case, model, task, protocol)
    rows = []
    for name, truth in object_masks(case, objects).items():
        mask = masks[name]
        for index, facts in slice_facts(truth, name).items():
            value = {"metric": "iou", "value": iou(truth[index], mask[index])}
            rows.append(common | facts | value | {"predicted_px": int(mask[index].sum())})
        size = {"object": name, "truth_px": int(truth.sum())}
        for metric, value, backend in measured(truth, mask, case.image.spacing_mm, volume_metrics):
            rows.append(common | size | {"metric": metric, "value": value, "backend": backend})
    return rows
