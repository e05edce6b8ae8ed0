"""3D on a volume that is shown in another way: fewer, thicker or repaired slices, scored on the case's own.

The rows are those of the task "3d", told apart by `volume_change` and `volume_repair`; without a change
they hold the values of `rows.evaluate_3d`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pandas as pd

from medsam_nb.errors import StudyError
from medsam_nb.evaluation import propagation
from medsam_nb.evaluation.facts import case_facts, object_masks, require_numbers, slice_facts
from medsam_nb.evaluation.parts import Parts, all_rows
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol import directions, metrics
from medsam_nb.protocol.designs import Design, prompted_slices
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompts import Prompt, prompt_3d, prompt_seed
from medsam_nb.protocol.tracks import plan
from medsam_nb.protocol.volume import Case
from medsam_nb.protocol.volume_changes import ShownVolume, VolumeChange, shown_volume
from medsam_nb.protocol.volume_repairs import VolumeRepair, repaired

UNCHANGED, UNREPAIRED = VolumeChange(), VolumeRepair()


def evaluate_3d_changed(
    model: Model,
    case: Case,
    designs: Sequence[Design],
    *,
    seed: int,
    change: VolumeChange = UNCHANGED,
    repair: VolumeRepair = UNREPAIRED,
    options: PropagationOptions = PropagationOptions(),
    objects: Sequence[str] = (),
    features: SliceFeatures | None = None,
    parts: Parts | None = None,
) -> list[dict] | pd.DataFrame:
    """Propagate prompts through a volume that is shown in another way.

    Parameters
    ----------
    model, case, designs, seed, options, objects, features
        As for `rows.evaluate_3d`; of the features only what they are of, and where they are kept, count.
    change : VolumeChange
        What the model is shown in place of the case's slices.
    repair : VolumeRepair
        What is done to these slices before.
    parts : Parts, optional
        Where the rows of each object and frame choice are kept until the unit is whole.

    Returns
    -------
    list of dict, or DataFrame where there are several parts
        Rows of `table.COLUMNS`, metric "iou", for every object, design and shown slice that stands for one
        of the case and holds the object. `slice_index` and `distance_slices` are of the case as it was
        prepared; `n_slices`, `spacing_z_mm` and `neighbour_iou` of the changed volume before the repair;
        `n_steps` says how many slices the model went through.
    """
    if options.window.remembered != "predictions":
        raise StudyError(
            "memory window", "changed volumes remember predictions only.", "Leave out `remembered`."
        )
    if repair.kind == "three_directions" and change.kind == "camera":
        raise StudyError("volume repair", "a film of one slice has no other axes.", "Leave out the repair.")
    common = case_facts(case, model.name, "3d", options.protocol) | {
        "mask_scope": options.mask_scope,
        "frames": options.frames,
        "memory": options.window.name,
        "prompt_source": "truth",
        "volume_change": change.name,
        "volume_repair": repair.name,
        "metric": "iou",
    }
    by_frame: dict[str, list[Design]] = defaultdict(list)
    for design in designs:
        by_frame[design.frame_choice].append(design)

    def rows(name: str, frame: str) -> list[dict]:
        prompted = prompted_slices(truth[name].sum((1, 2)), frame, options.protocol)
        changed = shown_volume(case, name, prompted, change)
        shown = repaired(changed, repair)
        facts = common | {"n_slices": len(changed.slices), "spacing_z_mm": changed.step_mm}
        where = _places(changed, case.image.spacing_mm[0])
        along_all = repair.kind == "three_directions"
        found = _propagated(model, case, name, by_frame[frame], shown, along_all, seed, options, features)
        return [facts | where[row["slice_index"]] | row for row in found]

    truth = {name: mask for name, mask in object_masks(case, objects).items() if mask.any()}
    pieces = [(f"{name}: {frame}", partial(rows, name, frame)) for name in truth for frame in by_frame]
    return all_rows(pieces, parts)


def _places(shown: ShownVolume, spacing_mm: float) -> dict[int, dict]:
    """Return for every slice of the case that is shown where it lies, and how alike its neighbour is."""
    alike = metrics.adjacent_iou(shown.truth)
    prompted = [(place, shown.stands_for[place]) for place in shown.prompted]
    found = {}
    for place, index in enumerate(shown.stands_for):
        if index is None:
            continue
        nearest, other = min(prompted, key=lambda one: abs(index - one[1]))
        neighbour = alike[place - (place > nearest)] if place != nearest else None
        away = {"distance_slices": index - other, "distance_mm": (index - other) * spacing_mm}
        found[index] = away | {"neighbour_iou": neighbour}
    return found


def _propagated(
    model: Model,
    case: Case,
    name: str,
    designs: Sequence[Design],
    shown: ShownVolume,
    along_all: bool,
    seed: int,
    options: PropagationOptions,
    features: SliceFeatures | None,
) -> list[dict]:
    """Return what was predicted of one object on the slices that count, as rows without what they share."""

    def prompt_of(_name: str, place: int, kind: str) -> Prompt:
        return prompt_3d(shown.truth[place], kind, prompt_seed(seed, case, name, shown.stands_for[place]))

    truth, given = {name: shown.truth}, {name: shown.prompted}
    steps = _steps(truth, designs, options, given)
    own = None if features is None else features.of_other(shown.slices)
    votes: dict[Design, list[np.ndarray]] = {design: [] for design in designs}
    if along_all:
        for axis in directions.AXES:
            further = _along(model, case, name, designs, shown, axis, seed, options, features)
            for design, (mask, more) in further.items():
                votes[design].append(mask)
                steps[design] += more
    prompted = ";".join(str(shown.stands_for[place]) for place in sorted(shown.prompted))
    rows = []
    shared = {"features": own, "given": given, "masks": along_all}
    for found in propagation.sweep_counts(model, shown.slices, truth, designs, prompt_of, options, **shared):
        at, index = found.slice_index, shown.stands_for[found.slice_index]
        require_numbers(found.counts.is_finite, model, case, at if index is None else index)
        if index is None or not shown.truth[at].any():
            continue
        facts = slice_facts(shown.truth, name, [at])[at] | {
            "slice_index": index,
            "score": float("nan") if along_all else found.score,
            "prompted_slices": prompted,
        }
        for design in found.designs:
            scored = {"predicted_px": found.counts.predicted, "value": found.counts.iou}
            if along_all:
                mask = directions.majority([found.mask, *(vote[at] for vote in votes[design])])
                scored = {"predicted_px": int(mask.sum()), "value": metrics.iou(shown.truth[at], mask)}
            rows.append(asdict(design) | facts | scored | {"n_steps": steps[design]})
    return rows


def _along(
    model: Model,
    case: Case,
    name: str,
    designs: Sequence[Design],
    shown: ShownVolume,
    axis: int,
    seed: int,
    options: PropagationOptions,
    features: SliceFeatures | None,
) -> dict[Design, tuple[np.ndarray, int]]:
    """Return by design what is found along another axis: masks (z, y, x), and slices gone through.

    Slices along it lie about as far apart as those of the case. The prompts follow the designs' rules along
    that axis. Every slice is predicted: where the truth ends there must not decide where the masks end.
    """
    spacing_mm = case.image.spacing_mm
    every = max(1, round(spacing_mm[0] / spacing_mm[axis]))
    view = directions.turned(shown.slices, shown.truth, axis, shown.step_mm, spacing_mm[3 - axis], every)
    if not view.truth.any():  # it lies between two of these slices, and is prompted on none
        return {design: (np.zeros(shown.truth.shape, bool), 0) for design in designs}
    whole, truth = replace(options, until="volume_end"), {name: view.truth}
    along = f"{name} along {directions.AXES[axis]}"

    def prompt_of(_name: str, place: int, kind: str) -> Prompt:
        return prompt_3d(view.truth[place], kind, prompt_seed(seed, case, along, place))

    logits = {design: np.zeros(view.truth.shape, np.float32) for design in designs}
    own = None if features is None else features.of_other(view.slices)
    for found in propagation.sweep(model, view.slices, truth, designs, prompt_of, whole, features=own):
        require_numbers(np.isfinite(found.logits).all(), model, case, found.slice_index)
        for design in found.designs:
            logits[design][found.slice_index] = found.logits
    steps = _steps(truth, designs, whole)
    return {design: (view.back(found), steps[design]) for design, found in logits.items()}


def _steps(
    truth: dict[str, np.ndarray],
    designs: Sequence[Design],
    options: PropagationOptions,
    given: dict[str, tuple[int, ...]] | None = None,
) -> dict[Design, int]:
    """Return by design how many slices the model goes through."""
    tracks = plan(truth, designs, options.protocol, options.until, given)
    return {track.design: sum(len(run.slices) for run in track.passes) for track in tracks}
