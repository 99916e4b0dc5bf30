"""The loop on a small network that samples in the process: partial rollouts, staleness, and resuming to the bit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
import torch
from train_harness import EOS, SETTINGS, TASKS, ignore, training

from researcher.errors import RequestRejected, ResearcherError, UserError
from researcher.train.gathering import Gatherer
from researcher.train.loop import Iteration, Loop, LoopConfig
from researcher.train.partial import newest
from researcher.train.rollouts import Group, Rollouts
from researcher.train.sample import Sample, Term, VersionSpan
from researcher.train.staleness import fresh, update_newest
from researcher.train.trainer import Metrics
from researcher.types import ModelRequest, Outcome, Task, VerdictStatus

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
torch.set_num_threads(1)
PARTIAL: dict[str, Any] = {"partial": {"tokens": 3}}
STALE: dict[str, Any] = {"staleness": 1}
WAYS: list[Any] = [
    pytest.param({}, id="plain"),
    pytest.param(PARTIAL, id="partial"),
    pytest.param(STALE, id="stale"),
    pytest.param({**PARTIAL, **STALE}, id="both"),
    pytest.param({"partial": {"tokens": 3, "older": "weigh"}}, id="weigh"),
]
ways = pytest.mark.parametrize("how", WAYS)


class Cut(Exception):
    """The process ends here."""


def weights(loop: Loop) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in loop.trainer.parameters]


def lines(folder: Path) -> list[dict[str, Any]]:
    """The metrics without what the clock says."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.startswith(("seconds/", "waited/"))} for line in read
    ]


def seen(loop: Loop) -> list[list[Sample]]:
    """What each step of the loop is made of, from now on."""
    steps: list[list[Sample]] = []
    update = loop.update

    def noting(samples: Sequence[Sample]) -> list[Metrics]:
        steps.append(list(samples))
        return update(samples)

    loop.update = noting
    return steps


def plain(sample: Sample) -> tuple[Any, ...]:
    """A sample without the names that a run draws by chance."""
    return sample.ids, sample.mask, sample.logprobs, sample.versions, sample.reward, sample.task


@ways
async def test_a_loop_that_goes_on_is_the_same_to_the_bit(tmp_path: Path, how: dict[str, Any]) -> None:
    whole = training(tmp_path / "whole", 4, how)
    steps = seen(whole)
    await whole.run(ignore)

    first = training(tmp_path / "cut", 4, how)
    parts = seen(first)

    def stop(iteration: Iteration) -> None:
        if iteration.number == 2:
            raise Cut

    with pytest.raises(Cut):
        await first.run(stop)
    assert first.gatherer.flights or "partial" not in how  # the cut is in the middle of rollouts
    assert first.ahead or "staleness" not in how
    second = training(tmp_path / "cut", 4, how)
    more = seen(second)
    await second.run(ignore)
    assert all(torch.equal(a, b) for a, b in zip(weights(second), weights(whole), strict=True))
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert second.versions == whole.versions
    made = [[plain(sample) for sample in step] for step in (*parts, *more)]
    assert made == [[plain(sample) for sample in step] for step in steps]
    assert any(not torch.equal(a, b) for a, b in zip(weights(whole), weights(training(tmp_path, 1)), strict=True))


async def test_a_rollout_goes_on_from_its_token_ids_under_new_weights(tmp_path: Path) -> None:
    loop = training(tmp_path, 6, {**PARTIAL, "tasks": 4, "group": 2})
    steps = seen(loop)
    await loop.run(ignore)
    read = lines(tmp_path)
    assert [line["groups"] + line["partial/under_way"] for line in read] == [4.0] * 6
    long = [sample for step in steps for sample in step if len({span.version for span in sample.versions}) > 1]
    assert long
    for sample in long:
        assert [span.start for span in sample.versions] == [
            sample.versions[0].start, *(span.end for span in sample.versions[:-1])
        ]  # fmt: skip
        assert all(span.end - span.start == 3 for span in sample.versions[:-1])
        assert sum(sample.mask) == sample.versions[-1].end - sample.versions[0].start == len(sample.logprobs) - 60
        assert [span.version for span in sample.versions] == sorted(span.version for span in sample.versions)
    every = [sample for step in steps for sample in step]
    assert all(sample.ids[-1] == EOS or sample.sampled == 16 for sample in every)
    assert all(EOS not in sample.ids[60:-1] for sample in every)
    assert all(sample.outcome is Outcome.EXHAUSTED for sample in every)  # none of them has an answer
    for step in steps:
        assert set(Counter(sample.run for sample in step).values()) == {2}
    runs = {path.stem for path in (tmp_path / "rollouts/runs").glob("*.db")}
    assert {sample.run for sample in every} <= runs
    assert len(runs) <= len({sample.run for sample in every}) + 2 * 4  # of those under way, the last two states


