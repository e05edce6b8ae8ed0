"""Stored masks come back whole."""

import numpy as np
import pytest

from medsam_nb.errors import InputError
from medsam_nb.evaluation.masks import MaskStore


def test_a_stored_mask_comes_back_and_another_key_has_none(tmp_path):
    store, mask = MaskStore(tmp_path), np.random.default_rng(0).random((3, 7, 11)) > 0.5
    path = store.write(mask, run_key="a", object="organ", design="one_box")
    np.testing.assert_array_equal(store.read(run_key="a", object="organ", design="one_box"), mask)
    assert store.read(run_key="a", object="organ", design="mask") is None
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="Delete it"):
        store.read(run_key="a", object="organ", design="one_box")
