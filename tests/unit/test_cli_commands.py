from __future__ import annotations

import subprocess
import sys

import pytest

from researcher.cli.commands import COMMANDS, load

LOADED = "import sys; from researcher.cli.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says_of_itself(name: str) -> None:
    own = load(name).help.split("\n\n")[0]
    assert COMMANDS[name].about == " ".join(own.split())


def test_help_starts_with_none_of_the_commands() -> None:
    ended = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert all(name in ended.stdout for name in COMMANDS)
    modules = set(ended.stderr.split())
    assert "researcher.cli.commands" in modules
    assert not modules & {"researcher.engine", "researcher_tools.registry", "networkx", "aiohttp", "pydantic"}
