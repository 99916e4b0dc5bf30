"""SIGKILL at seeded moments of a run, resume, and compare: nothing lost, nothing done twice, the same answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KILLS = 200


@pytest.mark.e2e
def test_two_hundred_kills_lose_nothing_and_repeat_nothing() -> None:
    command = [sys.executable, str(ROOT / "tests/e2e/crash_harness.py"), str(KILLS), "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    assert sum(row["kills"] for row in rows) == KILLS
    assert sum(row["resumes"] for row in rows) > KILLS * 0.5  # the kills fell into runs, not before them
    for row in rows:
        assert row["lost"] == [], "acknowledged events that the log no longer has"
        assert row["gaps"] == []
        assert row["made_again"] == {}, "calls answered more often than they were lost in flight"
        assert row["answer"] == ["42", 6]
        assert row["calls"] == 24
