"""One seed per item, derived from names: independent of file order, workers and earlier draws."""

import hashlib

import numpy as np


def derive_seed(*parts: object) -> int:
    """Return a 64-bit seed that depends on the parts and their order only.

    Parameters
    ----------
    *parts : object
        What identifies the item, for example ``(study_seed, case_id, object_name, slice_index)``.
        Their ``repr`` is hashed, so ``1`` and ``"1"`` differ.

    Examples
    --------
    >>> derive_seed(1, "case_a", 3) == derive_seed(1, "case_a", 3)
    True
    >>> derive_seed(1, "case_a", 3) == derive_seed(1, "case_a", "3")
    False
    """
    digest = hashlib.sha256("\x1f".join(map(repr, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def generator(*parts: object) -> np.random.Generator:
    """Return a NumPy generator seeded with `derive_seed`."""
    return np.random.default_rng(derive_seed(*parts))
