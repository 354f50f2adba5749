"""Records by hand, and an endpoint on loopback that answers each request with the bytes of its script."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from proxy.loadtest.records import Ending, Record
from proxy.loadtest.stats import Tally

HANG = b"HANG"  # as the last part of a script: say no more, and keep the connection
RESET = b"RESET"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(*events: bytes) -> bytes:
    data = b"".join(events)
    return b"%x\r\n%b\r\n" % (len(data), data)


def token(text: str = "a", finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def usage(output: object, prompt: object = 7) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": output}
    return b"data: " + json.dumps({"choices": [], "usage": counts}).encode() + b"\n\n"


def stream(*events: bytes) -> bytes:
    return STREAM + b"".join(chunk(event) for event in events if event) + b"0\r\n\r\n"


def good(tokens: int = 3) -> bytes:
    return stream(*[token()] * tokens, usage(tokens), DONE)


def whole(document: object, status: int = 200, headers: str = "") -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = f"HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


MODELS = whole({"object": "list", "data": [{"id": "m"}]})


@dataclass
class Said:
    """One request as the endpoint received it."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Scripted:
    """`script` answers every POST; the POST of number n is answered by `first[n]` where there is one."""

    script: tuple[bytes, ...] = (good(),)
    first: list[tuple[bytes, ...]] = field(default_factory=list)
    pages: dict[str, bytes] = field(default_factory=lambda: {"/v1/models": MODELS})
    asked: list[Said] = field(default_factory=list)
    puts: bytes = b""
    seen: Callable[[Said], None] = lambda said: None
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *lines = head.rstrip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
                said = Said(line, headers, await reader.readexactly(int(headers.get("content-length", 0))))
                if line.startswith("GET"):
                    writer.write(self.pages.get(line.split()[1], whole({}, 404)))
                    continue
                if line.startswith("PUT"):
                    self.seen(said)
                    writer.write(self.puts)
                    continue
                self.asked.append(said)
                self.seen(said)
                number = len(self.asked) - 1
                for part in self.first[number] if number < len(self.first) else self.script:
                    if part == HANG:
                        await reader.read()
                    if part in (HANG, RESET):
                        peer = writer.get_extra_info("socket")
                        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        writer.transport.abort()
                        return
                    writer.write(part)
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def scripted(*script: bytes, tls: ssl.SSLContext | None = None, **more: Any) -> AsyncIterator[Scripted]:
    endpoint = Scripted(script or (good(),), **more)
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0, ssl=tls)
    where = "https://localhost" if tls else "http://127.0.0.1"
    endpoint.url = f"{where}:{server.sockets[0].getsockname()[1]}"
    try:
        yield endpoint
    finally:
        asyncio.get_running_loop().remove_reader(server.sockets[0].fileno())
        for _ in range(3):
            await asyncio.sleep(0)  # a server that is closed while it accepts leaves a transport open
        server.close()
        server.close_clients() if hasattr(server, "close_clients") else None
        await asyncio.sleep(0)


@contextmanager
def in_a_thread(*script: bytes, **more: Any) -> Iterator[Scripted]:
    """`scripted` on a loop of its own, for commands that run their own loop."""
    made: list[Scripted] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with scripted(*script, **more) as endpoint:
            made.append(endpoint)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait(10)
    try:
        yield made[0]
    finally:
        over.set()
        thread.join()


def record(
    due_s: float = 0.0,
    ttft_s: float = 0.1,
    itl_s: float = 0.02,
    tokens: int = 11,
    ending: Ending = Ending.SUCCESS,
    **more: Any,
) -> Record:
    """A streamed request of even pace."""
    first_s = due_s + ttft_s
    last_s = first_s + itl_s * (tokens - 1)
    ok = ending is Ending.SUCCESS
    values: dict[str, Any] = {
        "index": 0, "flow": "f", "due_s": due_s, "sent_s": due_s, "prompt_asked": 5, "output_asked": tokens,
        "ending": ending, "status": 200 if ok else 0, "first_s": first_s if ok else None,
        "last_s": last_s if ok else None, "ended_s": last_s, "events": tokens if ok else 0, "prompt_tokens": 5,
        "output_tokens": tokens if ok else 0, "tokens_from": "usage",
    }  # fmt: skip
    return Record(**values | more)


def stamps_of(one: Record) -> array[float]:
    if one.first_s is None or one.last_s is None:
        return array("d")
    step = (one.last_s - one.first_s) / max(1, one.events - 1)
    return array("d", [one.first_s + step * index for index in range(one.events)])


def tally_of(*records: Record, from_s: float = 0.0, until_s: float = 10.0) -> Tally:
    tally = Tally(from_s, until_s)
    for one in records:
        tally.add(one, stamps_of(one))
    return tally
