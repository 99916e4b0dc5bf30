"""`researcher analyse` over small real stores, made by the engine on a scripted model."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import anyio
import pytest
from cli_harness import Cli, calling

from researcher.errors import ModelError
from researcher.events import (
    AnswerProposed,
    EventBody,
    MessageAdded,
    RunResumed,
    RunStarted,
    Scored,
    StateReached,
    ThreadFinished,
    ThreadStarted,
)
from researcher.store import RunReader, RunStore, run_path
from researcher.testing.model_replies import Reply
from researcher.testing.model_server import ModelServer, Received
from researcher.testing.scripted_model import ScriptedModel
from researcher.train.analyse.homes import Survey, sources
from researcher.train.analyse.judge import Judge, parse
from researcher.train.analyse.structure import structure_of
from researcher.train.analyse.table import Behaviour
from researcher.train.analyse.thoughts import Thought, read_run, thoughts_of
from researcher.train.rollouts import Rollouts
from researcher.types import (
    Completion,
    FinishReason,
    Message,
    ModelRequest,
    Outcome,
    Task,
    Tokens,
    Usage,
    Verdict,
    VerdictStatus,
    WeightSpan,
    Work,
)

E, B, V, S, G = Behaviour
RIGHT = "57: 57-55=2 55+57=112 | 10+5=15 no\n10: 55-10=45 55+10=65 | 57+5=62 yes\ncheck 57+5=62 62-7=55"
WRONG = "Let me try 7.\nThat doesn't work.\nSo 9."


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESEARCHER_HOME", str(tmp_path / "home"))

    return calling(capsys, "analyse")


def reply(version: str, request: ModelRequest) -> Completion:
    """Right for every second seed, with a thought."""
    right = (request.sampling.seed or 0) % 2 == 0
    thought, answer = (RIGHT, "4") if right else (WRONG, "9")
    message = Message(role="assistant", content=f"<answer>{answer}</answer>", reasoning=thought)
    tokens = len(thought.split()) + 3
    usage = Usage(prompt_tokens=5, completion_tokens=tokens, calls=1)
    return Completion(message=message, finish=FinishReason.STOP, model="m", usage=usage, weights=version)


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A training of one stage and two iterations, each of two tasks with four samples."""
    folder = tmp_path / "training"
    tasks = [Task(question=question, gold="4", verifier="exact") for question in ("2 + 2?", "8 / 2?")]

    async def gather() -> None:
        for number in (0, 1):
            model = ScriptedModel(lambda request, version=f"v{number}": reply(version, request))
            await Rollouts(model, folder / "01-rl" / "rollouts", params={"n": 4, "stop": "full"}).gather(tasks, number)

    anyio.run(gather)
    (folder / "recipe.json").write_text('{"suite": "sums"}')
    return folder


def write(
    path: Path, *events: tuple[str | None, EventBody], strategy: str = "vote", at: float = 1000.0, **started: Any
) -> Path:
    """A run of these events on a task."""

    async def fill() -> None:
        store = RunStore.create(path, synchronous="off", clock=lambda: at)
        try:
            for key, body in ((None, RunStarted(task=Task(question="2 + 2?"), strategy=strategy, **started)), *events):
                last = store.append(key, body)
            await store.durable(last.seq)
        finally:
            await store.aclose()

    anyio.run(fill)
    return path


def begun(key: str, **work: Any) -> tuple[str, EventBody]:
    return key, ThreadStarted(work=Work(key=key, messages=(Message(role="user", content="q"),), **work))


def spoke(key: str, content: str, **more: Any) -> tuple[str, EventBody]:
    fields: dict[str, Any] = {"finish": FinishReason.STOP, "usage": Usage(completion_tokens=10, calls=1), **more}
    return key, MessageAdded(message=Message(role="assistant", content=content), **fields)


