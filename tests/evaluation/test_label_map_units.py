"""Label maps from elsewhere are scored like a model's, on the case's grid, and errors name their file."""

import nibabel as nib
import numpy as np
import pytest

from medsam_nb.data.formats import write_nifti
from medsam_nb.errors import InputError, ManifestError, StudyError
from medsam_nb.evaluation.label_map_units import files_sha256, read_label_map, score_label_map
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.protocol.metrics import iou, surface_backend
from medsam_nb.protocol.table import as_table
from medsam_nb.protocol.volume import Case, Volume, reoriented
from medsam_nb.statistics.pooling import check_table
from medsam_nb.workbook.parameters import Given, check_meaning


def case():
    labels = np.zeros((5, 20, 30), np.uint8)
    labels[1:4, 4:12, 5:20] = 1
    labels[2:4, 14:18, 8:12] = 3
    image = Volume.from_spacing(
        np.random.default_rng(0).normal(size=labels.shape).astype(np.float32), (4.0, 1.0, 1.5)
    )
    return Case("set", "one", "CT", image, labels, {"organ": (1, 2), "tumour": (3,)})


@pytest.mark.parametrize("orientation", ["SPL", "RAS", "LIP"])
def test_a_label_map_in_any_order_of_axes_is_scored_on_the_case_s_grid(tmp_path, orientation):
    one = case()
    labels = np.roll(one.labels, 2, axis=2)
    path = tmp_path / "one.nii.gz"
    write_nifti(path, reoriented(Volume(labels, one.image.affine), orientation))
    rows = score_label_map(read_label_map(path, one), one, "second_reader", volume_metrics="all")
    table = check_table(as_table(rows))
    assert set(table.model) == {"second_reader"} and set(table.task) == {"3d"}
    slices = table[table.metric == "iou"]
    assert len(slices) == 3 + 2
    for row in slices.itertuples():
        moved = np.isin(labels, one.objects[row.object])
        assert row.value == iou(one.mask(row.object)[row.slice_index], moved[row.slice_index])
    whole = table[(table.metric == "volume_iou") & (table.object == "organ")]
    assert whole.value.item() == iou(one.mask("organ"), labels == 1) < 1
    assert set(table.backend.dropna()) == {surface_backend()}


def test_label_values_may_be_those_of_the_other_program(tmp_path):
    one = case()
    write_nifti(tmp_path / "one.nrrd.nii.gz", Volume((one.labels == 3) * np.uint8(7), one.image.affine))
    masks = read_label_map(tmp_path / "one.nrrd.nii.gz", one, {"tumour": [7]})
    np.testing.assert_array_equal(masks["tumour"], one.mask("tumour"))
    assert not masks["organ"].any()


def test_a_label_map_that_does_not_fit_is_named(tmp_path):
    one, path = case(), tmp_path / "one.nii.gz"
    with pytest.raises(InputError, match=r"one\.nii\.gz: there is no label map of set/one"):
        read_label_map(path, one)
    moved = one.image.affine.copy()
    moved[0, 3] += 0.4
    write_nifti(path, Volume(one.labels, moved))
    with pytest.raises(InputError, match=r"one\.nii\.gz: its voxels do not coincide"):
        read_label_map(path, one)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), path)
    with pytest.raises(InputError, match=r"one\.nii\.gz: has shape"):
        read_label_map(path, one)


def test_the_hash_holds_the_data_beside_a_header(tmp_path):
    header, data = tmp_path / "one.mhd", tmp_path / "one.raw"
    header.write_text("NDims = 3\nElementDataFile = one.raw\n", encoding="utf-8")
    data.write_bytes(b"1")
    before = files_sha256(header)
    data.write_bytes(b"2")
    assert files_sha256(header) != before


ROW = """label_maps:
  reader:
    title: A second reader
    files: "data/reader/{data_set}/{case}.nii.gz"
"""


def test_a_row_is_checked_where_it_is_written_and_where_it_is_named(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(ROW, encoding="utf-8")
    row = load_manifest(path).maps("reader")
    assert row.path(tmp_path, "set", "one") == tmp_path / "data" / "reader" / "set" / "one.nii.gz"
    with pytest.raises(ManifestError, match="raeder.*Did you mean 'reader'"):
        check_meaning("label_maps", Given({"label_maps": ["raeder"]}, load_manifest(path)))
    path.write_text(ROW + "    data_sets: [lungs]\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="lungs"):
        check_meaning("label_maps", Given({"label_maps": ["reader"]}, load_manifest(path)))
    for bad, words in (("{case}", "does not say where"), ("{data_set}", "is no placeholder")):
        path.write_text(ROW.replace(bad, "{thing}" if "no" in words.split() else "all"), encoding="utf-8")
        with pytest.raises(ManifestError, match=f"line 4.*{words}"):
            load_manifest(path)


def test_label_maps_of_other_data_sets_are_of_no_use(tmp_path):
    path = tmp_path / "own.yaml"
    sets = "data_sets:\n" + "".join(
        f"""  {name}:
    title: {name}
    modality: CT
    dimension: 3
    objects: {{organ: [1]}}
    intensity: {{policy: percentile}}
    layout: {{name: nifti_pairs, images: "{{case}}_i.nii", masks: "{{case}}_m.nii"}}
"""
        for name in ("lungs", "livers")
    )
    path.write_text(sets + ROW + "    data_sets: [lungs]\n", encoding="utf-8")
    rows = load_manifest(path)
    check_meaning("label_maps", Given({"label_maps": ["reader"], "data_sets": ["lungs"]}, rows))
    with pytest.raises(StudyError, match="none of these data sets"):
        check_meaning("label_maps", Given({"label_maps": ["reader"], "data_sets": ["livers"]}, rows))


def test_a_folder_of_a_label_map_may_hold_folders(tmp_path):
    (tmp_path / "series" / "more").mkdir(parents=True)
    (tmp_path / "series" / "1.dcm").write_bytes(b"one")
    before = files_sha256(tmp_path / "series")
    (tmp_path / "series" / "more" / "2.dcm").write_bytes(b"two")
    assert files_sha256(tmp_path / "series") != before == files_sha256_of_copy(tmp_path)


def files_sha256_of_copy(place):
    (place / "copy").mkdir()
    (place / "copy" / "1.dcm").write_bytes(b"one")
    return files_sha256(place / "copy")
