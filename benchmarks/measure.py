"""Counts and CPU seconds of a network's expensive parts, and the FLOPs of the largest one."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from benchmarks.inputs import official_model
from medsam_nb.models.sharing import replaced


def _innermost(network: nn.Module) -> dict[str, nn.Module]:
    """Return by name a module within each expensive part, which runs only when the part computes."""
    if not isinstance(network, SAM2Base):
        return {"encodes": network.image_encoder, "decodes": network.mask_decoder}
    return {
        "encodes": network.image_encoder.trunk,
        "attention_steps": network.memory_attention.norm,
        "decodes": network.sam_mask_decoder.transformer,
        "memories": network.memory_encoder.fuser,
    }


def clock_of(network: nn.Module) -> Callable[[], float]:
    """Return a clock: CPU seconds of this process, or on a GPU seconds at which its work is finished."""
    device = next(network.parameters()).device
    if device.type != "cuda":
        return time.process_time

    def when_finished() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return when_finished


@contextmanager
def measured(network: nn.Module) -> Iterator[tuple[Counter, Counter]]:
    """Count how often the expensive parts compute; for SAM 2 also time them, by `clock_of`.

    The sum of an engine's times is the floor of an exact one: each distinct call of the package's own
    modules, once.
    """
    counts, seconds, now = Counter(), Counter(), clock_of(network)

    def timing(name, function):
        def timed(*inputs, **named_inputs):
            start = now()
            try:
                return function(*inputs, **named_inputs)
            finally:
                seconds[name] += now() - start

        return timed

    with ExitStack() as stack:
        for name, module in _innermost(network).items():
            hook = module.register_forward_hook(lambda *_, name=name: counts.update([name]))
            stack.callback(hook.remove)
        if isinstance(network, SAM2Base):
            started = []
            attention = network.memory_attention
            before = attention.register_forward_pre_hook(lambda *_: started.append(now()))
            after = attention.register_forward_hook(
                lambda *_: seconds.update(memory_attention=now() - started.pop())
            )
            stack.callback(before.remove)
            stack.callback(after.remove)
            names = {"encoder": "forward_image", "decoder": "_forward_sam_heads"}
            for name, method in (names | {"memory_encoder": "_encode_new_memory"}).items():
                stack.enter_context(replaced(network, method, timing(name, getattr(network, method))))
        yield counts, seconds


def flop_table() -> dict:
    """Count the FLOPs of one tracked frame of hiera_l at 1024 pixels, and of 24 designs from them.

    Nothing is computed: the operators see shapes only. The merging of coinciding designs, but for the
    common features, is not counted.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    network = official_model("l", 1024, "float32").network
    parts = {}
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            backbone = network.forward_image(torch.zeros(1, 3, 1024, 1024))
        parts["encode"] = counter.get_total_flops() / 1e9
        _, levels, positions, sizes = network._prepare_backbone_features(backbone)
        embedding = levels[-1].permute(1, 2, 0).view(1, -1, *sizes[-1])
        fine = [
            level.permute(1, 2, 0).view(1, -1, *size)
            for level, size in zip(levels[:-1], sizes[:-1], strict=True)
        ]
        for memories in (1, 2):
            tokens = torch.zeros(4096 * memories + 64, 1, 64)
            with FlopCounterMode(display=False) as counter:
                network.memory_attention(levels[-1:], tokens, positions[-1:], tokens, 64)
            parts[f"attention to {memories}"] = counter.get_total_flops() / 1e9
        with FlopCounterMode(display=False) as counter:
            network._forward_sam_heads(embedding, high_res_features=fine, multimask_output=True)
        parts["decode"] = counter.get_total_flops() / 1e9
        mask, presence = torch.zeros(1, 1, 1024, 1024), torch.ones(1, 1)
        with FlopCounterMode(display=False) as counter:
            network._encode_new_memory(levels, sizes, mask, presence, False)
        parts["remember"] = counter.get_total_flops() / 1e9
    slope = parts["attention to 2"] - parts["attention to 1"]
    step = parts["attention to 1"] + 6 * slope + parts["decode"] + parts["remember"]  # seven memories
    grids = {}
    for depth, first, last, objects in ((16, 2, 13, 1), (32, 5, 26, 1), (100, 30, 69, 1), (300, 100, 180, 4)):
        filled = last - first + 1
        loop_encodes = objects * (24 * depth + 36 + filled)
        loop_steps, engine_steps = objects * 24 * (depth - 1), objects * 12 * (2 * last - first)
        loop = loop_encodes * parts["encode"] + loop_steps * step
        engine = (last + 1) * parts["encode"] + engine_steps * step
        grids[f"{depth} slices, object on {first} to {last}, {objects} objects"] = round(loop / engine, 2)
    return {
        "model": "hiera_l",
        "image_size": 1024,
        "designs": 24,
        "gflop": {name: round(value, 1) for name, value in parts.items()},
        "gflop_ratio": grids,
    }
