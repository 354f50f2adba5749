"""One request on one connection, with as little work per token as there can be: a stamp, a count, the last bytes.

Everything that ends it goes through `_over`, exactly once, and becomes a `Record`; nothing that an endpoint sends can
raise out of here. A reused connection that breaks before the first byte of an answer was closed while idle, so the
request is sent once more on a fresh one, as every HTTP client does; it is counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

import orjson

from proxy.adapters.upstream_pool import Carried, UpstreamConnection, UpstreamPool
from proxy.loadtest.client.clock import TurnClock
from proxy.loadtest.records import Ending, Record, judge_usage
from proxy.types import Usage
from proxy.wire.routes import Route
from proxy.wire.usage import StreamTail

BODY_MAX_BYTES = 64 << 20
DETAIL_CHARS = 200

Ended = Callable[["Call"], None]


class Call(Carried):
    """One request on its way."""

    # fmt: off
    __slots__ = (
        "body_bytes", "clock", "connection", "content_type", "deadline_s", "ended", "head", "last_byte_s", "over",
        "pieces", "pool", "record", "request", "reused", "route", "silence_s", "stamps", "streamed", "tail",
    )
    # fmt: on

    def __init__(
        self,
        record: Record,
        request: list[bytes],
        route: Route,
        pool: UpstreamPool,
        clock: TurnClock,
        ended: Ended,
        timeout_s: float,
        silence_s: float,
    ) -> None:
        self.record, self.request, self.route, self.pool, self.clock = record, request, route, pool, clock
        self.ended = ended
        self.deadline_s, self.silence_s = record.due_s + timeout_s, silence_s
        self.last_byte_s = record.sent_s
        self.connection: UpstreamConnection | None = None
        self.over = self.head = self.streamed = self.reused = False
        self.stamps: array[float] = array("d")
        self.tail = StreamTail()
        self.pieces: list[bytes] = []
        self.body_bytes = 0
        self.content_type = b""

    def __repr__(self) -> str:
        return f"Call({self.record.index} {self.record.flow} {'over' if self.over else 'running'})"

    def start(self) -> None:
        self.pool.acquire(self)

    # ---- the connection's side ----
    def connected(self, connection: UpstreamConnection, reused: bool) -> None:
        if self.over:
            connection.close()
            return
        self.connection, self.reused = connection, reused
        connection.send(self, self.request)

    def connect_failed(self, reason: str, own: bool) -> None:
        self._over(Ending.GENERATOR if own else Ending.CONNECT, reason)

    def broke(self, error: Exception) -> None:
        raise error  # a test that has a fault itself measures nothing

    def answer_head(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.head, self.record.status = True, status
        self.last_byte_s = self.clock.turn()
        for name, value in headers:
            lower = name.lower()
            if lower == b"content-type":
                self.content_type = value.lower()
            elif lower == b"x-penstock-queue-ms":
                self.record.queue_s = _milliseconds(value)
        self.streamed = status == 200 and self.content_type.startswith(b"text/event-stream")

    def answer_body(self, pieces: list[bytes], last: bool) -> None:
        now = self.last_byte_s = self.clock.turn()
        for piece in pieces:
            self.body_bytes += len(piece)
            if not self.streamed:
                self.pieces.append(piece)
                continue
            self.tail.add(piece)
            events = self.tail.count(piece, self.route)
            if events == 1:
                self.stamps.append(now)
            elif events:
                self.stamps.extend([now] * events)
        if self.body_bytes > BODY_MAX_BYTES:
            self.drop(Ending.GARBAGE, f"answer above {BODY_MAX_BYTES >> 20} MiB")

    def answer_end(self) -> None:
        self.connection = None
        self._over(*self._verdict())

    def lost(self, reason: str) -> None:
        self.connection = None
        if self.reused and not self.head:
            self.record.reconnects += 1
            self.reused = False
            self.pool.acquire(self, fresh=True)
            return
        if reason.startswith(("malformed", "answer head")):
            self._over(Ending.GARBAGE, reason)
        elif self.streamed and self.tail.verdict(self.route, True).finished:
            self._over(*self._verdict())  # all of the answer came; only the connection ended badly
        else:
            self._over(Ending.RESET, f"connection {reason} {'in the answer' if self.head else 'before an answer'}")

    def upload_paused(self, paused: bool) -> None:
        """The kernel takes the request as it can; nothing more is due."""

    # ---- the run's side ----
    def check(self, now: float) -> None:
        """Ends a request that takes too long or is silent for too long."""
        if now >= self.deadline_s:
            self.drop(Ending.TIMEOUT, "the whole request took too long")
        elif now - self.last_byte_s >= self.silence_s:
            place = "in the answer" if self.head else "before an answer"
            self.drop(Ending.SILENCE, f"no byte for {self.silence_s:g} s {place}")

    def drop(self, ending: Ending, detail: str = "") -> None:
        if self.connection is not None:
            self.connection.abandon()
            self.connection = None
        self._over(ending, detail)

    # ---- the end ----
    def _verdict(self) -> tuple[Ending, str]:
        record = self.record
        if record.status != 200:
            return Ending.STATUS, f"status {record.status}: {_printable(b''.join(self.pieces))}"
        if not record.streaming:
            return self._verdict_whole()
        if not self.streamed:
            return Ending.GARBAGE, f"no event stream but {_printable(self.content_type) or 'an untyped answer'}"
        end = self.tail.verdict(self.route, True)
        if end.error:
            return Ending.STREAM_ERROR, "the stream ended with an error event"
        if not self.stamps:
            if end.finished:
                return Ending.EMPTY, "the stream finished without any output"
            return (Ending.GARBAGE, "no event in the stream carries output") if self.body_bytes else (Ending.EMPTY, "")
        if not end.finished:
            return Ending.TRUNCATED, "the stream ended without a finish mark"
        self._count(end.usage, end.usage_problem)
        return Ending.SUCCESS, ""

    def _verdict_whole(self) -> tuple[Ending, str]:
        body = b"".join(self.pieces)
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return Ending.GARBAGE, "the answer is not JSON"
        if not isinstance(document, dict) or not isinstance(document.get("choices"), list):
            return Ending.GARBAGE, "the answer has no choices"
        if not document["choices"]:
            return Ending.EMPTY, "the answer has no choices"
        self.tail.add(body)
        end = self.tail.verdict(self.route, False)
        self._count(end.usage, end.usage_problem)
        return Ending.SUCCESS, ""

    def _count(self, usage: Usage | None, problem: str | None) -> None:
        record, events = self.record, len(self.stamps)
        told = usage.completion_tokens if usage is not None else None
        record.output_tokens, record.tokens_from, record.usage_problem = judge_usage(
            told, problem, events, record.output_asked
        )
        record.prompt_tokens = usage.prompt_tokens if usage is not None else 0
        if not record.prompt_tokens:
            record.prompt_tokens = record.prompt_asked

    def _over(self, ending: Ending, detail: str) -> None:
        if self.over:
            return
        self.over = True
        record = self.record
        record.ending, record.detail = ending, detail[:DETAIL_CHARS]
        record.events = len(self.stamps)
        if self.stamps:
            record.first_s, record.last_s = self.stamps[0], self.stamps[-1]
            if not record.tokens_from:
                record.output_tokens, record.tokens_from = record.events, "events"
        record.ended_s = self.last_byte_s if ending is Ending.SUCCESS else self.clock.now()
        self.pieces, self.request = [], []
        self.ended(self)


def _printable(data: bytes) -> str:
    return "".join(char if " " <= char <= "~" else " " for char in data[:DETAIL_CHARS].decode("utf-8", "replace"))


def _milliseconds(value: bytes) -> float | None:
    try:
        return max(0.0, float(value)) / 1e3
    except ValueError:
        return None
