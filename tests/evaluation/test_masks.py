"""Stored masks come back whole; label maps from elsewhere are scored like a model's."""

import nibabel as nib
import numpy as np
import pytest

from medsam_nb.data.formats import write_nifti
from medsam_nb.errors import InputError
from medsam_nb.evaluation.masks import MaskStore, score_label_map
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.table import as_table
from medsam_nb.protocol.volume import Case, Volume, reoriented
from medsam_nb.statistics.pooling import check_table


def case():
    labels = np.zeros((5, 20, 30), np.uint8)
    labels[1:4, 4:12, 5:20] = 1
    labels[2:4, 14:18, 8:12] = 3
    image = Volume.from_spacing(
        np.random.default_rng(0).normal(size=labels.shape).astype(np.float32), (4.0, 1.0, 1.5)
    )
    return Case("set", "one", "CT", image, labels, {"organ": (1, 2), "tumour": (3,)})


def test_a_stored_mask_comes_back_and_another_key_has_none(tmp_path):
    store, mask = MaskStore(tmp_path), np.random.default_rng(0).random((3, 7, 11)) > 0.5
    path = store.write(mask, run_key="a", object="organ", design="one_box")
    np.testing.assert_array_equal(store.read(run_key="a", object="organ", design="one_box"), mask)
    assert store.read(run_key="a", object="organ", design="mask") is None
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="Delete it"):
        store.read(run_key="a", object="organ", design="one_box")


@pytest.mark.parametrize("orientation", ["SPL", "RAS", "LIP"])
def test_a_label_map_in_any_order_of_axes_is_scored_on_the_case_s_grid(tmp_path, orientation):
    one = case()
    labels = np.roll(one.labels, 2, axis=2)
    folder = tmp_path / "second_reader"
    folder.mkdir()
    write_nifti(folder / "one.nii.gz", reoriented(Volume(labels, one.image.affine), orientation))
    rows = score_label_map(folder, one, volume_metrics="overlap")
    table = check_table(as_table(rows))
    assert set(table.model) == {"second_reader"} and set(table.task) == {"3d"}
    slices = table[table.metric == "iou"]
    assert len(slices) == 3 + 2
    for row in slices.itertuples():
        moved = np.isin(labels, one.objects[row.object])
        assert row.value == iou(one.mask(row.object)[row.slice_index], moved[row.slice_index])
    whole = table[(table.metric == "volume_iou") & (table.object == "organ")]
    assert whole.value.item() == iou(one.mask("organ"), labels == 1) < 1


def test_a_label_map_that_does_not_fit_is_named(tmp_path):
    one = case()
    with pytest.raises(InputError, match="holds 0 label maps of one"):
        score_label_map(tmp_path, one)
    moved = one.image.affine.copy()
    moved[0, 3] += 0.4
    write_nifti(tmp_path / "one.nii.gz", Volume(one.labels, moved))
    with pytest.raises(InputError, match="do not coincide"):
        score_label_map(tmp_path, one)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "one.nii.gz")
    with pytest.raises(InputError, match="has shape"):
        score_label_map(tmp_path, one)
