"""The bounded priority queue: classes, tenants and their bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClassConfig:
    """One class. `floor`: guaranteed share of service 0..1; `holdback`: share of the seats it may fill 0..1;
    `queue_max` tickets waiting; `queue_timeout_s` longest wait."""

    name: str
    floor: float = 0.0
    holdback: float = 1.0
    queue_max: int = 1024
    queue_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class TenantConfig:
    """One tenant: its share (`weight`) and its own bounds (None: none).

    A request above `max_in_flight` waits if `max_queued` allows it, and is refused where `max_queued` is not given.
    """

    name: str
    weight: float = 1.0
    max_in_flight: int | None = None
    max_queued: int | None = None
    tokens_per_minute: float | None = None
    requests_per_minute: float | None = None


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """`max_bytes` of waiting bodies; `tenant_share` of the queue's count and bytes that one tenant of several may use."""

    max_bytes: int = 1 << 30
    tenant_share: float = 0.5
