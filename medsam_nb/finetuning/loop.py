"""The training loop: its steps depend on settings, data and step alone, so it can stop and go on anywhere."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from medsam_nb.errors import InputError, StudyError
from medsam_nb.files import write_study_file
from medsam_nb.finetuning import sequence_steps, steps
from medsam_nb.finetuning.adapters import add_lora, merge_lora
from medsam_nb.finetuning.batches import TrainingCases, image_batch, to_device, video_batch
from medsam_nb.finetuning.settings import LEARNS, Settings
from medsam_nb.protocol.seeds import derive_seed, generator

LARGEST_GRADIENT = 1.0  # norm to which gradients are clipped
TORCH_SEEDS = 2**63  # manual_seed takes no more


def choose_parameters(model, learns: str, rank: int = 4) -> list[torch.nn.Parameter]:
    """Freeze the model except the chosen part and return what trains.

    Raises
    ------
    StudyError
        For an unknown choice.
    """
    if learns not in LEARNS:
        raise StudyError("learns", f"{learns!r} is unknown.", f"Use one of {', '.join(LEARNS)}.")
    model.requires_grad_(False)
    model.sam_mask_decoder.requires_grad_(True)
    if learns == "memory":
        for name in ("memory_attention", "memory_encoder", "obj_ptr_proj", "obj_ptr_tpos_proj"):
            getattr(model, name).requires_grad_(True)
        model.maskmem_tpos_enc.requires_grad_(True)
    if learns == "lora":
        for layer in add_lora(model, rank):
            layer.down.requires_grad_(True)
            layer.up.requires_grad_(True)
    return [p for p in model.parameters() if p.requires_grad]


class Training:
    """A network that is being fine-tuned.

    Parameters
    ----------
    network : SAM2Base
        Any SAM 2 (the video predictor is one); it is changed in place.
    cases : TrainingCases
        At the network's input size.
    settings : Settings

    Attributes
    ----------
    losses : list of float
        Of every step that was done.
    trained : int
        Number of parameters that learn.

    Raises
    ------
    StudyError
        If memory modules are to learn from single images.
    """

    def __init__(self, network, cases: TrainingCases, settings: Settings) -> None:
        if settings.learns == "memory" and all(len(cases[c][0]) < 2 for c, *_ in cases.spots):
            raise StudyError(
                "learns: memory",
                "all training cases are single images.",
                "Memory modules learn from volumes: let mask_decoder or lora learn.",
            )
        self.network, self.cases, self.settings = network, cases, settings
        self.losses: list[float] = []
        self.device = next(network.parameters()).device
        with self._seeded("adapters"):
            self.parameters = choose_parameters(network, settings.learns, settings.rank)
        self.trained = sum(parameter.numel() for parameter in self.parameters)
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=0.01, foreach=False
        )
        network.train()

    @property
    def done(self) -> int:
        """Steps that were done."""
        return len(self.losses)

    def _seeded(self, *parts: object):
        """Return a context with random numbers of its own: what was drawn before plays no part."""
        return _seeded(derive_seed(self.settings.seed, *parts) % TORCH_SEEDS, self.device)

    def step(self) -> float:
        """Do the next step; return its loss.

        Raises
        ------
        InputError
            If the loss is no number any more.
        """
        number, settings = self.done, self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = settings.rate(number)
        with self._seeded("step", number):
            loss = self._loss(generator(settings.seed, "batch", number))
            self.optimiser.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, LARGEST_GRADIENT)
        self.optimiser.step()
        self.losses.append(loss.item())
        if not torch.isfinite(loss):
            raise InputError(
                f"fine-tuning, step {number}",
                "the loss is no number.",
                "Choose a smaller learning_rate.",
            )
        return self.losses[-1]

    def _loss(self, rng) -> torch.Tensor:
        if self.settings.learns == "memory":
            batch = video_batch(self.cases, self.cases.draw(rng), self.settings.sequence, rng)
            return sequence_steps.video_step(self.network, to_device(batch, self.device))[0]
        chosen = [self.cases.draw(rng) for _ in range(self.settings.images)]
        batch = image_batch(self.cases, chosen, rng)
        return steps.image_step(self.network, None, to_device(batch, self.device))[0]

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Do the steps that are left, or until `stop` says so; return whether none is left."""
        while self.done < self.settings.steps:
            if stop():
                return False
            self.step()
        return True

    def finish(self):
        """Return the network with what it learnt, in evaluation mode; adapters become part of its weights."""
        if self.settings.learns == "lora":
            merge_lora(self.network)
        return self.network.eval().requires_grad_(False)

    def save(self, path: Path) -> None:
        """Write what is needed to go on: what learns, the optimiser's state, the losses."""
        learnt = [parameter.detach().cpu() for parameter in self.parameters]
        state = {"learnt": learnt, "optimiser": self.optimiser.state_dict(), "losses": self.losses}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_study_file(path, buffer.getvalue())

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            for parameter, value in zip(self.parameters, state["learnt"], strict=True):
                parameter.copy_(value)
            self.optimiser.load_state_dict(state["optimiser"])
            self.losses = [float(loss) for loss in state["losses"]]
        except Exception as error:  # the loader's own words for a damaged file are of any kind
            raise InputError(
                path, f"cannot be read ({type(error).__name__}).", "Delete it: this training begins anew."
            ) from error


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let a block have seeded random numbers, on the device too; those outside stay as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
