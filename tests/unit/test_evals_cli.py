"""`researcher eval` with a scripted server behind a real socket."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import Cli, calling
from researcher_tools.verifiers.countdown import solve_countdown

from researcher.evals.record import read_results
from researcher.testing.model_replies import Reply
from researcher.testing.model_server import ModelServer, Received

ASKED = ("--suite", "countdown:3", "--strategy", "chain_of_thought,vote", "--budget", "4000", "--param", "vote.n=3")


def reply(request: Received) -> Reply:
    """One that solves every problem whose first number is even."""
    question = request.body["messages"][-1]["content"]
    numbers = [int(text) for text in re.findall(r"\d+", question)]
    if len(numbers) < 4:
        return Reply("ok")  # a question of what the server can do
    numbers, target = (numbers[1:], numbers[0]) if question.startswith("Make") else (numbers[:-1], numbers[-1])
    solved = solve_countdown(numbers, target) if numbers[0] % 2 == 0 else None
    return Reply(f"<answer>{solved or 'none'}</answer>")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESEARCHER_HOME", str(tmp_path / "home"))

    return calling(capsys, "eval")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(reply) as server:
        yield server


def model(server: ModelServer) -> tuple[str, str]:
    return "--model", f"{server.url}#test"


def test_an_evaluation_prints_its_table_and_writes_its_files(cli: Cli, server: ModelServer, tmp_path: Path) -> None:
    said = cli(*ASKED, "--count", "6", "--seeds", "2", "--out", "out", *model(server))
    assert said.code == 0, said.err
    assert said.out.startswith("6 problems of `countdown:3`, 2 seeds")
    assert "| vote | 4,000 | 12 |" in said.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json", "results.jsonl", "summary.json", "table.md", "accuracy.svg",
    }  # fmt: skip
    results = read_results(tmp_path / "out" / "results.jsonl")
    assert len(results) == 24
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {row["accuracy"] for row in summary["rows"]} == {sum(r.status == "correct" for r in results) / 24}


def test_the_same_command_runs_nothing_again_and_a_larger_one_only_what_is_new(cli: Cli, server: ModelServer) -> None:
    assert cli(*ASKED, "--count", "2", "--seeds", "1", *model(server)).code == 0
    calls = server.counts.calls
    said = cli(*ASKED, "--count", "2", "--seeds", "1", *model(server))
    assert said.code == 0
    assert "4 runs, 4 of them done" in said.err
    probes = server.counts.calls - calls
    assert cli(*ASKED, "--count", "3", "--seeds", "1", *model(server)).code == 0
    assert server.counts.calls == calls + 2 * probes + 1 + 3


def test_shards_do_their_part_and_the_whole_reports(cli: Cli, server: ModelServer, tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        said = cli(*ASKED, "--count", "4", "--seeds", "1", "--out", "out", "--shard", shard, *model(server))
        assert said.code == 0
        assert "4 runs, 0 of them done" in said.err
        assert not (tmp_path / "out" / "table.md").exists()
    said = cli(*ASKED, "--count", "4", "--seeds", "1", "--out", "out", *model(server))
    assert "8 runs, 8 of them done" in said.err
    assert "| vote | 4,000 | 4 |" in said.out


def test_curves_come_from_stored_samples(cli: Cli, server: ModelServer) -> None:
    asked = ("--suite", "countdown:3", "--strategy", "full=vote", "--param", "full.n=4", "--param", "full.stop=full")
    said = cli(*asked, "--budget", "none", "--count", "3", "--seeds", "1", "--curve", "full", *model(server))
    assert said.code == 0
    assert "subsampled" in said.out
    assert "| full | 4 | lossless | 1 | 3 |" in said.out


def test_json_is_lines_and_nothing_else(cli: Cli, server: ModelServer) -> None:
    said = cli(*ASKED, "--count", "2", "--seeds", "1", "--json", *model(server))
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [next(iter(line)) for line in lines] == ["row", "row", "winner"]


def test_a_dry_run_says_what_would_run_and_calls_nothing(cli: Cli, server: ModelServer) -> None:
    said = cli(*ASKED, "--count", "5", "--seeds", "3", "--dry-run", *model(server))
    assert said.code == 0
    assert "30 runs" in said.err
    assert "at most 120,000 tokens" in said.err
    assert server.counts.calls == 0


def test_a_changed_configuration_is_refused_in_a_folder_of_ones_own(cli: Cli, server: ModelServer) -> None:
    assert cli(*ASKED, "--count", "1", "--seeds", "1", "--out", "out", *model(server)).code == 0
    said = cli(*ASKED, "--count", "1", "--seeds", "1", "--out", "out", "--width", "9", *model(server))
    assert said.code == 2
    assert "another width" in said.err
    said = cli(*ASKED, "--param", "vote.n=4", "--count", "1", "--seeds", "1", "--out", "out", *model(server))
    assert said.code == 2
    assert "results of vote with n = 3" in said.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--suite", "contdown", "--strategy", "vote", "--budget", "1"), "did you mean countdown"),
        (("--suite", "countdown", "--strategy", "vot", "--budget", "1"), "did you mean vote"),
        (("--suite", "countdown", "--strategy", "vote", "--budget", "1", "--param", "vote.m=1"), "no parameter 'm'"),
        (("--suite", "countdown", "--strategy", "vote", "--budget", "1", "--param", "vote.n"), "--param vote.n"),
        (("--suite", "countdown", "--strategy", "vote", "--budget", "many"), "--budget many"),
        (("--suite", "countdown", "--strategy", "vote", "--budget", "0"), "--budget 0"),
        (("--suite", "countdown", "--strategy", "vote", "--budget", "1", "--seeds", "0"), "--seeds 0"),
        (("--suite", "countdown", "--strategy", "vote", "--budget", "1", "--shard", "3/2"), "--shard 3/2"),
        (("--suite", "countdown", "--strategy", "vote", "--budget", "1", "--curve", "beam"), "--curve beam"),
        (("--suite", "game24", "--strategy", "vote", "--budget", "1", "--count", "101"), "has 100 problems"),
        (("--suite", "countdown", "--budget", "1"), "strategy"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], says: str, cli: Cli) -> None:
    said = cli(*arguments)
    assert said.code == 2
    assert says in said.err
    assert said.err.count("\n") == 1


def test_what_a_model_lacks_is_said_before_anything_is_spent(cli: Cli, server: ModelServer, tmp_path: Path) -> None:
    asked = ("--suite", "countdown:3", "--strategy", "vote,beam", "--budget", "1000", "--out", "out")
    said = cli(*asked, *model(server))
    assert said.code == 2
    assert "beam needs" in said.err
    assert not (tmp_path / "out").exists()
