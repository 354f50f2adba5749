"""A fault of our own costs the one request that it happened to: all it holds is given back, and its client is told.

The order matters: the permit first, because what comes after may fail for the same reason.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from proxy.adapters.gate import Lane, Running
from proxy.adapters.inbound import Inbound
from proxy.adapters.relay import Relay, Sink
from proxy.types import Outcome


class Broken(Running, Protocol):
    """An exchange, as far as its end needs it."""

    relay: Relay
    sink: Sink
    inbound: Inbound
    lane: Lane | None
    ended: bool

    def expel(self, outcome: Outcome) -> None: ...


class Leaving(Protocol):
    """An exchange whose client is gone."""

    def client_left(self, outcome: Outcome) -> None: ...
    def broke(self, error: Exception) -> None: ...


def leave(exchange: Leaving, outcome: Outcome = Outcome.CLIENT_GONE) -> None:
    """The client is gone or stalled. What fails then keeps no seat either."""
    try:
        exchange.client_left(outcome)
    except Exception as error:
        exchange.broke(error)


def end_broken(exchange: Broken, error: Exception) -> None:
    """End it with `internal_error`: 500 where nothing has been answered yet, else the error event and the cut."""
    gate = exchange.relay.gate
    gate.fault("exchange", error)
    if exchange.ended:
        return
    lane, exchange.lane = exchange.lane, None
    if lane is not None:
        lane.running.pop(exchange, None)
    gate.cancelled(exchange.ticket)
    try:
        exchange.expel(Outcome.INTERNAL_ERROR)
    except Exception as again:
        gate.fault("exchange", again)
        exchange.ended, exchange.ticket.client = True, None
        exchange.inbound.drop_body(gate.dispatcher)
        with suppress(Exception):  # the connection ends, whatever state it is in
            exchange.sink.cut(None)
            exchange.sink.over()
