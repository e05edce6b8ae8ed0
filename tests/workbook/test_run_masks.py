"""Masks of chosen designs: kept by the run, written over the source, equal to what the table scored."""

import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from helpers.oblique import OBLIQUE, sagittal_oblique_series

from medsam_nb.data import formats
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case, write_result
from medsam_nb.errors import InputError, StudyError
from medsam_nb.manifest.label_maps import LabelMaps
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import DataSet, Manifest
from medsam_nb.protocol.designs import MASK_CHOICES_2D, ORACLES_2D, Design
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.volume import Volume
from medsam_nb.provenance import project_root
from medsam_nb.statistics import declarations, pairing, pooling
from medsam_nb.workbook import report
from medsam_nb.workbook.explorer_results import pictures_of_row
from medsam_nb.workbook.parameters import Given, check_meaning
from medsam_nb.workbook.run import Run, collecting

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


def check_masks(run, table, kept):
    """Every row of the table whose mask was kept has its IoU; return how many there are."""
    found, (folder,) = 0, case_folders(run.root / "prepared", "simulated_ct")
    truth = load_case(folder).mask("organ")
    for _, row in table.iterrows():
        mask = kept.of_row(row)
        if mask is not None:
            assert row["value"] == iou(truth[row["slice_index"]], mask[row["slice_index"]])
            found += 1
    return found


def test_the_masks_of_the_best_design_are_kept_once_the_table_says_which_it_is(run):
    plain = evaluate(run)
    assert len(run.masks()) == 0 and run.export_masks("3d", "prepared") == []
    table = evaluate(run, masks="best")
    pd.testing.assert_frame_equal(table, plain)  # a table that is there stays as it is
    ranked = table.groupby("prompt").value.mean()
    kept = run.masks()
    assert set(kept.index.prompt) == {ranked.idxmax()} and len(kept) == 1
    assert check_masks(run, table, kept) == (table.prompt == ranked.idxmax()).sum() > 0
    ended = pd.read_parquet(run.folder / "tables" / "units_masks_3d.parquet")
    assert ended.status.tolist() == ["computed"]  # the report looks there for what failed
    (path,) = run.export_masks("3d", "prepared")
    mask = kept.of_row(table[table.prompt == ranked.idxmax()].iloc[0])
    assert np.asarray(nib.load(path).dataobj).sum() == mask.sum() > 0
    assert path.is_relative_to(run.folder / "derivatives" / "miniature_sam2" / "simulated_ct")


def test_masks_of_named_designs_and_of_all(run):
    table = evaluate(run, masks=[OTHER.name])
    assert set(run.masks().index.prompt) == {OTHER.prompt}
    assert check_masks(run, table, run.masks()) == (table.prompt == OTHER.prompt).sum() > 0
    table = evaluate(run, masks="all")
    assert check_masks(run, table, run.masks()) == len(table) > 0
    assert not (run.folder / "tables" / "units_masks_3d.parquet").exists()  # they are the table's own units
    evaluate(run)
    assert len(run.masks()) == 0


def test_pictures_read_kept_masks_and_refuse_those_of_another_table(run):
    table = evaluate(run, masks=[CHOSEN.name])
    row = table[table.prompt == CHOSEN.prompt].iloc[-1]
    model = run.model("miniature_sam2", "weights", "cpu", "float32")
    computed = pictures_of_row(row, lambda _: model, run.root / "prepared", seed=3)
    read = pictures_of_row(row, lambda _: None, run.root / "prepared", seed=3, kept=run.masks())
    for one, other in zip(computed, read, strict=True):
        np.testing.assert_array_equal(one.prediction, other.prediction)
        assert one.title == other.title
    with pytest.raises(InputError, match="not the one of the table"):
        pictures_of_row(
            row.mask(row.index == "value", 0.5),
            lambda _: None,
            run.root / "prepared",
            seed=3,
            kept=run.masks(),
        )


