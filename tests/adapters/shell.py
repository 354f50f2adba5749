"""The data path without sockets: a clock, scripted transports, and real dispatcher, gate, lanes and connections.

What asyncio would do in a later turn (telling a protocol that its connection is lost) waits in `Shell.later` until
`settle`, so that tests see the same order as the loop gives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, cast

from proxy.adapters.forward import Exchange
from proxy.adapters.gate import Bypass, Gate, Lane
from proxy.adapters.histograms import Distribution, Family
from proxy.adapters.inbound import Inbound
from proxy.adapters.metrics import Metrics, MetricsConfig
from proxy.adapters.records import RequestRecord
from proxy.adapters.relay import Caps, Relay, Sink
from proxy.adapters.tasks import Tasks
from proxy.adapters.upstream_pool import Carried, UpstreamConnection, UpstreamPool
from proxy.admission.limits import LimitConfig
from proxy.admission.queue import ClassConfig
from proxy.dispatcher import Dispatcher, DispatcherConfig, UpstreamConfig
from proxy.types import Outcome, Refuse, Ticket, WorkEstimate
from proxy.wire.answer import AnswerWriter
from proxy.wire.headers import HeadReader, upstream_lines
from proxy.wire.routes import ROUTES

CLASSES = ("high", "normal")
CHAT = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def token(finish: str = "") -> bytes:
    end = f'"{finish}"' if finish else "null"
    return b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":%b}]}\n\n' % end.encode()


def said(body: bytes = b"{}", status: int = 200, lines: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    return head % (status, len(body), lines) + body


Later = list[Callable[[], None]]


class ScriptedTransport(asyncio.Transport):
    """Keeps what was written; tells its protocol of the end when the world settles."""

    def __init__(self, later: Later, peer: object = ("192.0.2.7", 1234), sock: object = None) -> None:
        super().__init__({"peername": peer, "socket": sock})
        self.later = later
        self.protocol: Any = None
        self.written = bytearray()
        self.held: list[bool] = []  # reading switched on and off
        self.ended = self.aborted = self.eof = False
        self.unsent_bytes = 0
        self.half_closes = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: object) -> None:
        assert not self.ended, "written after the end"
        self.written += cast(bytes, data)

    @property
    def reading(self) -> bool:
        return not self.held or self.held[-1]

    def take(self) -> bytes:
        taken = bytes(self.written)
        self.written.clear()
        return taken

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.lose(None)

    def abort(self) -> None:
        self.aborted = True
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        if not self.ended:
            self.ended = True
            protocol = self.protocol
            assert protocol is not None
            self.later.append(lambda: protocol.connection_lost(error))

    def can_write_eof(self) -> bool:
        return self.half_closes

    def write_eof(self) -> None:
        self.eof = True

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high

    def pause_reading(self) -> None:
        self.held.append(False)

    def resume_reading(self) -> None:
        self.held.append(True)


def no_tasks() -> Tasks:
    """Where nothing starts one."""
    return Tasks(lambda _, error: None)


class Dials:
    """How a pool comes to connections here: at once, over scripted transports.

    `refusing` fails them, `holding` leaves them half open.
    """

    def __init__(self, later: Later) -> None:
        self.later = later
        self.refusing = self.holding = False
        self.half_open: list[Carried] = []
        self.made: list[UpstreamConnection] = []

    def open(self, pool: UpstreamPool, exchange: Carried) -> None:
        if self.holding:
            self.half_open.append(exchange)
        elif self.refusing:
            self.later.append(lambda: exchange.connect_failed("refused", False))
        else:
            self.finish(pool, exchange)

    def finish(self, pool: UpstreamPool, exchange: Carried) -> None:
        connection = UpstreamConnection(pool)
        transport = ScriptedTransport(self.later)
        transport.protocol = connection
        connection.connection_made(transport)
        self.made.append(connection)
        exchange.connected(connection, False)


class ScriptedSink(Sink):
    """Client side of an exchange: what it was asked to do, in order, and the bytes of the answer."""

    def __init__(self, http10: bool = False) -> None:
        self.http10 = http10
        self.acts: list[object] = []
        self.head = self.body = b""
        self.overs = 0

    def begin(self, head: bytes, chunked: bool, first: bytes) -> None:
        assert not self.head, "a second head"
        self.acts.append("begin chunked" if chunked else "begin")
        self.head, self.body = head, first

    def relay(self, data: bytes) -> None:
        self.body += data

    def relay_framed(self, framed: bytes, start: int) -> None:
        self.relay(framed[start:-2])

    def end(self, rest: bytes) -> None:
        self.body += rest
        self.acts.append("end")

    def cut(self, outcome: Outcome | None) -> None:
        self.acts.append(("cut", outcome))

    def refuse(self, inbound: Inbound, refusal: Refuse) -> int:
        self.acts.append(("refuse", refusal.outcome))
        return 599

    def set_reading(self, on: bool) -> None:
        self.acts.append("read" if on else "hold")

    def over(self) -> None:
        self.overs += 1


class Shell:
    """Everything from gate to connections, for upstreams u0, u1, ... that serve the model m."""

    def __init__(
        self, upstreams: int = 1, seats: int = 2, keepalive_s: float = 0.0, queue_timeout_s: float = 60.0,
        checks: bool = True, limit: LimitConfig | None = None,
    ) -> None:  # fmt: skip
        self.now = 100.0
        self.later: Later = []
        self.records: list[RequestRecord] = []
        limit = limit or LimitConfig(mode="fixed", initial=seats)
        config = DispatcherConfig(
            classes=tuple(ClassConfig(name, 0.0, 1.0, 8, queue_timeout_s) for name in CLASSES),
            upstreams=tuple(UpstreamConfig(f"u{number}", ("m",), limit=limit) for number in range(upstreams)),
        )
        self.config = config
        self.dispatcher = Dispatcher(config, self.now, Random(7), checks=checks)
        self.metrics = Metrics(MetricsConfig(CLASSES))
        self.gate = Gate(self.dispatcher, self.metrics, self.clock)
        self.dials = [Dials(self.later) for _ in range(upstreams)]
        self.pools = [
            UpstreamPool(f"u{number}", 80, None, 1.0, no_tasks(), self.clock, opens=dials.open)
            for number, dials in enumerate(self.dials)
        ]
        for pool in self.pools:
            lines = upstream_lines(pool.host.encode(), b"own-key")
            self.gate.lanes[pool.host] = Lane(pool.host, pool, lines, b"/base")
        self.caps = Caps(ttft_s=10.0, itl_s=5.0, response_s=20.0, good_ttft_s=0.5, good_tpot_s=0.05)
        self.relay = Relay(self.gate, AnswerWriter(), lambda _: self.caps, self.records.append, keepalive_s)
        self.light = Relay(Bypass(self.gate), self.relay.writer, lambda _: self.caps, self.records.append)
        self.heads = HeadReader()
        self._ids = 0

    def clock(self) -> float:
        return self.now

    def settle(self) -> None:
        while self.later:
            self.later.pop(0)()

    # ---- requests ----
    def inbound(
        self, body: bytes = b'{"model":"m"}', path: str = CHAT, chunked: bool = False, stream: bool = False
    ) -> Inbound:
        framing = (b"transfer-encoding", b"chunked") if chunked else (b"content-length", b"%d" % len(body))
        self._ids += 1
        inbound = Inbound(self.now, b"192.0.2.7", b"POST", path.encode(), body=[body])
        inbound.complete = True
        inbound.route = ROUTES[path.encode()]
        inbound.head = self.heads.read([(b"host", b"proxy"), framing, (b"authorization", b"Bearer secret")])
        inbound.request_id, inbound.tenant, inbound.class_name, inbound.model = f"r-{self._ids}", "acme", "normal", "m"
        inbound.streaming = stream
        assert inbound.count_body(self.dispatcher)
        return inbound

    def ticket(self, inbound: Inbound, retryable: bool = True) -> Ticket:
        assert inbound.route is not None
        estimate = WorkEstimate(10, 1, 10)
        return Ticket(
            self._ids, "acme", 1, "m", inbound.route.work, inbound.streaming, estimate, inbound.body_bytes, self.now,
            retryable=retryable,
        )  # fmt: skip

    def ask(
        self, stream: bool = False, http10: bool = False, retryable: bool = True, inbound: Inbound | None = None
    ) -> tuple[Exchange, ScriptedSink]:
        """A request that has arrived: granted at once, or waiting."""
        inbound = inbound or self.inbound(stream=stream)
        sink = ScriptedSink(http10)
        exchange = Exchange(self.relay, sink, inbound, self.ticket(inbound, retryable))
        self.gate.submit(exchange.ticket)
        self.settle()
        return exchange, sink

    def fill(self) -> list[Exchange]:
        """Exchanges that take every seat."""
        held: list[Exchange] = []
        while not held or held[-1].granted_s:
            held.append(self.ask()[0])
        held.pop().client_left()
        self.records.clear()
        return held

    # ---- upstreams ----
    def upstream(self, number: int = 0) -> UpstreamConnection:
        """The newest connection to an upstream."""
        return self.dials[number].made[-1]

    def transport(self, number: int = 0) -> ScriptedTransport:
        return cast(ScriptedTransport, self.upstream(number).transport)

    def answer(self, *pieces: bytes, number: int = 0) -> None:
        for piece in pieces:
            self.upstream(number).data_received(piece)
            self.settle()

    def lose(self, error: Exception | None = None, number: int = 0) -> None:
        """The upstream ends its newest connection."""
        self.transport(number).lose(error)
        self.settle()

    def busy(self) -> int:
        """Index of the upstream that carries an exchange now."""
        return next(n for n, dials in enumerate(self.dials) if dials.made and dials.made[-1].exchange is not None)

    # ---- books ----
    def count(self, family: Family, *labels: str) -> float:
        values = next(one.values for one in self.metrics.copy() if one.family.name == family.name)
        found = dict(values).get(labels, 0.0)
        return float(sum(found.counts)) if isinstance(found, Distribution) else found

    def clean(self) -> bool:
        """Nothing is held: no permit, no ledger entry, no queued ticket, no body byte, no lane."""
        state = self.dispatcher.snapshot(self.now)
        held: list[float] = [state.held, state.leaked, state.queue_bytes, *(one.queued for one in state.classes)]
        held += [number for one in state.upstreams for number in (one.in_flight, one.kv_reserved_tokens)]
        return not any(held) and not any(lane.running for lane in self.gate.lanes.values())
