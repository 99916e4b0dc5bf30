"""A server of the OpenAI chat protocol that answers each request after a fixed delay; run as a process of its own.

`python -m benchmarks.delay_server --delay 0.2` prints its port. A conversation of fewer than `turns` assistant
messages gets a tool call, then the answer. Hand-written on asyncio.Protocol so that it is not what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
from collections import Counter
from typing import ClassVar

TURNS = 4


def reply(turn: int) -> bytes:
    """The HTTP response of one turn."""
    message: dict[str, object] = {"role": "assistant", "content": "<answer>42</answer>"}
    finish = "stop"
    if turn < TURNS:
        call = {"name": "echo", "arguments": json.dumps({"text": f"step {turn}"})}
        message = {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": f"call_{turn}", "type": "function", "function": call}],
        }
        finish = "tool_calls"
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "delay",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 40 * turn, "completion_tokens": 12, "total_tokens": 40 * turn + 12},
    }
    return _response(json.dumps(body).encode())


def _response(data: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


MODELS = _response(json.dumps({"object": "list", "data": [{"id": "delay", "object": "model"}]}).encode())
NOT_FOUND = _response(b'{"error": {"message": "not found"}}', "404 Not Found")
REPLIES = {turn: reply(turn) for turn in range(1, TURNS + 1)}


class Server(asyncio.Protocol):
    """One connection, one request at a time, as HTTP/1.1 clients do."""

    delay = 0.2
    counting = False
    answered: ClassVar[Counter[str]] = Counter()
    """Replies begun, by the request's seed and turn ("seed/turn", turns from 1); GET /counts reads them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = 0
            for line in head.split(b"\r\n")[1:]:
                if line[:15].lower() == b"content-length:":
                    length = int(line[15:])
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST") and b"/chat/completions" in head[:64]:
            turn = min(TURNS, 1 + body.count(b'"assistant"'))
            asyncio.get_running_loop().call_later(self.delay, self.finish, REPLIES[turn], body)
        elif b"/counts" in head[:64]:
            self.write(_response(json.dumps(self.answered).encode()))
        else:
            self.write(MODELS if b"/models" in head[:64] else NOT_FOUND)

    def finish(self, data: bytes, body: bytes) -> None:
        if self.counting and not self.transport.is_closing():
            request = json.loads(body)
            turn = 1 + sum(message["role"] == "assistant" for message in request["messages"])
            self.answered[f"{request.get('seed')}/{turn}"] += 1
        self.write(data)

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)


async def serve(delay: float, *, counting: bool = False) -> None:
    """Serve on a free loopback port, printed on the first line, until killed."""
    Server.delay, Server.counting = delay, counting
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=65_535)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--counting", action="store_true", help="count replies by request, for GET /counts")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve(options.delay, counting=options.counting))
