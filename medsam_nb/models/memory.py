"""How far back the model may look: its window of memories, set without retraining or copying it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import nn
from torch.nn import functional

TRAINED_MEMORIES = 7


@dataclass(frozen=True)
class MemoryWindow:
    """What a tracked slice may attend to, besides the prompted slices.

    Attributes
    ----------
    memories : int
        Spatial memories, the prompted slices' counted as one: 7 is the released model, 1 sees only
        prompted slices. Up to 7 every memory keeps the temporal embedding it was trained with, as at
        the start of any video; above, see `beyond`.
    stride : int
        The last slice, then slices at multiples of the stride (of the slice number, so it depends on
        where the volume starts). The embeddings were trained with 1.
    pointers : int
        Object pointers (one vector per slice): those of prompted slices, and of the last
        `pointers` - 1 slices. The released model has 16. Their scale of time stays that of the
        released model, which would otherwise change with their number.
    beyond : {"repeated", "interpolated"}
        For more than 7 memories there are no trained embeddings: repeat the one of the oldest slice,
        or stretch the six there are. Both are approximations.
    """

    memories: int = TRAINED_MEMORIES
    stride: int = 1
    pointers: int = 16
    beyond: str = "repeated"

    def __post_init__(self) -> None:
        if self.memories < 1 or self.stride < 1 or not 1 <= self.pointers <= 16:
            raise ValueError(f"memories and stride are at least 1, pointers 1 to 16, not {self}")
        if self.beyond not in ("repeated", "interpolated"):
            raise ValueError(f"unknown way to go beyond the trained memories: {self.beyond!r}")

    @property
    def is_exact(self) -> bool:
        """Whether every memory has a trained temporal embedding."""
        return self.memories <= TRAINED_MEMORIES

    @property
    def reach(self) -> int:
        """How many slices back a spatial memory may be read."""
        return max(1, (self.memories - 2) * self.stride + 1) if self.memories > 1 else 0

    def temporal_rows(self, trained: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of this window, shape (memories, 1, 1, channels).

        Row k - 1 of the trained ones belongs to the slice k back, and the last row to prompted slices.
        """
        recent, prompted = trained[:-1], trained[-1:]
        wanted = self.memories - 1
        if wanted <= len(recent):
            return torch.cat([recent[:wanted], prompted])
        if self.beyond == "repeated":
            further = recent[-1:].expand(wanted - len(recent), -1, -1, -1)
            return torch.cat([recent, further, prompted])
        rows = recent.flatten(1).T[None]  # (1, channels, slices back)
        stretched = functional.interpolate(rows, size=wanted, mode="linear", align_corners=True)
        return torch.cat([stretched[0].T.reshape(wanted, *recent.shape[1:]), prompted])


@contextmanager
def looking_back(network: SAM2Base, window: MemoryWindow) -> Iterator[None]:
    """Give the network a memory window for the time being; its weights are untouched afterwards.

    It also lets memories, which are always stored as bfloat16, be read in float32 arithmetic. The
    package does that by accident where an object pointer stands beside them, and fails where there
    is none, on the slices before the first prompted one (github.com/facebookresearch/sam2/issues/308).
    The values are the same.
    """
    trained, stride = network.maskmem_tpos_enc, network.memory_temporal_stride_for_eval
    memories = network.num_maskmem
    look_up = network._prepare_memory_conditioned_features
    too_far = 0

    def count_distant_pointers(**question):
        nonlocal too_far
        step = 1 if question.get("track_in_reverse") else -1
        tracked = question["output_dict"]["non_cond_frame_outputs"]
        furthest = min(question["num_frames"], network.max_obj_ptrs_in_encoder)
        distances = range(window.pointers, furthest)
        too_far = sum(question["frame_idx"] + step * distance in tracked for distance in distances)
        return look_up(**question)

    def adapt_memory(_module, _args, inputs):
        if not torch.is_autocast_enabled(inputs["memory"].device.type):
            inputs["memory"] = inputs["memory"].float()
        if too_far:  # the pointers come last, the most distant one at the very end
            tokens = too_far * (network.hidden_dim // network.mem_dim)
            inputs["memory"] = inputs["memory"][:-tokens]
            inputs["memory_pos"] = inputs["memory_pos"][:-tokens]
            inputs["num_obj_ptr_tokens"] -= tokens
        return (), inputs

    hook = network.memory_attention.register_forward_pre_hook(adapt_memory, with_kwargs=True)
    network._prepare_memory_conditioned_features = count_distant_pointers
    if window.memories != memories:
        network.maskmem_tpos_enc = nn.Parameter(window.temporal_rows(trained), requires_grad=False)
        network.num_maskmem = window.memories
    network.memory_temporal_stride_for_eval = window.stride
    try:
        yield
    finally:
        hook.remove()
        del network._prepare_memory_conditioned_features
        network.maskmem_tpos_enc, network.memory_temporal_stride_for_eval = trained, stride
        network.num_maskmem = memories