def test_a_training_is_read_by_its_iterations(cli: Cli, training: Path) -> None:
    said = cli(training, "--json")
    assert said.code == 0, said.err
    lines = [json.loads(line) for line in said.out.splitlines()]
    everything = lines[0]["all"]
    assert (everything["threads"], everything["tasks"], everything["judged"]) == (16, 2, 16)
    rows = {(tuple(line["by"]), *line["row"]["labels"]): line["row"] for line in lines if "row" in line}
    assert {key for key in rows if key[0] == ("iteration",)} == {(("iteration",), f"01-rl v{n}") for n in (0, 1)}
    right, wrong = rows[("correctness",), "right"], rows[("correctness",), "wrong"]
    assert right["threads"] + wrong["threads"] == 16
    assert right["accuracy"]["value"] == 1.0
    # Three steps, of which two are candidates, one fails and one is a check, in 18 words and three for the answer.
    assert right["tokens"]["value"] == len(RIGHT.split()) + 3
    assert right["rates"]["exploration"]["value"] == pytest.approx(100 * 2 / right["tokens"]["value"])
    assert right["rates"]["verification"]["value"] == pytest.approx(100 * 1 / right["tokens"]["value"])
    assert right["rates"]["summing-up"]["value"] == 0.0
    assert wrong["rates"]["summing-up"]["value"] == pytest.approx(100 * 1 / (len(WRONG.split()) + 3))
    told = cli(training, "--by", "suite+strategy").out
    assert "All threads have the same: sums, vote." in told
    assert {line["search"]["strategy"] for line in lines if "search" in line} == {"vote"}


def test_the_report_and_its_charts_are_written_and_are_the_same_each_time(
    cli: Cli, training: Path, tmp_path: Path
) -> None:
    said = cli(training, "--out", "found")
    assert said.code == 0, said.err
    assert "| right" in said.out
    assert "## Right and wrong on the same 2 tasks" in said.out
    names = {path.name for path in (tmp_path / "found").iterdir()}
    charts = {f"01-rl-{kind}.svg" for kind in ("length", "repetition", "behaviours", "accuracy")} | {"behaviours.svg"}
    assert names == {"report.md", "analysis.json", "threads.jsonl"} | charts
    before = {name: (tmp_path / "found" / name).read_bytes() for name in names}
    for name in charts:
        assert ElementTree.fromstring(before[name]).tag.endswith("svg")
        assert f"({name})" in before["report.md"].decode()
    assert len(before["threads.jsonl"].splitlines()) == 16
    assert json.loads(before["analysis.json"])["all"]["threads"] == 16
    assert cli(training, "--out", "found").code == 0
    assert before == {name: (tmp_path / "found" / name).read_bytes() for name in names}


def test_the_golden_page(cli: Cli, tmp_path: Path) -> None:
    """Two runs of fixed names: a vote of a right, a wrong and an unjudged thread, and a search over steps."""
    home = tmp_path / "home"
    verdicts = {key: Scored(verdict=Verdict(status=status, by="exact")) for key, status in VERDICTS.items()}
    threads = [
        event
        for key, text in (("a", RIGHT), ("b", WRONG), ("c", "Hmm."))
        for event in (
            begun(key),
            spoke(key, text),
            *([(key, verdicts[key])] if key in verdicts else []),
            (key, ThreadFinished(outcome=Outcome.ANSWERED)),
        )
    ]
    write(run_path(home, "r1"), *threads)
    write(run_path(home, "r2"), *steps(), strategy="beam", at=2000.0)
    (home / "runs" / "r3.db").write_bytes(b"no database")
    said = cli("--by", "correctness")
    assert said.code == 0, said.err
    assert "not read: r3.db: " in said.err
    golden = Path(__file__).parent / "data" / "analysis.md"
    found = said.out.replace(str(tmp_path), "TMP")
    assert found == golden.read_text("utf-8"), "what differs is wrong here or there"


VERDICTS = {"a": VerdictStatus.CORRECT, "b": VerdictStatus.WRONG}


def steps() -> list[tuple[str | None, EventBody]]:
    """A step that is continued twice, to the same state; the second time it is stopped."""
    step: dict[str, Any] = {"kind": "step"}
    return [
        begun("1", **step),
        spoke("1", "51-39=12 "),
        ("1", StateReached(state="12 63")),
        ("1", ThreadFinished(outcome=Outcome.ANSWERED)),
        ("2", ThreadStarted(work=Work(key="2", messages=(), parent="1", **step))),
        spoke("2", "left 12 63\n"),
        ("2", StateReached(state="75")),
        ("2", ThreadFinished(outcome=Outcome.ANSWERED)),
        # What a strategy puts into the model's mouth is not the model's.
        (
            "3",
            ThreadStarted(
                work=Work(key="3", messages=(Message(role="assistant", content="Wait, "),), parent="1", **step)
            ),
        ),
        spoke("3", "left 12 63 no\n", usage=None),
        ("3", StateReached(state="75")),
        ("3", ThreadFinished(outcome=Outcome.CANCELLED)),
    ]


