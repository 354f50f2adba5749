"""The deadlines of one client connection, looked at twice a second: head, body, idle, discard, write stall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.server.errors import BY_OUTCOME
from proxy.server.intake import Rejected
from proxy.types import Outcome

if TYPE_CHECKING:
    from proxy.server.connection import ClientConnection

IDLE_S = 75.0  # nginx's keepalive_timeout


def sweep(connection: ClientConnection, now: float) -> None:
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
    elif now - connection.since_s > IDLE_S or connection.listener.draining:
        connection.closing = True
        transport.close()


def _upload(connection: ClientConnection, now: float) -> None:
    """A body that is streamed through: its time stands still while its request is queued."""
    exchange = connection.exchange
    assert exchange is not None
    inbound = exchange.inbound
    if inbound.complete or not exchange.granted_s:
        return
    queued_s = exchange.granted_s - exchange.ticket.arrived_s
    if now > connection.listener.intake.body_deadline_s(inbound) + queued_s:
        connection.evict(Rejected(BY_OUTCOME[Outcome.BODY_TIMEOUT]))


def _stall(connection: ClientConnection, now: float) -> None:
    """A client that takes nothing of what waits for it, for `listen.write_timeout_s`, has stalled."""
    transport = connection.transport
    assert transport is not None
    waiting_bytes = transport.get_write_buffer_size()
    if waiting_bytes < connection.stall_bytes or not connection.stalled_since_s:
        connection.stall_bytes, connection.stalled_since_s = waiting_bytes, now
    elif now - connection.stalled_since_s > connection.listener.write_timeout_s:
        exchange, connection.exchange = connection.exchange, None
        if exchange is not None:
            exchange.client_left(Outcome.CLIENT_STALLED)
            connection.inbox.popleft()
        transport.abort()
