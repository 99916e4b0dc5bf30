"""The pool: filters, groups, runs that cannot be read, forked paths, and tokens that are not the trainer's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import pytest
from transformers import AutoTokenizer

from researcher.errors import UserError
from researcher.events import (
    AnswerProposed,
    EventBody,
    MessageAdded,
    RunStarted,
    Scored,
    ThreadFinished,
    ThreadStarted,
)
from researcher.models.embedded import SHIPPED
from researcher.store import RunStore, run_path
from researcher.train.context import Context, fingerprint, fingerprint_of
from researcher.train.embedded.convert import export_hf
from researcher.train.paths import task_id
from researcher.train.pool import Filter, Pool
from researcher.train.rewards import RewardConfig
from researcher.train.weights import read_packed
from researcher.types import FinishReason, Message, Outcome, Task, Tokens, Verdict, VerdictStatus, Work

RIGHT, WRONG = VerdictStatus.CORRECT, VerdictStatus.WRONG
Entry = tuple[str | None, EventBody]
ACCURACY = (RewardConfig(name="accuracy"),)


def thread(key: str, answer: str, token: int, *, verdict: VerdictStatus = RIGHT, **said: Any) -> list[Entry]:
    """A thread of one turn: three given ids and the token it says."""
    tokens = Tokens(ids=(1, 2, 3, token), sampled_from=3, logprobs=(-0.5,))
    message = Message(role="assistant", content=answer)
    reply: dict[str, Any] = {"model": "m", "weights": "v1", "finish": FinishReason.STOP} | said
    return [
        (key, ThreadStarted(work=Work(key=key, messages=(Message(role="user", content="q"),)))),
        (key, MessageAdded(message=message, tokens=tokens, **reply)),
        (key, AnswerProposed(text=answer, canonical=answer)),
        (key, Scored(verdict=Verdict(status=verdict, by="exact"))),
        (key, ThreadFinished(outcome=Outcome.ANSWERED)),
    ]


def write(
    home: Path, run: str, *threads: Sequence[Entry], at: float = 1000.0, question: str = "2 + 2?", **started: Any
) -> None:
    """A run of these threads; all its events are of one time."""
    begin = RunStarted(task=Task(question=question), strategy=started.pop("strategy", "vote"), **started)

    async def main() -> None:
        store = RunStore.create(run_path(home, run), synchronous="off", clock=lambda: at)
        try:
            for key, body in [(None, begin), *(entry for each in threads for entry in each)]:
                last = store.append(key, body)
            await store.durable(last.seq)
        finally:
            await store.aclose()

    anyio.run(main)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two runs: a vote of right and wrong, then another question by another model and strategy."""
    write(tmp_path, "r1", thread("a", "4", 7), thread("b", "5", 8, verdict=WRONG), at=1000.0)
    other = thread("a", "Paris", 9, model="big", weights="v2")
    write(tmp_path, "r2", other, at=2000.0, question="The capital?", strategy="research")
    return tmp_path


def names(pool: Pool) -> list[str]:
    return [f"{sample.run}/{sample.thread}" for sample in pool.samples()]


def test_a_pool_reads_all_runs_lazily_and_again(home: Path) -> None:
    pool = Pool([home])
    assert names(pool) == ["r1/a", "r1/b", "r2/a"] == names(pool)
    assert (pool.report.runs, pool.report.samples, pool.report.unreadable) == (2, 3, [])
    assert [len(group) for group in pool.groups()] == [2, 1]
    begun = pool.samples()
    next(begun)
    assert pool.report.runs == 1


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ({"outcomes": {"cancelled"}}, []),
        ({"verdicts": {"correct"}}, ["r1/a", "r2/a"]),
        ({"verifiers": {"exact"}, "verdicts": {"wrong"}}, ["r1/b"]),
        ({"verifiers": {"judge"}}, []),
        ({"strategies": {"research"}}, ["r2/a"]),
        ({"models": {"big"}}, ["r2/a"]),
        ({"versions": {"v1"}}, ["r1/a", "r1/b"]),
        ({"question": "CAPITAL"}, ["r2/a"]),
        ({"tasks": {task_id(Task(question="2 + 2?"))}}, ["r1/a", "r1/b"]),
        ({"since": datetime.fromtimestamp(2000, UTC)}, ["r2/a"]),
        ({"until": datetime.fromtimestamp(2000, UTC).replace(tzinfo=None)}, ["r1/a", "r1/b"]),
        ({"until": datetime.fromtimestamp(1999, timezone(timedelta(hours=9)))}, ["r1/a", "r1/b"]),
    ],
)
def test_filters(home: Path, filter: dict[str, Any], found: list[str]) -> None:
    assert names(Pool([home], Filter(**filter))) == found