def test_steps_are_paths_and_their_search_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "runs" / "r.db", *steps())
    with RunReader(path) as reader:
        reading = read_run(reader.read(), "r")
    found = list(reading.thoughts(frozenset({"reasoner"})))
    assert [(each.thread, each.text, each.tokens) for each in found] == [
        ("2", "51-39=12 left 12 63", 20),
        ("3", "51-39=12 left 12 63 no", None),  # nobody counted the second step
    ]
    shape = structure_of(reading.graph, "r", "q", frozenset({"reasoner"}))
    assert (shape.threads, shape.roots, shape.steps, shape.branches, shape.depth) == (3, 1, 3, 1, 2)
    assert (shape.left, shape.merges, shape.right) == (2, 1, None)


def test_a_reply_that_broke_off_and_was_asked_for_again_counts_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.db",
        begun("a"),
        spoke("a", "So 4", finish=FinishReason.TRUNCATED),
        ("a", ThreadFinished(outcome=Outcome.FAILED, boundary="model")),
        (None, RunResumed(reopened=("a",))),
        spoke("a", "So 5."),
        ("a", ThreadFinished(outcome=Outcome.EXHAUSTED)),
    )
    with RunReader(path) as reader:
        (found,) = thoughts_of(reader.read(), "r")
    assert (found.text, found.tokens, found.boundary, found.outcome) == ("So 5.", 10, "", Outcome.EXHAUSTED)


def test_the_weights_that_sampled_the_most_name_the_iteration(tmp_path: Path) -> None:
    spans = (WeightSpan("v3", 0, 2), WeightSpan("v4", 2, 7))
    tokens = Tokens(ids=(1, 2, 3, *range(7)), sampled_from=3, weights=spans)
    path = write(tmp_path / "r.db", begun("a"), spoke("a", "So 4.", tokens=tokens, weights="v4"))
    with RunReader(path) as reader:
        (found,) = thoughts_of(reader.read(), "r")
    assert (found.version, found.versions, found.tokens, found.ids) == ("v4", 2, 7, tuple(range(7)))


def test_what_an_evaluation_graded_afterwards_is_known(cli: Cli, tmp_path: Path) -> None:
    for run, answer, more in (("r1", "4", ()), ("r2", "5", ()), ("r3", "6", (("a", SCORED),)), ("r4", "7", ())):
        proposed = ("a", AnswerProposed(text=answer, canonical=answer))
        ended = ("a", ThreadFinished(outcome=Outcome.ANSWERED))
        said = (begun("a"), spoke("a", "So."), proposed, *more, ended)
        write(tmp_path / "out" / "runs" / f"{run}.db", *said, settings={"problem": "p1"}, at=float(answer))
    common = {"strategy": "vote", "budget": None, "seed": 0, "outcome": "answered", "prompt": 1, "completion": 1}
    known = [{"answer": "5"}, {"answer": "6", "status": "wrong"}, {"answer": None}]  # wrong is what a file leaves out
    line = {"problem": "p1", **common, "status": "correct", "answer": "4", "samples": known}
    (tmp_path / "out" / "results.jsonl").write_text(json.dumps(line) + "\n")
    said = cli("out", "--json", "--by", "correctness")
    assert said.code == 0, said.err
    rows = [json.loads(text)["row"] for text in said.out.splitlines() if '"row"' in text]
    # The run's own verifier goes before: r3 is right. Of r4's answer nobody said anything.
    assert {row["labels"][0]: row["threads"] for row in rows} == {"right": 2, "unknown": 1, "wrong": 1}


SCORED = Scored(verdict=Verdict(status=VerdictStatus.CORRECT, by="exact"))


def test_a_forked_run_counts_its_own_threads_alone(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "r1.db", begun("a"), spoke("a", "So 4."))
    write(tmp_path / "runs" / "r2.db", begun("a"), spoke("a", "So 4."), begun("b"), spoke("b", "So 5."))
    survey = Survey(sources([tmp_path]))
    assert [(each.run, each.thread) for each in survey.figures()] == [("r1", "a"), ("r2", "b")]
    assert (survey.runs, survey.forked) == (2, 1)


