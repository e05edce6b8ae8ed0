"""Pictures of corrections: a click into an error, and a volume from loop to loop, computed again."""

from collections.abc import Iterable, Mapping

import numpy as np

from medsam_nb.evaluation.clicks import click_loops
from medsam_nb.evaluation.correction_loops import Corrected, correction_loops
from medsam_nb.figures.slices import Panel, with_one_view
from medsam_nb.figures.words import label
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import SliceFeatures, one_thread
from medsam_nb.protocol.designs import prompted_slices
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.prompts import Prompt, prompt_3d, prompt_seed, prompts_2d
from medsam_nb.protocol.volume import Case
from medsam_nb.workbook.pictures import largest_slice


def panels_of_click(
    model: Model,
    chosen: Iterable[tuple[Case, str]],
    initial: str,
    *,
    seed: int,
    mask_choice: str = "most_confident_mask",
) -> list[Panel | None]:
    """Return a row of four pictures for each object, at its largest: prompt, error, click, new mask.

    Where nothing is to be corrected, the places of click and new mask stay empty.
    """
    panels: list[Panel | None] = []
    for case, name in chosen:
        index, grey, spacing = largest_slice(case, name), case.slices_uint8(), case.image.spacing_mm[1:]
        truth, parts = case.mask(name)[index], prompt_seed(seed, case, name, index)
        (prompt,) = prompts_2d(truth, initial, parts)
        with one_thread():
            features = SliceFeatures(model, grey, budget_bytes=0)
            asked, first = {"": (index, truth, prompt, parts)}, mask_choice == "first_mask"
            ((_, steps),) = click_loops(features, asked, 1, first=first)
        before = steps[0]
        what = {"truth": truth, "spacing_mm": spacing, "row": f"{label(case.data_set)}\n{label(name)}"}
        head, row = label(initial), []
        worth = iou(truth, before.mask)
        row.append(Panel(grey[index], **what, prediction=before.mask, prompt=prompt, iou=worth, title=head))
        wrong = {"prediction": before.mask, "errors": True} | what
        row.append(Panel(grey[index], **wrong, title="error"))
        if len(steps) > 1:
            after = steps[1]
            place, positive = after.prompt.points[-1], after.prompt.point_labels[-1]
            click = Prompt((place,), labels=(positive,))
            said = "click: a miss" if positive else "click: an excess"
            row.append(Panel(grey[index], **wrong, prompt=click, title=said))
            worth, both = iou(truth, after.mask), (prompt, click)
            shown = {"prediction": after.mask, "prompt": both, "iou": worth, "title": "new mask"}
            row.append(Panel(grey[index], **what, **shown))
        panels += [*with_one_view(row), *[None] * (4 - len(row))]
    return panels


def corrected_loops(
    model: Model,
    case: Case,
    object_name: str,
    initial: str,
    strategy: str,
    new_information: str,
    *,
    seed: int,
    loops: int,
    frame_choice: str = "centre_slice",
    mask_choice: str = "most_confident_mask",
) -> list[Corrected]:
    """Return an object after every loop of corrections, as the table has it."""
    truth = case.mask(object_name)
    chosen = prompted_slices(truth.sum((1, 2)), frame_choice)
    parts = prompt_seed(seed, case, object_name, 0)[:-1]
    with one_thread():
        found = correction_loops(
            model,
            truth,
            {index: prompt_3d(truth[index], initial, (*parts, index)) for index in chosen},
            SliceFeatures(model, case.slices_uint8()),
            parts,
            strategies=[strategy],
            new_information=[new_information],
            loops=loops,
            first=mask_choice == "first_mask",
        )
        return [one for one in found if one.strategy == strategy]


def panels_of_loops(
    case: Case, object_name: str, loops: Iterable[Corrected], count: int = 6
) -> list[Panel | None]:
    """Return a row of pictures for every loop: slices spread over the object, with the prompts on them.

    Slices that are prompted in the last loop take the places of their neighbours.
    """
    loops, truth, grey = list(loops), case.mask(object_name), case.slices_uint8()
    filled = np.flatnonzero(truth.any((1, 2)))
    prompts: Mapping[int, Prompt] = loops[-1].prompts
    shown = {int(i) for i in filled[np.unique(np.linspace(0, len(filled) - 1, count).round().astype(int))]}
    for index in sorted(set(prompts) - shown):
        if free := shown - set(prompts):
            shown = (shown - {min(free, key=lambda other: abs(other - index))}) | {index}
    rows = []
    for one in loops:
        masks = one.prediction.masks
        mean = np.mean([iou(truth[index], mask) for index, mask in masks.items()])
        row = [
            Panel(
                grey[index],
                truth[index],
                masks[index],
                one.prompts.get(index),
                iou(truth[index], masks[index]),
                f"slice {index}",
                case.image.spacing_mm[1:],
                row=f"loop {one.loop}\nmean IoU {mean:.2f}",
            )
            for index in sorted(shown)
        ]
        rows.append(row)
    views = iter(with_one_view([panel for row in rows for panel in row]))
    gap = [None] * (count - len(shown))
    return [panel for row in rows for panel in (*[next(views) for _ in row], *gap)]
