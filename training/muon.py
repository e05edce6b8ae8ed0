"""Optimisers: Muon for weight matrices (Jordan et al. 2024), in float32 for CPUs, AdamW for the rest.

Muon is momentum with orthogonalised updates. Matrices of equal shape are stacked, and the five
Newton-Schulz steps run on the small Gram matrix, which is several times faster on a CPU than
`torch.optim.Muon` in bfloat16.
"""

from __future__ import annotations

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# Larger matrices cost more in the Newton-Schulz steps than they gain on a CPU.
LARGEST = 150_000


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Approximate nearest semi-orthogonal matrices by Newton-Schulz steps.

    Parameters
    ----------
    matrices : Tensor, shape (n, rows, columns)
    steps : int

    Returns
    -------
    Tensor of the same shape
        Singular values between about 0.7 and 1.2.
    """
    transposed = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if transposed else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    identity = torch.eye(x.shape[1], device=x.device, dtype=x.dtype).expand(x.shape[0], -1, -1)
    gram, product = x @ x.transpose(1, 2), identity
    for _ in range(steps):
        step = a * identity + b * gram + c * (gram @ gram)
        product, gram = step @ product, step @ gram @ step
    result = product @ x
    return result.transpose(1, 2) if transposed else result


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, decoupled weight decay and update size matched to AdamW.

    Parameters
    ----------
    params : iterable of Tensor
        Two-dimensional weights only.
    lr : float
    momentum : float
    weight_decay : float
    update_rms : float
        Root mean square of an update at lr 1 (0.2 as in Moonlight, Liu et al. 2025).
    """

    def __init__(self, params, lr=1e-3, momentum=0.95, weight_decay=0.05, update_rms=0.2):
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "update_rms": update_rms}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for shape, parameters in by_shape.items():
                self._update(parameters, shape, group)
        return loss

    def _update(self, parameters, shape, group):
        directions = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].mul_(group["momentum"]).add_(parameter.grad)
            directions.append(parameter.grad + group["momentum"] * state["momentum"])
        updates = orthogonalise(torch.stack(directions))
        scale = group["update_rms"] * max(shape) ** 0.5 * group["lr"]
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)


def build_optimisers(model, head, lr: float):
    """Muon for the attention and MLP matrices, AdamW for everything else."""
    blocks = (
        "trunk.blocks",
        "image_encoder.blocks",
        "transformer.layers",
        "final_attn",
        "memory_attention.layers",
    )
    matrices, decayed, plain = [], [], []
    for name, parameter in [*model.named_parameters(), *head.named_parameters(prefix="head")]:
        small = parameter.ndim == 2 and parameter.numel() <= LARGEST and "rel_pos" not in name
        if small and any(block in name for block in blocks):
            matrices.append(parameter)
            continue
        (decayed if parameter.ndim >= 2 else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    return Muon(matrices, lr=2 * lr), torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
