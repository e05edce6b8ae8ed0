"""Pictures of held-out patients before and after fine-tuning, chosen by a rule."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medsam_nb.data.prepare import load_case
from medsam_nb.figures.slices import Panel
from medsam_nb.figures.words import label
from medsam_nb.models.checkpoints import Model
from medsam_nb.protocol.designs import Design, prompted_slices
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.volume import Case
from medsam_nb.statistics.fine_tuning import DIRECT, gains, of_arms, with_arms
from medsam_nb.workbook.pictures import largest_slice, panel_2d, predict_3d
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
    models: Sequence[tuple[str, Model]],
    cases: Sequence[Case],
    objects: Sequence[str],
    how: Design | str,
    *,
    seed: int,
) -> list[Panel]:
    """Return a row of pictures per model: every case on one slice.

    In 3D the slice lies halfway from the prompted one to the object's end; in 2D the object is largest on it.

    Parameters
    ----------
    models : sequence of (str, Model)
        With what stands above their pictures.
    cases : sequence of Case
    objects : sequence of str
        The first of a case's objects that is among these is shown; its first if empty.
    how : Design or str
        A design in 3D, or a prompt in 2D.
    seed : int
    """
    panels = []
    for words, model in models:
        for case in cases:
            name = next(name for name in case.objects if not objects or name in objects)
            panel = _of_slice(model, case, name, how, seed)
            panels.append(Panel(**{**vars(panel), "title": f"{words}: {label(case.case_id)}"}))
    return panels


def _of_slice(model: Model, case: Case, name: str, how: Design | str, seed: int) -> Panel:
    if isinstance(how, str):
        return panel_2d(model, case, how, seed=seed, object_name=name, slice_index=largest_slice(case, name))
    truth = case.mask(name)
    areas = truth.sum((1, 2))
    last = int(np.flatnonzero(areas)[-1])
    index = (max(prompted_slices(areas, how.frame_choice)) + last + 1) // 2
    index = int(min(np.flatnonzero(areas), key=lambda other: abs(other - index)))
    mask = predict_3d(model, case, name, how, seed=seed)[index]
    return Panel(
        case.slices_uint8()[index],
        truth[index],
        mask,
        iou=iou(truth[index], mask),
        spacing_mm=case.image.spacing_mm[1:],
    )
