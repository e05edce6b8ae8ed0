"""The benchmark runs, finds identical masks, and counts less work for the engine than for the loop."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_quick_cases(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_engine", "--quick"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    rows = json.loads((tmp_path / "runs/bench/results.json").read_text(encoding="utf-8"))
    parts = [row for row in rows if row["case"] == "quick_batching"]
    assert {row["part"] for row in parts} == {"memory_attention", "sam_mask_decoder", "memory_encoder"}
    # Without autocast, other shapes change a part's output by rounding only.
    assert all(row["cpu_ms_each"] > 0 and row["largest_difference"] < 1e-3 for row in parts)
    rows = [row for row in rows if row not in parts]
    assert [row["case"] for row in rows] == ["quick_3d", "quick_2d"]
    for row in rows:
        assert row["identical"] and row["peak_rss_mb"] > 0 and row["cpu_ratio"] > 0
        for part in ("encodes", "decodes"):
            assert 0 < row["engine_counts"][part] < row["loop_counts"][part]
    sweep, flat = rows
    assert flat["careful_counts"]["encodes"] == flat["engine_counts"]["encodes"]
    assert flat["cpu_ratio_to_careful"] < flat["cpu_ratio"]
    assert sweep["floor_ratio"] > 1 and sweep["cpu_ratio_to_careful"] < sweep["cpu_ratio"]
    assert sweep["careful_counts"]["encodes"] == 7  # each of six, and the first when the state is opened
    steps = [sweep[f"{side}_counts"]["attention_steps"] for side in ("engine", "careful", "loop")]
    assert steps == sorted(set(steps))  # each does less than the next
    # The object lies on slices 1 to 4 of 6: slices 0 to 4 are encoded, once.
    assert sweep["engine_counts"]["encodes"] == 5
