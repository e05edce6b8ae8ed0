"""Low-rank adapters (LoRA, Hu et al. 2022) in the image encoder of a SAM 2."""

from __future__ import annotations

import math

import torch


class LoraLinear(torch.nn.Module):
    """A frozen linear layer plus a trained low-rank correction (zero at the start)."""

    def __init__(self, linear: torch.nn.Linear, rank: int = 4):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        weight = linear.weight
        self.down = torch.nn.Parameter(
            torch.randn(rank, weight.shape[1], device=weight.device) / math.sqrt(rank)
        )
        self.up = torch.nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + x @ self.down.T @ self.up.T

    @torch.no_grad()
    def merged(self) -> torch.nn.Linear:
        """The plain linear layer with the correction added to its weight."""
        self.linear.weight.add_(self.up @ self.down)
        return self.linear


def add_lora(model, rank: int = 4) -> list[LoraLinear]:
    """Replace the attention projections of the image encoder by `LoraLinear`, in place."""
    added = []
    for block in model.image_encoder.trunk.blocks:
        for name in ("qkv", "proj"):
            layer = LoraLinear(getattr(block.attn, name), rank)
            setattr(block.attn, name, layer)
            added.append(layer)
    return added


def merge_lora(model) -> None:
    """Undo `add_lora`, keeping what was learned, so that the state dict has its official keys again."""
    for block in model.image_encoder.trunk.blocks:
        for name in ("qkv", "proj"):
            layer = getattr(block.attn, name)
            if isinstance(layer, LoraLinear):
                setattr(block.attn, name, layer.merged())
