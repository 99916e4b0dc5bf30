"""The fold: what it merges, what it answers, and that it is the same live, replayed and in any order of threads."""

from __future__ import annotations

from typing import Any, get_args

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from researcher.events import (
    AnswerAccepted,
    AnswerProposed,
    BudgetCharged,
    CallStarted,
    ClaimAdded,
    ClaimJudged,
    ClaimsMerged,
    Event,
    EventBody,
    MessageAdded,
    RunFinished,
    RunResumed,
    RunStarted,
    Scored,
    ThreadFinished,
    ThreadStarted,
    ToolCalled,
    ToolReturned,
)
from researcher.graph import ThoughtGraph
from researcher.graph.export import attributes_of
from researcher.graph.fold import HANDLERS
from researcher.graph.nodes import EdgeKind, NodeKind, answer_id, call_id, claim_id, source_id, thread_id
from researcher.testing.events import Entry, interleaved, logs, numbered, threads
from researcher.types import (
    Answer,
    Claim,
    Evidence,
    FinishReason,
    Message,
    Outcome,
    PassageRef,
    SourceRef,
    Task,
    Tokens,
    ToolCall,
    Usage,
    Verdict,
    VerdictStatus,
    Work,
)
from researcher.views import GraphView

PROMPT = (Message(role="system", content="s"), Message(role="user", content="u"))
SHA = "ab" * 32
START: Entry = (None, RunStarted(task=Task(question="q"), strategy="vote"))


def started(key: str, *, group: str = "", messages: tuple[Message, ...] = PROMPT) -> Entry:
    return (key, ThreadStarted(work=Work(key=key, messages=messages, group=group)))


def said(key: str, content: str = "", *calls: ToolCall, **more: Any) -> Entry:
    return (key, MessageAdded(message=Message(role="assistant", content=content, tool_calls=calls), **more))


def call(call_id: str, name: str = "search", arguments: str = "{}") -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments=arguments)


def returned(key: str, call_id: str, content: str, **more: Any) -> Entry:
    return (key, ToolReturned(call_id=call_id, name="search", status="ok", content=content, **more))


def fold(*entries: Entry) -> ThoughtGraph:
    return ThoughtGraph.fold(numbered([START, *entries]))


def answered(key: str, text: str, canonical: str) -> Entry:
    return (key, AnswerProposed(text=text, canonical=canonical))


def test_every_body_has_a_handler() -> None:
    assert set(HANDLERS) == set(get_args(EventBody))


def test_it_is_a_graph_view() -> None:
    view: GraphView = ThoughtGraph()
    assert view.threads() == ()
    assert list(view.claims()) == []
    assert view.thread("a") is None


def test_threads_with_one_prompt_share_its_nodes() -> None:
    graph = fold(*[started(f"t{n}") for n in range(16)])
    kinds = [kind for _, kind in graph.nx.nodes(data="kind")]
    assert kinds.count(NodeKind.MESSAGE) == 2
    assert kinds.count(NodeKind.THREAD) == 16
    (leaf,) = graph.frontier()
    assert leaf.visits == 16
    assert leaf.threads == tuple(f"t{n}" for n in range(16))


def test_equal_replies_merge_and_keep_each_threads_sample() -> None:
    graph = fold(started("a"), started("b"), said("a", "x"), said("b", "x"), said("b", "y"))
    assert graph.path("a")[-1] is graph.path("b")[2]
    assert [tuple(p) for p in graph.path("a")[-1].passes] == [("a", 4), ("b", 5)]
    assert graph.path("b")[-1].visits == 1


@pytest.mark.parametrize(
    "other",
    [
        Message(role="assistant", content="x", reasoning="r"),
        Message(role="assistant", content="x", tool_calls=(call("1", arguments='{"q": 2}'),)),
        Message(role="user", content="x"),
    ],
)
def test_states_that_differ_do_not_merge(other: Message) -> None:
    graph = fold(started("a"), started("b"), said("a", "x"), ("b", MessageAdded(message=other)))
    assert graph.path("a")[-1] is not graph.path("b")[-1]


