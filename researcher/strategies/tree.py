"""Tree of thoughts (Yao et al. 2023): propose or sample next steps, value the states they lead to, go on from the best.

Breadth first keeps the best states of each level; depth first follows the best and goes back where a state is given
up. States that merge are valued and expanded once.
"""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace
from pydantic import Field, ValidationInfo, field_validator

from researcher.strategies.base import failure
from researcher.strategies.frontier import VALUES, Frontier, Job, Thought
from researcher.strategies.prompts import (
    Prompt,
    choose_prompt,
    propose_prompt,
    revise_prompt,
    step_prompt,
    value_prompt,
)
from researcher.strategies.revision import is_right, settle
from researcher.strategies.steps import StepParameters
from researcher.types import Message, Outcome, VerdictStatus, Work
from researcher.views import Plan, ThreadInfo, View

CLOSE = "</answer>"
FATES = {"illegal": "were no legal steps", "merged": "came to known states", "dropped": "were given up"}


class TreeOfThoughts(StepParameters):
    """Searches a tree of steps whose states the model, or a scorer, values."""

    name: Literal["tree"] = "tree"
    scorer: str = Field(default="", description="evaluate=scores: verifier that scores each new step, once")
    thoughts: Literal["propose", "sample"] = Field(
        default="propose", description="next steps: many in one call, or each a call of its own (needs prefill)"
    )
    evaluate: Literal["values", "votes", "scores", "none"] = Field(
        default="values", validate_default=True, description="what ranks states; none keeps the first that came"
    )
    search: Literal["bfs", "dfs"] = Field(default="bfs", description="breadth or depth first")
    breadth: int = Field(default=5, ge=1, le=1000, description="thoughts=sample: steps sampled at a state (ToT: 5)")
    keep: int = Field(default=5, ge=1, le=1_000_000, description="states of a level, and answers, to keep (ToT: 5)")
    depth: int = Field(default=40, ge=1, le=10_000, description="steps a solution may have (ToT, Game of 24: 4)")
    value_samples: int = Field(default=3, ge=1, le=100, description="evaluate=values: words on each state (ToT: 3)")
    votes: int = Field(default=5, ge=1, le=1000, description="evaluate=votes: votes on the states of a level (ToT: 5)")
    threshold: float | None = Field(
        default=None, ge=0.0, description="value up to which a state is given up; by default 0, dfs: all say impossible"
    )
    expansions: int = Field(default=100, ge=1, le=1_000_000, description="search=dfs: states to expand (ToT: 100)")
    merge: bool = Field(default=True, description="whether equal states are one")
    finish: Literal["continue", "ask"] = Field(
        default="continue", description="answer of proposed steps: the model goes on (needs prefill), or is asked anew"
    )
    stop_when_verified: bool = Field(default=True, description="end with the first answer the verifier confirms")

    @field_validator("evaluate")
    @classmethod
    def _can_score(cls, evaluate: str, info: ValidationInfo) -> str:
        scorer, thoughts = info.data.get("scorer"), info.data.get("thoughts")
        if evaluate == "scores" and not (scorer and thoughts == "sample"):
            raise ValueError("evaluate=scores needs a scorer and thoughts=sample; proposals take values, votes or none")
        if evaluate != "scores" and scorer:
            raise ValueError("a scorer is for evaluate=scores")
        return evaluate

    @property
    def needs(self) -> frozenset[str]:
        """Whether begun replies must be continued."""
        return frozenset({"steps"} if self.thoughts == "sample" or self.finish == "continue" else ())

    @property
    def floor(self) -> float:
        """The value up to which a state is given up."""
        if self.threshold is not None:
            return self.threshold
        hopeless = self.search == "dfs" and self.evaluate == "values"
        return VALUES["impossible"] * self.value_samples if hopeless else 0.0

    def plan(self, view: View) -> Plan:
        """Start the threads of the round; when none is wanted any more, the best answer."""
        frontier = Frontier.of(view, self.name, self)
        if self.stop_when_verified and frontier.verified:
            first = min(frontier.verified.values(), key=lambda info: info.order)
            return self._answer(view, frontier, first, "the verifier confirms it", limited=False)
        if frontier.over:
            return self._finish(view, frontier, limited=False)
        if view.budget.spendable and (jobs := frontier.wanted(view.free)):
            return Plan(start=tuple(self._work(view, job) for job in jobs))
        return Plan() if view.in_flight else self._finish(view, frontier, limited=True)

    def _work(self, view: View, job: Job) -> Work:
        thought, question, key = job.thoughts[0], view.task.question, job.key
        match job.kind:
            case "think":
                return self.step(view, key, thought.node, group=_group(thought) or key)
            case "propose":
                return self._aside(view, key, propose_prompt(question, thought.steps), "proposer", thought)
            case "value":
                return self._aside(view, key, value_prompt(question, thought.steps), "valuer", thought)
            case "vote":
                prompt = choose_prompt(question, ["\n".join(each.steps) for each in job.thoughts])
                return self._aside(view, key, prompt, "voter", *job.thoughts)
            case "answer":
                return self._solution(view, key, thought)

    def _aside(self, view: View, key: str, prompt: Prompt, role: str, *thoughts: Thought) -> Work:
        """A thread that says something of these states, and answers nothing."""
        work = self.work(view, key, prompt, role=role, group=role, temperature=self.temperature, verify=False)
        uses = dict.fromkeys(thought.origin.key for thought in thoughts if thought.origin is not None)
        return replace(work, uses=tuple(uses))

    def _solution(self, view: View, key: str, thought: Thought) -> Work:
        """A thread that goes on from a state to its answer; a proposed answer it has only to close."""
        steps, uses = thought.steps, () if thought.origin is None else (thought.origin.key,)
        if thought.node is None and self.finish == "ask":
            work = self.work(view, key, revise_prompt(view.task.question, "\n".join(steps)))
            return replace(work, uses=uses)
        work = self.step(view, key, thought.node, group=_group(thought))
        sampling = replace(work.sampling, max_tokens=self.max_tokens, stop=(), keep_stop=False)
        if thought.node is not None:
            return replace(work, sampling=sampling)
        text = "\n".join(steps) + "\n"
        if CLOSE in text:
            text = text[: text.rfind(CLOSE)]
            sampling = replace(sampling, temperature=0.0, stop=(CLOSE,), keep_stop=True)
        prompt = step_prompt(view.task.question)
        system, user = Message(role="system", content=prompt.system), Message(role="user", content=prompt.user)
        said = Message(role="assistant", content=text)
        return replace(work, messages=(system, user, said), sampling=sampling, uses=uses)

    def _finish(self, view: View, frontier: Frontier, *, limited: bool) -> Plan:
        """The best answer, or why there is none; where the budget ended the search, one from the best state."""
        if self.depth > 1 and frontier.counts["expanded"] < 2:
            return Plan(failure=self._why(frontier), cancel=tuple(view.in_flight), limited=limited)
        answers = dict(frontier.answers)
        if limited and not answers and (best := frontier.best()) is not None:
            job = Job("answer", 0, best)
            info = view.graph.thread(job.key)
            if info is None:
                return Plan(start=(replace(self._work(view, job), reserved=True),))
            if info.answer is not None:
                answers[job.key] = best, info
        if not answers:
            return Plan(failure=self._why(frontier), cancel=tuple(view.in_flight), limited=limited)
        _, first = max(answers.values(), key=self._rank)
        return self._answer(view, frontier, first, "it has the best value", limited=limited)

    def _rank(self, answer: tuple[Thought, ThreadInfo]) -> tuple[int, float, float, int]:
        """Confirmed before unjudged before wrong; then the scorer's word, the value of the state, the first."""
        thought, info = answer
        wrong = info.verdict is not None and info.verdict.status is VerdictStatus.WRONG
        return is_right(info) - wrong, info.score or 0.0, thought.value_by(self), -info.order

    def _answer(self, view: View, frontier: Frontier, first: ThreadInfo, reason: str, *, limited: bool) -> Plan:
        given = [info for _, info in frontier.answers.values() if info.key != first.key]
        same = [first, *sorted((i for i in given if i.canonical == first.canonical), key=lambda info: info.order)]
        expanded, merged = frontier.counts["expanded"], frontier.counts["merged"]
        reason = f"{reason}; {expanded} states expanded, at most {frontier.deepest} deep, {merged} thoughts merged"
        answer = settle(view, same, of=len(given) + 1, reason=reason)
        return Plan(answer=replace(answer, body=frontier.body(first)), cancel=tuple(view.in_flight), limited=limited)

    def _why(self, frontier: Frontier) -> str:
        """Why there is no answer, with counts."""
        counts = frontier.counts
        if counts["unread"] and not counts["read"]:
            what = {"scores": f"score of {self.scorer}", "votes": "vote"}.get(self.evaluate, "value")
            head = f"the search has nothing to go by: no {what} could be had, of {counts['unread']} asked for"
        elif counts["expanded"] < 2:
            head = "the search never expanded a thought: none of the first could be continued"
        else:
            head = f"no answer from {counts['expanded']} states, at most {frontier.deepest} deep"
        said = [f"{counts[kind]} thoughts {words}" for kind, words in FATES.items() if counts[kind]]
        lost = [info for info in frontier.threads.values() if info.outcome is not Outcome.ANSWERED]
        return "; ".join([head, *said, *([failure(lost)] if lost else [])])


def _group(thought: Thought) -> str:
    """Where the prompts of what follows a state are cached."""
    return "" if thought.node is None else thought.node.info.work.group
