"""Research in its simplest honest form: split the question, research the parts in parallel, write a cited answer.

The width is decided here, not by the model's parallel calls: each sub-question gets `samples` threads of its own,
whose answers are put to the vote. Stages overlap: nothing waits but the synthesis, which needs all findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice, repeat
from typing import Literal, NamedTuple

import msgspec
from pydantic import Field

from researcher.strategies.base import Parameters, conclude, failure, seed_of, support, wants_support
from researcher.strategies.grounding import strangers
from researcher.strategies.prompts import (
    UNKNOWN,
    Finding,
    Prompt,
    answer_prompt,
    parse_subquestions,
    split_prompt,
    synthesis_prompt,
)
from researcher.strategies.votes import Polls, Tally, ThreadBallots, tally
from researcher.types import Answer, Outcome, Work
from researcher.views import Plan, ThreadInfo, View

NAME = "research"
PLAN = "plan"
WRITE = "write"


class Part(NamedTuple):
    """A sub-question with the votes of its threads."""

    number: int
    question: str
    ballots: ThreadBallots

    @property
    def votes(self) -> Tally[ThreadInfo]:
        """The votes that came in."""
        return self.ballots.tally


class Research(Parameters):
    """Answers a question from documents by many threads, with the sentences it rests on."""

    name: Literal["research"] = "research"
    samples: int = Field(default=8, ge=1, le=1000, description="threads for each sub-question")
    max_questions: int = Field(default=6, ge=1, le=50, description="sub-questions to research, the first ones")
    writers: int = Field(default=3, ge=1, le=100, description="threads that write the synthesis; the majority wins")
    temperature: float = Field(default=0.7, ge=0.0, le=2.0, description="sampling temperature of the researchers")

    def plan(self, view: View) -> Plan:
        """Split, research, write."""
        planner = view.graph.thread(PLAN)
        if planner is None:
            return Plan(start=(self.work(view, PLAN, split_prompt(view.task.question), role="planner"),))
        if planner.outcome is None:
            return Plan()
        polls = Polls.of(view, NAME)
        questions = enumerate(self._questions(view, planner))
        parts = [Part(i, question, polls.group(f"part/{i}")) for i, question in questions]
        open_parts = [part for part in parts if not self._settled(part, view)]
        if open_parts:
            return Plan(start=self._researchers(view, open_parts), cancel=self._surplus(view, parts))
        if not any(part.votes.votes for part in parts):
            threads = [thread for part in parts for thread in view.graph.threads(f"part/{part.number}")]
            if planner.outcome is not Outcome.ANSWERED:
                threads.insert(0, planner)
            return Plan(failure=failure(threads), limited=self._limited(view, parts))
        if len(parts) == 1:
            return self._single(view, parts[0])
        return self._write(view, parts)

    def _questions(self, view: View, planner: ThreadInfo) -> list[str]:
        """The planner's sub-questions; the question as it was asked where there are not several."""
        found = parse_subquestions(planner.final) if planner.outcome is Outcome.ANSWERED else []
        return found[: self.max_questions] if len(found) > 1 else [view.task.question]

    def _settled(self, part: Part, view: View) -> bool:
        """Whether no thread still to come or running can change the part's winner."""
        unstarted = max(0, self.samples - part.ballots.opened) if view.budget.spendable else 0
        pending = unstarted + part.ballots.pending
        return pending == 0 or part.votes.decided(pending)

    def _limited(self, view: View, parts: list[Part]) -> bool:
        """Whether the budget kept a part from threads that could have changed its winner."""
        missing = [(self.samples - part.ballots.opened, part) for part in parts]
        return not view.budget.spendable and any(lack > 0 and not part.votes.decided(lack) for lack, part in missing)

    def _researchers(self, view: View, parts: list[Part]) -> tuple[Work, ...]:
        """One thread for each part in turn, while slots are free."""
        if not view.budget.spendable:
            return ()
        questions = {part.number: part.question for part in parts}
        wanted = merge(*(zip(range(part.ballots.opened, self.samples), repeat(part.number)) for part in parts))
        tools = view.task.tools
        return tuple(
            self.work(
                view,
                f"part/{number}/{i}",
                answer_prompt(questions[number], tools),
                group=f"part/{number}",
                tools=tools,
                temperature=self.temperature,
                verify=questions[number] == view.task.question,
            )
            for i, number in islice(wanted, view.free)
        )

    def _surplus(self, view: View, parts: list[Part]) -> tuple[str, ...]:
        """Threads that still run for a part whose winner is settled."""
        settled = [part for part in parts if part.ballots.out and self._settled(part, view)]
        return tuple([key for part in settled for key in part.ballots.out if key in view.in_flight])

    def _single(self, view: View, part: Part) -> Plan:
        reason = "one question; the majority of its threads"
        of, wanted = part.votes.votes, wants_support(view.task)
        answer = conclude(part.votes.leader, view.graph, of=of, wanted=wanted, reason=reason)
        return Plan(answer=answer, cancel=tuple(view.in_flight), limited=self._limited(view, [part]))

    def _write(self, view: View, parts: list[Part]) -> Plan:
        """Start the writers, which may spend the reserve; then take the majority of them."""
        prompt = synthesis_prompt(view.task.question, [self._finding(view, part) for part in parts])
        # Other findings, after a resume with a larger budget, are written up anew; writers at work are let finish.
        groups = Polls.of(view, NAME).groups
        running = [name for name, ballots in groups.items() if name.startswith(f"{WRITE}/") and ballots.out]
        group = running[0] if running else f"{WRITE}/{seed_of(0, prompt.user):x}"
        writers = list(view.graph.threads(group))
        if len(writers) < self.writers or running:
            works = self._writers(view, prompt, group, range(len(writers), self.writers)[: view.free])
            uses = tuple(dict.fromkeys(key for part in parts for key in _told(view, part.votes.leader)))
            works = tuple([msgspec.structs.replace(work, uses=uses) for work in works])
            return Plan(start=works, cancel=self._surplus(view, parts))
        findings = [self._finding(view, part) for part in parts]
        faithful = tally(writer for writer in writers if not strangers(writer.answer or "", findings))
        written = faithful if faithful.leader else tally(writers)
        answer = self._answer(view, parts, written, faithful=bool(faithful.leader))
        return Plan(answer=answer, limited=self._limited(view, parts))

    def _writers(self, view: View, prompt: Prompt, group: str, numbers: range) -> tuple[Work, ...]:
        """These writers; the first is greedy, the others sample."""
        return tuple(
            self.work(
                view,
                f"{group}/{i}",
                prompt,
                role="writer",
                group=group,
                temperature=self.temperature if i else 0.0,
                reserved=True,
            )
            for i in numbers
        )

    def _finding(self, view: View, part: Part) -> Finding:
        supporters = part.votes.leader
        if not supporters:
            return Finding(part.question, UNKNOWN)
        return Finding(part.question, supporters[0].answer or UNKNOWN, _quotes(view, supporters))

    def _answer(self, view: View, parts: list[Part], written: Tally[ThreadInfo], *, faithful: bool) -> Answer:
        """The synthesis with the claims of its findings; the bare findings where no writer gave one.

        `faithful`: it names nothing that no finding names; else nothing bears it out.
        """
        claims: dict[str, None] = {}
        supported = True
        for part in parts:
            found, ids = support(part.votes.leader, wanted=wants_support(view.task))
            claims.update(dict.fromkeys(ids))
            supported = supported and found is not False
        if view.task.verifier is not None:  # its word is on the whole answer, not on the parts
            supported = support(written.leader, wanted=True)[0] is True
        if not written.leader:
            lines = [f"{part.question} {self._finding(view, part).answer}" for part in parts]
            text = "; ".join(self._finding(view, part).answer for part in parts)
            reason = "the synthesis failed; these are the bare findings"
            return Answer(
                text=text, canonical=text.casefold(), claims=tuple(claims), body="\n".join(lines), reason=reason,
                supported=False,
            )  # fmt: skip
        first = written.leader[0]
        return Answer(
            text=first.answer or "",
            canonical=first.canonical or "",
            votes=len(written.leader),
            of=written.votes,
            claims=tuple(claims),
            body=first.final,
            reason=f"synthesis of {len(parts)} findings{'' if faithful else ', with names that none of them has'}",
            supported=(supported and faithful) if wants_support(view.task) else None,
        )


def _quotes(view: View, supporters: Iterable[ThreadInfo]) -> tuple[str, ...]:
    """What the first supporter that quoted evidence rests on, in its order."""
    return next((quotes for _, quotes in _quoting(view, supporters)), ())


def _quoting(view: View, supporters: Iterable[ThreadInfo]) -> Iterator[tuple[ThreadInfo, tuple[str, ...]]]:
    """The supporters that quoted evidence, with what they quoted."""
    for thread in supporters:
        quotes = tuple([claim.text for claim in map(view.graph.claim, thread.claims) if claim.evidence])
        if quotes:
            yield thread, quotes


def _told(view: View, supporters: Sequence[ThreadInfo]) -> Iterator[str]:
    """The threads whose words a finding holds: the one whose answer it is, and the one whose quotes it has."""
    yield from (thread.key for thread in supporters[:1])
    yield from (thread.key for thread, _ in islice(_quoting(view, supporters), 1))
