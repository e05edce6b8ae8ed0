"""Corrections of one case by one model: rows of the tidy table, in 2D (clicks) and in 3D (loops).

A curve is the rows of one slice, or in 3D of one object, by `loop`: 0 after the initial prompt, n after n
corrections. Where it stops early, the last row says why in `ended`.
"""

from collections.abc import Collection, Sequence
from functools import partial

import numpy as np
import pandas as pd

from medsam_nb.errors import StudyError, require_known
from medsam_nb.evaluation.clicks import click_loops
from medsam_nb.evaluation.correction_loops import Corrected, correction_loops
from medsam_nb.evaluation.facts import case_facts, object_masks, require_numbers, slice_facts
from medsam_nb.evaluation.parts import Parts, all_rows, by_slices
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol.corrections import (
    CLICKS,
    INITIAL_PROMPTS,
    NEW_INFORMATION,
    STRATEGIES_3D,
)
from medsam_nb.protocol.designs import FRAME_CHOICES, MASK_CHOICES_3D, prompted_slices
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompts import prompt_3d, prompt_seed, prompts_2d
from medsam_nb.protocol.volume import Case


def evaluate_clicks(
    model: Model,
    case: Case,
    initial_prompts: Sequence[str],
    *,
    seed: int,
    clicks: int,
    mask_choice: str = "most_confident_mask",
    objects: Sequence[str] = (),
    features: SliceFeatures | None = None,
    parts: Parts | None = None,
) -> list[dict] | pd.DataFrame:
    """Prompt every slice that holds an object, then click where the mask is wrong, again and again.

    Parameters
    ----------
    model : Model
        Of family "sam2" or "sam".
    case : Case
    initial_prompts : sequence of str
        See `corrections.INITIAL_PROMPTS`.
    seed : int
        Of the study; ties between points are drawn from it.
    clicks : int
        At most so many after the initial prompt.
    mask_choice : {"first_mask", "most_confident_mask"}
        Of the initial prompt's candidates; a click has one mask.
    objects : sequence of str
        Only these of the case's objects; all if empty.
    features : SliceFeatures, optional
        Of the case's slices and this model, to share them with other tasks.
    parts : Parts, optional
        Where the rows of a long case are kept until it is whole; see `rows.evaluate_2d`.

    Returns
    -------
    list of dict, or DataFrame of a long case that is kept in parts
        Rows of `table.COLUMNS`, task "2d_clicks", metric "iou": for every object, slice and initial prompt a
        row after it and after each click. Loop 0 is the row of `rows.evaluate_2d`.
    """
    _require_names(initial_prompts, mask_choice)
    features = features or SliceFeatures(model, case.slices_uint8())
    truth = object_masks(case, objects)
    common = case_facts(case, model.name, "2d_clicks", "corrected") | {
        "metric": "iou",
        "mask_choice": mask_choice,
        "strategy": CLICKS,
        "new_information": "one_point",
    }

    def rows(indices: Collection[int]) -> list[dict]:
        facts = {name: slice_facts(mask, name, indices) for name, mask in truth.items()}
        asked = {}
        for name, mask in truth.items():
            for index in facts[name]:
                parts_of = prompt_seed(seed, case, name, index)
                for mode in initial_prompts:
                    (prompt,) = prompts_2d(mask[index], mode, parts_of)
                    asked[name, index, mode] = index, mask[index], prompt, parts_of
        found = []
        for (name, index, mode), steps in click_loops(
            features, asked, clicks, first=mask_choice == "first_mask"
        ):
            for loop, step in enumerate(steps):
                require_numbers(np.isfinite(step.score), model, case, index)
                scored = {"value": iou(truth[name][index], step.mask), "score": step.score}
                said = {"prompt": mode, "loop": loop, "n_prompts": loop + 1, "ended": step.ended or None}
                scored |= said | {"predicted_px": int(step.mask.sum())}
                found.append(common | facts[name][index] | scored)
        return found

    return all_rows(by_slices(truth, rows), parts)


