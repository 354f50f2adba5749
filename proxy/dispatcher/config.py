"""What the dispatcher is told: classes, tenants, bounds, upstreams, policies."""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.admission.ceiling import MemoryBound
from proxy.admission.limits import LimitConfig, Target
from proxy.admission.queue import ClassConfig, QueueConfig, TenantConfig
from proxy.routing.balance import Policy
from proxy.routing.breaker import BreakerConfig
from proxy.routing.retry import RetryConfig


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """One inference server.

    `models` None: whatever telemetry discovers, and any model until then. `shared_by` None: unknown number of proxies.
    `memory` is the configured or planned bound (its `source` says which). `slow_abort`: the engine goes on for a while
    after its client has left.
    """

    name: str
    models: tuple[str, ...] | None = None
    weight: float = 1.0
    shared_by: int | None = 1
    limit: LimitConfig = field(default_factory=LimitConfig)
    target: Target = field(default_factory=Target)
    memory: MemoryBound | None = None
    slow_abort: bool = False


@dataclass(frozen=True, slots=True)
class DispatcherConfig:
    """`classes` highest first; a tenant that is not listed gets weight 1 and no bounds of its own."""

    classes: tuple[ClassConfig, ...]
    upstreams: tuple[UpstreamConfig, ...]
    tenants: tuple[TenantConfig, ...] = ()
    queue: QueueConfig = field(default_factory=QueueConfig)
    policy: Policy = "least_loaded"
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    retry: RetryConfig = field(default_factory=RetryConfig)
    telemetry_max_age_s: float = 5.0
