"""The dispatcher's state as plain frozen data, for the admin surface and the gauges."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.admission.batch_sizer import SizerState
from proxy.types import Outcome, Step, Telemetry


@dataclass(frozen=True, slots=True)
class UpstreamSnapshot:
    """One upstream. `breaker` is closed, open or half_open; `kv_reserved_tokens` what the ledger has promised."""

    name: str
    models: tuple[str, ...]
    healthy: bool
    draining: bool
    breaker: str
    limit: float
    ceiling_seats: int | None
    ceiling_tokens: int | None
    ceiling_source: str
    in_flight: int
    aborting: int
    prefill_out_tokens: float
    kv_reserved_tokens: int
    telemetry: Telemetry | None
    sizer: SizerState


@dataclass(frozen=True, slots=True)
class ClassSnapshot:
    """One class: waiting tickets, their bound, the oldest wait, and how long the backlog takes at the measured rate."""

    name: str
    queued: int
    capacity: int
    oldest_wait_s: float
    backlog_s: float | None


@dataclass(frozen=True, slots=True)
class TenantSnapshot:
    """One tenant that has work here."""

    name: str
    in_flight: int
    queued: int


@dataclass(frozen=True, slots=True)
class RefusalRecord:
    """One refusal, without anything of the client's but its tenant."""

    at_s: float
    outcome: Outcome
    class_name: str
    tenant: str
    detail: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment. Permits leaked = granted - released - held."""

    at_s: float
    upstreams: tuple[UpstreamSnapshot, ...]
    classes: tuple[ClassSnapshot, ...]
    queue_bytes: int
    top_tenants: tuple[TenantSnapshot, ...]
    steps: tuple[Step, ...]
    refusals: tuple[RefusalRecord, ...]
    granted: int
    released: int
    held: int
    drain_per_s: float

    @property
    def leaked(self) -> int:
        return self.granted - self.released - self.held
