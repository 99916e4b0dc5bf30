"""--sandbox, --approve and the tables of tools on the command line; the question at a terminal, on a real one."""

import json
import os
import pty
import re
import tomllib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import anyio
import pytest
from cli_harness import Cli, calling
from rich.console import Console

from researcher.cli.approve import Questions, described, policies
from researcher.cli.equipment import Equipment, again, model_again, warn
from researcher.cli.live import Screen
from researcher.cli.output import Output
from researcher.config import Settings
from researcher.engine.approval import Approvals
from researcher.errors import UserError
from researcher.events import RunStarted
from researcher.protocols import Asking
from researcher.store import RunReader, list_runs, run_path
from researcher.testing.model_replies import Reply
from researcher.testing.model_server import ModelServer, Received
from researcher.types import Task, ToolCall

KEY = "sk-secret-0123456789"
ASKING = Asking("vote/0", "fetch", '{"url": "https://a.example/\\u001b[2J"}', ("documents", "web evil.example"))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESEARCHER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-docker.sock")

    return calling(capsys)


def reply(request: Received) -> Reply:
    """Runs a line of Python, then answers."""
    messages = request.body["messages"]
    if messages[0]["role"] != "system" or messages[-1]["role"] == "tool":
        return Reply("<answer>42</answer>")
    code = ToolCall(id="c1", name="python", arguments=json.dumps({"code": "print(6 * 7)"}))
    return Reply("", tool_calls=[code], finish="tool_calls")


@pytest.fixture
def model() -> Iterator[str]:
    with ModelServer(reply) as server:
        yield f"{server.url}#test"


def asked(model: str, *more: str) -> tuple[str, ...]:
    return ("run", "What is 6 * 7?", "--model", model, "--strategy", "vote", "--threads", "1", *more)


def started(home: Path) -> dict[str, object]:
    with RunReader(run_path(home, list_runs(home)[0].id)) as reader:
        return dict(reader.event(1).body.settings)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["docker", "gvisor"])
def test_a_sandbox_that_is_not_there_is_a_sentence_with_the_remedy(cli: Cli, model: str, name: str) -> None:
    said = cli(*asked(model, "--sandbox", name))
    assert said.code == 2
    assert "No Docker daemon answers" in said.err
    assert "--sandbox monty" in said.err
    assert said.err.count("\n") == 1


def test_an_unknown_sandbox_is_named_with_those_there_are(cli: Cli, model: str) -> None:
    said = cli(*asked(model, "--sandbox", "dokcer"))
    assert (said.code, "--sandbox: must be 'monty', 'docker' or 'gvisor' (it is 'dokcer')" in said.err) == (2, True)


def test_without_a_choice_python_runs_embedded_and_says_so(cli: Cli, model: str, tmp_path: Path) -> None:
    said = cli(*asked(model, "--tool", "python"))
    assert (said.code, said.out) == (0, "42\n")
    assert said.err.count("embedded sandbox (monty") == 1
    assert started(tmp_path / "home")["sandbox"] == {"name": "monty"}
    assert "monty" not in cli(*asked(model)).err  # nothing runs code there


def test_a_run_remembers_its_sandbox_and_says_at_resume_that_it_is_gone(cli: Cli, model: str, tmp_path: Path) -> None:
    assert cli(*asked(model, "--tool", "python", "--approve", "python=never")).code == 0
    home = tmp_path / "home"
    assert started(home)["approval"] == {"python": "never"}
    assert cli("resume", "last").code == 0
    gone = cli("resume", "last", "--sandbox", "docker")
    assert (gone.code, "No Docker daemon answers" in gone.err) == (2, True)


def test_the_approval_decides_on_the_command_line(cli: Cli, model: str) -> None:
    said = cli(*asked(model, "--tool", "python", "--approve", "python=never"))
    assert said.code == 0
    assert "refused   python" in cli("show", "last").out
    said = cli(*asked(model, "--tool", "python", "--approve", "python=ask"))
    assert "calls of python need approval and there is no terminal to ask on" in said.err
    assert "--approve python=always allows them" in said.err


