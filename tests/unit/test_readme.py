"""What the README and the examples say is executed, or held against the code."""

import asyncio
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from researcher.cli.exits import Exit
from researcher.cli.main import main
from researcher.config import BudgetSettings, Settings
from researcher.strategies.load import strategy_class
from researcher.testing.model_replies import Reply
from researcher.testing.model_server import ModelServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [line.partition(" # ")[0] for line in re.findall(r"^    (researcher .*)$", README, re.MULTILINE)]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A server for the examples, which name the embedded model; the end-to-end tests run them on that one."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HOME", str(tmp_path))
    with ModelServer(Reply("<answer>Tepe</answer>")) as server:
        yield f"{server.url}#test"


def test_the_python_in_the_readme_runs(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code.replace('"embedded"', repr(model)), "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("answered Tepe")


def test_the_five_lines_run(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "examples" / "five_lines.py"
    scope = {"__name__": "five_lines", "__file__": str(path)}
    exec(compile(path.read_text("utf-8").replace('"embedded"', repr(model)), str(path), "exec"), scope)
    asyncio.run(scope["main"]())  # type: ignore[operator]
    said = capsys.readouterr().out
    assert said.startswith("1 None RunStarted")
    assert "text='Tepe'" in said


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_and_option_of_the_readme_exists(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, command, *arguments = shlex.split(line)
    assert main([command, "--help"]) == 0
    helped = capsys.readouterr().out
    for option in (word for word in arguments if word.startswith("--")):
        assert option in helped


def test_the_tour_shows_every_command() -> None:
    shown = {line.split()[1] for line in COMMANDS}
    assert shown >= {"run", "resume", "ls", "show", "replay", "export", "report", "verify", "doctor"}


def test_the_table_of_exit_codes_is_the_code() -> None:
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)} == set(map(int, Exit))


def test_the_table_of_settings_is_the_code() -> None:
    section = README.partition("## Configuration")[2].partition("## Limits")[0]
    rows = re.findall(r"^\| `([^`]+)`[^|]*\|", section, re.MULTILINE)
    named = {name for row in rows if not row.startswith("[") for name in row.split()}
    named |= {row.strip("[]").split("]")[0] for row in rows if row.startswith("[")}
    assert named == set(Settings.model_fields)
    budget = {name for row in rows if row.startswith("[budget]") for name in row.split()[1:]}
    assert budget == set(BudgetSettings.model_fields)


def test_the_table_of_strategies_names_their_parameters() -> None:
    section = README.partition("## Strategies")[2].partition("## Tools")[0]
    for name, row in re.findall(r"^\| `(\w+)` \|(.*)$", section, re.MULTILINE):
        fields = strategy_class(name).model_fields
        named = set(re.findall(r"`(\w+)`", row.rpartition("|")[0].rpartition("|")[2]))
        assert named - {"lossless", "beta", "full"} <= set(fields)
        assert named
