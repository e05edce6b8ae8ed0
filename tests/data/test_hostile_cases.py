"""Thirty good cases and as many hostile ones: the good are what they are alone, the bad are named."""

import gzip

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.evaluation import units
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import DataSet
from medsam_nb.provenance import project_root

AFFINE = np.diag([-0.8, 0.8, 3.0, 1.0])
SHAPE = (6, 20, 24)
ROW = DataSet.model_validate(
    {
        "name": "own", "title": "t", "modality": "CT", "dimension": 3, "objects": {"organ": [1]},
        "intensity": {"policy": "percentile"}, "layout": {"name": "nifti_pairs"},
    }
)  # fmt: skip
MASK = np.zeros(SHAPE, np.uint8)
MASK[3, 4:10, 6:12] = 1


def image_of(seed=0):
    return np.random.default_rng(seed).integers(-900, 900, SHAPE).astype(np.int16)


def nifti(array, affine=AFFINE, **header):
    made = nib.Nifti1Image(np.asarray(array).T, affine)
    for field, value in header.items():
        made.header[field] = value
    return made.to_bytes()


def stored(array, affine=AFFINE, **header):
    return gzip.compress(nifti(array, affine, **header), mtime=0)


def changed_header(**fields):
    """A header that says something else than the data that follow."""
    content = bytearray(nifti(image_of()))
    header = nib.Nifti1Header(bytes(content[:348]))
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    return gzip.compress(bytes(content))


GOOD_MASK, GOOD_IMAGE = stored(MASK), stored(image_of(99))
SHIFTED = AFFINE.copy()
SHIFTED[:3, 3] = 500
# Name: image, mask; None where the file is missing.
HOSTILE = {
    "truncated_image": (GOOD_IMAGE[: len(GOOD_IMAGE) // 2], GOOD_MASK),
    "truncated_mask": (GOOD_IMAGE, GOOD_MASK[: len(GOOD_MASK) // 2]),
    "empty_image": (b"", GOOD_MASK),
    "empty_mask": (GOOD_IMAGE, b""),
    "web_page": (b"<html>404</html>", GOOD_MASK),
    "zipped_noise": (gzip.compress(bytes(range(256)) * 9), GOOD_MASK),
    "header_only": (gzip.compress(nifti(image_of())[:352]), GOOD_MASK),
    "huge_header": (changed_header(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), GOOD_MASK),
    "negative_header": (changed_header(dim=[3, -4, 20, 6, 1, 1, 1, 1]), GOOD_MASK),
    "unknown_type": (changed_header(datatype=12345), GOOD_MASK),
    "nan_image": (stored(np.full(SHAPE, np.nan, np.float32)), GOOD_MASK),
    "infinite_image": (stored(np.where(MASK == 1, np.inf, image_of()).astype(np.float32)), GOOD_MASK),
    "far_values": (stored(np.where(MASK == 1, 3e38, image_of()).astype(np.float32)), GOOD_MASK),
    "constant_image": (stored(np.full(SHAPE, 7, np.int16)), GOOD_MASK),
    "complex_image": (stored(image_of().astype(np.complex64)), GOOD_MASK),
    "several_volumes": (stored(np.stack([image_of(), image_of(1)])), GOOD_MASK),
    "five_axes": (stored(np.stack([image_of()] * 2)[None].repeat(3, 0)), GOOD_MASK),
    "one_slice": (stored(image_of()[3:4]), stored(MASK[3:4])),
    "nan_mask": (GOOD_IMAGE, stored(np.full(SHAPE, np.nan, np.float32))),
    "soft_mask": (GOOD_IMAGE, stored(MASK.astype(np.float32) * 0.37)),
    "unnamed_label": (GOOD_IMAGE, stored(MASK * 7)),
    "negative_label": (GOOD_IMAGE, stored(-MASK.astype(np.int16))),
    "no_object": (GOOD_IMAGE, stored(np.zeros(SHAPE, np.uint8))),
    "other_shape": (GOOD_IMAGE, stored(MASK[:, :, :-2])),
    "other_place": (GOOD_IMAGE, stored(MASK, SHIFTED)),
    "flat_grid": (changed_header(srow_x=[0, 0, 0, 0]), GOOD_MASK),
    "endless_grid": (changed_header(srow_x=[1e30, 0, 0, 0], srow_y=[0, 1e30, 0, 0]), GOOD_MASK),
    "changed_places": (GOOD_MASK, GOOD_IMAGE),
    "no_mask": (GOOD_IMAGE, None),
    "no_image": (None, GOOD_MASK),
}


def write(root, name, image, mask):
    for folder, content in (("images", image), ("labels", mask)):
        place = root / "raw" / "own" / folder
        place.mkdir(parents=True, exist_ok=True)
        if content is not None:
            (place / f"{name}.nii.gz").write_bytes(content)


def prepared(root):
    for number in range(30):
        write(root, f"good_{number:02d}", stored(image_of(number)), GOOD_MASK)
    return prepare(ROW, root / "raw", root / "prepared", workers=2, progress=False).set_index("case_id")


def measured(root):
    planned = units.plan_units(
        "2d",
        case_folders(root / "prepared", "own"),
        [load_manifest(project_root() / "data_manifest.yaml").checkpoint("miniature_sam2")],
        weights_dir=root,
        seed=1,
        device="cpu",
        prompts=["one_box"],
        protocol="corrected",
    )
    store = Store(root / "rows")
    units.run_units(planned, store, workers=0, label="2D")
    return store.read(units.finished(planned, store))


def test_the_good_ones_are_what_they_are_alone_and_every_bad_one_is_named(tmp_path):
    assert len(HOSTILE) == 30
    alone = prepared(tmp_path / "alone")
    for name, (image, mask) in HOSTILE.items():
        write(tmp_path / "mixed", name, image, mask)
    mixed = prepared(tmp_path / "mixed")
    assert set(mixed.index) == {*alone.index, *HOSTILE} and alone.status.eq("ok").all()
    same = [column for column in alone.columns if column not in ("data_set_notes", "doubts")]
    pd.testing.assert_frame_equal(mixed.loc[alone.index, same], alone[same])
    bad = mixed.loc[list(HOSTILE)]
    assert bad.status.isin(["failed", "no_object"]).all(), bad.status[bad.status == "ok"].index.tolist()
    for name, error in bad.error.items():
        assert name in error and len(error.split(". ")) >= 2 and "Traceback" not in error, error
    pd.testing.assert_frame_equal(measured(tmp_path / "mixed"), measured(tmp_path / "alone"))


@pytest.mark.parametrize("name", HOSTILE)
def test_alone_a_bad_case_is_named_too(tmp_path, name):
    write(tmp_path, name, *HOSTILE[name])
    table = prepare(ROW, tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert table.case_id.tolist() == [name] and table.status[0] != "ok"