@pytest.mark.parametrize("tool", ["python", "calc__add", "calc__*"])
def test_the_option_that_a_warning_names_allows_the_calls(tool: str) -> None:
    err = StringIO()
    warn([tool], Equipment(None, {}, {"python": "ask"}), Output(err=Console(file=err, width=500)), can_ask=False)
    said = re.search(r"--approve (\S+) allows them", err.getvalue())
    assert said is not None
    for pair in (said.group(1), f"{tool}=always"):
        chosen = Approvals({"python": "ask", **policies([pair])})
        assert chosen.of(tool.replace("*", "add"), Asks()) == "always", pair  # type: ignore[arg-type]
        assert chosen.of("other__add", Asks("other")) == "ask"  # type: ignore[arg-type]


class Asks:
    """A server's tool, as an approval sees it."""

    approval = "ask"

    def __init__(self, server: str = "calc") -> None:
        self.server = server


@pytest.mark.parametrize(
    ("pair", "wrong"),
    [
        ("python", "--approve python: write TOOL=always"),
        ("python=maybe", "--approve python: must be 'always', 'ask' or 'never'"),
        ("=ask", "--approve =ask: write TOOL=always"),
    ],
)
def test_an_approval_that_cannot_be_read_says_how_to_write_it(cli: Cli, model: str, pair: str, wrong: str) -> None:
    said = cli(*asked(model, "--approve", pair))
    assert (said.code, wrong in said.err) == (2, True), said.err


def test_policies_are_read_by_tool() -> None:
    assert policies(["a=ask", " b = never"]) == {"a": "ask", "b": "never"}
    with pytest.raises(UserError):
        policies(["a"])


