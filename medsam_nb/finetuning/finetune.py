"""Fine-tune any SAM 2 on images and labels in memory; `jobs` takes prepared cases and keeps the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from medsam_nb.finetuning.batches import TrainingCases
from medsam_nb.finetuning.loop import Training
from medsam_nb.finetuning.settings import Settings


@dataclass(frozen=True)
class FineTuned:
    """Result of `finetune`.

    Attributes
    ----------
    model : SAM2Base
        The model that was given, in evaluation mode, with the trained weights (adapters merged).
    losses : tuple of float
        Training loss per step.
    trained : int
        Number of trained parameters.
    """

    model: torch.nn.Module
    losses: tuple[float, ...]
    trained: int


def finetune(
    model, cases: Sequence[tuple[np.ndarray, np.ndarray]], settings: Settings, *, progress: bool = True
) -> FineTuned:
    """Fine-tune a SAM 2 model with box, point and mask prompts drawn from the labels.

    Parameters
    ----------
    model : SAM2Base
        Any SAM 2 (the video predictor is one); it is changed in place.
    cases : sequence of (image, label)
        See `TrainingCases`.
    settings : Settings
    progress : bool

    Returns
    -------
    FineTuned

    Raises
    ------
    InputError
        When no slice of any case holds an object of at least 20 pixels at the model's size.
    StudyError
        See `Training`.
    """
    loaders = [lambda case=case: case for case in cases]
    training = Training(model, TrainingCases(loaders, model.image_size), settings)
    for _ in tqdm(range(settings.steps), desc=f"fine-tune {settings.learns}", disable=not progress):
        training.step()
    return FineTuned(training.finish(), tuple(training.losses), training.trained)
