"""Every real sample is prepared, or refused with the right words.

Files come from a mirror, and, through the notebooks, from a server that plays the public one.
"""

import functools
import http.server
import json
import os
import threading
from pathlib import Path

import pandas as pd
import pytest

from medsam_nb.data.fetch import MIRROR_VARIABLE, fetch
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import DataSet
from medsam_nb.workbook import runner

ROOT = Path(__file__).parents[2]
SAMPLES = Path(os.environ.get(MIRROR_VARIABLE) or ROOT / ".." / "shared" / "data")
ROWS = load_manifest(ROOT / "data_manifest.yaml").data_sets
NAMES = [name for name in ROWS if name.startswith(("sample_", "example_"))]

pytestmark = pytest.mark.skipif(
    not (SAMPLES / "INDEX.csv").is_file(),
    reason=f"no mirror of the samples at ../shared/data or {MIRROR_VARIABLE}",
)


@pytest.mark.parametrize("name", NAMES)
def test_sample_is_fetched_and_prepared(tmp_path, monkeypatch, name):
    monkeypatch.setenv(MIRROR_VARIABLE, str(SAMPLES))
    row = ROWS[name]
    assert fetch(row, tmp_path / "raw", progress=False) == []
    table = prepare(row, tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert list(table.error) == [""] * row.expected.cases
    for folder in case_folders(tmp_path / "prepared", name):
        case = load_case(folder)
        assert case.objects
        grey = case.slices_uint8()
        assert grey.max() > grey.min()


def test_only_masks_to_measure_against_count_for_accuracy():
    for name in NAMES:
        assert ROWS[name].accuracy == name.startswith("sample_")


def refusal(tmp_path, case, suffix="", **changes):
    fields = {
        "name": "sample",
        "title": "Sample",
        "modality": "CT",
        "dimension": 3,
        "objects": {"object": [1]},
        "intensity": {"policy": "min_max"},
        "folder": case,
        "layout": {
            "name": "listed",
            "cases": [{"case_id": "one", "image": f"image{suffix}", "mask": f"mask{suffix}"}],
        },
    }
    table = prepare(DataSet.model_validate(fields | changes), SAMPLES, tmp_path, progress=False)
    assert list(table.status) == ["failed"]
    return table.error[0]


def test_mask_of_another_shape(tmp_path):
    message = refusal(tmp_path, "totalseg/ct_shape_mismatch", ".nii.gz")
    assert "(112, 101, 122)" in message
    assert "(30, 101, 122)" in message


def test_soft_mask_without_a_threshold(tmp_path):
    message = refusal(tmp_path, "sct_testing/mt1_gm_soft", ".nii.gz")
    assert "the mask is soft: 204 distinct values between 0 and 1.05922" in message
    assert "mask_threshold" in message


def test_jpeg_mask_without_a_threshold(tmp_path):
    message = refusal(tmp_path, "hepatic_vessel_jpg/10002_070", ".jpg", dimension=2, slice_axis="stored")
    assert "labels that the manifest row sample does not name" in message


def test_labels_that_the_row_does_not_name(tmp_path):
    message = refusal(tmp_path, "tptbox/ct_spine_vert", ".nii.gz")
    assert "21 (6567 voxels), 22 (17698 voxels), 23 (12083 voxels)" in message


PUBLIC = "https://raw.githubusercontent.com/"


class PublicHandler(http.server.BaseHTTPRequestHandler):
    """Answers `/<owner>/<repository>/<commit>/<path>` with the file of the mirror that a row says it is."""

    def __init__(self, *arguments, files, **keywords):
        self.files = files
        super().__init__(*arguments, **keywords)

    def do_GET(self):
        path = self.files.get(self.path.lstrip("/"))
        if path is None:
            self.send_error(404)
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def public_address(monkeypatch):
    """Address of a server on this machine that has the samples where the public one has them."""
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    files = {
        file.url.removeprefix(PUBLIC): SAMPLES / ROWS[name].raw_folder / file.path
        for name in NAMES
        for file in ROWS[name].files
    }
    handler = functools.partial(PublicHandler, files=files)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_notebooks_download_prepare_and_measure_only_what_is_a_truth(tmp_path, public_address):
    text = (ROOT / "data_manifest.yaml").read_text(encoding="utf-8")
    assert text.count(PUBLIC) > 60
    text = text.replace(f"{PUBLIC}tmkand/", f"{public_address}gone/")  # one repository has vanished
    (tmp_path / "manifest.yaml").write_text(text.replace(PUBLIC, public_address), encoding="utf-8")
    place = os.path.relpath(tmp_path, ROOT)
    names = ["sample_breast", "sample_brain_ventricles", "example_jpeg_mask", "sample_us_nerve"]
    common = {"run_dir": f"{place}/run", "manifest": f"{place}/manifest.yaml", "data_sets": names}
    common |= {"prepared_dir": f"{place}/prepared"}
    ran = runner.run_notebook(
        "01_prepare_data", tmp_path / "01.ipynb", common | {"raw_dir": f"{place}/raw", "download": True}
    )
    assert ran.error is None
    cases = pd.read_parquet(tmp_path / "run" / "tables" / "cases.parquet").set_index("data_set")
    assert cases.status.to_dict() == dict.fromkeys(names[:3], "ok") | {"sample_us_nerve": "failed"}
    assert "HTTP 404" in cases.error["sample_us_nerve"]
    section = json.loads((tmp_path / "run" / "sections" / "01_prepare_data.json").read_text(encoding="utf-8"))
    assert section["facts"]["usable cases"] == "4"
    assert section["facts"]["of them format examples, not measured"] == "1"
    pictures = [path for gallery in section["galleries"].values() for path, _ in gallery]
    assert len(pictures) == 4
    assert all((tmp_path / "run" / path).is_file() for path in pictures)
    models = {"models": ["miniature_sam2"], "prompts": ["one_box"], "workers": 0}
    assert runner.run_notebook("02_evaluate_2d", tmp_path / "02.ipynb", common | models).error is None
    measured = pd.read_parquet(tmp_path / "run" / "tables" / "results_2d.parquet")
    assert set(measured.data_set) == {"sample_breast", "sample_brain_ventricles"}
