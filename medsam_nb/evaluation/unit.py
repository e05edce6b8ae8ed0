"""One unit of work: one task on one case with one model; planned, proven and computed."""

import sys
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from medsam_nb.data.prepared import load_case
from medsam_nb.errors import CheckpointError, InputError
from medsam_nb.evaluation.changed_volumes import evaluate_3d_changed
from medsam_nb.evaluation.correction_rows import evaluate_clicks, evaluate_loops
from medsam_nb.evaluation.masks import MaskStore
from medsam_nb.evaluation.parts import Parts
from medsam_nb.evaluation.rows import evaluate_2d, evaluate_3d
from medsam_nb.files import read_json
from medsam_nb.manifest.fine_tuned import require_unseen
from medsam_nb.manifest.rows import Checkpoint
from medsam_nb.models.checkpoints import (
    Model,
    choose_device,
    choose_dtype,
    device_facts,
    has_cuda_extension,
    is_verified,
    load_model,
    usable_sha256,
    verified_sha256,
    weights_path,
)
from medsam_nb.models.features import SliceFeatures, device_name, one_thread
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompt_sources import PromptSource, parse_source
from medsam_nb.protocol.table import RunKey
from medsam_nb.protocol.volume import Case
from medsam_nb.protocol.volume_changes import VolumeChange
from medsam_nb.protocol.volume_repairs import VolumeRepair
from medsam_nb.provenance import (
    COMPUTING_PACKAGES,
    ROWS,
    as_json,
    code_sha256,
    git_commit,
    package_versions,
    peak_memory_mb,
)

TASKS = {
    "2d": evaluate_2d,
    "3d": evaluate_3d,
    "3d_changed": evaluate_3d_changed,
    "2d_clicks": evaluate_clicks,
    "3d_loops": evaluate_loops,
}

KEPT_MODELS, KEPT_BYTES = 2, 512 << 20  # so many in a process, and more while they are small
_kept: OrderedDict[tuple, Model] = OrderedDict()


@dataclass(frozen=True)
class Unit:
    """One task on one case with one model: everything a worker process needs.

    Attributes
    ----------
    task : str
        One of `TASKS`.
    case_folder : Path
        Of the prepared case.
    checkpoint : Checkpoint
    weights_dir : Path
    parameters : tuple of (str, value)
        Keyword arguments of the task's function.
    key : RunKey
    features : (Path, int) or None
        Folder where encoded slices are kept for later units, and how many bytes it may hold.
    masks : (Path, tuple of str) or None
        Folder where predicted masks are kept, and the names of the designs whose masks are.
    """

    task: str
    case_folder: Path
    checkpoint: Checkpoint
    weights_dir: Path
    parameters: tuple[tuple[str, object], ...]
    key: RunKey
    features: tuple[Path, int] | None = None
    masks: tuple[Path, tuple[str, ...]] | None = None

    @property
    def plain_parameters(self) -> dict[str, object]:
        """The task's parameters as plain values, as they stand in the key."""
        return {name: _plain(value) for name, value in self.parameters}


def plan_units(
    task: str,
    case_folders: Sequence[Path],
    checkpoints: Sequence[Checkpoint],
    *,
    weights_dir: Path,
    seed: int,
    device: str = "auto",
    dtype: str = "auto",
    features: tuple[Path, float] | None = None,
    masks: tuple[Path, Sequence[str]] | None = None,
    **parameters: object,
) -> list[Unit]:
    """Return the units of a task: every case with every model.

    With `features`, a folder and how many GB it may hold, units on a CPU keep encoded slices in that folder
    and find them there: 3D after 2D, or other designs later, encode nothing again. Results are bit for
    bit the same, so neither is a part of the key. On a GPU an encode is taken to be as fast as a read.

    With `masks`, a folder and names of designs (in 2D "prompt/mask_choice"), units also keep the masks of
    these there (`masks.MaskStore`, by run key, object and design). The names are a part of the key, so that
    a unit that is stored has its masks.

    Raises
    ------
    CheckpointError
        If the weights of a model are missing, not what the manifest says, or of no use.
    InputError
        If the record of a case is damaged.
    StudyError
        If a model was fine-tuned on a patient of these cases.
    """
    place = choose_device(device)
    if "prompt_source" in parameters:  # what a file holds belongs to the key, not where it lies
        parameters["prompt_source"] = parse_source(parameters["prompt_source"])
    kept_designs = tuple(masks[1]) if masks is not None and task in ("2d", "3d") else ()
    units = []
    keeps = features is not None and features[1] > 0 and place.type == "cpu"
    kept = (features[0], int(features[1] * 1e9)) if keeps else None
    cases = [(folder, case_names(folder)) for folder in case_folders]
    for checkpoint in checkpoints:
        identities = ("data_set", "case_id", "patient_id", "data_sha256")
        require_unseen(checkpoint, [tuple(case[name] for name in identities) for _, case in cases])
        weights_sha256 = usable_sha256(checkpoint, weights_dir)
        for folder, case in cases:
            key = RunKey(
                task=task,
                **case,
                model=checkpoint.name,
                checkpoint_sha256=weights_sha256,
                network=as_json(checkpoint.model_dump(include={"family", "config", "image_size"})),
                device=place.type,
                dtype=str(choose_dtype(place, dtype)).removeprefix("torch."),
                device_facts=as_json(device_facts(place)),
                seed=seed,
                parameters=as_json(
                    {name: _plain(value) for name, value in parameters.items()}
                    | ({"masks": sorted(kept_designs)} if kept_designs else {})
                ),
                code_sha256=code_sha256(*ROWS),
                packages=as_json(package_versions(COMPUTING_PACKAGES)),
            )
            values = tuple(parameters.items())
            place_of_masks = (Path(masks[0]), kept_designs) if kept_designs else None
            units.append(Unit(task, folder, checkpoint, weights_dir, values, key, kept, place_of_masks))
    return units