def made(spans: Sequence[tuple[str, int, int]], task: str = "t", reward: float = 0.0) -> Sample:
    """Three given tokens and then what these versions sampled."""
    end = spans[-1][2]
    return Sample(
        run="r", thread=f"{task}/{reward}", task=task, ids=tuple(range(end)), mask=(False,) * 3 + (True,) * (end - 3),
        logprobs=(0.0,) * 3 + (-1.5,) * (end - 3), versions=tuple(VersionSpan(*span) for span in spans),
        terms=(Term("accuracy", reward),),
    )  # fmt: skip


async def test_what_older_weights_sampled_is_context_alone_or_weighed(tmp_path: Path) -> None:
    old, new = made([("v0", 3, 7), ("v2", 7, 12)], reward=1.0), made([("v2", 3, 9)])
    assert newest(old).tolist() == [False] * 7 + [True] * 5
    assert newest(new).tolist() == [False] * 3 + [True] * 6
    trainer = training(tmp_path, 1).trainer
    batches = []
    learn = trainer.learn
    trainer.learn = lambda batch: batches.append(batch) or learn(batch)  # type: ignore[assignment,func-returns-value]
    [metrics] = update_newest(trainer, [old, new])
    [batch] = batches
    assert batch.policy is not None
    assert batch.policy.tolist() == [0.0] * 7 + [1.0] * 5 + [0.0] * 3 + [1.0] * 6
    assert metrics["gradient"] > 0.0

    # The gradient is that of a sample in which the older tokens were given, as if they stood in the prompt.
    given = Sample(
        **{f: getattr(old, f) for f in old.__struct_fields__ if f != "mask"}, mask=tuple(newest(old).tolist())
    )
    one, other = training(tmp_path / "1", 1).trainer, training(tmp_path / "2", 1).trainer
    update_newest(one, [old, new])
    other.update([given, new])
    assert all(torch.equal(a, b) for a, b in zip(one.parameters, other.parameters, strict=True))
    whole = training(tmp_path / "3", 1).trainer
    whole.update([old, new])
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters, whole.parameters, strict=True))


def test_ages_are_counted_in_versions_and_what_is_too_old_is_left_out() -> None:
    versions = ["v0", "v1", "v4", "v5"]  # a step too small to be published makes no version
    samples = [
        made([("v5", 3, 9)]), made([("v1", 3, 7), ("v4", 7, 13)]), made([("v0", 3, 5)]), made([("v9", 3, 5)]),
    ]  # fmt: skip
    kept, metrics = fresh(samples, versions, 2)
    assert kept == samples[:2]
    assert metrics["staleness/max"] == 3.0
    assert metrics["staleness/mean"] == pytest.approx((0.0 + (4 * 2 + 6 * 1) / 10 + 3.0) / 3)
    assert (metrics["staleness/dropped"], metrics["staleness/unknown"]) == (2.0, 1.0)
    assert fresh(samples, versions, 1, masked=True).samples == samples[:2]  # of the second, v4's tokens are learned
    assert fresh(samples, versions, 1).samples == samples[:1]
    nameless = [made([("v5", 3, 9)]).__class__(**{**_fields(samples[0]), "logprobs": ()})]
    assert fresh(nameless, versions, 1).samples == []
    assert fresh(samples, versions, 0).samples == samples


def _fields(sample: Sample) -> dict[str, Any]:
    return {name: getattr(sample, name) for name in sample.__struct_fields__}


@pytest.mark.parametrize("slow", ["step", "rollouts"])
async def test_rollouts_go_on_while_a_step_runs_and_who_is_faster_changes_nothing(tmp_path: Path, slow: str) -> None:
    plain_loop = training(tmp_path / "plain", 3, STALE)
    await plain_loop.run(ignore)

    called, stepped = Counter[str](), anyio.Event()

    async def calls(request: ModelRequest) -> None:
        called["model"] += 1
        if slow == "rollouts" and called["model"] > 6:  # those of the first iteration, with which there is no step
            await stepped.wait()

    loop = training(tmp_path / slow, 3, STALE, calls)
    update = loop.update

    async def rolled() -> None:
        while called["model"] < 12:
            await anyio.lowlevel.checkpoint()

    def waiting(samples: Sequence[Sample]) -> list[Metrics]:
        if slow == "step" and not called["step"]:
            anyio.from_thread.run(rolled)
        called["step"] += 1
        metrics = update(samples)
        anyio.from_thread.run_sync(stepped.set)
        return metrics

    loop.update = waiting
    with anyio.fail_after(300):
        await loop.run(ignore)
    assert all(torch.equal(a, b) for a, b in zip(weights(loop), weights(plain_loop), strict=True))
    assert lines(tmp_path / slow) == lines(tmp_path / "plain")
    assert [line["staleness/max"] for line in lines(tmp_path / slow)] == [0.0, 1.0, 1.0]
    assert all(line["staleness/dropped"] == 0.0 for line in lines(tmp_path / slow))


