"""The soak runs: its study comes to a table, a harm is survived, and the last line counts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="the soak limits and forks processes as Linux does")
@pytest.mark.parametrize("harm", ["kill", "damage", "fill"])
def test_a_harm_is_survived_and_counted(harm, tmp_path):
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.08", "--seed", "5", "--only", harm]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
    line = done.stdout.strip().splitlines()[-1]
    found = re.fullmatch(rf"soak: (\d+) tried, (\d+) survived, 0 lost \({harm} \d+; .* seed 5\)", line)
    assert done.returncode == 0 and found, done.stdout + done.stderr
    assert found[1] == found[2] and int(found[1]) >= 1
    assert list(tmp_path.glob("soak-*")) == []
