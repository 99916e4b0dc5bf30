"""The real process under real signals: the first saves and says how to go on, the second stops at once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from researcher.testing.model_replies import Reply
from researcher.testing.model_server import ModelServer, Received

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def command(*arguments: str, home: Path) -> subprocess.Popen[str]:
    """`python -m researcher` with its streams captured."""
    return subprocess.Popen(
        [sys.executable, "-m", "researcher", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RESEARCHER_HOME": str(home)},
    )


def test_the_first_signal_drains_and_resume_goes_on(tmp_path: Path) -> None:
    def act(request: Received) -> Reply:
        return Reply("<answer>4</answer>", delay=0.0 if request.n < 3 else 0.5)

    with ModelServer(act) as server:
        model = f"{server.url}#test"
        run = command("run", "2+2?", "--model", model, "--strategy", "vote", "--set", "n=8", "--set", "stop=full",
                      "--json", home=tmp_path)  # fmt: skip
        assert run.stdout is not None
        for line in run.stdout:
            if json.loads(line).get("body", {}).get("t") == "answer_proposed":
                break
        run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=60)
        assert run.returncode == 130
        assert "researcher resume" in err
        assert json.loads(out.splitlines()[-1])["result"]["interrupted"] is True
        made = server.counts.calls
        again = command("resume", "last", "--model", model, "--json", home=tmp_path)
        out, err = again.communicate(timeout=120)
        assert again.returncode == 0, err
        assert json.loads(out.splitlines()[-1])["result"]["answer"]["votes"] == 8
        assert server.counts.calls - made <= 8 - 3


def test_the_second_signal_aborts_a_call_that_hangs(tmp_path: Path) -> None:
    with ModelServer(Reply("4", delay=600.0)) as server:
        run = command("run", "2+2?", "--model", f"{server.url}#test", "--strategy", "chain_of_thought", home=tmp_path)
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("run "):
                break
        run.send_signal(signal.SIGINT)
        for line in run.stderr:
            if "again stops at once" in line:
                break
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
        assert run.returncode == 130
