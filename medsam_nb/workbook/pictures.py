"""Predictions for pictures: a few slices computed again, with image, truth and prompt beside them.

The results table holds numbers only. A mask that a figure shows is computed anew from the same
case, prompt and seed, so its IoU is that of the table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from medsam_nb.evaluation.propagation import sweep
from medsam_nb.evaluation.single_slices import candidates
from medsam_nb.figures.slices import Panel, with_one_view
from medsam_nb.figures.words import label
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import one_thread
from medsam_nb.protocol.designs import Design, prompted_slices
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompt_sources import PromptSource
from medsam_nb.protocol.prompts import (
    MAX_COMPONENTS,
    PROMPTS_3D,
    Prompt,
    largest_components,
    prompt_3d,
    prompt_seed,
    prompts_2d,
)
from medsam_nb.protocol.volume import Case


def largest_slice(case: Case, object_name: str) -> int:
    """Return the slice where an object is largest."""
    return int(case.mask(object_name).sum((1, 2)).argmax())


def telling_example(cases: Sequence[Case], objects: Sequence[str] = ()) -> tuple[Case, str]:
    """Return the case and object that tell the prompts apart: the first of two or three components.

    Where an object has one component, a point per component is one point, and a box per component one box.
    Without such an object it is the first of the first case.

    Parameters
    ----------
    cases : sequence of Case
    objects : sequence of str
        Only these; all if empty.
    """
    pairs = [(c, name) for c in cases for name in c.objects if not objects or name in objects]
    for case, name in pairs:
        mask = case.mask(name)[largest_slice(case, name)]
        if 2 <= len(largest_components(mask, most=mask.size)) <= MAX_COMPONENTS:
            return case, name
    return pairs[0] if pairs else (cases[0], next(iter(cases[0].objects)))


def panel_of_truth(case: Case) -> Panel:
    """Return the picture of a case before any model has seen it: its first object at its largest."""
    name = next(iter(case.objects))
    index = largest_slice(case, name)
    data_set, case_id = label(case.data_set), label(case.case_id)
    title = f"{data_set}\n{'' if case_id == data_set else f'{case_id}: '}{label(name)}"
    # Copies: a view would keep the whole volume in memory, and a report shows many cases.
    grey, truth = case.slices_uint8()[index].copy(), case.mask(name)[index].copy()
    return Panel(grey, truth, title=title, spacing_mm=case.image.spacing_mm[1:])


def prompts_of_2d(
    case: Case, object_name: str, slice_index: int, mode: str, *, seed: int, source: PromptSource
) -> tuple[Prompt, ...]:
    """Return the prompts of the calls of one slice under one prompt mode, as a study gives them."""
    parts = prompt_seed(seed, case, object_name, slice_index)
    truth = case.mask(object_name)[slice_index]
    return tuple(
        source.displaced(prompt, truth, (*parts, mode, number))
        for number, prompt in enumerate(prompts_2d(truth, mode, parts))
    )


def predict_2d(
    model: Model,
    case: Case,
    object_name: str,
    slice_index: int,
    mode: str,
    *,
    seed: int,
    source: PromptSource = PromptSource(),  # noqa: B008 (frozen)
) -> tuple[np.ndarray, tuple[Prompt, ...]]:
    """Return the first mask of one slice under one prompt mode, and the prompts of its calls.

    Returns
    -------
    mask : ndarray of bool, shape (y, x)
    prompts : tuple of Prompt
    """
    prompts = prompts_of_2d(case, object_name, slice_index, mode, seed=seed, source=source)
    calls = {number: (slice_index, prompt) for number, prompt in enumerate(prompts)}
    with one_thread():
        masks = [masks[0] for _, masks, _ in candidates(model, case.slices_uint8(), calls)]
    return np.any(masks, axis=0), prompts


def panels_of_candidates(
    model: Model, case: Case, prompts: Sequence[str], *, seed: int, object_name: str | None = None
) -> list[Panel]:
    """Return, for every prompt, the three candidate masks of one slice: an object at its largest.

    Of a prompt of several calls (a box per component) each candidate is the union over the calls.
    """
    name = object_name or next(iter(case.objects))
    index = largest_slice(case, name)
    truth, panels = case.mask(name)[index], []
    for mode in prompts:
        drawn = prompts_2d(truth, mode, prompt_seed(seed, case, name, index))
        calls = {number: (index, prompt) for number, prompt in enumerate(drawn)}
        with one_thread():
            found = [(masks, scores) for _, masks, scores in candidates(model, case.slices_uint8(), calls)]
        for number in range(3):
            mask = np.any([masks[number] for masks, _ in found], axis=0)
            score = np.mean([scores[number] for _, scores in found])
            title = f"mask {number + 1}, score {score:.2f}"
            spacing = case.image.spacing_mm[1:]
            grey = case.slices_uint8()[index]
            worth, row = iou(truth, mask), label(mode, 20)
            panels.append(Panel(grey, truth, mask, drawn, worth, title, spacing, row=row))
    return panels


def panel_2d(
    model: Model,
    case: Case,
    mode: str,
    *,
    seed: int,
    object_name: str | None = None,
    slice_index: int | None = None,
) -> Panel:
    """Return the picture of one slice prompted in 2D: by default the first object at its largest."""
    name = object_name or next(iter(case.objects))
    index = largest_slice(case, name) if slice_index is None else slice_index
    mask, prompts = predict_2d(model, case, name, index, mode, seed=seed)
    truth = case.mask(name)[index]
    return Panel(
        case.slices_uint8()[index],
        truth,
        mask,
        prompts,
        iou(truth, mask),
        label(mode),
        case.image.spacing_mm[1:],
        group=f"{label(case.data_set)}: {label(name)}",
    )


def predict_3d(model: Model, case: Case, object_name: str, design: Design, *, seed: int) -> np.ndarray:
    """Return the propagated mask of one object under one design, bool, shape (z, y, x)."""
    return _predicted_3d(model, case, object_name, [design], seed=seed)[design]


def _predicted_3d(
    model: Model, case: Case, object_name: str, designs: Sequence[Design], *, seed: int
) -> dict[Design, np.ndarray]:
    """Return the propagated mask of one object under each design; what they share is computed once."""
    truth = case.mask(object_name)
    predictions = {design: np.zeros_like(truth) for design in designs}

    def prompt_of(name: str, index: int, kind: str) -> Prompt:
        return prompt_3d(truth[index], kind, prompt_seed(seed, case, name, index))

    objects, options = {object_name: truth}, PropagationOptions(until="volume_end")
    with one_thread():
        for found in sweep(model, case.slices_uint8(), objects, designs, prompt_of, options):
            for design in found.designs:
                predictions[design][found.slice_index] = found.mask
    return predictions


def panels_3d(
    model: Model, case: Case, object_name: str, design: Design, *, seed: int, count: int = 5
) -> list[Panel]:
    """Return pictures of a propagated object on slices spread from its first to its last."""
    prediction = predict_3d(model, case, object_name, design, seed=seed)
    return _spread_panels(case, object_name, design, prediction, seed=seed, count=count)


def _spread_panels(
    case: Case, object_name: str, design: Design, prediction: np.ndarray, *, seed: int, count: int
) -> list[Panel]:
    truth = case.mask(object_name)
    areas = truth.sum((1, 2))
    prompted = prompted_slices(areas, design.frame_choice)
    filled = np.flatnonzero(areas)
    chosen = set(map(int, filled[np.unique(np.linspace(0, len(filled) - 1, count).round().astype(int))]))
    for index in sorted(set(prompted) - chosen):  # a prompted slice takes the place of its neighbour
        chosen.discard(min(chosen - set(prompted), key=lambda other: abs(other - index), default=index))
    shown = sorted(chosen | set(prompted))
    pictures = []
    for index in shown:
        distance = min((index - p for p in prompted), key=abs)
        prompt = (
            prompt_3d(truth[index], design.prompt, prompt_seed(seed, case, object_name, index))
            if index in prompted
            else None
        )
        where = "prompted slice" if index in prompted else steps_away(distance)
        pictures.append(
            Panel(
                case.slices_uint8()[index],
                truth[index],
                prediction[index],
                prompt,
                iou(truth[index], prediction[index]),
                where,
                case.image.spacing_mm[1:],
                row=f"{label(case.data_set)}\n{label(object_name)}",
            )
        )
    return with_one_view(pictures)


def steps_away(distance: int) -> str:
    """Return how far a slice lies from its prompted one.

    Examples
    --------
    >>> steps_away(3), steps_away(1)
    ('+3 slices', '+1 slice')
    """
    return f"{distance:+d} slice{'' if abs(distance) == 1 else 's'}".replace("-", "\u2212")


def rows_of_panels_3d(
    model: Model, chosen: Iterable[tuple[Case, str]], design: Design, *, seed: int, count: int = 5
) -> list[Panel | None]:
    """Return `panels_3d` of several objects, each in a row of `count` places."""
    panels: list[Panel | None] = []
    for case, name in chosen:
        shown = panels_3d(model, case, name, design, seed=seed, count=count)
        panels += [*shown, *[None] * (count - len(shown))]
    return panels


def panels_of_prompts_3d(
    model: Model, case: Case, object_name: str, *, seed: int, count: int = 5
) -> list[Panel | None]:
    """Return an object carried from its centre slice in both directions, a row of pictures per prompt."""
    designs = [Design("centre_slice", kind, "bidirectional", "most_confident_mask") for kind in PROMPTS_3D]
    panels: list[Panel | None] = []
    for design, prediction in _predicted_3d(model, case, object_name, designs, seed=seed).items():
        row = _spread_panels(case, object_name, design, prediction, seed=seed, count=count)
        panels += [replace(panel, row=label(design.prompt)) for panel in row]
        panels += [None] * (count - len(row))
    return panels
