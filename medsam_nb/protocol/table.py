"""The tidy table, the only form of results: its columns, its order, and the key of the work behind a row.

One row per value. A unit of work (one case, one model, one task with its parameters) has a `RunKey`, whose
digest stands in every row.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pandas as pd

from medsam_nb.errors import InputError
from medsam_nb.protocol.options import RELEASED_MEMORY

UNCHANGED = "none"  # volume changes and repairs of rows that have none

# The tidy table: one row per value. `slice_index` is missing where the value is of a whole volume.
COLUMNS = {
    "task": "string",  # "2d" (every slice prompted), "3d" (propagated), "2d_clicks", "3d_loops" (corrected)
    "data_set": "string",
    "modality": "string",
    "case_id": "string",
    "patient_id": "string",  # whose images these are; the case's own id where the manifest does not say
    "object": "string",
    "model": "string",
    "prompt": "string",  # prompts.PROMPTS_2D or prompts.PROMPTS_3D
    "mask_choice": "string",  # designs.MASK_CHOICES_2D or MASK_CHOICES_3D
    "frame_choice": "string",  # 3D only
    "direction": "string",  # 3D only
    "mask_scope": "string",  # 3D only: options.MASK_SCOPES, where the mask choice applies
    "protocol": "string",  # "corrected" or "released"
    "prompt_source": "string",  # "truth", "jittered:SHARE:REPEAT" or "file:NAME:HASH" (prompt_sources)
    "frames": "string",  # options.FRAMES: how slices were resized for the network
    "memory": "string",  # 3D only: options.MemoryWindow.name, what a tracked slice may attend to
    "volume_change": "string",  # 3D only: volume_changes.VolumeChange.name, what was shown
    "volume_repair": "string",  # 3D only: volume_repairs.VolumeRepair.name, what was done to its slices
    "strategy": "string",  # of corrections only: corrections.CLICKS, RUNNING, RESTARTED or FRESH
    "new_information": "string",  # of corrections only: corrections.NEW_INFORMATION
    "loop": "Int64",  # of corrections only: how many were made; 0 after the initial prompt
    "n_prompts": "Int64",  # of corrections only: given so far, on the slice (2D) or in the volume (3D)
    "ended": "string",  # of corrections only: why no further one was made although more were allowed
    "slice_index": "Int64",
    "prompted_slices": "string",  # 3D only: ascending, joined by ";"
    "distance_slices": "Int64",  # 3D only: to the nearest prompted slice, negative before it
    "distance_mm": "Float64",
    "n_slices": "Int64",  # of the volume
    "n_steps": "Int64",  # of changed volumes only: slices that the model went through, for this object
    "spacing_z_mm": "Float64",
    "n_components": "Int64",  # of the object on this slice
    "neighbour_iou": "Float64",  # 3D only: of the truth here with that on the next slice towards the prompt
    "truth_px": "Int64",  # size of the object on this slice (voxels in the volume for volume metrics)
    "predicted_px": "Int64",  # size of the predicted mask on this slice
    "metric": "string",
    "value": "Float64",
    "score": "Float64",  # the model's own estimate of the IoU
    "backend": "string",  # library, version and options behind a value, where it is not this package
    "run_key": "string",
}
# What tells one cell of the experiment from another, beside data set, case, object and slice.
FACTORS = (
    *("task", "model", "prompt", "mask_choice", "frame_choice", "direction", "mask_scope", "protocol"),
    *("frames", "memory", "prompt_source", "volume_change", "volume_repair"),
    *("strategy", "new_information", "loop"),
)
# What tells rows apart; the rest of the columns describe or measure.
KEY_COLUMNS = [
    *("task", "data_set", "modality", "case_id", "object", "model", "prompt", "mask_choice", "frame_choice"),
    *(
        "direction",
        "mask_scope",
        "protocol",
        "frames",
        "memory",
        "prompt_source",
        *("volume_change", "volume_repair"),
        "slice_index",
        "prompted_slices",
        "metric",
        *("strategy", "new_information", "loop"),
        "run_key",
    ),
]


@dataclass(frozen=True)
class RunKey:
    """Everything that determines the rows of one unit of work.

    Attributes
    ----------
    task : str
    data_set, case_id : str
    data_sha256 : str
        Of voxels, grid and object definitions (`Case.sha256`).
    model, checkpoint_sha256 : str
    network : str
        JSON of family, configuration and input size of the network.
    device, dtype : str
        Type of device ("cpu", "cuda") and arithmetic ("float32", "bfloat16").
    device_facts : str
        JSON of what decides how a GPU rounds (`checkpoints.device_facts`); "{}" on a CPU.
    seed : int
        Of the study.
    parameters : str
        JSON of the task's own parameters, keys sorted.
    code_sha256 : str
        Of the code that decides rows (`provenance.ROWS`).
    packages : str
        JSON of the versions of the packages that compute values, keys sorted.
    patient_id : str
        Whose images these are. It determines no value, so it is no part of the digest: where the manifest's
        rule for patients changes, stored rows are read back with the new id, and nothing is computed again.
    """

    task: str
    data_set: str
    case_id: str
    data_sha256: str
    model: str
    checkpoint_sha256: str
    network: str
    device: str
    dtype: str
    device_facts: str
    seed: int
    parameters: str
    code_sha256: str
    packages: str
    patient_id: str = field(default="", compare=False)

    @property
    def determining(self) -> dict:
        """The fields that determine a value: all but the patient."""
        return {name: value for name, value in asdict(self).items() if name != "patient_id"}

    @property
    def digest(self) -> str:
        """A short name of the key: the first 20 digits of the SHA-256 of what determines a value."""
        return hashlib.sha256(json.dumps(self.determining, sort_keys=True).encode()).hexdigest()[:20]


def as_table(rows: list[Mapping] | pd.DataFrame) -> pd.DataFrame:
    """Return rows as a table with the columns and types of `COLUMNS`, missing ones empty.

    A row that does not say whose images it is about counts as of a patient of its own: its case.
    """
    table = pd.DataFrame(rows)
    unknown = sorted(set(table.columns) - set(COLUMNS))
    if unknown:
        raise InputError(
            "results table", f"unknown columns {', '.join(unknown)}.", f"Known: {', '.join(COLUMNS)}."
        )
    table = table.reindex(columns=list(COLUMNS)).astype(COLUMNS)
    in_3d = table["task"].eq("3d")

    def filled(column: str, value: str) -> pd.Series:
        return table[column].mask(table[column].isna() & in_3d, value)

    return table.assign(
        patient_id=table["patient_id"].fillna(table["case_id"]),
        prompt_source=table["prompt_source"].fillna("truth"),  # what tables had before
        memory=filled("memory", RELEASED_MEMORY),
        volume_change=filled("volume_change", UNCHANGED),
        volume_repair=filled("volume_repair", UNCHANGED),
    )


def sort_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table in its canonical order, which does not depend on the order of the work."""
    return table.sort_values(KEY_COLUMNS, kind="stable", na_position="last").reset_index(drop=True)
