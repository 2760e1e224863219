"""What a command took with all its processes."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from process_tree import run_measured

BUSY = "import sys, subprocess, time\nwhile time.process_time() < 0.4: pass\n"
#: Computes for 0.4 s and has 200 MB.
CHILD = BUSY + "held = bytearray(b'x') * 200_000_000; time.sleep(0.5)"
#: Computes for 0.4 s, and leaves a child behind.
PARENT = BUSY + f"subprocess.Popen([sys.executable, '-c', {CHILD!r}])"


def test_processes_that_outlive_the_command_count() -> None:
    other = subprocess.Popen(["sleep", "60"])  # not the command's
    try:
        usage = run_measured([sys.executable, "-c", PARENT])
    finally:
        other.kill()
        other.wait()
    assert 0.8 <= usage.cpu < 1.6
    assert 200e6 < usage.largest < 260e6 and 200e6 < usage.memory < 260e6


def test_a_command_that_fails_shows_what_it_printed() -> None:
    with pytest.raises(SystemExit, match="no such corpus"):
        run_measured([sys.executable, "-c", "raise SystemExit('no such corpus')"])
