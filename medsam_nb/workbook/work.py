"""The work of a study without its notebooks: what they would compute, listed; and a share of it, computed.

A notebook marks with the tag `units` the cells that lead to what it computes: imports, `open_run` and
`run.evaluate`, or `fine_tuning.train`. They are run here with the study's parameters, and their units and
trainings are collected.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from medsam_nb.errors import StudyError
from medsam_nb.evaluation.store import Store
from medsam_nb.evaluation.unit import Unit
from medsam_nb.finetuning.jobs import Trainings
from medsam_nb.workbook.owner import claim
from medsam_nb.workbook.resolve import opened_study
from medsam_nb.workbook.run import collecting
from medsam_nb.workbook.study import defaults, notebook_path, run_folder

TAG = "units"


@dataclass(frozen=True)
class Work:
    """What a study computes.

    Attributes
    ----------
    units : dict of str to list of Unit
        By notebook; those that compute nothing, or not until others have ended, are not here. Of checkpoints
        that are not trained yet there are none.
    trainings : dict of str to list of Trainings
        By notebook.
    not_planned : list of str
        Why a notebook could not be planned, a sentence each; the others are.
    store : Store
        Of the study.
    workers : int
        Processes that the study asks for.
    """

    units: dict[str, list[Unit]]
    trainings: dict[str, list[Trainings]]
    not_planned: list[str]
    store: Store
    workers: int

    @property
    def untrained(self) -> int:
        """How many checkpoints are not trained yet."""
        return len({job.name for some in self.trainings.values() for each in some for job in each.waiting})

    @property
    def all_units(self) -> list[Unit]:
        """Every unit once."""
        return list({unit.key.digest: unit for units in self.units.values() for unit in units}.values())


def work_of_study(path: Path, overrides: Mapping[str, Any] | None = None) -> Work:
    """Return the units and trainings of a study, as its notebooks would plan them.

    Parameters
    ----------
    path : Path
        The study's YAML file.
    overrides : mapping
        Parameters that replace those of the file.

    Raises
    ------
    WorkbookError
        If the study cannot be done as it is written, if weights are missing, or if its folder belongs to
        another study.
    StudyError
        If no case is prepared, or no notebook of the study computes anything or can be planned.
    """
    path, study, parameters = opened_study(path, overrides)
    claim(run_folder(study), path)
    found, refused = {}, {}
    for name, given in parameters.items():
        cells = _tagged(name)
        if not cells:
            continue
        values: dict[str, Any] = defaults(name) | given
        with collecting() as work:
            try:
                for number, cell in enumerate(cells, 1):
                    exec(compile(cell, f"{name}, cell {number} of `{TAG}`", "exec"), values)
            except StudyError as error:  # such as too few patients to train on: the others can be computed
                refused[name] = error
                continue
        found[name] = (work, values.get("workers", 0))
    if refused and not any(work.units or work.trainings for work, _ in found.values()):
        raise next(iter(refused.values()))
    if not found:
        raise StudyError(path, "none of its notebooks computes anything.", "Run it with `medsam-nb run`.")
    if not any(work.units or work.trainings for work, _ in found.values()):
        raise StudyError(
            path, "there is no prepared case.", "Run 01_prepare_data first, alone or in a study of its own."
        )
    return Work(
        {name: work.units for name, (work, _) in found.items()},
        {name: work.trainings for name, (work, _) in found.items() if work.trainings},
        [f"{name} is not planned: {error}" for name, error in refused.items()],
        Store(run_folder(study) / "rows"),
        max(workers for _, workers in found.values()),
    )


def _tagged(name: str) -> list[str]:
    notebook = nbformat.read(notebook_path(name), as_version=4)
    return [cell.source for cell in notebook.cells if TAG in cell.metadata.get("tags", [])]