def test_an_equal_message_after_another_parent_is_another_state() -> None:
    graph = fold(started("a"), started("b", messages=PROMPT[1:]), said("a", "x"), said("b", "x"))
    assert graph.path("a")[-1].id != graph.path("b")[-1].id


def test_merged_calls_keep_each_threads_own_ids() -> None:
    graph = fold(
        started("a"), started("b"),
        said("a", "", call("a1")), said("b", "", call("b1")),
        returned("a", "a1", "found"), returned("b", "b1", "found"),
    )  # fmt: skip
    assert graph.path("a")[-1] is graph.path("b")[-1]
    for key in "ab":
        *_, asked, result = graph.messages(key)
        assert asked.tool_calls[0].id == result.tool_call_id == f"{key}1"


def test_merged_prompts_keep_each_threads_own_ids() -> None:
    prompts = {key: (*PROMPT, Message(role="assistant", tool_calls=(call(key),))) for key in "ab"}
    graph = fold(*[started(key, messages=prompts[key]) for key in ("a", "b")])
    again = ThoughtGraph.fold(numbered([START, *[started(key, messages=prompts["a"]) for key in "ab"]]))
    assert graph.path("a")[-1] is graph.path("b")[-1]
    for key in "ab":
        assert graph.messages(key) == prompts[key]
        assert graph.pending_tools(key) == prompts[key][-1].tool_calls
        assert again.messages(key) == prompts["a"]


def test_a_thread_with_a_known_prompt_keeps_its_own_ids() -> None:
    ids = {key: (Message(role="assistant", tool_calls=(call(key),)),) for key in "ab"}
    graph = fold(started("a", messages=ids["a"]), started("b", messages=ids["b"]), started("c", messages=ids["b"]))
    assert [graph.messages(key) for key in "abc"] == [ids["a"], ids["b"], ids["b"]]


def test_results_stand_in_the_order_of_the_calls() -> None:
    asked = said("a", "", call("1"), call("2", "read"), call("3"))
    entries = [started("a"), asked, returned("a", "2", "two")]
    graph = fold(*entries)
    assert [c.id for c in graph.pending_tools("a")] == ["1", "3"]
    assert graph.messages("a")[-1].role == "assistant"
    graph = fold(*entries, returned("a", "1", "one"))
    assert [m.content for m in graph.messages("a")[3:]] == ["one", "two"]
    assert [c.id for c in graph.pending_tools("a")] == ["3"]
    graph = fold(*entries, returned("a", "1", "one"), returned("a", "3", "three"))
    assert [(m.tool_call_id, m.content) for m in graph.messages("a")[3:]] == [
        ("1", "one"), ("2", "two"), ("3", "three"),
    ]  # fmt: skip
    assert graph.pending_tools("a") == ()


def test_two_calls_with_one_id_take_one_result_each() -> None:
    entries = [started("a"), said("a", "", call("1"), call("1", "read"))]
    graph = fold(*entries, returned("a", "1", "one"))
    assert [c.name for c in graph.pending_tools("a")] == ["read"]
    graph = fold(*entries, returned("a", "1", "one"), returned("a", "1", "two"))
    assert [m.content for m in graph.messages("a")[3:]] == ["one", "two"]


def test_a_result_recorded_twice_counts_once() -> None:
    graph = fold(started("a"), said("a", "", call("1")), returned("a", "1", "one"), returned("a", "1", "again"))
    assert [m.content for m in graph.messages("a")[3:]] == ["one"]


def test_a_result_past_a_missing_one_joins_before_the_next_message() -> None:
    graph = fold(started("a"), said("a", "", call("1"), call("2")), returned("a", "2", "two"), said("a", "end"))
    assert [m.content for m in graph.messages("a")[3:]] == ["two", "end"]
    assert graph.pending_tools("a") == ()