def test_masks_in_2d_are_those_of_prompted_slices(run):
    table = run.evaluate(
        "2d", ["simulated_ct"], ["miniature_sam2"], prepared_dir="prepared", weights_dir="weights", workers=0,
        features_gb=0.5, seed=3, device="cpu", prompts=["one_box", "one_point"], objects=["organ"],
        masks="best",
    )  # fmt: skip
    kept = run.masks()
    best = kept.index[kept.index.task == "2d"]
    means = table[~table.mask_choice.isin(ORACLES_2D)].groupby(["prompt", "mask_choice"]).value.mean()
    assert [(line.prompt, line.mask_choice) for line in best.itertuples()] == [means.idxmax()]
    assert check_masks(run, table, kept) == len(table) / (2 * len(MASK_CHOICES_2D))


@pytest.mark.parametrize("choice", ["bset", ["one_box/frist_mask"], ["one_point/first_mask"], 3, ["one_box"]])
def test_misspelt_names_are_found_before_anything_runs(choice):
    given = Given({"masks": choice, "prompts": ["one_box"]}, Manifest())
    with pytest.raises(StudyError):
        check_meaning("masks", given)
    check_meaning("masks", Given(given.values | {"masks": ["one_box/first_mask"]}, Manifest()))


def test_a_source_of_prompts_is_known_and_fits_the_designs():
    values = {"prompt_source": "jittered:0.1:0", "designs": {"prompt": "one_box"}}
    check_meaning("prompt_source", Given(values, Manifest()))
    with pytest.raises(StudyError, match="a mask cannot be jittered"):
        check_meaning("prompt_source", Given(values | {"designs": "all"}, Manifest()))
    with pytest.raises(StudyError, match="neither a known source nor a file"):
        check_meaning("prompt_source", Given({"prompt_source": "jitered:0.1:0"}, Manifest()))


def test_label_maps_from_elsewhere_stand_in_the_same_table(run):
    """The exported truth, as a model of its own, is perfect, and is compared like any other."""
    (folder,) = case_folders(run.root / "prepared", "simulated_ct")
    case = load_case(folder)
    row = LabelMaps(name="second_reader", title="A reader", files="reader/{data_set}/{case}.nii.gz")
    run.manifest.label_maps["second_reader"] = row
    with collecting() as work:  # what a cluster computes are networks
        evaluate(run, label_maps=["second_reader"])
    assert [unit.key.model for unit in work.units] == ["miniature_sam2"]
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
    pairs = pairing.paired_values(pooling.check_table(both), comparison)
    assert list(pairs.values.a) == [1.0] and pairs.values.b[0] < 1

    write_result(path, np.zeros_like(case.labels), folder)  # another file is another result
    again = evaluate(run, label_maps=["second_reader"])
    assert set(again.value[again.model == "second_reader"]) == {0.0}


def test_masks_of_a_dicom_series_are_a_segmentation_too(tmp_path):
    """All objects of a design in one file that lies on the series, frame by frame."""
    series = tmp_path / "data" / "raw" / "raw" / "series"
    sagittal_oblique_series(series)
    whole = formats.read_volume(series)
    labels = Volume((whole.array > 900).astype(np.uint8), whole.affine)
    formats.write_nifti(tmp_path / "data" / "raw" / "raw" / "mask.nii.gz", labels)
    row = DataSet.model_validate(OBLIQUE)
    own = load_manifest(project_root() / "data_manifest.yaml")
    manifest = own.model_copy(update={"data_sets": {**own.data_sets, row.name: row}})
    table = prepare(row, tmp_path / "data" / "raw", tmp_path / "prepared", progress=False)
    assert table.status.tolist() == ["ok"], table.error.tolist()
    run = Run("03_propagate_3d", tmp_path, tmp_path / "out", manifest)
    run.evaluate(
        "3d", [row.name], ["miniature_sam2"], prepared_dir="prepared", weights_dir="weights", workers=0,
        features_gb=0.5, seed=3, device="cpu", designs=(CHOSEN,), masks="all",
    )  # fmt: skip
    nifti, segmentation = run.export_masks("3d", "prepared")
    assert segmentation.suffix == ".dcm" and segmentation.is_relative_to(run.folder / "derivatives")
    file = pydicom.dcmread(segmentation)
    assert [segment.SegmentLabel for segment in file.SegmentSequence] == ["bright"]
    image = nib.load(nifti)
    assert file.pixel_array.sum() == np.asarray(image.dataobj).sum() > 0
    shutil.rmtree(tmp_path / "data")
    assert run.export_masks("3d", "prepared") == [nifti]  # the download is gone: NIfTI as before