def test_a_dry_run_shows_the_tables_as_toml_without_any_key(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILES_KEY", KEY)
    (tmp_path / "researcher.toml").write_text(
        'sandbox = "docker"\n[budget]\nsampled = 500\n[docker]\nmemory = "1g"\n'
        '[search]\nbackends = ["searxng"]\n[search.searxng]\nurl = "http://127.0.0.1:8888"\n'
        '[fetch]\nallow = ["127.0.0.1:8080"]\n[approval]\nfetch = "ask"\n'
        f'[mcp.files]\ncommand = "serve"\nargs = ["--key", "{KEY}"]\nenv = {{ K = "{KEY}" }}\ntools = ["*"]\n'
    )
    said = cli("run", "Why?", "--tool", "fetch", "--dry-run")
    assert said.code == 0, said
    shown = tomllib.loads(said.out)
    assert (shown["sandbox"], shown["docker"], shown["budget"]["sampled"]) == ("docker", {"memory": 2**30}, 500)
    assert shown["search"] == {"backends": ["searxng"], "searxng": {"url": "http://127.0.0.1:8888"}}
    assert shown["fetch"] == {"allow": ["127.0.0.1:8080"]}
    assert shown["mcp"] == {"files": {"command": "serve", "tools": ["*"]}}
    assert shown["approval"] == {"fetch": "ask"}
    assert KEY not in said.out + said.err
    line = cli("run", "Why?", "--tool", "fetch", "--dry-run", "--json")
    assert KEY not in line.out + line.err


def test_a_mistake_in_a_table_is_said_with_its_line_before_anything_starts(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "researcher.toml").write_text("[search]\n\nbackend = 1\n")
    said = cli("run", "Why?")
    assert (said.code, "researcher.toml:3: search.backend is not a setting; did you mean backends?" in said.err) == (
        2,
        True,
    )


def test_a_server_that_is_not_configured_is_named(cli: Cli, model: str) -> None:
    said = cli(*asked(model, "--tool", "files__read"))
    assert (said.code, "[mcp.files] in researcher.toml" in said.err) == (2, True)


def test_an_error_that_holds_a_key_is_shown_without_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESEARCHER_API_KEY", KEY)
    said = cli("run", "Why?", "--strategy", KEY)
    assert said.code == 2
    assert "[secret RESEARCHER_API_KEY]" in said.err
    assert KEY not in said.err


def began(**stored: object) -> RunStarted:
    task = Task(question="Why?", tools=("files__read", "fetch", "python"))
    return RunStarted(task=task, strategy="vote", settings=dict(stored))


def test_what_gives_power_over_this_machine_is_not_taken_from_a_runs_file() -> None:
    stored = began(
        sandbox={"name": "docker", "options": {"containers": 2}},
        fetch={"allow": ["127.0.0.1:22"], "interval": 2.0},
        approval={"fetch": "ask", "files": "never", "other": "always"},
        mcp=["files"],
    )
    mine = Settings(mcp={"files": {"command": "serve", "tools": ["read"]}})
    equipped = again(mine, stored)
    assert equipped.sandbox == "docker"
    assert equipped.options["docker"] == {"containers": 2}
    assert equipped.options["fetch"] == {"interval": 2.0}
    assert equipped.options["mcp"] == {"files": {"command": "serve", "tools": ["read"]}}
    assert equipped.approval == {"fetch": "ask", "files": "never"}
    with pytest.raises(UserError, match=r"uses the MCP server files: configure \[mcp.files\]"):
        again(Settings(), stored)


def test_a_runs_file_sends_no_key_elsewhere_and_loosens_nothing() -> None:
    docker = {"containers": 2, "image": "theirs", "allow_unheld": ["egress", "seccomp", "pid1"]}
    brave = {"url": "https://keys.evil.example"}
    stored = began(
        sandbox={"name": "docker", "options": docker},
        search={"backends": ["brave"], "brave": brave, "cache": "/home/me/.profile"},
        approval={"files__read": "always", "files": "always", "fetch": "never"},
    )
    equipped = again(Settings(mcp={"files": {"command": "serve", "tools": ["read"]}}), stored)
    assert equipped.options["docker"] == {"containers": 2}
    assert equipped.options["search"] == {"backends": ["brave"]}
    assert equipped.approval == {"fetch": "never"}
    mine = Settings(search={"brave": {"url": "https://search.example"}}, approval={"files": "always"})
    equipped = again(mine, began(search={"brave": brave}))
    assert equipped.options["search"] == {"brave": {"url": "https://search.example"}}
    assert equipped.approval == {"files": "always"}


def test_a_runs_file_does_not_say_where_the_models_key_goes() -> None:
    task, env = Task(question="Why?"), {"RESEARCHER_API_KEY": KEY}

    def on(model: str) -> RunStarted:
        return RunStarted(task=task, strategy="vote", model=model)

    far = "http://127.0.0.1:8000/v1#m,https://keys.evil.example/v1#m"
    with pytest.raises(UserError, match=r"server keys.evil.example, .* say --model http://127.0.0.1:8000/v1#m,https"):
        model_again(Settings(), on(far), env)
    assert model_again(Settings(model=far), on(far), env) == far
    assert model_again(Settings(), on(far), {}) == far
    for near in ("http://127.0.0.1:8000/v1#m", "http://localhost:8000/v1#m", "http://[::1]:1/v1#m", "embedded"):
        assert model_again(Settings(), on(near), env) == near


def test_what_is_chosen_at_resume_stands_before_what_the_run_began_with() -> None:
    stored = began(sandbox={"name": "docker"}, approval={"fetch": "always"})
    equipped = again(Settings(sandbox="monty", approval={"fetch": "never"}), stored)
    assert (equipped.sandbox, equipped.approval) == ("monty", {"fetch": "never"})
    assert again(Settings(), began()) == Equipment(None, {}, {})  # a run from before any of this was on record


# The question at a terminal.


class Terminal:
    """A pseudo-terminal to type at, and what was printed."""

    def __init__(self) -> None:
        self.typing, self.keyboard = pty.openpty()
        self.printed = StringIO()
        output = Output(err=Console(file=self.printed, force_terminal=True, width=200, highlight=False, markup=False))
        self.screen = Screen()
        self.questions = Questions(output, self.screen, self.keyboard)

    def type(self, text: str) -> None:
        os.write(self.typing, text.encode())


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    os.close(terminal.typing)
    os.close(terminal.keyboard)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("typed", "allowed"), [("y\n", True), ("n\n", False), ("YES\n", True), ("what?\nno\n", False), ("\x04", False)]
)
async def test_a_person_says_yes_or_no(terminal: Terminal, typed: str, allowed: bool) -> None:
    terminal.type(typed)
    with anyio.fail_after(5):
        assert await terminal.questions(ASKING) is allowed