def test_equal_calls_are_one_node_with_what_it_read() -> None:
    source = SourceRef(sha256=SHA, name="doc.md")
    entries: list[Entry] = []
    for key in "ab":
        c = call(key)
        entries += [started(key, messages=(Message(role="user", content=key),)), said(key, "", c)]
        entries += [(key, ToolCalled(call_id=c.id, name=c.name, arguments=c.arguments))]
        entries += [returned(key, c.id, "r", sources=(source,))]
    graph = fold(*entries)
    node = call_id("search", "{}")
    assert graph.nx.nodes[node]["data"].threads == ["a", "b"]
    assert list(graph.nx.predecessors(node)) == [graph.path("a")[1].id, graph.path("b")[1].id]
    assert graph.nx.has_edge(node, source_id(SHA), EdgeKind.READ)
    assert graph.nx.has_edge(node, graph.path("b")[-1].id, EdgeKind.RETURNED)
    assert graph.nx.nodes[source_id(SHA)]["data"].ref == source


def test_equal_claims_are_one_node_with_all_evidence() -> None:
    spans = [Evidence(sha256=SHA, start=0, end=5), Evidence(sha256=SHA, start=9, end=12)]
    graph = fold(
        started("a"), started("b"),
        ("a", ClaimAdded(claim=Claim(text="The Sky is blue.", evidence=(spans[0],)))),
        ("b", ClaimAdded(claim=Claim(text="sky  is blue", evidence=tuple(spans)))),
    )  # fmt: skip
    (claim,) = graph.claims()
    assert claim.text == "The Sky is blue."
    assert claim.threads == ("a", "b")
    assert claim.evidence == tuple(spans)
    assert graph.threads()[1].claims == (claim.id,)
    assert graph.nx.has_edge(claim.id, source_id(SHA), EdgeKind.CITES)


def test_claims_merged_are_read_as_one() -> None:
    one, two, three = (claim_id(text) for text in ("one", "two", "three"))
    entries: list[Entry] = [
        (key, ClaimAdded(claim=Claim(text=text))) for key, text in zip("abc", ("one", "two", "three"), strict=True)
    ]
    entries = [*(started(key) for key in "abc"), *entries]
    entries += [(None, ClaimsMerged(claim=one, into=two)), (None, ClaimsMerged(claim=two, into=three))]
    entries += [
        (None, ClaimsMerged(claim=three, into=one)),
        (None, ClaimJudged(claim=one, verdict="supported", by="j")),
    ]
    graph = fold(*entries, ("d", ClaimAdded(claim=Claim(text="one"))))
    (claim,) = graph.claims()
    assert graph.claim(one) == graph.claim(two) == claim
    assert (claim.id, claim.threads, claim.verdict) == (three, ("c", "b", "a"), "supported")
    with pytest.raises(KeyError):
        graph.claim("claim:none")


def test_votes_rank_by_count_then_submission() -> None:
    keys = "abcde"
    entries = [started(key, group="g" if key in "ab" else "h") for key in keys]
    words = {"e": ("7", "7"), "c": ("4.0", "4"), "a": ("five", "five"), "b": ("4", "4"), "d": ("6", "6")}
    graph = fold(*entries, *[answered(key, *pair) for key, pair in words.items()])
    assert [(v.canonical, v.text, v.count, v.supporters) for v in graph.votes()] == [
        ("4", "4", 2, ("b", "c")), ("five", "five", 1, ("a",)), ("6", "6", 1, ("d",)), ("7", "7", 1, ("e",)),
    ]  # fmt: skip
    assert [v.canonical for v in graph.votes("g")] == ["five", "4"]
    assert graph.votes("none") == []


def test_a_second_proposal_moves_the_vote() -> None:
    graph = fold(started("a"), answered("a", "4", "4"), answered("a", "5", "5"))
    assert [(v.canonical, v.count) for v in graph.votes()] == [("5", 1)]


