"""From the settings to the small configurations of the ground floors: seconds for milliseconds, overrides applied."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.admission.ceiling import MemoryBound
from proxy.admission.limits import LimitConfig, SeedLawConfig, Target
from proxy.admission.queue import ClassConfig, QueueConfig, TenantConfig
from proxy.dispatcher import DispatcherConfig, UpstreamConfig
from proxy.routing.breaker import BreakerConfig
from proxy.routing.retry import RetryConfig
from proxy.settings.root import Settings
from proxy.settings.upstreams import Memory, Upstream
from proxy.types import Failure

SLOW_ABORT_ENGINES = frozenset({"sglang"})  # its work goes on for a while after the client has left


def dispatcher_config(
    settings: Settings, planned: Mapping[str, MemoryBound] | None = None, engines: Mapping[str, str] | None = None
) -> DispatcherConfig:
    """`planned` holds computed bounds and `engines` detected engine names, both by upstream name."""
    return DispatcherConfig(
        classes=tuple(
            ClassConfig(entry.name, entry.floor, entry.holdback, entry.queue_max, entry.queue_timeout_s)
            for entry in settings.classes
        ),
        upstreams=tuple(
            _upstream(settings, entry, (planned or {}).get(entry.name), (engines or {}).get(entry.name, entry.engine))
            for entry in settings.upstreams
        ),
        tenants=tuple(
            TenantConfig(
                name=entry.name,
                weight=entry.weight,
                max_in_flight=entry.max_in_flight,
                max_queued=entry.max_queued,
                tokens_per_minute=entry.tokens_per_minute,
                requests_per_minute=entry.requests_per_minute,
            )
            for entry in settings.tenants.list
        ),
        queue=QueueConfig(settings.queue.max_bytes, settings.queue.tenant_share),
        policy=settings.routing.policy,
        breaker=BreakerConfig(**settings.breaker.model_dump()),
        retry=RetryConfig(
            retries=settings.routing.retries,
            retry_on=frozenset(map(Failure, settings.routing.retry_on)),
            budget=settings.routing.retry_budget,
        ),
        telemetry_max_age_s=settings.telemetry.max_age_s,
    )


def target(settings: Settings, upstream: Upstream) -> Target:
    """The latency target of one upstream, in seconds."""
    general, own = settings.target, upstream.target
    return Target(
        itl_s=(own.itl_ms or general.itl_ms) / 1000,
        ttft_s=(own.ttft_ms or general.ttft_ms) / 1000,
        attainment=own.attainment or general.attainment,
    )


def _upstream(settings: Settings, entry: Upstream, planned: MemoryBound | None, engine: str) -> UpstreamConfig:
    return UpstreamConfig(
        name=entry.name,
        models=None if entry.models == "auto" else entry.models,
        weight=entry.weight,
        shared_by=None if entry.shared_by == "auto" else entry.shared_by,
        limit=LimitConfig(
            mode=entry.limit.mode,
            law=entry.limit.law,
            initial=entry.limit.initial,
            minimum=entry.limit.min,
            maximum=entry.limit.max,
            seed_law=SeedLawConfig(**entry.seed_law.model_dump()),
        ),
        target=target(settings, entry),
        memory=_memory(entry.memory, planned),
        slow_abort=engine in SLOW_ABORT_ENGINES,
    )


def _memory(memory: Memory, planned: MemoryBound | None) -> MemoryBound | None:
    """None leaves it to the engine; a bound of source `none` says that memory sets no bound."""
    match memory.source:
        case "tokens" | "seats":
            return MemoryBound(tokens=memory.tokens, seats=memory.seats, source="config")
        case "none":
            return MemoryBound(source="none")
        case _:
            return planned