def case_names(folder: Path) -> dict[str, str]:
    """Return data_set, case_id, data_sha256 and patient_id of a prepared case, as its record says."""
    record = read_json(folder / "case.json")
    names = {field: record.get(field) for field in ("data_set", "case_id", "data_sha256")}
    names["patient_id"] = record.get("patient_id", names["case_id"])
    if not all(isinstance(value, str) and value for value in names.values()):
        raise InputError(folder / "case.json", "is no record of a case.", "Prepare the data set again.")
    return names


def _plain(value: object) -> object:
    """Return a parameter of a task as plain values, as it stands in the key."""
    if isinstance(value, PropagationOptions | VolumeChange | VolumeRepair):
        return value.as_dict()
    if isinstance(value, Design | PromptSource):
        return f"{value.name}:{value.sha256}" if getattr(value, "sha256", "") else value.name
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _loaded(checkpoint: Checkpoint, weights_dir: Path, device: str, dtype: str, sha256: str) -> Model:
    """Return a model that was kept, or load it; small ones are all kept, as a study of trainings has many."""
    key = checkpoint, weights_dir, device, dtype, sha256
    if key not in _kept:
        model = load_model(checkpoint, weights_dir, device=device, dtype=dtype)
        if model.checkpoint_sha256 != sha256:
            path = weights_path(checkpoint, weights_dir)
            raise CheckpointError(path, "it changed while it was read.", "Start again.")
        _kept[key] = model
    _kept.move_to_end(key)
    while len(_kept) > KEPT_MODELS and sum(map(_bytes, _kept.values())) > KEPT_BYTES:
        _kept.popitem(last=False)
    return _kept[key]


def _bytes(model: Model) -> int:
    return sum(p.numel() * p.element_size() for p in model.network.parameters())


def loaded_model(
    checkpoint: Checkpoint, weights_dir: Path, device: str = "auto", dtype: str = "auto"
) -> Model:
    """Return a model, loaded once per process and anew if its file was replaced; see `load_model`."""
    sha256 = verified_sha256(weights_path(checkpoint, weights_dir), checkpoint.sha256, checkpoint.name)
    return _loaded(checkpoint, Path(weights_dir), device, dtype, sha256)


def _inputs(unit: Unit) -> tuple[Case, Model]:
    """Return the case and the model of a unit, proven to be those that its key names."""
    key = unit.key
    try:
        case = load_case(unit.case_folder)
    except InputError as error:
        problem = f"is damaged ({error.item}: {error.problem})."
        raise InputError(unit.case_folder, problem, "Delete it, and prepare the data set again.") from error
    if (case.data_set, case.case_id, case.sha256()) != (key.data_set, key.case_id, key.data_sha256):
        raise InputError(unit.case_folder, "has changed since the study was planned.", "Start again.")
    model = loaded_model(unit.checkpoint, unit.weights_dir, key.device, key.dtype)
    if model.checkpoint_sha256 != key.checkpoint_sha256:
        path = weights_path(unit.checkpoint, unit.weights_dir)
        raise CheckpointError(path, "has changed since the study was planned.", "Start again.")
    return case, model


def run_unit(unit: Unit, parts: Parts | None = None) -> tuple[list[dict] | pd.DataFrame, dict]:
    """Compute one unit; return its rows and its provenance.

    With `parts` what a long unit has finished is kept there, and what is there is not computed again.
    """
    started = datetime.now(UTC)
    case, model = _inputs(unit)
    arguments = dict(unit.parameters) | {"seed": unit.key.seed, "parts": parts}
    with one_thread(), warnings.catch_warnings():
        # what sam2 leaves out without its CUDA extension stands in the record, not in every log
        warnings.filterwarnings("ignore", message="(?s)cannot import name '_C'")
        if unit.features is not None:
            place, limit = unit.features
            frames = arguments["options"].frames if "options" in arguments else "image"
            arguments["features"] = SliceFeatures(
                model, case.slices_uint8(), frames=frames, folder=place, folder_bytes=limit
            )
        if unit.masks is not None:
            store, wanted = MaskStore(unit.masks[0]), unit.masks[1]

            def keep(name: str, design: str, said: str, mask: np.ndarray) -> None:
                if design in wanted or said in wanted:
                    store.write(mask, run_key=unit.key.digest, object=name, design=said)

            arguments["keep"] = keep
        rows = TASKS[unit.task](model, case, **arguments)
    facts = run_facts(started)
    if parts is not None and parts.found:  # what a run before this one has done
        facts |= {"seconds": round(facts["seconds"] + parts.seconds_before, 2), "parts_found": parts.found}
    return rows, facts | {
        "device_name": device_name(model.device),
        "hole_filling": has_cuda_extension(),
        "weights_verified": is_verified(unit.checkpoint),
    }


def run_facts(started: datetime) -> dict[str, object]:
    """Return what is recorded of a unit's computation, whatever it computed."""
    return {
        "git_commit": git_commit(),
        "python": sys.version.split()[0],
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 2),
        "peak_memory_mb": peak_memory_mb(),
    }
