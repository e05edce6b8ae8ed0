"""Rows of fine-tuned checkpoints: they lie beside the weights, and say on whom these may not be measured.

`weights/fine_tuned/NAME.pt` and `NAME.yaml` belong together. A study names NAME under `models` as any other.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from medsam_nb.errors import StudyError
from medsam_nb.files import write_study_file
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import Checkpoint, Manifest

FOLDER = "fine_tuned"  # below the folder of weights
TRAIN_AGAIN = "Train it again with `medsam-nb finetune`, or delete its row beside it."
SHOWN = 5  # patients in a message


def row_path(weights_dir: Path, name: str) -> Path:
    """Return where the row of a fine-tuned checkpoint lies."""
    return Path(weights_dir) / FOLDER / f"{name}.yaml"


def write_row(weights_dir: Path, row: Checkpoint) -> Path:
    """Write the row of a fine-tuned checkpoint beside its weights; return where.

    Raises
    ------
    StudyError
        If it cannot be written.
    """
    content = row.model_dump(mode="json", exclude={"name"}, exclude_none=True, exclude_defaults=True)
    text = "# Written by the program when these weights were fine-tuned.\n"
    text += yaml.safe_dump({"checkpoints": {row.name: content}}, sort_keys=False, width=110)
    path = row_path(weights_dir, row.name)
    write_study_file(path, text.encode())
    return path


def with_fine_tuned(manifest: Manifest, weights_dir: Path) -> Manifest:
    """Return the manifest with the rows that lie beside fine-tuned weights.

    A row of the manifest itself that has the same name comes first.

    Raises
    ------
    ManifestError
        If one of them is damaged; the message names its file.
    """
    found: dict[str, Checkpoint] = {}
    for path in sorted((Path(weights_dir) / FOLDER).glob("[!.]*.yaml")):
        found |= load_manifest(path).checkpoints
    if not found:
        return manifest
    return manifest.model_copy(update={"checkpoints": found | manifest.checkpoints})


def require_unseen(checkpoint: Checkpoint, cases: Sequence[tuple[str, str, str, str]]) -> None:
    """Refuse to measure a fine-tuned checkpoint on patients that it was trained on.

    Parameters
    ----------
    checkpoint : Checkpoint
    cases : sequence of (data_set, case_id, patient_id, data_sha256)
        That are to be measured. A case with the voxels of a training case is refused under any name.

    Raises
    ------
    StudyError
        If there is one; the message names the cases.
    """
    made = checkpoint.fine_tuned
    if made is None:
        return
    patients, hashes = set(made.patients), set(made.cases_sha256)
    seen = [
        f"{data_set}/{case}"
        for data_set, case, patient, sha256 in cases
        if (data_set, patient) in patients or sha256 in hashes
    ]
    if seen:
        more = f" and {len(seen) - SHOWN} more" if len(seen) > SHOWN else ""
        raise StudyError(
            f"model {checkpoint.name}",
            f"was trained on patients that it is to be measured on: {', '.join(seen[:SHOWN])}{more}.",
            "Measure it on others: leave the data set out, or these cases with `left_out_cases` in its row.",
        )
