"""The dispatcher: events in, decisions out."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from proxy.dispatcher.config import DispatcherConfig
from proxy.dispatcher.snapshot import Snapshot
from proxy.types import Decisions, Failure, Outcome, Reading, Telemetry, Ticket, Usage


class Dispatcher:
    """Decides when and where each ticket runs. Synchronous; `now` is any monotonic clock, in seconds.

    Every method that returns `Decisions` may dispatch or refuse tickets other than the one it names. A ticket ends
    exactly once: in `refusals`, by `finished`, or by `cancelled`. `checks` turns the invariants on.
    """

    def __init__(self, config: DispatcherConfig, now: float, rng: Random, checks: bool = False) -> None:
        raise NotImplementedError

    # -- life of a ticket

    def arrived(self, ticket: Ticket, now: float) -> Decisions:
        """A complete request: dispatch at once, queue, or refuse (it, or a lower one that it displaces)."""
        raise NotImplementedError

    def first_token(self, ticket: Ticket, now: float) -> Decisions:
        """The first token of a running ticket came; its prefill is over."""
        raise NotImplementedError

    def finished(
        self,
        ticket: Ticket,
        outcome: Outcome,
        usage: Usage | None,
        now: float,
        last_token_s: float | None = None,
        status: int = 0,
    ) -> Decisions:
        """A running ticket ended, in any way. Only SUCCESS gives a sample; `status` is the engine's HTTP status."""
        raise NotImplementedError

    def failed(self, ticket: Ticket, failure: Failure, now: float) -> Decisions:
        """One try failed before any response byte: the permit is released, the ticket runs again or is in `refusals`.

        A refusal with UPSTREAM_STATUS means: pass the engine's own refusal through.
        """
        raise NotImplementedError

    def cancelled(self, ticket: Ticket, now: float) -> Decisions:
        """The client left, queued or running. At an upstream that aborts late the seat stays counted as aborting."""
        raise NotImplementedError

    def aborted(self, ticket: Ticket, now: float) -> Decisions:
        """The engine has surely stopped work on a cancelled ticket. Unknown tickets are ignored (grace ended first)."""
        raise NotImplementedError

    # -- time

    def tick(self, now: float, readings: Mapping[str, Reading]) -> Decisions:
        """Once per 0.5 to 1 s: limits, ledger, quotas."""
        raise NotImplementedError

    def expire(self, now: float) -> Decisions:
        """Every 50 ms or so: queue timeouts, aborting grace, breakers that reopen, aged promotion."""
        raise NotImplementedError

    # -- upstreams

    def health(self, upstream: str, healthy: bool, now: float) -> Decisions:
        """The prober's verdict. Upstreams start healthy. One that recovers restarts at its initial limit."""
        raise NotImplementedError

    def telemetry(self, upstream: str, telemetry: Telemetry, now: float) -> Decisions:
        """What the engine told. Discovered models and memory take effect here."""
        raise NotImplementedError

    def drain_upstream(self, upstream: str, draining: bool, now: float) -> Decisions:
        """Stop (or resume) sending new work to one upstream. LookupError: no such upstream."""
        raise NotImplementedError

    def hold_limit(self, upstream: str, seats: int | None, now: float) -> Decisions:
        """Pin an upstream's limit; None lets go. LookupError: no such upstream."""
        raise NotImplementedError

    # -- the whole

    def drain(self, now: float) -> Decisions:
        """Refuse all that waits and all that will arrive with SHUTTING_DOWN."""
        raise NotImplementedError

    def reconfigure(self, config: DispatcherConfig, now: float) -> Decisions:
        """Apply a new configuration: permits live on, waiting tickets move, those without a home are refused."""
        raise NotImplementedError

    def reserve_bytes(self, tenant: str, count: int) -> bool:
        """True, and counted, if `count` more body bytes of this tenant fit into the queue."""
        raise NotImplementedError

    def release_bytes(self, tenant: str, count: int) -> None:
        """Give reserved bytes back."""
        raise NotImplementedError

    # -- questions

    def models(self) -> dict[str, tuple[str, ...]]:
        """Known model names, each with the upstreams that serve it."""
        raise NotImplementedError

    def knows(self, model: str) -> bool:
        """False where the model is surely unknown; an upstream whose models are not discovered yet may serve any."""
        raise NotImplementedError

    def usable(self, model: str | None = None) -> bool:
        """True if some upstream (of this model) is healthy, not draining and not cut off by its breaker."""
        raise NotImplementedError

    def retry_after_s(self, now: float) -> float:
        """Seconds after which a refused client may come back: 1 to 60, jittered by 20 %."""
        raise NotImplementedError

    def snapshot(self, now: float) -> Snapshot:
        """Everything, as plain data."""
        raise NotImplementedError
