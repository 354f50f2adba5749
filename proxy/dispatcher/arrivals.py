"""Which arrivals are turned away, and how long they should stay away.

Before it waits: nobody to serve it, too large for everybody, too late, over a quota. Once it has to wait: over its
tenant's places, a backlog that outlasts nine tenths of its patience, or a full queue. A full queue first gives up the
newest ticket of the lowest class below the newcomer.

    Retry-After = (waiting + 1) / drain rate, 1 to 60 s, spread by 20 % so that the refused do not return together
"""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

from proxy.admission.tenants import Tenant
from proxy.dispatcher.board import Board, Job
from proxy.dispatcher.pool import Lane, Pool
from proxy.types import Outcome, Ticket

PATIENCE: Final = 0.9
SPREAD: Final = 0.2
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
UNKNOWN_RATE_S: Final = 5.0


class Refusal(NamedTuple):
    """Why a ticket ends here. `wait_s` None: no time to come back is known to help."""

    outcome: Outcome
    detail: str
    wait_s: float | None = None


def expiry_outcome(ticket: Ticket) -> Outcome:
    """The client's deadline, or the class's queue timeout."""
    own = ticket.deadline_s is not None and ticket.deadline_s <= ticket.expires_s
    return Outcome.DEADLINE_EXCEEDED if own else Outcome.QUEUE_TIMEOUT


NO_HOME: Final = Refusal(Outcome.NO_UPSTREAM, "no upstream serves this model")
TOO_LARGE: Final = Refusal(
    Outcome.TOO_LARGE_FOR_ENGINE, "the prompt exceeds the context or the memory of every upstream"
)


def at_once(ticket: Ticket, lane: Lane, tenant: Tenant, quota_tokens: float, now: float) -> Refusal | None:
    """A reason to refuse that waiting would not change."""
    if not lane.usable:
        return Refusal(Outcome.NO_UPSTREAM, "no usable upstream", reopens_s(lane, now))
    if lane.too_large(ticket):
        return TOO_LARGE
    if ticket.expires_s <= now:
        return Refusal(expiry_outcome(ticket), "the deadline has passed")
    config = tenant.config
    most = config.max_in_flight
    if most is not None and config.max_queued is None and tenant.in_flight + tenant.queued >= most:
        return Refusal(Outcome.RATE_LIMITED, "requests at once", RETRY_MIN_S)
    if not tenant.metered:
        return None
    wait_s, quota = tenant.quota_wait_s(quota_tokens, now)
    return Refusal(Outcome.RATE_LIMITED, quota, wait_s) if wait_s > 0 else None


def on_waiting(board: Board, job: Job, now: float) -> Refusal | None:
    """A reason to refuse a ticket that has just joined the queue. The class's own bound is left to `full`."""
    entry, tenant, ticket = job.entry, job.tenant, job.ticket
    assert entry is not None, "only what waits is judged"
    most = tenant.config.max_queued
    if most is not None and tenant.queued > most:
        return Refusal(Outcome.RATE_LIMITED, "waiting requests of the tenant", drain_s(job.pool))
    share = board.tenants.share(board.config.classes[ticket.class_index].queue_max)
    if share is not None and tenant.queued_in[ticket.class_index] > share:
        return Refusal(Outcome.RATE_LIMITED, "share of the queue", drain_s(job.pool))
    wait_s = job.pool.wait_s(entry)
    if wait_s is not None and wait_s > PATIENCE * (ticket.expires_s - now):
        own = expiry_outcome(ticket) is Outcome.DEADLINE_EXCEEDED
        outcome = Outcome.DEADLINE_EXCEEDED if own else Outcome.QUEUE_FULL
        return Refusal(outcome, "the backlog would outlast the wait", drain_s(job.pool))
    return None


def full(board: Board, ticket: Ticket) -> bool:
    """True if the ticket, already waiting, is one too many for its class or for the whole queue."""
    classes = board.config.classes
    own = board.waiting[ticket.class_index] > classes[ticket.class_index].queue_max
    return own or sum(board.waiting) > sum(config.queue_max for config in classes)


def quota_tokens(lane: Lane, ticket: Ticket, tenant: Tenant) -> float:
    """Tokens that a ticket is expected to use; 0 for a tenant whose tokens are not counted."""
    if tenant.tokens is None:
        return 0.0
    return ticket.estimate.prompt_tokens + lane.stations[0].size(ticket).output


def drain_s(pool: Pool) -> float:
    """How long the queue takes to drain at the measured rate."""
    waiting, rate = pool.queue.waiting, pool.drain_rate.per_s
    if rate is not None:
        return (waiting + 1) / rate
    return UNKNOWN_RATE_S if waiting else RETRY_MIN_S


def reopens_s(lane: Lane, now: float) -> float:
    """When the first of the lane's breakers lets a request through again."""
    pauses = [one.upstream.breaker.reopens_s - now for one in lane.stations if one.upstream.breaker.passes == 0]
    return max(RETRY_MIN_S, min(pauses, default=UNKNOWN_RATE_S))


def jittered(wait_s: float, rng: Random) -> float:
    """Seconds for Retry-After."""
    inner = min(max(wait_s, RETRY_MIN_S / (1 - SPREAD)), RETRY_MAX_S / (1 + SPREAD))
    return inner * rng.uniform(1 - SPREAD, 1 + SPREAD)
