"""A study's whole way on small downloads that lie as the real ones do (`medsam-nb rehearse`)."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=["downloads", "files", "rehearse"],
    submod_attrs={"downloads": ["DOWNLOADS"], "rehearse": ["Rehearsal", "rehearse"]},
)
