"""The pictures behind rows of the results table: image, truth, prompt, and the mask that was scored.

A mask that the run has kept is read; others are computed again from case, prompt and seed of the row.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from medsam_nb.data.prepared import load_case
from medsam_nb.errors import InputError, StudyError
from medsam_nb.evaluation.propagation import sweep
from medsam_nb.figures.slices import Panel, with_one_view
from medsam_nb.figures.words import label
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import one_thread
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.options import RELEASED_MEMORY, PropagationOptions
from medsam_nb.protocol.prompt_sources import PromptSource, parse_source
from medsam_nb.protocol.prompts import Prompt, prompt_3d, prompt_seed
from medsam_nb.protocol.volume import Case
from medsam_nb.workbook.kept_masks import KeptMasks
from medsam_nb.workbook.pictures import predict_2d, prompts_of_2d, steps_away


def _source_of(row: pd.Series) -> PromptSource:
    """Return where a row's prompts came from; tables of before have those of the truth."""
    name = row.get("prompt_source")
    name = "truth" if name is None or pd.isna(name) else str(name)
    if name.startswith("file:"):
        raise StudyError("picture", f"the prompts came from {name}.", "Open the file in 10_explore_prompts.")
    return parse_source(name)


def panels_of_row(
    model: Model,
    case: Case,
    row: pd.Series,
    *,
    seed: int,
    heading: str = "",
    remark: str = "",
    kept: KeptMasks | None = None,
) -> list[Panel]:
    """Return pictures of a row of the results table: in 3D the prompted slice first, then its own.

    Parameters
    ----------
    row : Series
        A row of one slice (`table.COLUMNS`); in 2D of the first mask, unless its mask was kept.
    heading : str
        First words of the titles.
    remark : str
        Last words of the title of the row's own slice.
    kept : KeptMasks, optional
        Of the run whose row it is.

    Raises
    ------
    InputError
        If the mask that was kept is not the one that the row scored.
    """
    name, index, source = row["object"], int(row["slice_index"]), _source_of(row)
    truth, grey, spacing = case.mask(name), case.slices_uint8(), case.image.spacing_mm[1:]
    stored = None if kept is None else kept.of_row(row)
    if stored is not None and iou(truth[index], stored[index]) != row["value"]:
        item = f"{case.data_set}/{case.case_id}, slice {index}"
        raise InputError(item, "its kept mask is not the one of the table.", "Run the notebook that kept it.")
    if row["task"] == "2d":
        shown = _in_2d(model, case, row, seed, source, stored)
    else:
        shown = _in_3d(model, case, row, seed, source, stored)
    title, pictures = f"{heading}{case.data_set} {case.case_id}: {name}", []
    for place, mask, prompt, words in shown:
        words = f"{title}{words}{remark if place == index else ''}"
        score = iou(truth[place], mask)
        pictures.append(Panel(grey[place], truth[place], mask, prompt, score, words, spacing))
    return pictures


Shown = list[tuple[int, np.ndarray, Prompt | tuple[Prompt, ...] | None, str]]  # slice, mask, prompt, words


def _in_2d(
    model: Model, case: Case, row: pd.Series, seed: int, source: PromptSource, stored: np.ndarray | None
) -> Shown:
    name, index, mode = row["object"], int(row["slice_index"]), row["prompt"]
    if stored is not None:
        prompts = prompts_of_2d(case, name, index, mode, seed=seed, source=source)
        return [(index, stored[index], prompts, f", {mode}")]
    if row["mask_choice"] != "first_mask":
        raise StudyError("picture", f"of 2D masks by {row['mask_choice']!r}.", "Choose first masks.")
    mask, prompts = predict_2d(model, case, name, index, mode, seed=seed, source=source)
    return [(index, mask, prompts, f", {mode}")]


