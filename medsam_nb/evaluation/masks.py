"""Masks kept and masks from elsewhere: a bit-packed store inside a run, and label maps scored as a model.

Figures and the explorer read stored masks instead of running a network again. A folder of label maps, of any
program or of a second reader, is scored in the same table with the same metrics.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medsam_nb.data.formats import ITK, NIFTI, as_labels, read_volume, suffix_of
from medsam_nb.errors import InputError, require_known
from medsam_nb.files import write_atomically
from medsam_nb.protocol import metrics
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.prompts import largest_components
from medsam_nb.protocol.volume import Case, place

LABEL_MAPS = (*NIFTI, *ITK)


class MaskStore:
    """Predicted masks of a run, one compressed file each, 8 voxels a byte.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, **key: str) -> Path:
        """Return where the mask of a key lies; the key's parts are plain text."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
        return self.folder / f"{digest}.npz"

    def write(self, mask: np.ndarray, **key: str) -> Path:
        """Store a mask, bool (z, y, x), under what tells it apart, such as run_key, object and design."""
        buffer = io.BytesIO()
        text = json.dumps(key, sort_keys=True)
        np.savez_compressed(buffer, packed=np.packbits(mask), shape=np.array(mask.shape), key=np.array(text))
        write_atomically(self.path(**key), buffer.getvalue())
        return self.path(**key)

    def read(self, **key: str) -> np.ndarray | None:
        """Return a stored mask, bool (z, y, x); None if there is none.

        Raises
        ------
        InputError
            If the file is damaged or not of this key.
        """
        path = self.path(**key)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                found, shape = json.loads(str(stored["key"])), tuple(stored["shape"])
                mask = np.unpackbits(stored["packed"], count=int(np.prod(shape))).reshape(shape).astype(bool)
        except Exception as error:  # zip, NumPy and JSON have their own kinds
            raise InputError(
                path, f"cannot be read ({error}).", "Delete it; it is computed again."
            ) from error
        if found != key:
            raise InputError(path, "is of another key.", "Delete it; it is computed again.")
        return mask


def find_label_map(folder: Path, case_id: str) -> Path:
    """Return the label map of a case in a folder: `<case>.<suffix>`, suffix of NIfTI or ITK.

    Raises
    ------
    InputError
        If there is none, or several.
    """
    found = [
        path
        for path in sorted(Path(folder).glob("*"))
        if suffix_of(path) in LABEL_MAPS and path.name[: -len(suffix_of(path))] == case_id
    ]
    if len(found) != 1:
        raise InputError(
            folder,
            f"holds {len(found)} label maps of {case_id}.",
            f"Name one file {case_id}.nii.gz (or {', '.join(LABEL_MAPS)}).",
        )
    return found[0]


def read_label_map(path: Path, case: Case) -> dict[str, np.ndarray]:
    """Return the objects of a label map on a case's grid, bool (z, y, x), by the case's label values.

    Raises
    ------
    InputError
        If its voxels are not those of the image; nothing is resampled.
    """
    volume = as_labels(read_volume(path, labels=True), path)
    if sorted(volume.array.shape) != sorted(case.labels.shape):
        raise InputError(
            path,
            f"has shape {volume.array.shape}, the image {case.labels.shape} (z, y, x).",
            "Give a label map on the image's grid; nothing is resampled here.",
        )
    labels = place(volume, case.labels.shape, case.image.affine, path)
    return {name: np.isin(labels, values) for name, values in case.objects.items()}


def score_label_map(
    folder: Path,
    case: Case,
    *,
    task: str = "3d",
    volume_metrics: str = "none",
    objects: Sequence[str] = (),
) -> list[dict]:
    """Score a case's label map from elsewhere: rows like those of a model, whose name is the folder's.

    Parameters
    ----------
    folder : Path
        Of label maps on the grid of the source images, with the data set's label values.
    case : Case
    task : {"2d", "3d"}
        Beside which rows they shall stand; values are the same.
    volume_metrics : {"none", "overlap", "all"}
        As for `rows.evaluate_3d`.
    objects : sequence of str
        Only these of the case's objects; all if empty.

    Returns
    -------
    list of dict
        Rows of `table.COLUMNS`, without prompt and design.
    """
    require_known("task", task, ("2d", "3d"), what="task")
    require_known(
        "volume_metrics", volume_metrics, ("none", "overlap", "all"), what="choice of volume metrics"
    )
    masks: Mapping[str, np.ndarray] = read_label_map(find_label_map(folder, case.case_id), case)
    common = {
        "task": task, "data_set": case.data_set, "modality": case.modality, "case_id": case.case_id,
        "model": Path(folder).name, "protocol": "corrected", "n_slices": case.labels.shape[0],
        "spacing_z_mm": case.image.spacing_mm[0], "backend": "label maps from elsewhere",
    }  # fmt: skip
    rows = []
    for name in (one for one in case.objects if not objects or one in objects):
        truth, mask = case.mask(name), masks[name]
        for index in map(int, np.flatnonzero(truth.any((1, 2)))):
            sizes = {"truth_px": int(truth[index].sum()), "predicted_px": int(mask[index].sum())}
            parts = len(largest_components(truth[index], most=truth[index].size))
            place_of = {"object": name, "slice_index": index, "n_components": parts}
            value = {"metric": "iou", "value": iou(truth[index], mask[index])}
            rows.append(common | place_of | sizes | value)
        measured = {}
        if volume_metrics != "none":
            measured |= metrics.volume_overlap(truth, mask, case.image.spacing_mm)
        if volume_metrics == "all":
            measured |= metrics.surface_distances(truth, mask, case.image.spacing_mm)
        size = {"object": name, "truth_px": int(truth.sum())}
        rows += [common | size | {"metric": metric, "value": value} for metric, value in measured.items()]
    return rows
