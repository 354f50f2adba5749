"""Clients of the simulated world: they ask, read, stall, leave in every way, and check what they are answered."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import httptools

from tests.simulation.network import End, Ether

PATIENCE_S = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
NONCE = re.compile(rb'"(n\d+)"')
STATUSES = {200, 400, 408, 429, 500, 502, 503, 504}


@dataclass(eq=False)
class Ask:
    """One request and what became of it."""

    nonce: str
    data: bytes
    way: str
    sent_whole: bool = False
    status: int = 0
    body: bytes = b""
    complete: bool = False
    over: bool = False


@dataclass
class Habits:
    """Chances of a client, drawn per seed."""

    leave: float = 0.3
    stall: float = 0.05
    partial: float = 0.05
    split: float = 0.3
    pipeline: float = 0.1
    stream: float = 0.6
    again: float = 0.6
    again_after_s: float = 0.05


@dataclass
class Report:
    """What all clients saw."""

    asked: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    by_nonce: dict[str, Ask] = field(default_factory=dict)


class Client(asyncio.Protocol):
    """One connection of one client; `done` is called when it has nothing more to do."""

    def __init__(
        self, ether: Ether, rng: Random, habits: Habits, report: Report, bodies: dict[str, bytes],
        done: Callable[[Client], None],
    ) -> None:  # fmt: skip
        self.ether, self.rng, self.habits, self.report, self.bodies, self.done = (
            ether,
            rng,
            habits,
            report,
            bodies,
            done,
        )
        self.end: End | None = None
        self.asks: list[Ask] = []  # not answered yet, in order
        self.parser = httptools.HttpResponseParser(self)
        self.gone = self.finished = self.stalled = self.last = False

    def __repr__(self) -> str:
        return f"Client({[f'{ask.nonce} {ask.way} {ask.status}' for ask in self.asks]} gone={self.gone} {self.end})"

    # ---- asking ----
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, End)
        self.end = transport
        self.ether.later(self.ask)

    def ask(self) -> None:
        """Send the next request, whole or in pieces or in part, and maybe plan to leave."""
        if self.finished or self.end is None or self.end.ended:
            return self.finish()
        rng, habits = self.rng, self.habits
        ask = self._request()
        self.asks.append(ask)
        if ask.way == "partial":
            self.end.write(ask.data[: rng.randrange(1, len(ask.data))])
        elif rng.random() < habits.split:
            cut = rng.randrange(1, len(ask.data))
            self.end.write(ask.data[:cut])
            self.ether.later(lambda: self._rest(ask, cut), rng.choice(PATIENCE_S[:5]))
        else:
            ask.sent_whole = True
            self.end.write(ask.data)
            if rng.random() < habits.pipeline and ask.way == "stay":
                return self.ask()
        if ask.way in ("close", "reset", "half"):
            self.ether.later(lambda: self._leave(ask), rng.choice(PATIENCE_S))
        elif ask.way == "stall":
            self.ether.later(self._stall, rng.choice(PATIENCE_S[:4]))
        return None

    def _request(self) -> Ask:
        rng, habits = self.rng, self.habits
        self.report.asked += 1
        nonce = f"n{self.report.asked}"
        way = "stay"
        if rng.random() < habits.leave:
            way = rng.choice(("close", "reset", "half"))
        elif rng.random() < habits.partial:
            way = "partial"
        elif rng.random() < habits.stall:
            way = "stall"
        stream = rng.random() < habits.stream
        document = {"model": "m", "stream": stream, "user": nonce, "max_tokens": rng.choice((1, 50, 400))}
        if rng.random() < 0.2:
            document["pad"] = "y" * 3000
        body = json.dumps(document).encode()
        self.bodies[nonce] = body
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\nx-request-id: {nonce}\r\n"
        head += f"x-priority: {rng.choice(('high', 'normal', 'low'))}\r\n"
        if rng.random() < 0.1:
            head += "x-request-timeout-ms: 150\r\n"
        ask = Ask(nonce, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body, way)
        self.report.by_nonce[nonce] = ask
        return ask

    def _rest(self, ask: Ask, cut: int) -> None:
        if self.end is not None and not self.end.ended:
            ask.sent_whole = True
            self.end.write(ask.data[cut:])

    def _leave(self, ask: Ask) -> None:
        if ask.over or self.end is None or self.end.ended:
            return
        self.gone = True
        if ask.way == "half":
            self.end.write_eof()
            return
        if ask.way == "close":
            self.end.close()
        else:
            self.end.abort()
        self.finish()

    def _stall(self) -> None:
        self.stalled = True
        if self.end is not None:
            self.end.pause_reading()
            self.ether.later(self.end.resume_reading, 2.0)

    # ---- being answered ----
    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        assert self.asks, "an answer that nobody asked for"
        assert not self.asks[0].status, "a second head inside an answer"

    def on_headers_complete(self) -> None:
        self.asks[0].status = self.parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        self.asks[0].body += piece

    def on_message_complete(self) -> None:
        ask = self.asks.pop(0)
        ask.complete = ask.over = True
        self.last = not self.parser.should_keep_alive()
        self._judge(ask)
        if self.asks or self.finished:
            return
        if self.last or self.rng.random() > self.habits.again:
            self.gone = True
            assert self.end is not None
            self.end.close()
            self.finish()
        else:
            self.ether.later(self.ask, self.rng.choice((0.0, self.habits.again_after_s)))

    def _judge(self, ask: Ask) -> None:
        assert ask.status in STATUSES, f"{ask.nonce}: status {ask.status}"
        assert b"internal_error" not in ask.body, f"{ask.nonce}: {ask.body!r}"
        foreign = {found.decode() for found in NONCE.findall(ask.body)} - {ask.nonce}
        assert not foreign, f"{ask.nonce} was answered with bytes of {foreign}"
        self.report.answers[f"{ask.status}" if ask.complete else "broken"] += 1

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """What is not answered by now never will be: fine for who left, stalled, or asked behind a last answer."""
        for place, ask in enumerate(self.asks):
            ask.over = True
            if ask.status:
                self._judge(ask)
            elif self.gone or self.stalled or place or self.last:
                self.report.answers["left"] += 1
            else:
                # A client that uploads slowly can lose the answer to a reset, as with any server.
                assert not ask.sent_whole or ask.way == "partial", f"{ask.nonce} got no answer: {exc!r}"
                self.report.answers["cut off"] += 1
        self.finish()

    def finish(self) -> None:
        if not self.finished:
            self.finished = True
            self.done(self)