async def test_without_staleness_each_step_learns_from_its_own_weights(tmp_path: Path) -> None:
    loop = training(tmp_path, 3)
    steps = seen(loop)
    await loop.run(ignore)
    assert [{span.version for sample in step for span in sample.versions} for step in steps] == [{"v0"}, {"v1"}, {"v2"}]
    assert all(line["staleness/max"] == 0.0 for line in lines(tmp_path))
    assert "canary" in lines(tmp_path)[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"staleness": 1, "trainer": {}}, "With staleness = 1 older weights sample"),
        ({**PARTIAL, "trainer": {}}, r"set trainer\.loss\.mismatch\.mode to truncate or mask"),
        ({**PARTIAL, "strategy": "beam", "params": {}}, "cannot be made by beam"),
        ({"strategy": "partial", "params": {"n": 2, "peace": 3}}, "no parameter 'peace'"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        training(tmp_path, 1, changes)


def test_a_partial_rollout_has_no_tools(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="single turns, and these tasks want tools"):
        training(tmp_path, 1, PARTIAL, tasks=[Task(question="2 + 2?", tools=("search",))])


def test_a_rule_of_ones_own_has_no_correction(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a rule of its own"):
        training(tmp_path, 1, STALE, update=lambda samples: [])
    config = LoopConfig.model_validate({**SETTINGS, **STALE, "trainer": {"loss": {"objective": "masked"}}})
    config.refuse()  # prime-rl's loss weighs by the sampler itself
    assert config.bound == 1


R1: dict[str, Any] = {"params": {"stop": "full", "temperature": 1.0, "over_params": {"style": "r1"}}}


@pytest.mark.parametrize("how", [{}, PARTIAL], ids=["plain", "partial"])
async def test_rollouts_and_held_out_tasks_are_asked_in_the_same_style(tmp_path: Path, how: dict[str, Any]) -> None:
    loop = training(tmp_path, 1, {**R1, **how})
    config = loop.config
    config.refuse()  # the strategy takes these parameters
    assert loop.greedy.params == {"style": "r1", "temperature": 0.0}
    _, params = config.rollout
    assert params.get("style", params.get("over_params", {}).get("style")) == "r1"
    assert config.asked == {"style": "r1"}
    assert LoopConfig.model_validate({"params": {"over": "mcts", "over_params": {"n": 4}}}).asked == {}


async def test_rollouts_of_which_none_gave_a_sample_end_the_loop(tmp_path: Path) -> None:
    """The server is gone: not an iteration without reward, and not a held-out accuracy of 0."""
    gone = False

    async def calls(request: ModelRequest) -> None:
        if gone:
            raise RequestRejected("this key is no longer valid")

    def leave(iteration: Iteration) -> None:
        nonlocal gone
        gone = iteration.number == 2

    loop = training(tmp_path, 4, calls=calls)
    with pytest.raises(ResearcherError, match=r"no rollout of 2 tasks gave a sample; .* failed: .*no longer valid"):
        await loop.run(leave)
    assert [line["iteration"] for line in lines(tmp_path)] == [1, 2]
    with pytest.raises(ResearcherError, match="no rollout of 5 tasks"):
        await training(tmp_path, 4, calls=calls, held_out=TASKS).evaluate()
    gone = False
    await training(tmp_path, 4, calls=calls).run(ignore)
    assert [line["iteration"] for line in lines(tmp_path)] == [1, 2, 3, 4]


async def test_a_loop_goes_on_where_some_rollouts_gave_a_sample(tmp_path: Path) -> None:
    made = 0

    async def calls(request: ModelRequest) -> None:
        nonlocal made
        made += request.sampling.temperature == 1.0  # the others are the canary's
        if made % 2 and request.sampling.temperature == 1.0:
            raise RequestRejected("the model does not want to")

    await training(tmp_path, 2, calls=calls).run(ignore)
    assert all(0 < line["skipped"] < 6 for line in lines(tmp_path))


async def test_any_right_counts_tasks_and_accuracy_counts_samples() -> None:
    verdicts: list[list[bool | None]] = [
        [True, False, False, False], [False] * 4, [True] * 4, [False, None, None, False], [None] * 4,
    ]  # fmt: skip
    groups = [
        Group(task, "r", tuple([graded(right) for right in each]), Counter())
        for task, each in zip(TASKS, verdicts, strict=False)
    ]

    class Given:
        async def gather(self, tasks: Sequence[Task], seed: int) -> list[Group]:
            return groups

    config = LoopConfig.model_validate({"tasks": 5, "group": 4, "sampling": {"refills": 0, "keep": "all"}})
    metrics = (await Gatherer(config, cast(Rollouts, Given()), TASKS[:5]).gather(0)).metrics
    assert metrics["any_right"] == 2 / 4  # of those that could be judged
    assert metrics["informative"] == 1 / 5
    assert metrics["reward/accuracy"] == pytest.approx(5 / 14)


def graded(right: bool | None) -> Sample:
    """A sample that was right or wrong; None: nobody could judge it."""
    verdict = None if right is None else VerdictStatus.CORRECT if right else VerdictStatus.WRONG
    return Sample(
        run="r", thread="t", task="q", ids=(1, 2), mask=(False, True), temperature=1.0,
        verdict=verdict or VerdictStatus.UNVERIFIED, outcome=Outcome.ANSWERED, answer="4",
    )  # fmt: skip
