"""Pictures of held-out patients before and after fine-tuning, chosen by a rule."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from medsam_nb.data.prepared import load_case
from medsam_nb.figures.slices import Panel, with_one_view
from medsam_nb.figures.words import label
from medsam_nb.models.checkpoints import Model
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.volume import Case
from medsam_nb.statistics.fine_tuning import DIRECT, gains, of_arms, with_arms
from medsam_nb.workbook.pictures import largest_slice, predict_2d, predict_3d
from medsam_nb.workbook.run import Run

QUANTILES = (0.0, 0.5, 1.0)  # of the change, whose patients are shown


def best_checkpoint(result: pd.DataFrame, jobs: pd.DataFrame) -> str:
    """Return the checkpoint of the first seed and split of the arm with the largest gain.

    Parameters
    ----------
    result : DataFrame
        Of `paired.compare`, named "3D: arm".
    jobs : DataFrame
        See `fine_tuning.with_arms`.
    """
    name = result.loc[result["difference"].astype(float).idxmax(), "comparison"].split(": ")[1]
    arms = with_arms(jobs)
    return str(arms.loc[arms["arm"] == name, "model"].iloc[0])


def telling_cases(
    run: Run, table: pd.DataFrame, jobs: pd.DataFrame, checkpoint: str, prepared_dir: str | Path
) -> list[Case]:
    """Return the held-out cases of a checkpoint with the smallest, the middle and the largest change.

    Parameters
    ----------
    run : Run
    table : DataFrame
        Rows of the checkpoint and its parent, of one task.
    jobs : DataFrame
        See `fine_tuning.with_arms`.
    checkpoint : str
    prepared_dir : str or Path
    """
    own = jobs[jobs["model"] == checkpoint]
    measured = table[table["model"] == checkpoint][["data_set", "case_id"]].drop_duplicates()
    same = table.merge(measured, on=["data_set", "case_id"])
    parent = ~same["model"].isin(jobs["model"])
    rows = of_arms(same[parent | (same["model"] == checkpoint)], own)
    arm = next(name for name in rows["model"].unique() if name != DIRECT)
    ranked = gains(rows, [arm]).sort_values("difference", kind="stable")
    places = np.unique([round(q * (len(ranked) - 1)) for q in QUANTILES])
    cases = []
    for row in ranked.iloc[places].itertuples():
        of_patient = rows[(rows["data_set"] == row.data_set) & (rows["patient_id"] == row.patient_id)]
        cases.append(load_case(run.root / prepared_dir / row.data_set / of_patient["case_id"].iloc[0]))
    return cases


def before_and_after(
    models: Mapping[str, Model],
    cases: Sequence[Case],
    objects: Sequence[str],
    how: Design | str,
    *,
    seed: int,
) -> list[Panel]:
    """Return a row of pictures per model, every case on one slice.

    In 3D it is the slice on which the models differ most by IoU; in 2D that on which the object is largest.

    Parameters
    ----------
    models : mapping of str to Model
        With what stands above their pictures.
    cases : sequence of Case
    objects : sequence of str
        The first of a case's objects that is among these is shown; its first if empty.
    how : Design or str
        A design in 3D, or a prompt in 2D.
    seed : int
    """
    columns = []
    for case in cases:
        name = next(name for name in case.objects if not objects or name in objects)
        index, masks = _masks(list(models.values()), case, name, how, seed)
        columns.append(with_one_view([_panel(case, name, index, mask) for mask in masks]))
    return [replace(column[row], row=words) for row, words in enumerate(models) for column in columns]


def _masks(
    models: Sequence[Model], case: Case, name: str, how: Design | str, seed: int
) -> tuple[int, list[np.ndarray]]:
    """Return the slice to show, and what each model predicts on it."""
    if isinstance(how, str):
        index = largest_slice(case, name)
        return index, [predict_2d(model, case, name, index, how, seed=seed)[0] for model in models]
    truth = case.mask(name)
    found = [predict_3d(model, case, name, how, seed=seed) for model in models]
    there = np.flatnonzero(truth.any((1, 2)))
    spread = [np.ptp([iou(truth[z], mask[z]) for mask in found]) for z in there]
    index = int(there[np.argmax(spread)])
    return index, [mask[index] for mask in found]


def _panel(case: Case, name: str, index: int, mask: np.ndarray) -> Panel:
    truth = case.mask(name)[index]
    title = f"{label(case.case_id)}, slice {index}"
    spacing = case.image.spacing_mm[1:]
    return Panel(case.slices_uint8()[index], truth, mask, None, iou(truth, mask), title, spacing)
