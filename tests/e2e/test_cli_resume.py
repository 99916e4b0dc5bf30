"""A run on the embedded model that is interrupted goes on on the embedded model, which is another server by then."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_an_interrupted_run_on_the_embedded_model_goes_on(tmp_path: Path) -> None:
    environment = {**os.environ, "RESEARCHER_HOME": str(tmp_path)}
    start = [sys.executable, "-m", "researcher"]
    options = [
        "--strategy",
        "vote",
        "--set",
        "n=40",
        "--set",
        "stop=full",
        "--set",
        "max_tokens=64",
        "--set",
        "turns=1",
        "--json",
    ]
    run = subprocess.Popen(
        [*start, "run", "--numbers", "3,5,8", "--target", "24", "--model", "embedded", *options],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    assert run.stdout is not None
    for line in run.stdout:
        if '"message_added"' in line:
            break
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=120)
    assert run.returncode == 130
    again = subprocess.run([*start, "resume", "last"], capture_output=True, text=True, env=environment, timeout=120)
    assert again.returncode in (0, 3), again.stderr  # how good the model is belongs to other tests
    assert "40 threads" in again.stderr
