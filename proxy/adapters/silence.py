"""Caps on the silence of an upstream, and streams that are over but stay open; looked at twice a second."""

from __future__ import annotations

from typing import Final, Protocol

from proxy.adapters.inbound import Inbound
from proxy.adapters.relay import Relay
from proxy.types import Failure, Outcome, Ticket
from proxy.wire.usage import StreamEnd, StreamTail

LINGER_S: Final = 0.7  # a stream that has sent its finish mark and then stays open is ended after this long
CHATTER_S: Final = 2.0  # or this long after its last event, however many comments follow


class Quiet(Protocol):
    """A running exchange, as far as its silence is judged."""

    relay: Relay
    inbound: Inbound
    ticket: Ticket
    tail: StreamTail
    paused: bool
    begun: bool
    streamed: bool
    events: int
    granted_s: float
    last_read_s: float
    last_token_s: float

    def drop_connection(self) -> None: ...
    def end_answer(self, outcome: Outcome, end: StreamEnd) -> None: ...
    def broken(self, outcome: Outcome) -> None: ...
    def failed(self, failure: Failure) -> None: ...


def judge(exchange: Quiet, now: float) -> None:
    """End what has been silent for too long, or has nothing more to say."""
    caps = exchange.relay.caps(exchange.ticket.upstream)
    quiet_s = now - exchange.last_read_s
    if exchange.paused or not exchange.inbound.complete:
        return
    lingers = quiet_s > min(LINGER_S, caps.itl_s) or now - exchange.last_token_s > CHATTER_S
    if exchange.streamed and lingers and exchange.events and exchange.tail.closed(exchange.inbound.route):
        exchange.drop_connection()
        exchange.end_answer(Outcome.SUCCESS, exchange.tail.verdict(exchange.inbound.route, True))
        return
    if exchange.begun and exchange.streamed and not exchange.events and b"data:" not in exchange.tail.kept():
        quiet_s, cap_s = now - exchange.granted_s, caps.ttft_s  # comments keep a connection, they are no event
    elif exchange.begun:
        cap_s = caps.itl_s if exchange.streamed else caps.response_s
    else:
        cap_s = caps.ttft_s if exchange.inbound.streaming else caps.response_s
    if quiet_s > cap_s:
        exchange.drop_connection()
        if exchange.begun:
            exchange.broken(Outcome.UPSTREAM_TIMEOUT)
        else:
            exchange.failed(Failure.TIMEOUT)
