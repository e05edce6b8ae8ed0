"""What the README says of one's own data, done by the letter: files, ten lines, one command, a report."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import yaml

from medsam_nb.data.simulated import anatomy

ROOT = Path(__file__).parents[2]


def write_patient(raw: Path, name: str, seed: int, damage=lambda image: image) -> None:
    """Write a simulated CT and its mask as a hospital would hand them over (NIfTI, x y z)."""
    case = anatomy.simulate_case("ct", seed, shape=(8, 96, 96), spacing_mm=(5.0, 3.0, 3.0))
    affine = np.diag([3.0, 3.0, 5.0, 1.0])
    mask = np.isin(case.labels, case.objects["organ"]).astype(np.uint8)
    for folder, array in (("images", damage(case.image.copy())), ("labels", mask)):
        (raw / folder).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array.T, affine), raw / folder / f"{name}.nii.gz")


def with_nan(image):
    image[0, 0, 0] = np.nan
    return image


def test_own_data_from_files_to_report(tmp_path):
    for name in ("data_manifest.yaml", "notebooks", "studies"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    raw = tmp_path / "data" / "raw" / "my_data"
    write_patient(raw, "patient_1", 1)
    write_patient(raw, "patient_2", 2)
    write_patient(raw, "patient_3", 3, with_nan)
    described = tmp_path / "studies" / "my_data_manifest.yaml"
    rows = yaml.safe_load(described.read_text(encoding="utf-8"))
    rows["data_sets"]["my_data"]["objects"] = {"organ": [1]}
    described.write_text(yaml.safe_dump(rows), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("medsam-nb")), "run", "studies/my_data.yaml"]
    command += ["--set", "designs=paper_v1"]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # the plainest terminal
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | ascii_only, capture_output=True, text=True, encoding="utf-8"
    )
    run_dir = tmp_path / "runs" / "my_data"
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"report: {run_dir}/index.html" in done.stdout and "cases: 2 of 3 usable" in done.stdout
    cases = pd.read_parquet(run_dir / "tables" / "cases.parquet").set_index("case_id")
    assert cases.status.to_dict() == {"patient_1": "ok", "patient_2": "ok", "patient_3": "failed"}
    assert "NaN" in cases.error["patient_3"]
    page = (run_dir / "index.html").read_text(encoding="utf-8")
    assert "1 voxels of the image are NaN" in page and " failed: " not in page
    table = pd.read_parquet(run_dir / "tables" / "results_3d.parquet")
    assert set(table.case_id) == {"patient_1", "patient_2"} and set(table.object) == {"organ"}
    facts = json.loads((run_dir / "sections" / "01_prepare_data.json").read_text(encoding="utf-8"))["facts"]
    assert facts["cases that failed"] == "1"