def test_ancestors_are_what_the_answer_rests_on() -> None:
    evidence = (Evidence(sha256=SHA, start=0, end=2),)
    graph = fold(
        started("a"), started("b"),
        said("a", "", call("1")), ("a", ToolCalled(call_id="1", name="search", arguments="{}")),
        returned("a", "1", "r", sources=(SourceRef(sha256="cd" * 32, name="d"),)), said("a", "A"),
        ("a", ClaimAdded(claim=Claim(text="c", evidence=evidence))), answered("a", "A", "a"),
        said("b", "B"), answered("b", "B", "b"),
    )  # fmt: skip
    found = graph.ancestors("a")
    assert found >= {
        "run",
        thread_id("a"),
        call_id("search", "{}"),
        source_id("cd" * 32),
        claim_id("c"),
        source_id(SHA),
    }
    assert {node.id for node in graph.path("a")} <= found
    assert thread_id("b") not in found
    assert graph.path("b")[-1].id not in found
    assert graph.ancestors("nobody said this") == set()
    assert nx.has_path(graph.nx, "run", answer_id("a"))


def test_an_aggregated_answer_rests_on_the_threads_whose_findings_it_used() -> None:
    def using(key: str, *uses: str, parent: str = "") -> Entry:
        said_to_it = (Message(role="user", content=f"prompt of {key}"),)
        return (key, ThreadStarted(work=Work(key=key, messages=said_to_it, uses=uses, parent=parent)))

    evidence = (Evidence(sha256=SHA, start=0, end=2),)
    graph = fold(
        using("a"), said("a", "A"), ("a", ClaimAdded(claim=Claim(text="c", evidence=evidence))),
        using("b"), said("b", "B"), using("c"), said("c", "C"), using("later", parent="b"), said("later", "B2"),
        using("joined", "a", "later", "never started", "joined"), said("joined", "J"), using("again", "joined"),
        said("again", "J"), answered("again", "J", "j"),
    )  # fmt: skip
    uses = [(s, t) for s, t, kind in graph.nx.edges(keys=True) if kind == EdgeKind.USES]
    assert sorted(uses) == [
        (thread_id("again"), thread_id("joined")),
        (thread_id("joined"), thread_id("a")),
        (thread_id("joined"), thread_id("later")),
    ]
    assert all(data for _, data in graph.nx.nodes(data="data")), "no node comes from an edge alone"
    found = graph.ancestors("j")
    assert {thread_id(key) for key in ("again", "joined", "a", "later", "b")} <= found
    assert {claim_id("c"), source_id(SHA), graph.path("a")[-1].id} <= found
    assert thread_id("c") not in found


def test_a_thread_shows_what_it_sampled_apart_from_what_it_read() -> None:
    graph = fold(
        started("a"), said("a", "x", usage=Usage(prompt_tokens=10, completion_tokens=3, calls=1)),
        ("a", BudgetCharged(usage=Usage(completion_tokens=2), reason="failed attempts")),
    )  # fmt: skip
    info = graph.thread("a")
    assert info is not None
    assert (info.tokens, info.sampled) == (15, 5)


def test_usage_adds_up_with_what_no_message_carries() -> None:
    graph = fold(
        started("a"), ("a", CallStarted()),
        said("a", "x", usage=Usage(prompt_tokens=3, completion_tokens=2, calls=1, cost=0.5)),
        ("a", CallStarted()),
        ("a", BudgetCharged(usage=Usage(prompt_tokens=1, calls=1), reason="failed")),
        (None, BudgetCharged(usage=Usage(calls=1, cost=0.25), reason="repeated")),
    )  # fmt: skip
    assert graph.usage == Usage(prompt_tokens=4, completion_tokens=2, calls=3, cost=0.75)
    assert graph.usage_of("a") == Usage(prompt_tokens=4, completion_tokens=2, calls=2, cost=0.5)


