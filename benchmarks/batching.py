"""What working on several branches at once would save: parts of a tracked slice, alone and in batches.

The engine tracks one branch at a time unless it is asked for more (`branches_at_once`), because other shapes
run through other kernels, which round differently. This measures what that leaves on the table, most of all
on a GPU, where a part that is too small to fill the device waits for its launches.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.inputs import Scan
from benchmarks.measure import clock_of
from medsam_nb.evaluation import propagation
from medsam_nb.models.checkpoints import Model
from medsam_nb.protocol.designs import Design

BATCHES = (1, 4, 16)
LEAST_SECONDS = 1.0  # of repeats, for each part and batch
# Along which axis a part's inputs are stacked; what is the same for the whole batch is not.
AXES = {"memory_attention": 1, "sam_mask_decoder": 0, "memory_encoder": 0}
COMMON = ("image_pe",)


def _inputs_of_last_slice(model: Model, volume: Scan) -> dict[str, tuple[tuple, dict]]:
    """Track a volume from end to end; return each part's inputs the last time that it ran."""
    seen: dict[str, tuple[tuple, dict]] = {}
    hooks = [
        getattr(model.network, name).register_forward_pre_hook(
            lambda _, inputs, named, name=name: seen.update({name: (inputs, named)}), with_kwargs=True
        )
        for name in AXES
    ]
    design = Design("first_slice", "mask", "front_to_end", "most_confident_mask")
    for _ in propagation.sweep(model, volume.slices, volume.objects, [design], volume.prompt_of):
        pass
    for hook in hooks:
        hook.remove()
    return seen


def _stacked(value, count: int, axis: int):
    """Return `count` copies of a part's input side by side."""
    if isinstance(value, torch.Tensor):
        return torch.cat([value] * count, dim=axis)
    if isinstance(value, list | tuple):
        return type(value)(_stacked(one, count, axis) for one in value)
    return value


def _first_tensor(outputs) -> torch.Tensor:
    """Return a part's main output: features, masks, or memory features."""
    if isinstance(outputs, dict):
        return outputs["vision_features"]
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _seconds_each(part: nn.Module, inputs: tuple, named: dict, now: Callable[[], float]) -> float:
    """Return the mean time of a call, repeated for at least a second."""
    part(*inputs, **named)
    calls, start = 0, now()
    while (spent := now() - start) < LEAST_SECONDS:
        for _ in range(5):
            part(*inputs, **named)
        calls += 5
    return spent / calls


def batching(make_model: Callable[[], Model], make_volume: Callable[[int, Path], Scan]) -> list[dict]:
    """Time memory attention, mask decoder and memory encoder of one tracked slice for several batches.

    A row for each part and batch: milliseconds for each item, how many times faster that is than alone,
    and by how much the first item's output then differs from what it is alone.
    """
    model, rows = make_model(), []
    now = clock_of(model.network)
    clock = "wall" if model.device.type == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        volume = make_volume(model.image_size, Path(folder) / "slices")
        seen = _inputs_of_last_slice(model, volume)
    with torch.inference_mode(), model.precision():
        for name, axis in AXES.items():
            part, (inputs, named) = getattr(model.network, name), seen[name]
            alone_s, alone = float("nan"), _first_tensor(part(*inputs, **named))
            for batch in BATCHES:
                several = _stacked(inputs, batch, axis)
                others = {
                    key: value if key in COMMON else _stacked(value, batch, axis)
                    for key, value in named.items()
                }
                found = _first_tensor(part(*several, **others)).narrow(axis, 0, 1)
                seconds = _seconds_each(part, several, others, now) / batch
                alone_s = seconds if batch == 1 else alone_s
                rows.append(
                    {
                        "part": name,
                        "batch": batch,
                        f"{clock}_ms_each": round(1000 * seconds, 2),
                        "gain": round(alone_s / seconds, 2),
                        "largest_difference": float((found.float() - alone.float()).abs().max()),
                    }
                )
    return rows
