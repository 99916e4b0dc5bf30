import json
from pathlib import Path

import pytest

from researcher.cli import doctor
from researcher.cli.main import main
from researcher.testing.model_server import ModelServer


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESEARCHER_HOME", str(tmp_path / "home"))
    return tmp_path


def test_all_that_is_needed_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with ModelServer() as server:
        assert main(["doctor", "--model", f"{server.url}#test", "--json"]) == 0
    checks = {line["name"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {"python", "home", "sandbox", "model", "embedded weights", "extra local"} <= set(checks)
    assert checks["model"]["ok"]
    assert "tools" in checks["model"]["detail"]


def test_a_model_that_is_not_there_is_an_error_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "gguf:nowhere.gguf"]) == 1
    assert "FAIL model: there is no model file nowhere.gguf" in capsys.readouterr().out


def test_a_home_that_cannot_be_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "file").write_text("")
    with ModelServer() as server:
        assert main(["doctor", "--model", f"{server.url}#test", "--home", "file/home"]) == 1
    assert "FAIL home: " in capsys.readouterr().out


def test_a_missing_extra_says_how_to_get_it_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "mcp", ("no_such_module_here",))
    with ModelServer() as server:
        assert main(["doctor", "--model", f"{server.url}#test"]) == 0
    said = capsys.readouterr().out
    assert "none extra mcp: missing no_such_module_here; pip install 'researcher-orchestrator[mcp]'" in said