def test_unknown_cost_stays_unknown() -> None:
    assert fold(started("a"), said("a", usage=Usage(calls=1))).usage.cost is None


def test_calls_in_flight_are_those_without_reply_or_charge() -> None:
    entries = [e for key in "abcd" for e in (started(key), (key, CallStarted()))]
    entries += [said("b", "x"), ("c", BudgetCharged(usage=Usage(), reason="x"))]
    entries += [("d", ThreadFinished(outcome=Outcome.FAILED, boundary="model"))]
    assert fold(*entries).calls_in_flight == 1
    assert fold(*entries, (None, RunResumed(repeated=1))).calls_in_flight == 0


def test_threads_as_strategies_see_them() -> None:
    verdict = Verdict(status=VerdictStatus.CORRECT, by="exact")
    graph = fold(
        started("a", group="g"), started("b"), said("a", "<answer>4</answer>", finish=FinishReason.STOP),
        answered("a", "4", "4"), ("a", Scored(verdict=verdict)),
        ("a", ThreadFinished(outcome=Outcome.ANSWERED, detail="done")),
    )  # fmt: skip
    (info,) = graph.threads("g")
    assert info == graph.thread("a")
    assert (info.order, info.outcome, info.answer, info.canonical) == (0, Outcome.ANSWERED, "4", "4")
    assert (info.final, info.verdict, info.detail) == ("<answer>4</answer>", verdict, "done")
    assert [t.key for t in graph.threads()] == ["a", "b"]
    assert list(graph.in_flight) == [key for key, _ in graph.open_work()] == ["b"]
    assert graph.finish_of("a") is FinishReason.STOP
    (judged,) = graph.nx.successors(answer_id("4"))
    assert graph.nx.nodes[judged]["data"].status == "correct"


def test_a_view_taken_before_an_event_does_not_change_with_it() -> None:
    events = numbered([START, started("a"), ("a", ThreadFinished(outcome=Outcome.FAILED))])
    graph = ThoughtGraph.fold(events[:2])
    before = graph.threads()
    graph.apply(events[2])
    assert before[0].outcome is None
    assert graph.threads()[0].outcome is Outcome.FAILED


def test_token_path_is_what_the_next_call_continues() -> None:
    first, second = Tokens(ids=(1, 2, 3), sampled_from=2), Tokens(ids=(4,), sampled_from=0)
    entries = [started("a"), said("a", "x", tokens=first), said("a", "y", tokens=second)]
    assert fold(*entries).token_path("a") == (1, 2, 3, 4)
    again = said("a", "z", tokens=Tokens(ids=(9, 8), sampled_from=1, rebased=True))
    assert fold(*entries, again).token_path("a") == (9, 8)
    assert fold(*entries, ("a", ThreadFinished(outcome=Outcome.ANSWERED))).token_path("a") == ()


def test_passages_are_kept_in_order() -> None:
    refs = [PassageRef(n=n, sha256=SHA, start=n, end=n + 1) for n in range(3)]
    graph = fold(
        started("a"), said("a", "", call("1"), call("2")),
        returned("a", "1", "x", passages=(refs[0],)), returned("a", "2", "y", passages=tuple(refs[1:])),
    )  # fmt: skip
    assert graph.passages("a") == tuple(refs)


def test_the_runs_end_and_its_resumption() -> None:
    answer = Answer(text="4", canonical="4", claims=(claim_id("c"),))
    claim: Entry = ("a", ClaimAdded(claim=Claim(text="c")))
    entries = [started("a"), claim, answered("a", "4", "4"), (None, AnswerAccepted(answer=answer))]
    graph = fold(*entries)
    assert (graph.answer, graph.outcome) == (answer, None)
    assert graph.nx.has_edge(claim_id("c"), answer_id("4"), EdgeKind.SUPPORTS)
    ended: Entry = (None, RunFinished(outcome=Outcome.EXHAUSTED, answer=answer, limit="tokens", detail="no more"))
    graph = fold(*entries, ended)
    assert (graph.outcome, graph.limit, graph.detail, graph.answer) == ("exhausted", "tokens", "no more", answer)
    graph = fold(*entries, ended, (None, RunResumed()))
    assert (graph.outcome, graph.limit, graph.answer, graph.resumes) == (None, None, None, 1)
    # Killed between the answer and the end: the answer stands.
    assert fold(*entries, (None, RunResumed())).answer == answer


