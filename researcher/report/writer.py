"""`render_report(graph, get_blob)` is the cited report of a run, in Markdown: a fold of its graph and sources.

It says what was found, how sure that is, where each sentence stands, and what failed; without evidence it says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

from researcher.graph import ThoughtGraph, Vote
from researcher.report.citations import CitationCheck, GetBlob, check_citations
from researcher.strategies.base import wants_support
from researcher.types import Answer, Outcome

MOST = 20
"""Threads or claims of one list; the rest is counted."""

_FINDING = re.compile(r"\s*\[(\d+)\]")
_EVIDENCE_LINE = re.compile(r'^\s*\[\d+\]\s*["“].*["”]\s*$', re.MULTILINE)
_ACTIVE = re.compile(r"([\\\[\]<>`])")
_ANSWER_BLOCK = re.compile(r"<answer>.*?</answer>", re.DOTALL)


def render_report(graph: ThoughtGraph, get_blob: GetBlob) -> str:
    """The report, always with a question, an answer or the reason there is none, and the evidence or its absence."""
    answer = graph.answer
    checks = check_citations(graph, get_blob, claims=answer.claims) if answer is not None else []
    question = graph.started.task.question if graph.started else "(a run without a question)"
    blocks = [f"# {_line(question)}", *_head(graph, answer, checks)]
    for title, lines in (
        ("How sure", list(how_sure(graph, checks))),
        ("Evidence", [citation(number, check) for number, check in enumerate(checks, 1)]),
        ("Contradicted, qualified or unverified", list(_doubtful(graph))),
        ("Threads", list(_threads(graph))),
        ("Cost", list(_cost(graph))),
    ):
        if lines:
            blocks.append(f"## {title}\n\n" + "\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def body_of(answer: Answer, checks: list[CitationCheck]) -> str:
    """The prose of the answer, its finding numbers turned into citation numbers; empty where it has none of its own."""
    text = _ANSWER_BLOCK.sub("", _EVIDENCE_LINE.sub("", answer.body)).strip()
    by_finding: dict[int, list[int]] = {}
    for number, check in enumerate(checks, 1):
        for finding in sorted({_finding_of(key) for key in check.claim.threads} - {0}):
            by_finding.setdefault(finding, []).append(number)

    def cite(match: re.Match[str]) -> str:
        return "".join(f" [{number}]" for number in by_finding.get(int(match.group(1)), []))

    return "\n".join(_line_with(line, cite) for line in text.splitlines())


def citation(number: int, check: CitationCheck) -> str:
    """`[1] "the words" (notes.md, characters 3-40, sha256 ...)`, and what is wrong with it, if anything is."""
    span = (
        f"{_line(check.source)}, characters {check.evidence.start}-{check.evidence.end}, sha256 {check.evidence.sha256}"
    )
    problem = f" **{check.problem}**" if check.problem else ""
    return f'{number}. "{_line(check.quote or check.claim.text)}" ({span}){problem}'


def how_sure(graph: ThoughtGraph, checks: list[CitationCheck]) -> Iterator[str]:
    """What the answer rests on, in sentences: verifier, evidence, votes."""
    answer = graph.answer
    if answer is None:
        yield "- There is no answer."
    elif answer.supported is False and any(thread.verdict for thread in graph.threads()):
        yield "- **Not verified**: no verifier confirmed this answer."
    elif not checks and graph.started is not None and wants_support(graph.started.task) and not answer.supported:
        yield "- **No evidence**: no stored source bears this answer. Do not rely on it."
    elif answer.supported is False:
        yield "- **Not fully supported**: a part of this answer has no quoted source."
    elif not checks and answer.supported is None:
        yield "- Nothing could check this answer: it had no documents and no verifier."
    if checks:
        good = sum(check.ok for check in checks)
        yield f"- {good} of {len(checks)} citations stand in the stored sources, word for word."
    if answer is not None and answer.of:
        yield f"- {answer.votes} of {answer.of} votes; {answer.reason or 'the majority'}."
    verdicts = Counter(str(thread.verdict.status) for thread in graph.threads() if thread.verdict)
    if verdicts:
        yield f"- The verifier's words on the proposed answers: {_counts(verdicts)}."
    if rivals := _rivals(graph):
        shown = ", ".join(f'"{_line(vote.text)}" ({vote.count})' for vote in rivals[:5])
        yield f"- Other answers that threads gave: {shown}."


def _rivals(graph: ThoughtGraph) -> list[Vote]:
    """The other answer classes of the groups that voted on the answer; those of sub-questions are no rivals."""
    if graph.answer is None:
        return graph.votes()
    groups = {
        thread.work.group for thread in graph.threads() if thread.canonical == graph.answer.canonical
    }  # fmt: skip
    ranked = [vote for group in sorted(groups) for vote in graph.votes(group)]
    return [vote for vote in ranked if vote.canonical != graph.answer.canonical]


def _head(graph: ThoughtGraph, answer: Answer | None, checks: list[CitationCheck]) -> Iterator[str]:
    if answer is None:
        reason = graph.detail or "the run has not ended"
        yield f"**No answer**: {_line(reason)}."
        return
    marks = "".join(f" [{number}]" for number in range(1, len(checks) + 1))
    wrong = graph.refutation
    doubt = f"wrong, says the verifier {wrong.by}" if wrong else "not verified"
    warning = "" if answer.supported is not False else f" *({doubt})*"
    yield f"**{_line(answer.text)}**{marks}{warning}"
    if body := body_of(answer, checks):
        yield body


def _doubtful(graph: ThoughtGraph) -> Iterator[str]:
    doubtful = [claim for claim in graph.claims() if claim.verdict not in (None, "supported") or not claim.evidence]
    for claim in doubtful[:MOST]:
        why = claim.verdict or "no evidence: its words stand in no source it names"
        yield f'- "{_line(claim.text)}": {why}'
    if len(doubtful) > MOST:
        yield f"- and {len(doubtful) - MOST} more"


def _threads(graph: ThoughtGraph) -> Iterator[str]:
    ended = Counter(str(thread.outcome or "open") for thread in graph.threads())
    yield f"- By outcome: {_counts(ended)}."
    bad = [thread for thread in graph.threads() if thread.outcome not in (None, Outcome.ANSWERED, Outcome.CANCELLED)]
    for thread in bad[:MOST]:
        yield f"- {thread.key}: {thread.outcome}" + (f" ({_line(thread.detail)})" if thread.detail else "")
    if len(bad) > MOST:
        yield f"- and {len(bad) - MOST} more"


def _cost(graph: ThoughtGraph) -> Iterator[str]:
    usage = graph.usage
    tokens = f"{usage.prompt_tokens:,} prompt and {usage.completion_tokens:,} sampled tokens"
    money = "the cost is not known" if usage.cost is None else f"${usage.cost:.4f}"
    yield f"- {usage.calls:,} model calls, {tokens}; {money}."
    if graph.started is not None:
        began = graph.started
        yield f"- Model {began.model}, strategy {began.strategy}, seed {began.seed}."


def _finding_of(key: str) -> int:
    """The number of the finding a research thread worked for (`part/0/3` is finding 1); 0 for other threads."""
    match = re.match(r"part/(\d+)/", key)
    return int(match.group(1)) + 1 if match else 0


def _line_with(line: str, cite: Callable[[re.Match[str]], str]) -> str:
    """A line of prose with its marks rewritten, and the rest made harmless."""
    parts, last = [], 0
    for match in _FINDING.finditer(line):
        parts += [_line(line[last : match.start()]), cite(match)]
        last = match.end()
    return "".join([*parts, _line(line[last:])])


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counter.most_common())


def _line(text: str) -> str:
    """The text on one line, with nothing left that Markdown or a terminal would act on: others wrote it."""
    line = "".join(char if char.isprintable() else " " for char in " ".join(text.split()))
    return _ACTIVE.sub(r"\\\1", line)
