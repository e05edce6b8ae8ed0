"""What a training run changes: the networks, by their optimisers; averages over steps and over ranks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed

from medsam_nb.models import miniature
from medsam_nb.models.checkpoints import read_weights
from training import initialisation
from training.muon import build_optimisers
from training.plan import Plan, Stage


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Let the block take the smallest numbers for 0, which is faster; then it computes as before.

    The setting is the processor's, not torch's: left on, it would change what NumPy computes later.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def build(plan: Plan, size: int):
    """Network of the plan at an input size, with structured initialisation (and warm start, if asked)."""
    model = miniature.build_sam2(size) if plan.model == "sam2" else miniature.build_sam(size)
    initialisation.initialise_prompting(model)
    if plan.start_from:
        given = read_weights(Path(plan.start_from))
        own = model.state_dict()
        if plan.model == "sam2":
            given = initialisation.deepened(given)
        else:  # where SAM 2 has the same part, its name begins with "sam_"
            given |= {name.removeprefix("sam_"): value for name, value in given.items()}
        own.update({k: v for k, v in given.items() if k in own and own[k].shape == v.shape})
        model.load_state_dict(own)
    return model


def has_memory(plan: Plan) -> bool:
    """Return whether a warm start brings a memory attention, which must not be initialised again."""
    if not plan.start_from:
        return False
    return any(name.startswith("memory_attention.") for name in read_weights(Path(plan.start_from)))


class Averager:
    """Averages gradients over ranks in one call and shares rank 0's clock with it."""

    def __init__(self, parameters, ranks: int, rank: int):
        self.parameters, self.ranks, self.rank = list(parameters), ranks, rank

    def __call__(self, clock: float) -> float:
        for p in self.parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self.ranks == 1:
            return clock
        own = torch.tensor([clock if self.rank == 0 else 0.0])
        flat = torch.cat([p.grad.view(-1) for p in self.parameters] + [own])
        torch.distributed.all_reduce(flat)
        offset = 0
        for p in self.parameters:
            p.grad.copy_(flat[offset : offset + p.numel()].view_as(p)).div_(self.ranks)
            offset += p.numel()
        return float(flat[-1])


class Trained:
    """What a stage trains: network and metric head, with their optimisers; `average` is the network's."""

    def __init__(self, model, head, stage: Stage):
        self.model, self.head, self.ema = model.train(), head, stage.ema
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.muon, self.adam = build_optimisers(model, head, stage.lr)
        self.parameters = [p for p in [*model.parameters(), *head.parameters()] if p.requires_grad]

    def load(self, saved: dict) -> None:
        """Continue from what `Trainer.save` wrote in the middle of a stage."""
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        for name in ("head", "muon", "adam"):
            getattr(self, name).load_state_dict(saved[name])

    def update(self, step: int, lr: float) -> None:
        """Take one step along the gradients (none where they are not finite), and forget them."""
        self.muon.param_groups[0]["lr"] = 2 * lr
        for group in self.adam.param_groups:
            group["lr"] = lr
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if torch.isfinite(norm):
            self.muon.step()
            self.adam.step()
            decay = min(self.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.average.parameters()), list(self.model.parameters()), 1 - decay
                )
        for p in self.parameters:
            p.grad = None
