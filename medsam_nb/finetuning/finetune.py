"""Fine-tune any SAM 2 checkpoint on prepared (image, label) cases.

Three choices of what learns: the mask decoder only, the memory modules with it (trained on sequences of
slices), or low-rank adapters (LoRA, Hu et al. 2022) in the image encoder with the mask decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from medsam_nb.errors import InputError, StudyError
from medsam_nb.finetuning import sequence_steps, steps
from medsam_nb.finetuning.adapters import add_lora, merge_lora
from medsam_nb.finetuning.batches import image_batch, resize, to_device, video_batch

PARAMETERS = ("mask_decoder", "memory", "lora")


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


def choose_parameters(model, parameters: str, rank: int = 4) -> list[torch.nn.Parameter]:
    """Freeze the model except the chosen part and return what trains.

    Raises
    ------
    StudyError
        For an unknown choice.
    """
    if parameters not in PARAMETERS:
        raise StudyError("parameters", f"{parameters!r} is unknown.", f"Use one of {', '.join(PARAMETERS)}.")
    model.requires_grad_(False)
    model.sam_mask_decoder.requires_grad_(True)
    if parameters == "memory":
        for name in ("memory_attention", "memory_encoder", "obj_ptr_proj", "obj_ptr_tpos_proj"):
            getattr(model, name).requires_grad_(True)
        model.maskmem_tpos_enc.requires_grad_(True)
    if parameters == "lora":
        for layer in add_lora(model, rank):
            layer.down.requires_grad_(True)
            layer.up.requires_grad_(True)
    return [p for p in model.parameters() if p.requires_grad]


def finetune(
    model,
    cases: Sequence[tuple[np.ndarray, np.ndarray]],
    parameters: str = "mask_decoder",
    *,
    steps_total: int = 100,
    lr: float = 1e-4,
    images: int = 2,
    slices: int = 4,
    rank: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> FineTuned:
    """Fine-tune a SAM 2 model on prepared cases with box and point prompts drawn from the labels.

    Parameters
    ----------
    model : SAM2Base
        Any SAM 2 (the video predictor is one); it is changed in place.
    cases : sequence of (image, label)
        Images of float, shape (z, y, x) or in colour (z, y, x, 3), already scaled to 0..1; labels of int,
        shape (z, y, x), 0 is background and every other value is an object.
    parameters : {"mask_decoder", "memory", "lora"}
        "memory" trains on sequences of `slices` slices through the memory, the others on single slices.
    steps_total : int
    lr : float
        Of AdamW, with ten steps of warm-up and a linear decay to zero.
    images, slices : int
        Images per step, slices per sequence.
    rank : int
        Of the adapters.
    seed : int
    progress : bool

    Returns
    -------
    FineTuned

    Raises
    ------
    InputError
        When no slice of any case holds an object of at least 20 pixels at the model's size.
    """
    rng = np.random.default_rng(seed)
    size, device = model.image_size, next(model.parameters()).device
    prepared = [resize(image, label, size) for image, label in cases]
    spots = [
        (c, z, int(value))
        for c, (_, label) in enumerate(prepared)
        for z in range(len(label))
        for value, count in zip(*np.unique(label[z], return_counts=True), strict=True)
        if value and count >= 20
    ]
    if not spots:
        raise InputError(
            f"{len(cases)} cases", f"none has an object of 20 pixels at {size} x {size}.", "Check the labels."
        )
    trained = choose_parameters(model, parameters, rank)
    optimiser = torch.optim.AdamW(trained, lr=lr, weight_decay=0.01)
    losses = []
    model.train()
    for step in tqdm(range(steps_total), desc=f"fine-tune {parameters}", disable=not progress):
        factor = min(1.0, (step + 1) / 10) * (1 - step / steps_total)
        for group in optimiser.param_groups:
            group["lr"] = lr * factor
        chosen = [
            spots[int(rng.integers(len(spots)))] for _ in range(1 if parameters == "memory" else images)
        ]
        if parameters == "memory":
            loss, _ = sequence_steps.video_step(
                model, to_device(video_batch(prepared, chosen[0], slices, rng), device)
            )
        else:
            loss, _ = steps.image_step(model, None, to_device(image_batch(prepared, chosen, rng), device))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        losses.append(loss.item())
    count = sum(p.numel() for p in trained)
    if parameters == "lora":
        merge_lora(model)
    return FineTuned(model.eval(), tuple(losses), count)