def test_what_a_judge_is_given_does_not_depend_on_the_order(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"h{number % 3}" / "runs" / f"r{number}.db", begun("a"), spoke("a", "So."), at=float(number))
    kept = []
    for order in ([0, 1, 2], [2, 1, 0]):
        survey = Survey(sources([tmp_path / f"h{n}" for n in order]), sampled=5)
        assert len(list(survey.figures())) == 12
        kept.append([thought.run for _, thought in survey.kept()])
    assert kept[0] == kept[1]
    assert len(kept[0]) == 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "researcher: nowhere: there is no such folder and no such run"),
        (["empty"], "researcher: There are no runs in empty: give the folder of a training"),
        (["course"], "researcher: course is a training, and no stage of it has made runs yet"),
        (["evaluation"], "researcher: evaluation is an evaluation that kept no runs; run `researcher eval` again with"),
        (["broken"], "researcher: no run could be read: r.db: "),
        (["silent"], "researcher: in 1 runs no thread has said anything; there is nothing to analyse"),
        (["silent", "--by", "corectness"], "researcher: --by corectness: there is nothing called 'corectness'"),
        (["silent", "--judge", "nonsense"], "researcher: unknown model URI 'nonsense'"),
        (["silent", "--judged", "0"], "researcher: --judged 0: give 1 or more."),
        ([], "researcher: home: there is no such folder"),
    ],
)
def test_bad_input_is_exit_2_and_one_sentence(cli: Cli, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    for name in ("empty", "course", "evaluation", "broken/runs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "course" / "recipe.json").write_text("{}")
    (tmp_path / "evaluation" / "config.json").write_text("{}")
    (tmp_path / "evaluation" / "results.jsonl").write_text("")
    (tmp_path / "broken" / "runs" / "r.db").write_bytes(b"no database")
    write(tmp_path / "silent" / "runs" / "r.db", begun("a"))
    said = cli(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert said.err.replace(f"{tmp_path}/", "").startswith(sentence), said.err
    assert said.err.count("\n") == 1


def test_an_out_that_cannot_be_written_is_said(cli: Cli, training: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    said = cli(training, "--out", "taken")
    assert said.code == 2
    assert said.err.startswith("researcher: --out taken: it cannot be written (")


def test_a_judge_labels_beside_the_patterns(cli: Cli, training: Path) -> None:
    def judge(request: Received) -> Reply:
        text = request.body["messages"][-1]["content"]
        return Reply(
            "1: exploration\n2: backtracking\n3: none" if "1. Let me try 7." in text else "1. none\n2) none\n3 - V"
        )

    with ModelServer(judge) as server:
        said = cli(training, "--judge", f"{server.url}#test", "--judged", "5", "--by", "correctness")
    assert said.code == 0, said.err
    assert "labels 5 of the thoughts" in said.out
    assert "The patterns against the judge, on 15 units:" in said.out


async def asked(model: ScriptedModel, text: str) -> tuple[Any, list[str]]:
    judge = Judge(model)
    thought = Thought(run="r", thread="t", task="q", strategy="vote", question="2 + 2?", text=text, tokens=9)
    return await judge.label(thought), judge.failed


def test_a_long_thought_is_judged_in_pieces_and_its_words_are_data() -> None:
    text = "\n".join(f"Step number {n} is <</end>>." for n in range(50))
    model = ScriptedModel(
        ["\n".join(f"{n}: verification" for n in range(1, 41)), "\n".join(f"{n}: none" for n in range(1, 11))]
    )
    found, failed = anyio.run(asked, model, text)
    assert found == (frozenset({V}),) * 40 + (frozenset(),) * 10
    assert failed == []
    shown = model.requests[0].messages[-1].content
    mark = shown.split("\n")[1]
    assert shown.count(mark) == 1
    assert shown.endswith(mark.replace("<<", "<</"))
    assert "40. Step number 39" in shown
    assert "41." not in shown


@pytest.mark.parametrize(
    "said",
    ["I cannot do this.", "1: none", ModelError("the server is gone")],
    ids=["prose", "most steps missing", "no reply"],
)
def test_a_judge_that_fails_gives_no_labels(said: Any) -> None:
    found, failed = anyio.run(asked, ScriptedModel([said]), "One.\nTwo.\nThree.")
    assert found is None
    assert failed[0].startswith("r/t: ")


def test_what_a_judge_writes_is_read_leniently() -> None:
    assert parse("Labels:\n**1**: Exploration, Summing up\n2) none\n9: verification\n1: subgoal", 3) == [
        frozenset({E, S}),
        frozenset(),
        frozenset(),
    ]


@pytest.mark.slow
def test_it_works_without_torch() -> None:
    code = (
        "import sys; import researcher.cli.analyse, researcher.train.analyse.judge, researcher.train.analyse.drawings"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print({{'torch', 'numpy'}} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"
