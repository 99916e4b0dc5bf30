"""The commands on a run with a scripted server behind a real socket: research over two documents."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import Cli, calling

from researcher.testing.model_replies import Raw, Reply
from researcher.testing.model_server import ModelServer, Received
from researcher.types import ToolCall

DOCUMENTS = {"velar.md": "The Velar tower is 40 m high.\n", "toral.md": "Oru Sel built the Toral bridge.\n"}
PARTS = "1. How high is the Velar tower?\n2. Who built the Toral bridge?"
QUESTION = "How high is the Velar tower, and who built the Toral bridge?"


def reply(request: Received) -> Reply:
    """A reasoner that splits, searches, quotes what it found and writes."""
    if request.body["messages"][0]["role"] != "system":
        return Reply("ok")  # a question of what the server can do
    system, last = request.body["messages"][0]["content"], request.body["messages"][-1]
    if system.startswith("Split"):
        return Reply(PARTS)
    if system.startswith("Write"):
        return Reply("It is 40 m high [1]. Oru Sel built it [2].\n<answer>40 m; Oru Sel</answer>")
    if last["role"] == "user":
        query = json.dumps({"query": re.search(r"the (\w+)", last["content"])[1]})
        return Reply("", tool_calls=[ToolCall(id="c1", name="search", arguments=query)], finish="tool_calls")
    number, quote = re.search(r"\[(\d+)\] \S+: (.*)", last["content"]).groups()
    answer = "40 m" if "Velar" in quote else "Oru Sel"
    return Reply(f'[{number}] "{quote}"\n<answer>{answer}</answer>')


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESEARCHER_HOME", str(tmp_path / "home"))
    (tmp_path / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (tmp_path / "docs" / name).write_text(text)

    return calling(capsys)


@pytest.fixture
def model() -> Iterator[str]:
    with ModelServer(reply) as server:
        yield f"{server.url}#test"


@pytest.fixture
def finished(cli: Cli, model: str) -> Cli:
    """The commands, after one run that was answered."""
    said = cli("run", QUESTION, "--docs", "docs", "--model", model, "--threads", "2")
    assert said.code == 0, said
    return cli


def test_run_prints_the_answer_with_its_quotes_on_stdout_alone(cli: Cli, model: str) -> None:
    said = cli("run", QUESTION, "--docs", "docs", "--model", model, "--threads", "2", "--report", "r.md")
    assert said.code == 0
    assert said.out == (
        "40 m; Oru Sel\n"
        '  [1] "The Velar tower is 40 m high."  velar.md:0-29\n'
        '  [2] "Oru Sel built the Toral bridge."  toral.md:0-31\n'
    )
    assert "researcher show" in said.err
    assert "It is 40 m high [1]. Oru Sel built it [2]." in Path("r.md").read_text()


def test_run_json_is_events_and_then_the_result(cli: Cli, model: str) -> None:
    said = cli("run", QUESTION, "--docs", "docs", "--model", model, "--threads", "1", "--json")
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line["seq"] for line in lines[:-1]] == list(range(1, len(lines)))
    assert lines[0]["body"]["t"] == "run_started"
    assert lines[-2]["body"]["t"] == "run_finished"
    assert lines[-1]["exit"] == 0
    assert lines[-1]["result"]["answer"]["text"] == "40 m; Oru Sel"


def test_ls_show_and_their_json(finished: Cli) -> None:
    assert QUESTION[:40] in finished("ls").out
    [run] = [json.loads(line) for line in finished("ls", "--json").out.splitlines()]
    assert run["outcome"] == "answered"
    shown = finished("show", run["id"][:15])
    for part in (
        "40 m; Oru Sel",
        "velar.md:0-29",
        "2 of 2 citations",
        "by write/",
        "answered",
        "read in velar.md by search",
    ):
        assert part in shown.out
    record = json.loads(finished("show", "last", "--json").out)
    assert [citation["ok"] for citation in record["citations"]] == [True, True]
    assert record["citations"][0]["source"] == "velar.md"


def test_show_a_thread_and_the_claims(finished: Cli) -> None:
    thread = finished("show", "last", "--thread", "part/0/0").out
    assert "-> search" in thread
    assert "<answer>40 m</answer>" in thread
    claims = finished("show", "last", "--claims").out
    assert "The Velar tower is 40 m high." in claims
    assert "velar.md:0-29" in claims
    missing = finished("show", "last", "--thread", "part/9")
    assert (missing.code, "has no thread 'part/9'" in missing.err) == (2, True)


def test_replay_calls_nothing_and_stops_where_told(finished: Cli) -> None:
    whole = finished("replay", "last", "--instant")
    assert (whole.code, "the answer is 40 m; Oru Sel" in whole.out) == (0, True)
    part = finished("replay", "last", "--instant", "--until", "5", "--json")
    assert max(json.loads(line)["seq"] for line in part.out.splitlines()) <= 5


def test_verify_report_and_export(finished: Cli) -> None:
    verified = finished("verify", "last")
    assert (verified.code, "2 of 2 citations stand" in verified.out) == (0, True)
    assert finished("report", "last").out.startswith(f"# {QUESTION}\n")
    events = finished("export", "last", "--format", "events").out.splitlines()
    assert json.loads(events[0])["body"]["t"] == "run_started"
    assert json.loads(finished("export", "last", "--format", "json").out)["nodes"]
    assert finished("export", "last", "--format", "graphml", "--out", "g.graphml").code == 0
    assert Path("g.graphml").read_text().startswith("<graphml")


def test_resume_of_an_answered_run_gives_its_answer(finished: Cli) -> None:
    said = finished("resume", "last")
    assert (said.code, said.out.splitlines()[0]) == (0, "40 m; Oru Sel")


def test_an_answer_without_evidence_is_not_a_success(cli: Cli) -> None:
    with ModelServer(Reply("<answer>40 m</answer>")) as server:
        said = cli(
            "run",
            "How high?",
            "--docs",
            "docs",
            "--model",
            f"{server.url}#test",
            "--strategy",
            "vote",
            "--threads",
            "3",
        )
    assert said.code == 3
    assert "not verified" in said.out
    assert "ended without a verified answer" in said.err


def test_an_answer_that_the_verifier_refutes_is_called_wrong_with_the_reason(cli: Cli) -> None:
    with ModelServer(Reply("<answer>9 + 6 / 4</answer>")) as server:
        asked = (
            "--numbers",
            "9,4,6",
            "--target",
            "30",
            "--model",
            f"{server.url}#test",
            "--strategy",
            "chain_of_thought",
        )
        said = cli("run", *asked)
    assert said.code == 3
    assert "wrong, says the verifier countdown: " in said.out
    assert "not verified" not in said.out
    assert "wrong, says the verifier countdown" in cli("report", "last").out


@pytest.mark.parametrize("calls", ["1", "2", "3", "5"])
def test_a_reached_limit_is_exit_4(cli: Cli, model: str, calls: str) -> None:
    said = cli("run", QUESTION, "--docs", "docs", "--model", model, "--budget-calls", calls)
    assert (said.code, said.out) == (4, "no answer\n")
    assert "limit" in said.err or "exhausted" in said.err


def test_a_verified_answer_is_a_success_and_a_wrong_one_is_not(cli: Cli) -> None:
    with ModelServer(Reply("<answer>3*8*1</answer>")) as server:
        right = cli("run", "--numbers", "1,3,8", "--target", "24", "--model", f"{server.url}#test", "--threads", "2")
        wrong = cli("run", "--numbers", "1,3,8", "--target", "25", "--model", f"{server.url}#test", "--threads", "2")
    assert (right.code, right.out) == (0, "3*8*1\n")
    assert wrong.code == 3


def test_gold_is_held_against_the_answer_exactly(cli: Cli) -> None:
    with ModelServer(Reply("<answer>4</answer>")) as server:
        asked = ("run", "2+2?", "--model", f"{server.url}#test", "--strategy", "chain_of_thought", "--gold")
        assert cli(*asked, "4").code == 0
        assert cli(*asked, "5").code == 3


def test_a_dry_run_calls_nothing_and_prints_no_key(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("RESEARCHER_API_KEY", "sk-secret")
    with ModelServer(Raw(500)) as server:
        said = cli("run", "Why?", "--docs", "docs", "--model", f"{server.url}#test", "--threads", "4", "--dry-run")
        assert server.counts.opened == 0
    assert said.code == 0
    assert 'strategy = "research"' in said.out
    assert "samples = 4" in said.out
    assert "at most 28 threads, 336 model calls" in said.err
    assert "sk-secret" not in said.out + said.err