def evaluate_loops(
    model: Model,
    case: Case,
    initial_prompts: Sequence[str],
    *,
    seed: int,
    loops: int,
    frame_choice: str = "centre_slice",
    mask_choice: str = "most_confident_mask",
    strategies: Sequence[str] = STRATEGIES_3D,
    new_information: Sequence[str] = NEW_INFORMATION,
    objects: Sequence[str] = (),
    options: PropagationOptions = PropagationOptions(),
    features: SliceFeatures | None = None,
    parts: Parts | None = None,
) -> list[dict] | pd.DataFrame:
    """Propagate initial prompts to both sides of a volume, and correct in loops by every strategy.

    Parameters
    ----------
    model : Model
        Of family "sam2".
    case : Case
        With at least two slices.
    initial_prompts, seed, objects, features
        As for `evaluate_clicks`.
    loops : int
        At most so many.
    frame_choice : str
        Slices of the initial prompts; see `designs.Design`.
    mask_choice : {"first_mask", "most_confident_mask"}
        On every slice.
    strategies, new_information : sequence of str
        See `correction_loops.correction_loops`.
    options : PropagationOptions
        With the mask scope "all".
    parts : Parts, optional
        Where the rows of each object and initial prompt are kept until the unit is whole.

    Returns
    -------
    list of dict, or DataFrame where there are several parts
        Rows of `table.COLUMNS`, task "3d_loops", metric "iou": for every object, initial prompt, strategy,
        new information and loop a row per slice that holds the object. Loop 0 is that of `rows.evaluate_3d`
        under the bidirectional design, and repeated for each curve that starts from it.
    """
    _require_names(initial_prompts, mask_choice)
    require_known("frame_choice", frame_choice, FRAME_CHOICES, what="frame choice")
    if options.mask_scope != "all":
        raise StudyError("mask_scope", f"is {options.mask_scope!r}.", "Correct with the mask scope all.")
    if options.branches_at_once > 1:
        raise StudyError(
            "branches_at_once", f"is {options.branches_at_once}.", "Loops are tracked one by one: write 1."
        )
    features = features or SliceFeatures(model, case.slices_uint8(), frames=options.frames)
    common = case_facts(case, model.name, "3d_loops", options.protocol) | {
        "metric": "iou",
        "mask_choice": mask_choice,
        "frame_choice": frame_choice,
        "direction": "bidirectional",
        "mask_scope": options.mask_scope,
        "frames": options.frames,
    }

    def rows(name: str, mode: str) -> list[dict]:
        truth = case.mask(name)
        facts = slice_facts(truth, name)
        chosen = prompted_slices(truth.sum((1, 2)), frame_choice, options.protocol)
        corrected = correction_loops(
            model,
            truth,
            {i: prompt_3d(truth[i], mode, prompt_seed(seed, case, name, i)) for i in chosen},
            features,
            prompt_seed(seed, case, name, 0)[:-1],
            strategies=strategies,
            new_information=new_information,
            loops=loops,
            first=mask_choice == "first_mask",
            options=options,
        )
        found = []
        for one in corrected:
            for index, mask in one.prediction.masks.items():
                score = one.prediction.scores[index]
                if index not in one.prompts:  # a prompt that is a mask has no score
                    require_numbers(np.isfinite(score), model, case, index)
                scored = {"value": iou(truth[index], mask), "score": score}
                scored |= {"prompt": mode, "predicted_px": int(mask.sum())}
                found.append(common | facts[index] | _loop_facts(case, one, index) | scored)
        return found

    filled = [name for name, mask in object_masks(case, objects).items() if mask.any()]
    pieces = [(f"{name}: {mode}", partial(rows, name, mode)) for name in filled for mode in initial_prompts]
    return all_rows(pieces, parts)


def _loop_facts(case: Case, one: Corrected, index: int) -> dict:
    distance = min((index - prompted for prompted in one.prompts), key=abs)
    return {
        "strategy": one.strategy,
        "new_information": one.new_information,
        "loop": one.loop,
        "n_prompts": one.given,
        "ended": one.ended or None,
        "prompted_slices": ";".join(map(str, one.prompts)),
        "distance_slices": distance,
        "distance_mm": distance * case.image.spacing_mm[0],
    }


def _require_names(initial_prompts: Sequence[str], mask_choice: str) -> None:
    for mode in initial_prompts:
        require_known("initial_prompts", mode, INITIAL_PROMPTS, what="initial prompt")
    require_known("mask_choice", mask_choice, MASK_CHOICES_3D, what="mask choice")
