"""What every row of a case says: of the case, of an object on a slice; and what must hold of a prediction."""

from collections.abc import Collection, Sequence

import numpy as np

from medsam_nb.errors import CheckpointError, InputError
from medsam_nb.models.checkpoints import Model
from medsam_nb.protocol.prompts import largest_components
from medsam_nb.protocol.volume import Case


def object_masks(case: Case, objects: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the masks (z, y, x) of the chosen objects, or of all where none is named."""
    masks = {name: case.mask(name) for name in case.objects if not objects or name in objects}
    if not masks:
        raise InputError(
            f"{case.data_set}/{case.case_id}",
            f"holds none of the chosen objects {', '.join(objects)}.",
            f"It has {', '.join(case.objects)}; change `objects` in the study.",
        )
    return masks


def slice_facts(mask: np.ndarray, object_name: str, slices: Collection[int] | None = None) -> dict[int, dict]:
    """Return the columns that describe an object on each slice, or each of `slices`, that holds it.

    Parameters
    ----------
    mask : ndarray of bool, shape (z, y, x)
    object_name : str
    slices : collection of int, optional
    """
    return {
        index: {
            "object": object_name,
            "slice_index": index,
            "n_components": len(largest_components(mask[index], most=mask[index].size)),
            "truth_px": int(mask[index].sum()),
        }
        for index in (range(len(mask)) if slices is None else slices)
        if mask[index].any()
    }


def require_numbers(are_numbers: bool, model: Model, case: Case, slice_index: int) -> None:
    """Raise CheckpointError for NaN or infinity: thresholded, they would pass for an empty mask."""
    if not are_numbers:
        raise CheckpointError(
            f"model {model.name}",
            f"gives NaN or infinity on slice {slice_index} of {case.data_set}/{case.case_id}.",
            "Its weights are of no use here; where they were trained in 32 bits, try `dtype: float32`.",
        )


def case_facts(case: Case, model: str, task: str, protocol: str) -> dict:
    """Return the columns that all rows of a case, a model and a task have in common."""
    return {
        "task": task,
        "data_set": case.data_set,
        "modality": case.modality,
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "model": model,
        "protocol": protocol,
        "n_slices": case.labels.shape[0],
        "spacing_z_mm": case.image.spacing_mm[0],
    }