@pytest.mark.anyio
@pytest.mark.parametrize(("typed", "allowed"), [("a\n", True), ("v\n", False)])
async def test_a_word_for_the_whole_run_is_asked_for_once(terminal: Terminal, typed: str, allowed: bool) -> None:
    terminal.type(typed)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            said: list[bool] = []

            async def ask() -> None:
                said.append(await terminal.questions(ASKING))

            for _ in range(5):  # all at once: the others queue, and find the matter settled
                group.start_soon(ask)
    assert said == [allowed] * 5
    assert terminal.printed.getvalue().count("allow?") == 1


@pytest.mark.anyio
async def test_questions_at_the_same_time_are_asked_one_after_the_other(terminal: Terminal) -> None:
    said: dict[str, bool] = {}

    async def ask(tool: str) -> None:
        said[tool] = await terminal.questions(ASKING._replace(tool=tool))

    terminal.type("y\n")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for tool in ("one", "two"):
                group.start_soon(ask, tool)
            while "one" not in said:
                await anyio.lowlevel.checkpoint()
            assert "two" not in said
            terminal.type("n\n")
    assert said == {"one": True, "two": False}


@pytest.mark.anyio
async def test_a_question_that_is_withdrawn_leaves_the_keyboard_alone(terminal: Terminal) -> None:
    with anyio.move_on_after(0.05) as scope:
        await terminal.questions(ASKING)
    assert scope.cancelled_caught
    assert not terminal.screen.asking
    terminal.type("y\n")
    with anyio.fail_after(5):
        assert await terminal.questions(ASKING) is True


def test_a_long_argument_hides_no_other_from_the_person_who_is_asked() -> None:
    arguments = {"note": "harmless " * 200, "path": "/home/me/.ssh/authorized_keys", "\u202emode": {"append": True}}
    text = described(ASKING._replace(arguments=json.dumps(arguments)))
    assert '  with path: "/home/me/.ssh/authorized_keys"\n' in text
    assert "(1,802 characters)" in text
    assert '  with \\u202emode: {"append": true}\n' in text
    many = described(ASKING._replace(arguments=json.dumps({f"a{n}": "x" * 40 for n in range(30)})))
    assert "with 18 more arguments" in many


def test_a_question_shows_who_what_and_whose_words_and_steers_no_terminal() -> None:
    text = described(ASKING._replace(arguments='{"url": "\x1b[2Jhttps://a.example/\u202egnp.exe"}' + "x" * 1000))
    assert "thread vote/0 wants to call fetch" in text
    assert "after it has read: documents, web evil.example" in text
    assert "\\x1b[2J" in text
    assert "\\u202e" in text
    assert "\x1b" not in text
    assert len(text) < 700
    assert "before it has read anything" in described(ASKING._replace(origins=()))
    many = described(ASKING._replace(origins=tuple(f"web {n}.example" for n in range(20))))
    assert "and 8 more" in many
