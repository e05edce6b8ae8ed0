"""How far back the model may look: its window of memories, set without retraining or copying it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import nn
from torch.nn import functional

from medsam_nb.models.sharing import replaced
from medsam_nb.protocol.options import MemoryWindow


def temporal_rows(window: MemoryWindow, trained: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of a window, shape (memories, 1, 1, channels).

    Row k - 1 of the trained ones belongs to the slice k back, and the last row to prompted slices.
    """
    recent, prompted = trained[:-1], trained[-1:]
    wanted = window.memories - 1
    if wanted <= len(recent):
        return torch.cat([recent[:wanted], prompted])
    if window.beyond == "repeated":
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
    if window.memories != memories:
        network.maskmem_tpos_enc = nn.Parameter(temporal_rows(window, trained), requires_grad=False)
        network.num_maskmem = window.memories
    network.memory_temporal_stride_for_eval = window.stride
    try:
        with replaced(network, "_prepare_memory_conditioned_features", count_distant_pointers):
            yield
    finally:
        hook.remove()
        network.maskmem_tpos_enc, network.memory_temporal_stride_for_eval = trained, stride
        network.num_maskmem = memories
