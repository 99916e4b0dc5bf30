import hashlib
from collections.abc import Callable

import pytest

from researcher.errors import StoreError
from researcher.events import (
    AnswerAccepted,
    AnswerProposed,
    ClaimAdded,
    Event,
    EventBody,
    MessageAdded,
    RunFinished,
    RunStarted,
    ThreadFinished,
    ThreadStarted,
    ToolCalled,
    ToolReturned,
)
from researcher.graph import ThoughtGraph
from researcher.graph.nodes import claim_id
from researcher.report.citations import check_citations
from researcher.report.why import why
from researcher.report.writer import render_report
from researcher.types import (
    Answer,
    Claim,
    Evidence,
    Message,
    Outcome,
    SourceRef,
    Task,
    ToolCall,
    Usage,
    Work,
)

TEXT = "The Velar tower is 40 m high.\n\nIt was built by Oru Sel [see](http://x)."
SHA = hashlib.sha256(TEXT.encode()).hexdigest()
HIGH, BUILT = "The Velar tower is 40 m high.", "It was built by Oru Sel [see](http://x)."
BODY = "It is 40 m high [1]. Oru Sel built it [2].\n<answer>40 m; Oru Sel</answer>"


def span(quote: str) -> Evidence:
    start = TEXT.index(quote)
    return Evidence(sha256=SHA, start=start, end=start + len(quote))


def blobs(*texts: str) -> Callable[[str], bytes]:
    stored = {hashlib.sha256(text.encode()).hexdigest(): text.encode() for text in texts}

    def get(sha256: str) -> bytes:
        if sha256 not in stored:
            raise StoreError(f"there is no source {sha256[:12]}")
        return stored[sha256]

    return get


def started(key: str) -> tuple[str, EventBody]:
    group = key.rpartition("/")[0]
    return key, ThreadStarted(work=Work(key=key, group=group, messages=(Message(role="user", content=key),)))


def research(answer: Answer | None, *claims: Claim) -> ThoughtGraph:
    """A run in which part/0/0 and part/1/0 report a claim each, part/1/1 fails and write/0 answers."""
    call = ToolCall(id="c", name="search", arguments='{"query":"velar"}')
    ref = SourceRef(sha256=SHA, name="velar.md")
    log: list[tuple[str | None, EventBody]] = [
        (
            None,
            RunStarted(task=Task(question="How high, and by whom?", tools=("search",)), strategy="research", model="m"),
        )
    ]
    for i, claim in enumerate(claims):
        key = f"part/{i}/0"
        log += [
            started(key),
            (
                key,
                MessageAdded(
                    message=Message(role="assistant", tool_calls=(call,)), usage=Usage(prompt_tokens=9, calls=1)
                ),
            ),
            (key, ToolCalled(call_id="c", name="search", arguments=call.arguments)),
            (key, ToolReturned(call_id="c", name="search", status="ok", content="[1] ...", sources=(ref,))),
            (key, ClaimAdded(claim=claim)),
            (key, ThreadFinished(outcome=Outcome.ANSWERED)),
        ]
    log += [
        started("part/1/1"),
        ("part/1/1", ThreadFinished(outcome=Outcome.FAILED, boundary="model", detail="HTTP 500")),
    ]
    log.append(started("write/0"))
    if answer is not None:
        log += [
            ("write/0", AnswerProposed(text=answer.text, canonical=answer.canonical)),
            ("write/0", ThreadFinished(outcome=Outcome.ANSWERED)),
            (None, AnswerAccepted(answer=answer)),
        ]
    outcome = Outcome.ANSWERED if answer else Outcome.EXHAUSTED
    log.append((None, RunFinished(outcome=outcome, answer=answer, detail="" if answer else "tokens limit reached")))
    return ThoughtGraph.fold(Event(seq, thread, 0.0, body) for seq, (thread, body) in enumerate(log, 1))


def accepted(*claims: str, supported: bool | None = True) -> Answer:
    return Answer(
        text="40 m; Oru Sel", canonical="40 m; oru sel", votes=1, of=1, claims=tuple(map(claim_id, claims)),
        body=BODY, reason="synthesis of 2 findings", supported=supported,
    )  # fmt: skip


def good() -> ThoughtGraph:
    claims = (Claim(text=HIGH, evidence=(span(HIGH),)), Claim(text=BUILT, evidence=(span(BUILT),)))
    return research(accepted(HIGH, BUILT), *claims)


def test_a_report_cites_each_sentence_with_file_span_quote_and_hash() -> None:
    report = render_report(good(), blobs(TEXT))
    assert report.startswith(
        "# How high, and by whom?\n\n**40 m; Oru Sel** [1] [2]\n\nIt is 40 m high [1]. Oru Sel built it [2].\n"
    )
    assert f'1. "{HIGH}" (velar.md, characters 0-29, sha256 {SHA})' in report
    assert "2 of 2 citations stand in the stored sources, word for word." in report
    assert "part/1/1: failed (HTTP 500)" in report
    assert "18 prompt and 0 sampled tokens; the cost is not known" in report


def test_what_documents_say_cannot_become_markup() -> None:
    report = render_report(good(), blobs(TEXT))
    assert "[see](http" not in report
    assert r"\[see\](http://x)" in report


def test_a_changed_source_is_seen() -> None:
    other = TEXT.replace("40 m", "41 m")
    checks = check_citations(good(), lambda _: other.encode())
    assert [check.ok for check in checks] == [False, True]
    assert checks[0].quote == "The Velar tower is 41 m high."
    assert "do not stand at this span" in render_report(good(), lambda _: other.encode())


def test_a_lost_source_is_a_problem_and_no_crash() -> None:
    checks = check_citations(good(), blobs())
    assert [check.problem for check in checks] == [f"there is no source {SHA[:12]}"] * 2


@pytest.mark.parametrize(("start", "end"), [(0, 28), (1, 29), (500, 529)])
def test_a_span_that_misses_its_words_is_a_problem(start: int, end: int) -> None:
    claim = Claim(text=HIGH, evidence=(Evidence(sha256=SHA, start=start, end=end),))
    assert [check.ok for check in check_citations(research(None, claim), blobs(TEXT))] == [False]


def test_without_evidence_the_report_says_so() -> None:
    report = render_report(research(accepted(supported=False), Claim(text="It is so.")), blobs(TEXT))
    assert "**40 m; Oru Sel** *(not verified)*" in report
    assert "**No evidence**" in report
    assert '- "It is so.": no evidence' in report
    assert "## Evidence" not in report


def test_without_an_answer_the_report_gives_the_reason() -> None:
    report = render_report(research(None), blobs())
    assert "**No answer**: tokens limit reached." in report
    assert "- There is no answer." in report


def test_why_goes_from_the_answer_to_what_was_read() -> None:
    assert list(why(good())) == [
        '"40 m; Oru Sel"',
        "  proposed by write/0",
        f'  because "{HIGH}"',
        "    reported by part/0/0",
        '    read in velar.md by search {"query":"velar"}',
        f'  because "{BUILT}"',
        "    reported by part/1/0",
        '    read in velar.md by search {"query":"velar"}',
    ]
