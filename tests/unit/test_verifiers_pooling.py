"""The pooling verifier against a real socket: a server of the tests that speaks /pooling."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from researcher_tools.verifiers import get_verifier
from researcher_tools.verifiers.pooling import Pooling, parse_address
from researcher_tools.verifiers.reward_server import RewardServer, rows_of

from researcher.errors import BadResponse, UserError
from researcher.types import Task, Verdict, VerdictStatus

pytestmark = pytest.mark.anyio

TASK = Task(question="What is 4*6?")
TAG = "<extra_0>"

Said = tuple[int, Any]


class Server:
    """Answers each request with the next reply, the last one for ever; `asked` has the paths and bodies."""

    def __init__(self) -> None:
        self.replies: list[Said] = []
        self.asked: list[tuple[str, Any]] = []
        self.hang = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.asked.append((self.path, body))
                status, said = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
                if said == "hang":
                    server.hang.wait(10)
                    return
                if said == "close":
                    return
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data) + (status == 299)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self.hang.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def _pooled(*rows: Any) -> Said:
    return 200, {"object": "list", "data": [{"index": 0, "object": "pooling", "data": list(rows)}]}


async def _verify(server: Server, options: str = "", *, steps: list[str] | None = None, text: str = "a\nb") -> Verdict:
    rewards = RewardServer(server.url, "prm", seconds=10.0, pause=0.0)
    verifier = Pooling(f"{server.url}/v1{options}#prm", server=rewards)
    try:
        return await (verifier.verify(TASK, text) if steps is None else verifier.verify_step(TASK, steps))
    finally:
        await verifier.aclose()


async def test_the_last_step_is_scored_by_its_tag(server: Server) -> None:
    server.replies = [_pooled([0.9, 0.1], [0.2, 0.8])]
    verdict = await _verify(server, steps=["4*6=23\n", f"no, 24{TAG}\n"])
    assert (verdict.status, verdict.score, verdict.by) == (VerdictStatus.CORRECT, 0.8, "pooling")
    path, body = server.asked[0]
    assert (path, body["model"]) == ("/pooling", "prm")
    assert body["messages"] == [
        {"role": "user", "content": "What is 4*6?"},
        {"role": "assistant", "content": f"4*6=23{TAG}no, 24{TAG}"},  # a tag in a step is taken out of it
    ]


@pytest.mark.parametrize(
    ("options", "rows", "score"),
    [
        ("", [[0.1, 0.9], [0.6, 0.4]], 0.4),
        ("?aggregate=min", [[0.7, 0.3], [0.6, 0.4]], 0.3),
        ("?aggregate=prod", [[0.5, 0.5], [0.6, 0.4]], 0.2),
        ("?aggregate=mean", [[0.5, 0.5], [0.5, 0.5]], 0.5),
        ("?good=0", [[0.1, 0.9], [0.6, 0.4]], 0.6),
        ("", [0.9, 0.25], 0.25),  # one value a step
        ("?scale=sigmoid", [[1.0], [0.0]], 0.5),
        ("?scale=sigmoid", [[1.0], [-800.0]], 0.0),
        ("?scale=softmax", [[0.0, 0.0], [1.0, 1.0 + math.log(3)]], 0.75),
        ("?tag=", [0.7], 0.7),  # an outcome reward model
        ("?tag=&scale=sigmoid", [[0.0]], 0.5),
    ],
)
async def test_whole_solutions_and_the_options(server: Server, options: str, rows: list[Any], score: float) -> None:
    server.replies = [_pooled(*rows)]
    verdict = await _verify(server, options)
    assert verdict.score == pytest.approx(score), verdict.reason
    assert len(server.asked) == 1


async def test_the_text_format_is_math_shepherds(server: Server) -> None:
    server.replies = [_pooled([0.9, 0.1], [0.8, 0.2])]
    verdict = await _verify(server, "?format=text&tag=%D0%BA%D0%B8&good=0")
    assert verdict.score == 0.8
    assert server.asked[0][1] == {"model": "prm", "input": "What is 4*6? a ки\nb ки"}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (_pooled([0.1, 0.9]), "gave 1 values for 2 steps; does it pool at the step tag"),
        (_pooled(*[[0.1, 0.9]] * 57), "gave 57 values for 2 steps"),
        (_pooled([3.0], [4.0]), "gave 3, which is no probability; say scale=softmax or scale=sigmoid"),
        (_pooled([0.5, "x"], [0.5, 0.5]), "holds something that is no number"),
        (_pooled([True], [False]), "holds something that is no number"),
        (_pooled([], []), "holds something that is no number"),
        (_pooled(), "holds no values"),
        ((200, {"data": []}), "is not that of /pooling"),
        ((200, {"error": "no"}), "is not that of /pooling"),
        ((200, b"<html>"), "is not that of /pooling"),
        ((200, b'{"data": [{"data": [NaN, NaN]}]}'), "holds something that is no number"),
        ((200, b"[" * 100_000), "is not that of /pooling"),
        ((400, {"message": "no such model"}), "answered 400: "),
        ((404, b"not here"), "answered 404: not here"),
        ((500, b"oh"), "answered 500: oh"),
        ((429, b"slow"), "answered 429: slow"),
        ((200, "close"), "broke off"),
        ((299, b"{}"), "broke off"),
        ((200, b" " * (8 * 2**20 + 1)), "more than 8388608 bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_the_server_cannot_say_is_unverified(server: Server, reply: Said, reason: str) -> None:
    server.replies = [reply]
    for verdict in (await _verify(server), await _verify(server, steps=["a\n", "b\n"])):
        assert verdict.status is VerdictStatus.UNVERIFIED
        assert reason in verdict.reason


async def test_a_fault_that_passes_is_tried_again(server: Server) -> None:
    server.replies = [(503, b"loading"), (429, b"slow"), _pooled([0.1, 0.9], [0.1, 0.9])]
    assert (await _verify(server)).score == 0.9
    assert len(server.asked) == 3
    server.replies, server.asked = [(400, b"no"), _pooled([0.1, 0.9])], []
    assert (await _verify(server)).status is VerdictStatus.UNVERIFIED
    assert len(server.asked) == 1


async def test_a_server_that_hangs_or_is_not_there_is_unverified(server: Server) -> None:
    server.replies = [(200, "hang")]
    hanging = Pooling(f"{server.url}#m", server=RewardServer(server.url, "m", seconds=0.2))
    verdict = await hanging.verify(TASK, "a")
    await hanging.aclose()
    assert verdict.reason == "no reply of the reward server within 0.2 s"
    url = "http://user:secret@127.0.0.1:9"
    nobody = Pooling(url, server=RewardServer(url, "", pause=0.0))
    verdict = await nobody.verify_step(TASK, ["a"])
    await nobody.aclose()
    assert verdict.status is VerdictStatus.UNVERIFIED
    assert "127.0.0.1:9 cannot be reached" in verdict.reason
    assert "secret" not in verdict.reason


async def test_nothing_to_score_is_unverified(server: Server) -> None:
    server.replies = [_pooled([0.5])]
    assert (await _verify(server, text=" \n")).status is VerdictStatus.UNVERIFIED
    assert (await _verify(server, steps=[])).status is VerdictStatus.UNVERIFIED
    assert server.asked == []


def test_an_address_has_a_root_a_model_and_options() -> None:
    found = parse_address("https://host:8000/v1/?good=0&aggregate=min#org/Name-7B")
    assert (found.root, found.model) == ("https://host:8000", "org/Name-7B")
    assert (found.options["good"], found.options["aggregate"], found.options["tag"]) == ("0", "min", TAG)
    assert parse_address("http://host/base").root == "http://host/base"
    assert get_verifier("pooling:http://host:8000/v1#m").name == "pooling"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "needs the address of a server"),
        ("host:8000", "needs the address of a server"),
        ("ftp://host", "needs the address of a server"),
        ("http://host:99999", "needs the address of a server"),
        ("http://[::1", "needs the address of a server"),
        ("http://host?tags=x", "no option 'tags'; there are: tag, good, scale, format, aggregate"),
        ("http://host?scale=log", "one of none, softmax, sigmoid, not 'log'"),
        ("http://host?good=x", "like 0 or -1, not 'x'"),
        ("http://host?aggregate=men", "did you mean mean"),
    ],
)
def test_an_address_that_cannot_be_is_explained(address: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        Pooling(address)


def test_rows_are_read_as_they_are() -> None:
    assert rows_of(b'{"data": [{"data": [[0.1, 0.9], [1]]}]}') == [(0.1, 0.9), (1,)]
    with pytest.raises(BadResponse):
        rows_of(b'{"data": [{"data": "base64"}]}')
