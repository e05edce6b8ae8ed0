"""What tracks a slice, through PyTorch's compiler: meant for a GPU, and not bit-identical.

Compiled are memory attention, mask decoder and memory encoder, for the time being: slices are encoded, and
prompted slices predicted, by the package as it is.
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
MOST_SHAPES = 256  # a part for which there are more is an error, as it would run without being compiled


@lru_cache(maxsize=1)
def _compiled(network: SAM2VideoPredictor, backend: str) -> dict[str, Callable]:
    """Return the compiled parts of a network; each is compiled when it first runs, for each new shape."""
    return {
        name: torch.compile(getattr(network, name).forward, backend=backend, dynamic=varies, fullgraph=True)
        for name, varies in PARTS.items()
    }


@contextmanager
def compiled_parts(network: SAM2VideoPredictor) -> Iterator[None]:
    """Let a network run compiled parts; afterwards it is as it was.

    PyTorch by default stops compiling a part after a few shapes, and then runs it as it is: which rows were
    computed how would depend on what a process did before. Here there is room for all shapes, and no part
    runs uncompiled.
    """
    room = {"recompile_limit": MOST_SHAPES, "accumulated_recompile_limit": 4 * MOST_SHAPES}
    with ExitStack() as stack:
        stack.enter_context(torch._dynamo.config.patch(**room))
        for name, forward in _compiled(network, BACKEND).items():
            stack.enter_context(replaced(getattr(network, name), "forward", forward))
        yield
