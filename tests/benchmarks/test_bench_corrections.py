"""The benchmark of corrections runs, finds identical masks, and counts less work than the plain loop does."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_small_volume(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_corrections", "--slices", "6", "--loops", "1"]
        + ["--image-size", "128"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    (row,) = json.loads((tmp_path / "runs/bench/corrections.json").read_text(encoding="utf-8"))
    assert row["identical"] and row["cpu_ratio"] > 0 and row["results"] == 3 * (2 + 1 + 2)
    for part in ("encodes", "attention_steps", "decodes", "memories"):
        assert 0 < row["engine_counts"][part] < row["plain_counts"][part]
    assert row["careful_counts"]["encodes"] == 6 + 1 and row["cpu_ratio_to_careful"] < row["cpu_ratio"]
    for part in ("attention_steps", "decodes", "memories"):
        assert row["careful_counts"][part] == row["plain_counts"][part]
    assert row["engine_counts"]["encodes"] == row["object_slices"] + 1  # and a look at a blank image
