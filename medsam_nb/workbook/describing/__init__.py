"""A folder of the user's own in, a row of the manifest that fits out (`medsam-nb describe`)."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=["contents", "drafts", "listing", "pairing", "rows", "survey", "writing"],
    submod_attrs={"rows": ["Description", "describe_folder"]},
)
