"""Both exports are read back by networkx with every node and edge."""

from __future__ import annotations

import json

import networkx as nx
import pytest
from hypothesis import given, settings

from researcher.events import Event, MessageAdded, ThreadStarted
from researcher.graph import ThoughtGraph
from researcher.graph.export import graphml, node_link
from researcher.testing.events import logs, numbered
from researcher.types import Message, Work


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(logs())
def test_node_link_is_read_back(log: list[Event]) -> None:
    graph = ThoughtGraph.fold(log)
    back = nx.node_link_graph(json.loads(json.dumps(node_link(graph))), edges="edges")
    assert set(back.nodes) == set(graph.nx.nodes)
    assert sorted(back.edges(keys=True)) == sorted(graph.nx.edges(keys=True))
    assert {n: d["kind"] for n, d in back.nodes(data=True)} == {n: str(d["kind"]) for n, d in graph.nx.nodes(data=True)}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(logs())
def test_graphml_is_read_back(log: list[Event]) -> None:
    graph = ThoughtGraph.fold(log)
    back = nx.parse_graphml(graphml(graph), force_multigraph=True)
    assert set(back.nodes) == set(graph.nx.nodes)
    edges = sorted((source, target, kind) for source, target, kind in back.edges(data="kind"))
    assert edges == sorted(graph.nx.edges(keys=True))


def test_characters_xml_cannot_hold_are_replaced() -> None:
    work = Work(key="a", messages=(Message(role="user", content="a\x00b\x1b[0m<&>\ud800 ok"),))
    log = [("a", ThreadStarted(work=work)), ("a", MessageAdded(message=Message(role="assistant", content="\uffff")))]
    graph = ThoughtGraph.fold(numbered(log))
    back = nx.parse_graphml(graphml(graph), force_multigraph=True)
    contents = [data["content"] for _, data in back.nodes(data=True) if data["kind"] == "message"]
    assert contents == ["a\ufffdb\ufffd[0m<&>\ufffd ok", "\ufffd"]
