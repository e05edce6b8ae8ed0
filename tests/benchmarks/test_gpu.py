"""The benchmark of a GPU, rehearsed on the CPU with the miniature; on a GPU it has never run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(place, *words):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", *words],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
    )


def test_a_rehearsal_measures_and_compares(tmp_path):
    small = ["--device=cpu", "--size=miniature", "--side=128", "--slices=6", "--backend=eager"]
    done = run(tmp_path, *small, "--steps", "identity", "transform", "modes")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "runs/bench/gpu.json").read_text(encoding="utf-8"))
    (same,) = [row for row in rows if row["step"] == "identity"]
    assert same["identical"] and same["cpu_ratio"] > same["cpu_ratio_to_careful"] > 0
    exact, *faster = [row for row in rows if row["step"] == "modes"]
    assert exact["kernels, branches at once"] == "eager, 1" and exact["differing_pixels"] == 0
    assert [row["kernels, branches at once"] for row in faster] == [
        *("eager, 4", "eager, 16", "compiled, 1", "compiled, 4", "compiled, 16")
    ]
    assert all(row["differing_pixels"] < 0.05 and row["again_s"] > 0 for row in faster)
    parts = [row["part"] for row in rows if row["step"] == "transform"]
    assert parts == ["resize", "encode", "both, one by one", "both, ahead"]
    assert "## transform" in (tmp_path / "runs/bench/gpu.md").read_text(encoding="utf-8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(tmp_path):
    assert "there is no CUDA device" in run(tmp_path).stderr
