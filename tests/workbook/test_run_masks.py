"""Masks of chosen designs: kept by the run, written over the source, equal to what the table scored."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from medsam_nb.data.prepare import case_folders, load_case, prepare, write_result
from medsam_nb.evaluation.masks import MaskStore
from medsam_nb.manifest.label_maps import LabelMaps
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.metrics import iou
from medsam_nb.provenance import project_root
from medsam_nb.statistics import declarations, pooling
from medsam_nb.workbook import report
from medsam_nb.workbook.run import Run, collecting_units

CHOSEN = Design("centre_slice", "one_box", "bidirectional", "first_mask")
OTHER = Design("centre_slice", "one_point", "bidirectional", "first_mask")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    manifest = load_manifest(project_root() / "data_manifest.yaml")
    row = manifest.data_set("simulated_ct")
    prepare(row, root, root / "prepared", progress=False)
    cases = root / "prepared" / row.name / "cases.parquet"
    pd.read_parquet(cases).head(1).to_parquet(cases)
    return Run("03_propagate_3d", root, root / "out", manifest)


def evaluate(run, **options):
    return run.evaluate(
        "3d", ["simulated_ct"], ["miniature_sam2"], prepared_dir="prepared", weights_dir="weights", workers=0,
        features_gb=0.5, seed=3, device="cpu", designs=(CHOSEN, OTHER), objects=["organ"], **options,
    )  # fmt: skip


def test_kept_masks_have_the_table_s_values_and_lie_on_the_source(run):
    table = evaluate(run, masks=[CHOSEN.name])
    plain = evaluate(run)
    assert list(plain.value) == list(table.value) and set(plain.run_key) != set(table.run_key)
    (folder,) = case_folders(run.root / "prepared", "simulated_ct")
    case, store = load_case(folder), MaskStore(run.folder / "masks")
    key = {"run_key": table.run_key[0], "object": "organ"}
    mask = store.read(**key, design=CHOSEN.name)
    assert store.read(**key, design=OTHER.name) is None
    rows = table[table.prompt == "one_box"]
    assert len(rows) == case.mask("organ").any((1, 2)).sum()
    for row in rows.itertuples():
        assert row.value == iou(case.mask("organ")[row.slice_index], mask[row.slice_index])
    (path,) = run.export_masks(table, "prepared")
    assert np.asarray(nib.load(path).dataobj).sum() == mask.sum() > 0
    assert path.is_relative_to(run.folder / "derivatives" / "miniature_sam2" / "simulated_ct")


def test_label_maps_from_elsewhere_stand_in_the_same_table(run):
    """The exported truth, as a model of its own, is perfect, and is compared like any other."""
    (folder,) = case_folders(run.root / "prepared", "simulated_ct")
    case = load_case(folder)
    row = LabelMaps(name="second_reader", title="A reader", files="reader/{data_set}/{case}.nii.gz")
    run.manifest.label_maps["second_reader"] = row
    with collecting_units() as units:  # what a cluster computes are networks
        evaluate(run, label_maps=["second_reader"])
    assert [unit.key.model for unit in units] == ["miniature_sam2"]
    both = evaluate(run, label_maps=["second_reader"])
    failed = run.outcome[run.outcome.status == "failed"]
    assert list(failed.model) == ["second_reader"] and f"simulated_ct/{case.case_id}" in failed.error.item()
    assert set(both.model) == {"miniature_sam2"}

    path = row.path(run.root, "simulated_ct", case.case_id)
    write_result(path, case.labels, folder)
    both = evaluate(run, label_maps=["second_reader"], volume_metrics="overlap")
    rows = both[both.model == "second_reader"]
    assert set(rows.value[rows.metric == "iou"]) == {1.0} and set(rows.metric) > {"volume_dice"}
    record = report.read_provenance(run.folder)["03_propagate_3d"]
    assert set(record["checkpoints"]) == {"miniature_sam2"} and set(record["label_maps"]) == {"second_reader"}
    sides = {"vary": "model", "a": "second_reader", "b": "miniature_sam2"}
    comparison = declarations.declare({"name": "reader", "family": "f", "task": "3d"} | sides)
    pairs = pooling.paired_values(pooling.check_table(both), comparison)
    assert list(pairs.values.a) == [1.0] and pairs.values.b[0] < 1

    write_result(path, np.zeros_like(case.labels), folder)  # another file is another result
    again = evaluate(run, label_maps=["second_reader"])
    assert set(again.value[again.model == "second_reader"]) == {0.0}
