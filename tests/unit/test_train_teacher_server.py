"""A vLLM server as a teacher: what is asked, what is read, and what is said when it is none."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from researcher.errors import BadResponse, RequestRejected, ServerFault, UserError
from researcher.models.embedded import SHIPPED
from researcher.train.sample import Sample
from researcher.train.teacher_server import ServerTeacher, open_server
from researcher.train.weights import read_packed

pytestmark = pytest.mark.anyio

SAMPLE = Sample(run="r", thread="x", task="t", ids=(5, 6, 7, 8), mask=(False, False, True, True))


class Server:
    """An exchange that answers with the next reply, the last one for ever."""

    base_url, root = "http://h/v1", "http://h"

    def __init__(self, *replies: Any) -> None:
        self.replies, self.asked = list(replies), list[tuple[str, Any]]()

    async def ask(self, url: str, body: bytes) -> bytes:
        self.asked.append((url, json.loads(body)))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, bytes) else json.dumps(reply).encode()


def teacher(server: Any, k: int = 2) -> ServerTeacher:
    return ServerTeacher(server, "m", k, 48, pause=0.0)


def told(*places: Any) -> dict[str, Any]:
    return {"choices": [{"prompt_logprobs": [None, *places]}]}


def place(**said: tuple[float, int]) -> dict[str, Any]:
    return {name[1:]: {"logprob": logprob, "rank": rank} for name, (logprob, rank) in said.items()}


GOOD = told(place(t6=(-1.0, 1)), place(t3=(-0.2, 1), t7=(-2.0, 2), t9=(-5.0, 40)), place(t8=(-0.1, 1)))


async def test_it_asks_with_ids_and_reads_the_tokens_that_were_said() -> None:
    server = Server(GOOD)
    [target] = await teacher(server).targets([SAMPLE])
    assert target.ids.tolist() == [[3, 7], [8, -1]]
    assert target.logprobs.tolist() == [[np.float32(-0.2), -2.0], [np.float32(-0.1), -np.inf]]
    [(url, body)] = server.asked
    assert url == "http://h/v1/completions"
    assert body == {
        "model": "m", "prompt": [5, 6, 7, 8], "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 2,
    }  # fmt: skip


async def test_what_may_pass_is_tried_again_and_what_may_not_is_not() -> None:
    server = Server(ServerFault("busy", 503), GOOD)
    assert len(await teacher(server).targets([SAMPLE])) == 1
    assert len(server.asked) == 2
    refused = Server(RequestRejected("prompt_logprobs of 30 is more than 20", 400))
    with pytest.raises(RequestRejected, match="more than 20"):
        await teacher(refused).targets([SAMPLE])
    assert len(refused.asked) == 1


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"choices": [{}]}, "gives no prompt_logprobs; the teacher must be a vLLM server"),
        ({"choices": [{"prompt_logprobs": None}]}, "gives no prompt_logprobs"),
        (b"<html>", "does not answer with an object; the teacher must be"),
        (told(place(t6=(-1.0, 1))), "told of 2 tokens, and was asked about 4"),
        (told(place(t6=(-1.0, 1)), {}, place(t8=(-0.1, 1))), "told nothing of the token at 2"),
    ],
)  # fmt: skip
async def test_a_server_that_is_no_teacher_is_one_sentence(reply: Any, said: str) -> None:
    with pytest.raises(BadResponse, match=said):
        await teacher(Server(reply)).targets([SAMPLE])


async def test_another_tokenizer_is_refused() -> None:
    tokenizer = read_packed(SHIPPED).tokenizer
    ids = tokenizer.encode("1+2", add_special_tokens=False).ids
    await teacher(Server(ServerFault("closed"), {"tokens": ids})).check(tokenizer, "1+2")
    with pytest.raises(UserError, match=r"http://h/v1 has another tokenizer"):
        await teacher(Server({"tokens": [*ids, 0]})).check(tokenizer, "1+2")


async def test_the_teacher_is_one_server_with_its_models_name() -> None:
    tokenizer = read_packed(SHIPPED).tokenizer
    with pytest.raises(UserError, match="must be one server with the model's name"):
        async with open_server("http://h:1/v1", 4, tokenizer, key=None):
            pass
