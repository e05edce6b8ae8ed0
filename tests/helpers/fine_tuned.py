"""A made-up table of fine-tuned checkpoints whose gains are known."""

import numpy as np
import pandas as pd

from medsam_nb.protocol.table import as_table

PARENT = "parent"
GAIN = {"mask_decoder": 0.04, "memory": 0.01, "lora": -0.02}
SIZES = {"1": 0.25, "5": 0.75, "all": 1.0}  # share of the gain
SEED_SPREAD = 0.01  # the two seeds lie so much above and below
TRAINED, OTHER = "sweeps", ("other_ct", "other_pet")


def jobs() -> pd.DataFrame:
    """Return a line per checkpoint, as of `plan.overview`."""
    return pd.DataFrame(
        {
            "model": f"{learns}-{size}-{repeat}",
            "learns": learns,
            "patients": size,
            "n_patients": {"all": 10}.get(size) or int(size),
            "repeat": repeat,
            "fold": 0,
        }
        for learns in GAIN
        for size in SIZES
        for repeat in (0, 1)
    )


def made_up(data_set: str = TRAINED, patients: int = 8, task: str = "3d", sign: float = 1.0) -> pd.DataFrame:
    """Return a tidy table of the parent and all checkpoints: two slices of one case for every patient."""
    rng = np.random.default_rng(0)
    levels = rng.uniform(0.6, 0.8, patients)
    gains = {PARENT: 0.0}
    for line in jobs().itertuples():
        spread = SEED_SPREAD * (1 if line.repeat else -1)
        gains[line.model] = sign * GAIN[line.learns] * SIZES[line.patients] + spread
    rows = [
        {"task": task, "data_set": data_set, "case_id": f"c{patient}", "object": "organ", "model": model}
        | {"prompt": "one_box", "mask_choice": "first_mask", "slice_index": index, "metric": "iou"}
        | {"value": levels[patient] + gain * (1 + 0.1 * np.sin(patient))}
        for model, gain in gains.items()
        for patient in range(patients)
        for index in (3, 4)
    ]
    return as_table(rows)
