"""Builds the snapshot: O(upstreams + classes + tenants), never per ticket."""

from __future__ import annotations

from typing import Final

from proxy.dispatcher.board import Board
from proxy.dispatcher.snapshot import ClassSnapshot, RefusalRecord, Snapshot, TenantSnapshot, UpstreamSnapshot
from proxy.dispatcher.station import Station
from proxy.types import Step

TOP_TENANTS: Final = 50


def take(board: Board, steps: tuple[Step, ...], refusals: tuple[RefusalRecord, ...], now: float) -> Snapshot:
    """The board at this moment."""
    return Snapshot(
        at_s=now,
        upstreams=tuple(map(_upstream, board.stations.values())),
        classes=tuple(_class(board, index, now) for index in range(len(board.config.classes))),
        queue_bytes=board.tenants.body_bytes,
        top_tenants=tuple(
            TenantSnapshot(tenant.config.name, tenant.in_flight, tenant.queued)
            for tenant in board.tenants.busiest(TOP_TENANTS)
        ),
        steps=steps,
        refusals=refusals,
        granted=board.granted,
        released=board.released,
        held=board.held,
        drain_per_s=sum([pool.drain_rate.per_s or 0.0 for pool in board.pools]),
    )


def _upstream(station: Station) -> UpstreamSnapshot:
    upstream = station.upstream
    return UpstreamSnapshot(
        name=station.name,
        models=upstream.models or (),
        healthy=upstream.healthy,
        draining=upstream.draining or station.leaving,
        breaker=upstream.breaker.state.value,
        limit=station.sizer.limit,
        ceiling_seats=station.ceiling_seats,
        ceiling_tokens=station.bound.tokens,
        ceiling_source=station.bound.source,
        in_flight=upstream.in_flight,
        aborting=upstream.aborting,
        prefill_out_tokens=station.prefill_out_tokens,
        kv_reserved_tokens=station.ledger.reserved_tokens,
        telemetry=station.telemetry,
        sizer=station.sizer.state(),
    )


def _class(board: Board, index: int, now: float) -> ClassSnapshot:
    config = board.config.classes[index]
    oldest = board.oldest[index].peek()
    return ClassSnapshot(
        name=config.name,
        queued=board.waiting[index],
        capacity=config.queue_max,
        oldest_wait_s=0.0 if oldest is None else now - oldest.ticket.arrived_s,
        backlog_s=_backlog_s(board, index),
    )


def _backlog_s(board: Board, index: int) -> float | None:
    """Time until all that waits in this class and above has started; None: not known yet."""
    backlog_s = 0.0
    for pool in board.pools:
        cost = sum([fair.cost for fair in pool.queue.fair[: index + 1]])
        rate = pool.cost_rate.per_s
        if cost and rate is None:
            return None
        backlog_s = max(backlog_s, cost / rate if rate else 0.0)
    return backlog_s
