"""Adapting a checkpoint: prepared cases and a SAM 2 in, trained weights out."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=[
        "adapters",
        "batches",
        "jobs",
        "loop",
        "losses",
        "plan",
        "sequence_steps",
        "settings",
        "steps",
        "targets",
    ],
    submod_attrs={},
)