def test_rewards_are_given_before_the_least_is_asked(home: Path) -> None:
    write(home, "r3", thread("a", "6", 5, verdict=VerdictStatus.UNVERIFIED))
    pool = Pool([home], Filter(least_reward=0.5), rewards=ACCURACY)
    assert [(s.run, s.thread, s.reward) for s in pool.samples()] == [("r1", "a", 1.0), ("r2", "a", 1.0)]
    assert pool.report.skipped["a reward had no word on it"] == 1
    assert [s.reward for s in Pool([home], rewards=ACCURACY).samples()] == [1.0, 0.0, 1.0]
    with pytest.raises(UserError, match="least reward needs rewards"):
        Pool([home], Filter(least_reward=0.5))


def test_runs_that_cannot_be_read_are_listed_and_hide_no_other(home: Path) -> None:
    path = run_path(home, "r1")
    path.with_name("r0.db").write_bytes(b"no database at all, and longer than a header " * 9)
    write(home, "r3", thread("a", "4", 6))
    damaged = bytearray(path.read_bytes())
    at = damaged.rindex(b"answer_proposed")
    damaged[at : at + 4] = b"XXXX"
    path.write_bytes(damaged)
    pool = Pool([home])
    assert names(pool) == ["r2/a", "r3/a"]
    assert [each.path.stem for each in pool.report.unreadable] == ["r0", "r1"]
    assert all("restore" in each.why for each in pool.report.unreadable)


def test_a_home_without_runs_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no runs in"):
        list(Pool([tmp_path]).samples())


def test_a_path_that_a_fork_copied_counts_once(home: Path) -> None:
    write(home, "r1-fork", thread("a", "4", 7), thread("c", "4", 7), at=1000.0)
    assert names(Pool([home])) == ["r1-fork/a", "r1-fork/c", "r1/b", "r2/a"]
    assert names(Pool([home], distinct="texts")) == ["r1-fork/a", "r1/b", "r2/a"]
    assert len(names(Pool([home], distinct="off"))) == 5


def test_siblings_of_several_homes_by_task(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write(other, "x", thread("a", "4", 5), at=3000.0)
    tasks = Pool([home, other]).by_task()
    assert [[sample.run for sample in group] for group in tasks.values()] == [["r1", "r1", "x"], ["r2"]]


class Letters:
    """A tokenizer as transformers has them: ids are letters, or words for some."""

    chat_template: str | None = "{{ messages }}"

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)

    def get_vocab(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.words[index] for index in ids)


WORDS = ["<0>", "<1>", "<2>", "<3>", "<4>", "6", "x", "4", "5", "Paris"]


def test_a_fingerprint_is_of_the_vocabulary_and_the_template() -> None:
    mine, same, other = Letters(WORDS), Letters(WORDS), Letters([*WORDS, "<tool>"])
    assert fingerprint(mine) == fingerprint(same) != fingerprint(other)
    same.chat_template = "{{ other }}"
    assert fingerprint(mine) != fingerprint(same)


def refusal(home: Path, context: Context) -> str:
    with pytest.raises(UserError) as caught:
        list(Pool([home], context=context).samples())
    return str(caught.value)


def test_samples_of_another_model_tokenizer_or_weights_are_refused(home: Path) -> None:
    tokenizer = Letters(WORDS)
    assert len(names(Pool([home], context=Context.of(tokenizer)))) == 3
    said = refusal(home, Context.of(tokenizer, models=["m"]))
    assert said == "Thread a of run r2 was sampled by the model 'big', not by 'm'."
    assert "by the weights 'v2', not by 'v1'" in refusal(home, Context.of(tokenizer, versions=["v1"]))
    assert "has the token 9, and the model in training has 9 alone" in refusal(home, Context.of(Letters(WORDS[:9])))
    assert "do not say what it said" in refusal(home, Context.of(Letters([*WORDS[:9], "Rome"])))


def test_a_recorded_fingerprint_decides(home: Path) -> None:
    tokenizer = Letters(WORDS)
    write(home, "r3", thread("a", "what no token says", 7), at=3000.0, settings={"tokenizer": fingerprint(tokenizer)})
    assert "r3/a" in names(Pool([home], context=Context.of(tokenizer)))
    write(home, "r4", thread("a", "4", 7), at=4000.0, settings={"tokenizer": "0" * 16})
    assert "another tokenizer or chat template (0000000000000000)" in refusal(home, Context.of(tokenizer))
    pool = Pool([home], context=Context.of(tokenizer), others="skip")
    assert "r4/a" not in names(pool)
    assert pool.report.skipped["it is of another model, tokenizer or template"] == 1


def test_the_parts_of_a_model_have_the_fingerprint_of_its_tokenizer(tmp_path: Path) -> None:
    packed = read_packed(SHIPPED)
    export_hf(SHIPPED, tmp_path)
    whole = AutoTokenizer.from_pretrained(tmp_path)
    assert fingerprint_of(packed.tokenizer.get_vocab(), packed.chat_template) == fingerprint(whole)
    assert fingerprint_of(packed.tokenizer.get_vocab(), packed.chat_template + " ") != fingerprint(whole)
