"""A rehearsal is a real run: downloads over HTTP, real notebooks, the miniature models."""

import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.projects import ROOT, started

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import StudyError
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.workbook.rehearsal.downloads import CASES, DOWNLOADS
from medsam_nb.workbook.rehearsal.rehearse import rehearse, report

STUDY = yaml.safe_load((ROOT / "studies" / "paper_v1.yaml").read_text(encoding="utf-8"))
MANIFEST = load_manifest(ROOT / "data_manifest.yaml")


def test_every_data_set_of_the_study_has_a_small_download():
    assert list(DOWNLOADS) == STUDY["parameters"]["data_sets"]


@pytest.mark.parametrize("name", DOWNLOADS)
def test_small_downloads_are_prepared_without_a_failure(tmp_path, name):
    row = MANIFEST.data_set(name)
    DOWNLOADS[name](tmp_path / "raw" / row.raw_folder)
    table = prepare(row, tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert list(table.error[table.status == "failed"]) == []
    cases = [load_case(folder) for folder in case_folders(tmp_path / "prepared", name)]
    assert len(cases) == CASES == len({case.patient_id for case in cases})
    for case in cases:
        assert set(case.objects) == set(row.objects)
        grey = case.slices_uint8()
        inside = np.isin(case.labels, [value for values in case.objects.values() for value in values])
        assert grey[inside].mean() > grey[~inside].mean()  # an object can be seen
        if row.dimension == 3:
            held = np.flatnonzero(inside.any(axis=(1, 2)))
            assert 0 < held[0] < held[-1] < len(case.labels) - 1  # a sweep can run over both of its ends


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """Rehearse the study on two of its data sets, one fetched and one put in place, in four notebooks."""
    place = tmp_path_factory.mktemp("study")
    name = f"test{place.parent.name}"
    kept = ("01_prepare_data", "02_evaluate_2d", "03_propagate_3d", "04_test_statistics")
    content = STUDY | {"name": name, "notebooks": {key: STUDY["notebooks"][key] for key in kept}}
    (place / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    process = started(
        *("rehearse", place / "study.yaml", "--only", "ct_spleen", "--only", "xray_chest"),
        folder=ROOT,
        errors="replace",
    )
    said = process.communicate(timeout=600)[0]
    folder = ROOT / "runs" / f"rehearsal_{name}"
    yield process.returncode, said, folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_rehearsal_fetches_prepares_measures_and_tests(rehearsed):
    code, said, folder = rehearsed
    assert code == 0, said[-3000:]
    assert "ct_spleen: fetched, 2 cases prepared, 4 units measured in 2D, 2 units measured in 3D." in said
    assert "xray_chest: put in place, 2 cases prepared, 4 units measured in 2D." in said
    assert "All 2 data sets came through" in said
    designs = pd.read_parquet(folder / "tables" / "designs_3d.parquet")
    assert len(designs) == 24  # of the study, all of them
    assert (folder / "index.html").is_file() and (folder / "tables" / "comparisons.csv").is_file()


def test_nothing_but_data_models_and_places_differs_from_the_study(rehearsed):
    _, _, folder = rehearsed
    made = yaml.safe_load((folder / "inputs" / "study.yaml").read_text(encoding="utf-8"))
    assert made["comparisons"] == STUDY["comparisons"]
    assert made["parameters"]["seed"] == STUDY["parameters"]["seed"]
    assert made["parameters"]["models"] == ["miniature_sam2", "miniature_sam"]
    own, given = made["notebooks"]["03_propagate_3d"], STUDY["notebooks"]["03_propagate_3d"]
    assert own == given | {"data_sets": ["ct_spleen"], "models": ["miniature_sam2"]}
    manifest = load_manifest(folder / "inputs" / "manifest.yaml")
    row, real = manifest.data_set("ct_spleen"), MANIFEST.data_set("ct_spleen")
    changed = {"files", "expected"}
    assert row.model_dump(exclude=changed) == real.model_dump(exclude=changed)
    assert row.files[0].path == real.files[0].path and row.files[0].url.startswith("http://127.0.0.1:")


def test_a_download_that_cannot_be_read_is_told_and_decides_the_exit_code(tmp_path, monkeypatch, capfd):
    def damaged(folder):
        DOWNLOADS["us_kidney"](folder)
        (folder / "mask" / "mask" / "2.png").write_bytes(b"no picture")

    name = f"test{tmp_path.parent.name}_damaged"
    content = STUDY | {"name": name, "notebooks": {"01_prepare_data": {}}, "comparisons": []}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    monkeypatch.setattr("medsam_nb.workbook.rehearsal.rehearse.DOWNLOADS", DOWNLOADS | {"us_kidney": damaged})
    folder = ROOT / "runs" / f"rehearsal_{name}"
    try:
        found = rehearse(tmp_path / "study.yaml", ["us_kidney"])
        report(found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert found.failed == ("us_kidney",) and found.exit_code == 1 and found.outcome.exit_code == 0
    said = capfd.readouterr().out
    assert "us_kidney: put in place, 1 cases prepared, 1 failed (" in said and "2.png" in said
    assert "The rehearsal failed (1 data sets, 0 notebooks)." in said


def test_what_cannot_be_rehearsed_is_named(tmp_path):
    with pytest.raises(StudyError, match="no small download is known of mni152"):
        rehearse(ROOT / "studies" / "demo.yaml")
    with pytest.raises(
        StudyError, match="'ct_spleeen' is no known data set of the study. Did you mean 'ct_spleen'"
    ):
        rehearse(ROOT / "studies" / "paper_v1.yaml", ["ct_spleeen"])
