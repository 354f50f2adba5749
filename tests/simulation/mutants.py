"""Faults planted into the product, each of a kind that real proxies have had. A simulator that misses one is blind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from proxy.adapters.forward import Exchange
from proxy.adapters.gate import Gate
from proxy.adapters.inbound import Inbound
from proxy.adapters.upstream_pool import UpstreamConnection
from proxy.dispatcher import Dispatcher
from proxy.dispatcher.board import Board
from proxy.dispatcher.desk import Desk
from proxy.dispatcher.pump import Pump
from proxy.dispatcher.station import Station
from proxy.routing.breaker import BreakerState
from proxy.routing.upstream import Upstream
from proxy.types import Decisions, Failure, Reading, Step, Ticket

Patch = pytest.MonkeyPatch


def no_release_on_a_cancelled_grant(patch: Patch) -> None:
    """The client leaves while its upstream connection is being opened."""
    whole = Gate.cancelled

    def cancelled(self: Gate, ticket: Ticket) -> None:
        exchange: Any = ticket.client
        if not exchange.granted_s or exchange.upload_started:
            whole(self, ticket)

    patch.setattr(Gate, "cancelled", cancelled)


def release_before_close(patch: Patch) -> None:
    """The seat is free while the exchange of the one before is still open."""
    whole = UpstreamConnection.abandon

    def abandon(self: UpstreamConnection, closed: Callable[[], None] | None = None) -> None:
        self.exchange = None
        asyncio.get_running_loop().call_later(0.01, whole, self, closed)

    patch.setattr(UpstreamConnection, "abandon", abandon)


def double_release(patch: Patch) -> None:
    """A failed connect gives its seat back twice."""
    whole = Dispatcher.failed

    def failed(self: Dispatcher, ticket: Ticket, failure: Failure, now: float) -> Decisions:
        station = self._board.stations[ticket.upstream]
        decisions = whole(self, ticket, failure, now)
        if failure is Failure.CONNECT:
            station.upstream.seats_taken -= 1
        return decisions

    patch.setattr(Dispatcher, "failed", failed)


def lost_wake_up_after_a_timeout(patch: Patch) -> None:
    """Nobody is told of the seat that a silent upstream gave back."""
    whole_failed, whole_pump = Dispatcher.failed, Desk.pump_station
    silent: list[bool] = []

    def failed(self: Dispatcher, ticket: Ticket, failure: Failure, now: float) -> Decisions:
        silent[:] = [failure is Failure.TIMEOUT]
        try:
            return whole_failed(self, ticket, failure, now)
        finally:
            silent.clear()

    def pump_station(self: Desk, station: Station, now: float) -> None:
        if silent != [True]:
            whole_pump(self, station, now)

    patch.setattr(Dispatcher, "failed", failed)
    patch.setattr(Desk, "pump_station", pump_station)


def retry_after_the_first_byte(patch: Patch) -> None:
    """An answer that breaks off is asked for again."""

    def lost(self: Exchange, reason: str) -> None:
        self.connection = None
        self.begun = False
        self.failed(Failure.STALE)

    patch.setattr(Exchange, "lost", lost)


def retry_after_a_part_of_a_head(patch: Patch) -> None:
    """A few bytes of an answer are taken for none."""
    whole = Exchange.lost

    def lost(self: Exchange, reason: str) -> None:
        if self.connection is not None and self.connection.in_head:
            self.connection.head_bytes = 0
        whole(self, reason)

    patch.setattr(Exchange, "lost", lost)


def forgotten_true_up(patch: Patch) -> None:
    """The ledger never hears of what has been generated."""
    whole = Station.tick

    def tick(self: Station, now: float, reading: Reading, queue_share: float) -> list[Step]:
        return whole(self, now, replace(reading, progress=()), queue_share)

    patch.setattr(Station, "tick", tick)


def bytes_kept_by_those_who_leave_the_queue(patch: Patch) -> None:
    """Bodies of requests that were never granted stay on the account."""
    whole = Inbound.drop_body

    def drop_body(self: Inbound, account: Dispatcher) -> None:
        if self.streaming and self.body:
            self.body = []
        else:
            whole(self, account)

    patch.setattr(Inbound, "drop_body", drop_body)


def reuse_of_an_abandoned_connection(patch: Patch) -> None:
    """The next tenant reads what the one before was meant to get."""

    def abandon(self: UpstreamConnection, closed: Callable[[], None] | None = None) -> None:
        self.exchange = None
        self.pool.give_back(self)
        if closed is not None:
            closed()

    patch.setattr(UpstreamConnection, "abandon", abandon)


def silence_without_end(patch: Patch) -> None:
    """An upstream that says nothing is waited for for ever."""

    def sweep(self: Exchange, now: float) -> None:
        pass

    patch.setattr(Exchange, "sweep", sweep)


def a_second_try_blocks_the_line(patch: Patch) -> None:
    """What one upstream has failed waits for another one, and everybody behind it with it."""

    def _second_tries(self: Pump, pool: Any, lane: Any, now: float) -> None:
        pass

    whole = Board.wait

    def wait(self: Board, job: Any, now: float, first: bool = False) -> Any:
        excluded, job.excluded = job.excluded, set()
        try:
            return whole(self, job, now, first)
        finally:
            job.excluded = excluded

    patch.setattr(Board, "wait", wait)
    patch.setattr(Pump, "_second_tries", _second_tries)


def trial_that_never_ends(patch: Patch) -> None:
    """The one request that tries a half-open upstream leaves, and nobody else may try."""
    whole = Upstream.judge

    def judge(self: Upstream, ticket_id: int, ok: bool | None, now: float) -> bool:
        if ok is None and self.breaker.state is BreakerState.HALF_OPEN:
            return False
        return whole(self, ticket_id, ok, now)

    patch.setattr(Upstream, "judge", judge)


MUTANTS: tuple[Callable[[Patch], None], ...] = (
    no_release_on_a_cancelled_grant,
    release_before_close,
    double_release,
    lost_wake_up_after_a_timeout,
    retry_after_the_first_byte,
    retry_after_a_part_of_a_head,
    forgotten_true_up,
    bytes_kept_by_those_who_leave_the_queue,
    reuse_of_an_abandoned_connection,
    silence_without_end,
    a_second_try_blocks_the_line,
    trial_that_never_ends,
)
