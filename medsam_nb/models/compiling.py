"""The network's parts that track a slice, through PyTorch's compiler: faster on a GPU, not bit-identical.

The package's own fast mode (`vos_optimized`) compiles the same parts, for good. Here they are compiled for
the time being: slices are encoded, and prompted slices predicted, by the package as it is.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache

import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from medsam_nb.models.sharing import replaced

# The number of memories varies: without `dynamic` the attention would be compiled for each anew.
PARTS = {"memory_attention": True, "sam_mask_decoder": False, "memory_encoder": False}
BACKEND = "inductor"


@lru_cache(maxsize=2)
def _compiled(network: SAM2VideoPredictor, backend: str) -> dict[str, Callable]:
    """Return the compiled parts of a network; each is compiled when it first runs, for each new shape."""
    return {
        name: torch.compile(getattr(network, name).forward, backend=backend, dynamic=varies)
        for name, varies in PARTS.items()
    }


@contextmanager
def compiled_parts(network: SAM2VideoPredictor) -> Iterator[None]:
    """Let a network run compiled parts; afterwards it is as it was."""
    parts = _compiled(network, BACKEND)
    with ExitStack() as stack:
        for name, forward in parts.items():
            stack.enter_context(replaced(getattr(network, name), "forward", forward))
        yield
