"""Engines of the simulated world: they serve, shed, fail, fall silent, stop in the middle, and keep books of their own.

Each request may be executed once. A further send of the same request is legal only where the one before was shed, or
came over a reused connection that ended without a byte of an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import httptools

from tests.simulation.network import End, Ether

SHED = {429, 503}
STEPS_S = (0.0, 0.01, 0.02, 0.05, 0.1)
LONG = "x" * 1500

Act = bytes | str  # bytes to write; or done, close, reset, stop


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(body: bytes, status: int = 200, lines: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d Said\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
    return head % (status, len(body), lines) + body


@dataclass(eq=False)
class Execution:
    """One request as it reached an engine."""

    nonce: str
    line: EngineConnection
    reused: bool
    written_before: int  # bytes delivered on this connection before its answer
    status: int = 0

    @property
    def answered(self) -> bool:
        return self.line.delivered > self.written_before


@dataclass
class Books:
    """What reached the engines, by request."""

    bodies: dict[str, bytes] = field(default_factory=dict)  # as the clients sent them
    executions: dict[str, list[Execution]] = field(default_factory=dict)
    running: int = 0
    most_running: int = 0

    def received(self, execution: Execution, body: bytes) -> None:
        sent = self.bodies[execution.nonce]
        assert body == sent, f"{execution.nonce}: the engine got {body!r} instead of {sent!r}"
        before = self.executions.setdefault(execution.nonce, [])
        if before:
            last = before[-1]
            legal = last.status in SHED or (last.reused and not last.answered)
            assert legal, f"{execution.nonce} runs again after an answer of {last.status} (reused={last.reused})"
        before.append(execution)


class Engine:
    """`weights` of the ways in which it answers; `well` makes it serve everything at once."""

    def __init__(self, name: str, ether: Ether, books: Books, rng: Random, weights: dict[str, float]) -> None:
        self.name, self.ether, self.books, self.rng, self.weights = name, ether, books, rng, weights
        self.well = self.holding = False
        self.held: list[Callable[[], None]] = []

    def way(self) -> str:
        if self.well:
            return "serve"
        return self.rng.choices(list(self.weights), list(self.weights.values()))[0]

    def script(self, way: str, nonce: str, stream: bool) -> list[Act]:
        """Bytes and endings, in order; each comes a step after the one before."""
        own = f'"{nonce}"'.encode()
        if way == "shed":
            return [whole(b'{"error":%b}' % own, self.rng.choice((429, 503))), "done"]
        if way == "fail":
            return [whole(b'{"error":%b}' % own, self.rng.choice((400, 500))), "done"]
        if way in ("close", "reset"):
            return [way]
        if way == "silent":
            return []
        pieces = self._stream(own) if stream else self._document(own)
        if way == "break":
            kept = pieces[: self.rng.randrange(1, len(pieces))] if len(pieces) > 1 else [pieces[0][:-3]]
            return [*kept, self.rng.choice(("close", "reset", "stop"))]
        return [*pieces, "done", "close" if way == "serve and close" else "done"]

    def _document(self, own: bytes) -> list[bytes]:
        body = b'{"text":%b,"usage":{"prompt_tokens":5,"completion_tokens":3}}' % own
        if self.rng.random() < 0.3:
            body = body[:-1] + b',"pad":"%b"}' % (LONG * 3).encode()
        data = whole(body)
        cut = data.index(b"\r\n\r\n") + 4 + self.rng.randrange(len(body))
        return [data[:cut], data[cut:]] if self.rng.random() < 0.5 else [data]

    def _stream(self, own: bytes) -> list[bytes]:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        long = LONG.encode() if self.rng.random() < 0.3 else b""
        event = b'data: {"choices":[{"index":0,"delta":{"content":%b},"finish_reason":null}],"p":"%b"}\n\n' % (
            own,
            long,
        )
        last = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"n":%b}\n\n' % own
        events = [chunk(event) for _ in range(self.rng.randrange(1, 8))]
        return [head, *events, chunk(last) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"]


class EngineConnection(asyncio.Protocol):
    """One connection to an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.end: End | None = None
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""
        self.pooled: Callable[[], bool] = lambda: False  # it has waited in the pool of the proxy
        self.running = False

    @property
    def delivered(self) -> int:
        return self.end.delivered if self.end is not None else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, End)
        self.end = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stopped()

    def on_message_begin(self) -> None:
        assert not self.running, "a request while another runs on this connection"
        self.body = b""

    def on_body(self, piece: bytes) -> None:
        self.body += piece

    def on_message_complete(self) -> None:
        document = json.loads(self.body)
        engine, books = self.engine, self.engine.books
        execution = Execution(document["user"], self, self.pooled(), self.delivered)
        books.received(execution, self.body)
        self.running = True
        books.running += 1
        books.most_running = max(books.most_running, books.running)
        way = engine.way()
        script = engine.script(way, execution.nonce, document["stream"])
        if script and isinstance(script[0], bytes):
            execution.status = int(script[0][9:12])
        if engine.holding:
            engine.held.append(lambda: self._step(script, 0))
        else:
            self._later(script, 0)

    def _later(self, script: list[Act], at: int) -> None:
        self.engine.ether.later(lambda: self._step(script, at), self.engine.rng.choice(STEPS_S))

    def _step(self, script: list[Act], at: int) -> None:
        """One act. A whole answer is done in the turn that writes its end: the next request may come at once."""
        assert self.end is not None
        if self.end.ended or at >= len(script):
            return
        act = script[at]
        if isinstance(act, bytes):
            self.end.write(act)
            if script[at + 1 : at + 2] == ["done"]:
                self._stopped()
                if self.engine.rng.random() < 0.3:
                    self.engine.ether.later(self._tire, self.engine.rng.choice(STEPS_S))
        elif act == "close":
            self._stopped()
            self.end.close()
        elif act == "reset":
            self._stopped()
            self.end.abort()
        self._later(script, at + 1)

    def _tire(self) -> None:
        """Close an idle connection, maybe just as a request is on its way."""
        if self.end is not None and not self.running:
            self.end.close()

    def _stopped(self) -> None:
        if self.running:
            self.running = False
            self.engine.books.running -= 1
