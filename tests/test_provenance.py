"""What is recorded of a process is its own."""

import subprocess
import sys

import pytest

LARGE_MB = 600
OWN = "from medsam_nb.provenance import peak_memory_mb; print(peak_memory_mb())"
# A process that has held much, and starts another one.
CODE = f"""
import subprocess, sys
from medsam_nb.provenance import peak_memory_mb
held = bytearray({LARGE_MB} << 20)
held[:: 4096] = bytes(len(held[:: 4096]))
print(peak_memory_mb(), flush=True)
subprocess.run([sys.executable, "-c", {OWN!r}], check=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, which Linux has")
def test_the_peak_of_memory_is_not_that_of_the_process_that_started_it():
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, encoding="utf-8")
    parent, child = map(int, done.stdout.split())
    assert parent > LARGE_MB > 300 > child > 0
