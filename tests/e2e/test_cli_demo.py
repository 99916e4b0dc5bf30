"""`researcher demo` and the README's Python on the embedded model, as a newcomer runs them."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
GOLD = (ROOT / "examples" / "answer.txt").read_text("utf-8").strip()


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter without a network to speak of: every proxy and server variable is gone."""
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_the_demo_answers_with_citations_in_a_minute(tmp_path: Path) -> None:
    began = time.monotonic()
    demo = python("-m", "researcher", "demo", "--home", str(tmp_path), cwd=tmp_path)
    took = time.monotonic() - began
    assert demo.returncode == 0, demo.stderr
    assert took < 60
    answer, *citations = demo.stdout.splitlines()
    assert answer == GOLD
    assert len(citations) >= 4
    assert all(re.search(r"\w+\.md:\d+-\d+$", line) for line in citations)
    shown = python("-m", "researcher", "show", "last", "--home", str(tmp_path), "--json", cwd=tmp_path)
    record = json.loads(shown.stdout)
    assert sum(record["threads"].values()) >= 16
    assert all(citation["ok"] for citation in record["citations"])
    verified = python("-m", "researcher", "verify", "last", "--home", str(tmp_path), cwd=tmp_path)
    assert verified.returncode == 0, verified.stdout


def test_the_readme_and_the_five_lines_run_on_the_embedded_model(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    readme = python("-c", code, cwd=ROOT)
    assert readme.stdout.startswith("answered "), readme.stderr
    lines = python("examples/five_lines.py", cwd=ROOT)
    assert GOLD in lines.stdout, lines.stderr
