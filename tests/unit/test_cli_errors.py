"""Bad input through the real command: the exit code, one sentence on stderr that says what and where, nothing lost."""

import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from researcher.cli.main import main
from researcher.store import RunStore, list_runs, run_path
from researcher.testing.model_replies import Raw, Reply
from researcher.testing.model_server import ModelServer

RUN = "20261120-000000-aaaaaa"


class Shell:
    """The command in a folder with one document and one finished run."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.home = folder / "home"
        self._capsys = capsys

    def fails(self, *arguments: str, code: int = 2) -> str:
        """The one sentence that the command says on stderr, with nothing on stdout."""
        assert main(arguments) == code
        said = self._capsys.readouterr()
        assert said.out in ("", "no answer\n")
        assert "Traceback" not in said.err
        [sentence] = [line for line in said.err.splitlines() if line.startswith("researcher: ")]
        return sentence


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESEARCHER_HOME", str(tmp_path / "home"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("The Velar tower is 40 m high.\n")
    with ModelServer(Reply("<answer>4</answer>")) as server:
        assert main(["run", "2+2?", "--model", f"{server.url}#test", "--strategy", "chain_of_thought"]) == 0
    [made] = (tmp_path / "home" / "runs").glob("*.db")
    made.rename(made.with_name(f"{RUN}.db"))
    capsys.readouterr()
    return Shell(tmp_path, capsys)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


USAGE: list[Any] = [
    pytest.param("run q --model embeded", "unknown model URI 'embeded'; did you mean embedded?", id="unknown-uri"),
    pytest.param("run q --model gguf:nowhere.gguf", "there is no model file nowhere.gguf", id="no-gguf"),
    pytest.param("run ''", "the question is empty", id="empty-question"),
    pytest.param("run ' '", "the question is empty", id="blank-question"),
    pytest.param("run", "the question is empty", id="no-question"),
    pytest.param("run q --docs nowhere", "no document folder 'nowhere'", id="no-folder"),
    pytest.param("run q --docs empty", "empty", id="empty-folder"),
    pytest.param("run q --docs docs/a.md", "is a file, not a folder", id="file-for-folder"),
    pytest.param("run q --config bad.toml", "bad.toml:2: not valid TOML in model", id="bad-toml"),
    pytest.param("run q --config wrong.toml", "wrong.toml:2: budget.tokens must be a valid integer", id="wrong-field"),
    pytest.param(
        "run q --config unknown.toml", "unknown.toml:1: modell is not a setting; did you mean model?", id="key"
    ),
    pytest.param("show nope", "there is no run 'nope'", id="unknown-run"),
    pytest.param("resume nope", "there is no run 'nope'", id="unknown-resume"),
    pytest.param("show ../../etc/passwd", "is not the name of a run", id="path-for-run"),
    pytest.param("run q --budget-tokens 0", "--budget-tokens: must be greater than 0", id="zero-tokens"),
    pytest.param("run q --budget-calls 0", "--budget-calls: must be greater than 0", id="zero-calls"),
    pytest.param("run q --budget-seconds 0", "--budget-seconds: must be greater than 0", id="zero-seconds"),
    pytest.param("run q --budget-cost 0", "--budget-cost: must be greater than 0", id="zero-cost"),
    pytest.param("run q --budget-cost 1", "A cost budget needs prices", id="cost-without-prices"),
    pytest.param("run q --budget-tokens many", "Invalid value for '--budget-tokens'", id="budget-type"),
    pytest.param("run q --strategy votes", "There is no strategy 'votes'; did you mean vote", id="strategy"),
    pytest.param("run q --set m=3", "Strategy vote has no parameter 'm'", id="parameter"),
    pytest.param("run q --set n", "--set n: write a strategy's parameter as key=value", id="assignment"),
    pytest.param("run q --set n=many", "Strategy vote, parameter 'n'", id="parameter-type"),
    pytest.param("run q --threads 0", "--threads: must be greater than 0", id="zero-threads"),
    pytest.param(
        "run q --strategy chain_of_thought --threads 3", "--threads: the strategy chain_of_thought", id="width"
    ),
    pytest.param("run q --tool search", "the tool search needs a folder of documents", id="search-without-docs"),
    pytest.param("run q --tool serch", "serch", id="unknown-tool"),
    pytest.param("run q --verifier exakt", "exakt", id="unknown-verifier"),
    pytest.param("run --numbers 1,x --target 3", "write whole numbers with commas", id="numbers"),
    pytest.param("run --numbers 1,2", "needs both --numbers", id="numbers-without-target"),
    pytest.param(f"replay {RUN} --until 0", "--until 0: events are numbered from 1", id="until"),
    pytest.param(f"replay {RUN} --speed 0", "--speed must be greater than 0", id="speed"),
    pytest.param(f"export {RUN} --format xml", "xml", id="format"),
    pytest.param("rum q", "No such command 'rum'", id="command"),
]


@pytest.mark.parametrize(("line", "said"), USAGE)
def test_bad_input_is_exit_2_and_one_sentence(shell: Shell, line: str, said: str) -> None:
    (shell.folder / "empty").mkdir()
    (shell.folder / "bad.toml").write_text("seed = 1\nmodel = \n")
    (shell.folder / "wrong.toml").write_text("[budget]\ntokens = 'many'\n")
    (shell.folder / "unknown.toml").write_text("modell = 'embedded'\n")
    before = list_runs(shell.home)
    words = [word.strip("'") for word in line.replace("' '", "''").split()]
    with ModelServer(Reply("<answer>4</answer>")) as server:
        served = ["--model", f"{server.url}#test"] if words[0] == "run" and "--model" not in words else []
        assert said in shell.fails(*words, *served)
        assert server.counts.calls == 0
    assert list_runs(shell.home) == before


def test_a_folder_that_cannot_be_read(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # a test may run as root, who reads everything
    assert "'docs' is not readable" in shell.fails("run", "q", "--docs", "docs", "--model", "embedded")


def test_a_server_that_is_down(shell: Shell) -> None:
    said = shell.fails("run", "q", "--model", f"http://127.0.0.1:{closed_port()}/v1#m", code=1)
    assert "127.0.0.1" in said
    assert len(list_runs(shell.home)) == 1


def test_a_wrong_key_is_said_and_not_shown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESEARCHER_API_KEY", "sk-wrong")
    with ModelServer(key="sk-right") as server:
        said = shell.fails("run", "q", "--model", f"{server.url}#test", code=1)
    assert "sk-" not in said
    assert "key" in said


def test_a_model_the_server_does_not_serve(shell: Shell) -> None:
    with ModelServer() as server:
        assert "it serves: test" in shell.fails("run", "q", "--model", f"{server.url}#other", code=1)


def test_a_server_without_tools_is_named_as_the_reason(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    body = b'{"error": {"message": "tool choice requires --enable-auto-tool-choice", "code": 400}}'
    with ModelServer(lambda request: Raw(400, body=body) if "tools" in request.body else Reply("1. q")) as server:
        code = main(["run", "q", "--docs", "docs", "--model", f"{server.url}#test", "--threads", "2"])
    said = capsys.readouterr()
    assert code == 1
    assert "--enable-auto-tool-choice" in said.err
    assert said.out == "no answer\n"


def damage(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE events SET body = x'00' WHERE seq = 3")
    connection.close()


@pytest.mark.parametrize("command", ["show", "replay", "verify", "report", "resume"])
def test_a_corrupted_store_is_refused_where_the_damage_is(shell: Shell, command: str) -> None:
    damage(run_path(shell.home, RUN))
    arguments = [command, RUN, *(["--instant", "--json"] if command == "replay" else [])]
    assert main(arguments) == 1
    assert "event 3" in shell._capsys.readouterr().err


def test_a_file_that_is_no_store(shell: Shell) -> None:
    run_path(shell.home, RUN).write_bytes(b"not a database" * 100)
    assert RUN in shell.fails("show", RUN, code=1)


def test_ls_lists_a_damaged_run_and_hides_no_other(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    (shell.home / "runs" / "20261121-000000-bbbbbb.db").write_bytes(b"not a database" * 100)
    assert main(["ls"]) == 0
    said = capsys.readouterr().out
    assert RUN in said
    assert "unreadable" in said


def test_a_run_that_is_open_elsewhere(shell: Shell) -> None:
    store = RunStore.open(run_path(shell.home, RUN))
    try:
        with ModelServer() as server:
            said = shell.fails("resume", RUN, "--model", f"{server.url}#test", code=1)
        assert f"run {RUN} is open in process {os.getpid()}" in said
    finally:
        store.close()


def test_a_home_that_cannot_be_made(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    (shell.folder / "file").write_text("")
    with ModelServer() as server:
        said = shell.fails("run", "q", "--model", f"{server.url}#test", "--home", "file/home", code=1)
    assert "file" in said


def test_a_beginning_that_several_runs_share(shell: Shell) -> None:
    for name in ("20261120-000000-bbbbbb", "20261121-000000-cccccc"):
        (shell.home / "runs" / f"{name}.db").write_bytes(run_path(shell.home, RUN).read_bytes())
    assert "is the beginning of 2 runs" in shell.fails("show", "20261120")


def test_a_defect_is_a_sentence_too_and_debug_shows_where(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> Callable[[], None]:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("researcher.cli.ls.list_runs", broken)
    assert "a defect of researcher: ZeroDivisionError: of ours" in shell.fails("ls", code=1)
    monkeypatch.setenv("RESEARCHER_DEBUG", "1")
    main(["ls"])
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_inside_a_group_of_tasks_is_an_interrupt(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner: list[BaseException] = []

    def broken(*_: object) -> list[object]:
        raise BaseExceptionGroup("tasks", [BaseExceptionGroup("more tasks", list(inner))])

    monkeypatch.setattr("researcher.cli.ls.list_runs", broken)
    inner.append(KeyboardInterrupt())
    assert main(["ls"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    inner[:] = [GeneratorExit("of ours")]
    assert "a defect of researcher: GeneratorExit: of ours" in shell.fails("ls", code=1)