def _in_3d(
    model: Model, case: Case, row: pd.Series, seed: int, source: PromptSource, stored: np.ndarray | None
) -> Shown:
    name, index, distance = row["object"], int(row["slice_index"]), int(row["distance_slices"])
    design = Design(row["frame_choice"], row["prompt"], row["direction"], row["mask_choice"])
    truth, near = case.mask(name), index - distance

    def prompt_of(name: str, index: int, kind: str) -> Prompt:
        parts = prompt_seed(seed, case, name, index)
        return source.displaced(prompt_3d(truth[index], kind, parts), truth[index], (*parts, kind, 0))

    masks = {} if stored is None else {near: stored[near], index: stored[index]}
    if stored is None:
        if row["memory"] != RELEASED_MEMORY:
            raise StudyError(
                "picture", f"of a mask with {row['memory']}.", "Keep masks in 03_propagate_3d (`masks`)."
            )
        options = PropagationOptions(
            protocol=row["protocol"], mask_scope=row["mask_scope"], frames=row["frames"]
        )
        with one_thread():
            slices = case.slices_uint8()
            for found in sweep(model, slices, {name: truth}, (design,), prompt_of, options):
                masks[found.slice_index] = found.mask
                if {near, index} <= set(masks):  # what comes after is not shown
                    break
    prompted = near, masks[near], prompt_of(name, near, design.prompt), ", prompted"
    return [prompted, (index, masks[index], None, f", {distance:+d} slices")]


def _can_be_drawn(row: pd.Series, kept: KeptMasks | None) -> bool:
    """Whether a row says all that its picture takes: prompts of a file, and other memories, it only names."""
    if str(row["prompt_source"]).startswith("file:"):
        return False
    as_released = row["task"] == "2d" or row["memory"] == RELEASED_MEMORY
    return as_released or (kept is not None and kept.of_row(row) is not None)


def panels_of_rows(
    model: Model,
    chosen: pd.DataFrame,
    prepared_dir: Path,
    *,
    seed: int,
    kept: KeptMasks | None = None,
) -> list[Panel | None]:
    """Return the pictures of the chosen rows, as many per row of the table.

    Parameters
    ----------
    chosen : DataFrame
        Of `gallery.spread_of_cases`, whose modalities then fill three places each, or of
        `gallery.failures`. Where the prepared case is not there (a table of another place), or a mask cannot
        be computed again from its row, the places stay empty.
    kept : KeptMasks, optional
        See `panels_of_row`.
    """
    width = 2 if (chosen["task"] == "3d").any() else 1
    pictures: list[Panel | None] = []
    spread = "rank" in chosen
    for _, group in chosen.groupby("modality", dropna=False) if spread else [("", chosen)]:
        for _, row in group.iterrows():
            heading = ""
            if spread:
                place = row["rank"] if row["n_cases"] == 1 else f"{row['rank']} of {row['n_cases']}"
                heading = f"{place}, mean {row['case_mean']:.2f}: "
            remark = "" if spread else f", {row['reason']}"
            folder = Path(prepared_dir) / row["data_set"] / row["case_id"]
            if (folder / "case.json").is_file() and _can_be_drawn(row, kept):
                case = load_case(folder)
                words = {"heading": heading, "remark": remark}
                found = panels_of_row(model, case, row, seed=seed, kept=kept, **words)
                pictures += _for_print(found, case, row, heading)
            else:
                pictures += [None] * width
        if spread:
            pictures += [None] * (-len(pictures) % (3 * width))
    return pictures


def _for_print(panels: list[Panel], case: Case, row: pd.Series, heading: str) -> list[Panel]:
    """Return the panels of a row with short titles, cropped alike; which case it is goes to the table.

    What they have in common is written once above them. The modality stands beside its row where a row has
    one, otherwise the data set and the design above. An IoU beside a threshold is printed to a digit more.
    """
    lines = [f"{heading.removesuffix(': ')}, {label(row['object'])}"]
    if not heading:
        lines = [f"{label(row['data_set'])}, {label(row['object'])}: {row['reason']}"]
        lines += [", ".join(dict.fromkeys([label(row["prompt"]), label(row["frame_choice"])]))]
        lines += [f"{label(row['direction'])}, {label(row['mask_choice'])}"]
    in_3d = row["task"] == "3d"
    titles = ["prompted slice", steps_away(int(row["distance_slices"]))] if in_3d else [""]
    if not in_3d:  # one panel's width has no place for one line
        lines = [heading.removesuffix(": "), label(row["object"])]
    return [
        replace(
            panel,
            title=title or "\n".join(lines),
            group="\n".join(lines) if in_3d else "",
            source=panel.title,
            row=label(row["modality"]) if heading else "",
            bar=case.image.array.shape[0] > 1,  # a picture's pixels have no known size
            decimals=2 if heading else 3,
        )
        for panel, title in zip(with_one_view(panels), titles, strict=True)
    ]
