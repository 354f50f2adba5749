"""The deadlines of one client connection, looked at twice a second: head, body, idle, discard, write stall."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from proxy.adapters import mishap
from proxy.adapters.forward import Exchange
from proxy.adapters.inbound import Inbound
from proxy.server.errors import BY_OUTCOME, Refusal
from proxy.server.intake import Intake, Rejected
from proxy.types import Outcome

IDLE_S: Final = 75.0  # nginx's keepalive_timeout
LAST_CALL_S = 1.0  # at a shutdown: time for a request that is on its way to come in


class Bounds(Protocol):
    """What the listener says about time."""

    intake: Intake
    head_timeout_s: float
    write_timeout_s: float
    draining: bool


class Watched(Protocol):
    """A connection, as its deadlines see it."""

    transport: asyncio.Transport | None
    inbox: deque[Inbound]
    exchange: Exchange | None
    parsing: Inbound | None
    paused: bool
    closing: bool
    discard_until_s: float
    since_s: float
    stall_bytes: int
    stalled_since_s: float

    @property
    def listener(self) -> Bounds: ...
    def reject(self, inbound: Inbound, rejected: Rejected) -> None: ...
    def refuse_now(self, inbound: Inbound, row: Refusal) -> None: ...
    def evict(self, rejected: Rejected) -> None: ...


def sweep(connection: Watched, now: float) -> None:
    """End whatever is overdue. Each state has one deadline."""
    transport = connection.transport
    if transport is None:
        return
    if connection.paused or connection.closing:
        _stall(connection, now)
    if connection.discard_until_s:
        if now > connection.discard_until_s:
            transport.abort()
    elif connection.exchange is not None:
        connection.exchange.keep_waiting(now)
        _upload(connection, now)
    elif connection.inbox:
        inbound = connection.inbox[0]
        if not inbound.complete and now > connection.listener.intake.body_deadline_s(inbound):
            connection.reject(inbound, Rejected(BY_OUTCOME[Outcome.BODY_TIMEOUT]))
    elif connection.parsing is not None:
        if now - connection.since_s > connection.listener.head_timeout_s:
            connection.refuse_now(connection.parsing, BY_OUTCOME[Outcome.HEAD_TIMEOUT])
    elif now - connection.since_s > (LAST_CALL_S if connection.listener.draining else IDLE_S):
        connection.closing = True
        transport.close()


def _upload(connection: Watched, now: float) -> None:
    """A body that is streamed through: its time stands still while its request is queued."""
    exchange = connection.exchange
    assert exchange is not None
    inbound = exchange.inbound
    if inbound.complete or not exchange.granted_s:
        return
    queued_s = exchange.granted_s - exchange.ticket.arrived_s
    if now > connection.listener.intake.body_deadline_s(inbound) + queued_s:
        connection.evict(Rejected(BY_OUTCOME[Outcome.BODY_TIMEOUT]))


def _stall(connection: Watched, now: float) -> None:
    """A client that takes nothing of what waits for it, for `listen.write_timeout_s`, has stalled."""
    transport = connection.transport
    assert transport is not None
    waiting_bytes = transport.get_write_buffer_size()
    if waiting_bytes < connection.stall_bytes or not connection.stalled_since_s:
        connection.stall_bytes, connection.stalled_since_s = waiting_bytes, now
    elif now - connection.stalled_since_s > connection.listener.write_timeout_s:
        exchange, connection.exchange = connection.exchange, None
        if exchange is not None:
            mishap.leave(exchange, Outcome.CLIENT_STALLED)
            connection.inbox.popleft()
        transport.abort()
