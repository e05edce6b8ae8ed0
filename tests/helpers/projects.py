"""A workbook in a folder of its own: small notebooks, the real manifest, and the real command."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import nbformat
import yaml

from medsam_nb import provenance

ROOT = Path(__file__).parents[2]
# What the notebooks of the study declare, as far as a study's checks depend on it.
EVALUATE_2D = """\
run_dir = "runs/demo"  # where results go
manifest = "data_manifest.yaml"  # data sets and checkpoints
extra_manifest = ""  # a manifest of your own
raw_dir = "data/raw"  # downloads
prepared_dir = "data/prepared"  # prepared cases
weights_dir = "weights"  # downloaded checkpoints
data_sets = ["mni152", "simulated_ct"]  # evaluated
models = ["miniature_sam2", "miniature_sam"]  # evaluated
prompts = ["one_point", "one_box"]  # ways to prompt
objects = []  # names of objects; empty for all
protocol = "corrected"  # or "released"
seed = 20240801  # of every random choice
device = "auto"  # auto, cuda, mps or cpu
dtype = "auto"  # auto, float32 or bfloat16
workers = 2  # processes
features_gb = 2.0  # disk
download = False  # fetch
"""
PROPAGATE_3D = EVALUATE_2D.replace('prompts = ["one_point", "one_box"]  # ways to prompt\n', "").replace(
    '"miniature_sam2", "miniature_sam"', '"miniature_sam2"'
) + (
    'designs = "all"  # or paper_v1\n'
    'mask_scope = "all"  # where the mask choice applies\n'
    'attention = "exact"  # or blocked\n'
    'kernels = "eager"  # or compiled\n'
    "branches_at_once = 1  # states\n"
    'frames = "image"  # or video\n'
    'until = "last_object_slice"  # or volume_end\n'
    'volume_metrics = "none"  # none, overlap, all\n'
)
STATISTICS = """\
run_dir = "runs/demo"  # where results are
study_file = "studies/demo.yaml"  # its comparisons are made
sam2 = "miniature_sam2"  # plays SAM 2
sam = "miniature_sam"  # plays SAM
resamples = 2000  # of the bootstrap
failed_below = 0.1  # IoU of a failure
shown_prompt = "one_box"  # of the pictures
shown_design = "centre_slice/one_box/bidirectional/first_mask"  # of the pictures
"""


@cache
def some_rows() -> str:
    """Return a manifest of a few real rows, which is read in a moment."""
    rows = yaml.safe_load((ROOT / "data_manifest.yaml").read_text(encoding="utf-8"))
    wanted = {"data_sets": ("mni152", "simulated_ct", "simulated_xray", "ct_spleen")}
    seen_by = {model for name in wanted["data_sets"] for model in rows["data_sets"][name].get("seen_by", {})}
    measured = {"miniature_sam2", "miniature_sam", "sam2_hiera_large", "sam_vit_h"}
    wanted["checkpoints"] = sorted(measured | seen_by)
    return yaml.safe_dump(
        {kind: {name: rows[kind][name] for name in names} for kind, names in wanted.items()}
    )


def write_notebook(folder: Path, name: str, parameters: str, *cells: str) -> None:
    """Write a notebook with a parameters cell and code cells below `folder`/notebooks."""
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    title = nbformat.v4.new_markdown_cell(f"# {name}")
    notebook = nbformat.v4.new_notebook(cells=[title, first, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")


@contextmanager
def as_project(folder: Path) -> Iterator[Path]:
    """Let a folder be the workbook's while the block runs: rows of the real manifest, the real sets."""
    (folder / "studies").mkdir(parents=True, exist_ok=True)
    (folder / "data_manifest.yaml").write_text(some_rows(), encoding="utf-8")
    shutil.copy(ROOT / "studies" / "comparisons.yaml", folder / "studies")
    before = Path.cwd()
    os.chdir(folder)
    provenance.project_root.cache_clear()
    try:
        yield folder
    finally:
        os.chdir(before)
        provenance.project_root.cache_clear()


def write_study(folder: Path, file: str = "small.yaml", **changes: object) -> Path:
    """Write a study of the project's notebooks; `changes` replace its fields, None removes one."""
    names = sorted(path.stem for path in (folder / "notebooks").glob("*.ipynb"))
    study = {"name": "small", "title": "Small", "question": "Does it run?"} | {
        "notebooks": dict.fromkeys(names)
    }
    study = {field: value for field, value in (study | changes).items() if value is not None}
    path = folder / "studies" / file
    path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return path


def command(*arguments: object) -> list[str]:
    """Return the command line of `medsam-nb`, with this interpreter and this copy of the package."""
    return [sys.executable, "-c", "from medsam_nb.cli import main; main()", *map(str, arguments)]


def started(*arguments: object, folder: Path, **options: object) -> subprocess.Popen:
    """Start `medsam-nb` in a folder; what it prints, errors too, is in `stdout`."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.Popen(
        command(*arguments), cwd=folder, env=environment, encoding="utf-8", stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, **options,
    )  # fmt: skip
