"""An open loop over sockets: each request is sent at its time, whatever became of those before it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import cast

from tests.benchmarks.over_http.engine import Asked

EVENT = b'"delta"'  # one per token
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
WORD = "word"  # some four bytes per token, as text has


def request(one: Asked) -> bytes:
    """Tells the engine how long the answer shall be; the proxy has no use for that."""
    asked = {"number": one.number, "prompt": one.prompt, "output": one.output}
    content = WORD * one.prompt
    body = {"model": "m", "stream": True, "metadata": asked, "messages": [{"role": "user", "content": content}]}
    text = json.dumps(body).encode()
    return HEAD % len(text) + text


class Client(asyncio.Protocol):
    """One request on a connection of its own. Times of the first and the last token, and how many came."""

    def __init__(self, one: Asked, port: int, clock: Callable[[], float]) -> None:
        self.one, self.port, self.clock = one, port, clock
        self.first_s = self.last_s = 0.0
        self.tokens = 0
        self.answered = self.whole = False
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(request(self.one))

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        came = data.count(EVENT)
        if came:
            self.last_s = self.clock()
            self.first_s = self.first_s or self.last_s
            self.tokens += came
        self.rest = data[-(len(EVENT) - 1) :]
        refused = not self.answered and not data.startswith(b"HTTP/1.1 200")
        self.answered = True
        if refused or data.endswith(b"0\r\n\r\n"):
            self.whole = self.tokens == self.one.output
            self.transport.close()


async def offer(asked: Sequence[Asked], ports: Sequence[int], began_s: float, until_s: float) -> list[Client]:
    """Requests go to the ports in turn. Whatever is unanswered at the end is given up."""
    loop, clients = asyncio.get_running_loop(), list[Client]()
    opening = set[asyncio.Task[object]]()
    for one in asked:
        await asyncio.sleep(max(0.0, began_s + one.at_s - loop.time()))
        client = Client(one, ports[one.number % len(ports)], lambda: loop.time() - began_s)
        clients.append(client)
        task = loop.create_task(_open(client))
        opening.add(task)
        task.add_done_callback(opening.discard)
    await asyncio.sleep(max(0.0, began_s + until_s - loop.time()))
    for task in list(opening):
        task.cancel()
    for client in clients:
        if hasattr(client, "transport"):
            client.transport.abort()
    return clients


async def _open(client: Client) -> object:
    return await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", client.port)
