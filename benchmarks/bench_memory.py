"""Peak memory of preparing a CT, and of evaluating it in 2D and 3D, by its slices and objects.

    python -m benchmarks.bench_memory [--slices 100 300 600] [--objects 1 4] [--side 512]

The CT is simulated: noise with boxes in it, int16, compressed NIfTI as it is downloaded. Each step has a
process of its own, whose peak is read at its end; what Python and torch take alone is printed first.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.evaluation import units
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.protocol.designs import PAPER_V1_DESIGNS
from medsam_nb.provenance import peak_memory_mb, project_root

STEPS = ("imports", "prepare", "2d", "3d")


def write_ct(folder: Path, slices: int, objects: int, side: int) -> None:
    """Write a CT and its label map: boxes side by side on the middle two thirds of the slices."""
    draw, filled = np.random.default_rng(0), slice(slices // 6, slices - slices // 6)
    labels = np.zeros((side, side, slices), np.uint8)
    wide = side // (2 * objects + 1)
    for number in range(objects):
        left = (2 * number + 1) * wide
        labels[left : left + wide, side // 4 : 3 * side // 4, filled] = number + 1
    image = np.empty(labels.shape, np.int16)
    for index in range(slices):
        image[..., index] = draw.normal(0, 60, (side, side)) + 100 * labels[..., index]
    for kind, array in (("images", image), ("labels", labels)):
        (folder / kind).mkdir(parents=True)
        nib.save(nib.Nifti1Image(array, np.diag([-0.8, -0.8, 1, 1])), folder / kind / "ct.nii.gz")
    row = {
        "title": "Simulated large CT",
        "modality": "CT",
        "dimension": 3,
        "objects": {f"box_{number + 1}": [number + 1] for number in range(objects)},
        "intensity": {"policy": "window", "low": -160, "high": 240},
        "layout": {
            "name": "nifti_pairs", "images": "images/{case}.nii.gz", "masks": "labels/{case}.nii.gz"
        },
    }  # fmt: skip
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"data_sets": {"large": row}, "checkpoints": {}}))


def step(name: str, folder: Path) -> None:
    """Do one step; print its peak in MB and its seconds."""
    started = time.monotonic()
    if name == "prepare":
        row = load_manifest(folder / "manifest.yaml").data_set("large")
        (folder / "large").exists() or (folder / "large").symlink_to(folder)
        cases = prepare(row, folder, folder / "prepared", progress=False, workers=0)
        assert (cases["status"] == "ok").all(), cases["error"].tolist()
    elif name != "imports":
        checkpoint = load_manifest(project_root() / "data_manifest.yaml").checkpoint("miniature_sam2")
        own = {
            "2d": {"prompts": ["one_point"], "protocol": "corrected"},
            "3d": {"designs": PAPER_V1_DESIGNS[:2]},
        }
        planned = units.plan_units(
            name, case_folders(folder / "prepared", "large"), [checkpoint],
            weights_dir=folder, seed=1, device="cpu", **own[name],
        )  # fmt: skip
        ended = units.run_units(planned, Store(folder / f"rows_{name}"), workers=0)
        assert (ended["status"] == "computed").all(), ended["error"].tolist()
    print(f"{name}: {peak_memory_mb()} MB, {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Measure the sizes that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", type=int, nargs="+", default=[100, 300, 600])
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--one", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        step(options.one[0], Path(options.one[1]))
        return
    for slices in options.slices:
        for objects in options.objects:
            print(f"{slices} slices of {options.side} x {options.side}, {objects} objects", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                write_ct(Path(folder), slices, objects, options.side)
                for name in options.steps:
                    command = [sys.executable, "-m", "benchmarks.bench_memory", "--one", name, folder]
                    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