def test_an_event_out_of_order_is_refused() -> None:
    graph = fold(started("a"))
    with pytest.raises(ValueError, match="event 2 cannot be folded after event 2"):
        graph.apply(Event(2, None, 0.0, RunResumed()))


def test_half_a_character_pair_is_folded() -> None:
    assert fold(started("a"), said("a", "\ud800")).messages("a")[-1].content == "\ud800"


def whole(graph: ThoughtGraph) -> object:
    """Everything that can be asked of a graph."""
    keys = [info.key for info in graph.threads()]
    return (
        {n: (d["kind"], attributes_of(d["data"])) for n, d in graph.nx.nodes(data=True)},
        sorted(graph.nx.edges(keys=True)),
        graph.threads(), graph.threads("g"), graph.votes(), graph.votes("g"), list(graph.claims()),
        graph.usage, graph.calls_in_flight, graph.answer, graph.outcome, graph.limit, graph.seq, graph.open_work(),
        [node.id for node in graph.frontier()],
        [(graph.messages(k), graph.pending_tools(k), graph.usage_of(k)) for k in keys],
        [(graph.token_path(k), graph.passages(k), graph.finish_of(k)) for k in keys],
    )  # fmt: skip


@pytest.mark.slow
@settings(deadline=None)
@given(logs())
def test_replay_equals_live(log: list[Event]) -> None:
    live = ThoughtGraph()
    for event in log:
        live.apply(event)
        live.threads(), live.votes(), list(live.claims()), live.frontier()  # what is asked changes nothing
    assert whole(live) == whole(ThoughtGraph.fold(log))


@pytest.mark.slow
@settings(deadline=None)
@given(logs(), st.integers(0, 60))
def test_a_fold_in_two_halves_equals_one(log: list[Event], cut: int) -> None:
    graph = ThoughtGraph.fold(log[:cut])
    for event in log[cut:]:
        graph.apply(event)
    assert whole(graph) == whole(ThoughtGraph.fold(log))


def unordered(graph: ThoughtGraph) -> object:
    """What must not depend on which thread was quicker: no sequence numbers, no "first"."""
    unstable = {"seqs", "order", "text"}
    nodes = {}
    for node, data in graph.nx.nodes(data=True):
        attributes = {k: v for k, v in attributes_of(data["data"]).items() if k not in unstable}
        nodes[node] = {k: sorted(v) if isinstance(v, list) else v for k, v in attributes.items()}
        nodes[node].pop("tool_calls", None)
        # A merged state shows the first thread's finish and status: threads may differ in these alone.
        nodes[node].pop("status", None)
    keys = sorted(info.key for info in graph.threads())
    return (
        nodes,
        sorted(graph.nx.edges(keys=True)),
        {v.canonical: sorted(v.supporters) for v in graph.votes()},
        {c.id: (sorted(c.threads), set(c.evidence)) for c in graph.claims()},
        graph.usage,
        [(graph.messages(k), graph.pending_tools(k), graph.usage_of(k)) for k in keys],
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_order_between_threads_does_not_matter(data: st.DataObject) -> None:
    lanes = [data.draw(threads(f"t{n}", forks=False)) for n in range(data.draw(st.integers(1, 3)))]
    one, two = (numbered([START, *data.draw(interleaved(lanes))]) for _ in range(2))
    assert unordered(ThoughtGraph.fold(one)) == unordered(ThoughtGraph.fold(two))
