from __future__ import annotations

import pytest

from proxy.admission.ceiling import MemoryBound
from proxy.admission.limits import LimitConfig, SeedLawConfig, Target
from proxy.admission.queue import ClassConfig, QueueConfig, TenantConfig
from proxy.dispatcher import DispatcherConfig, UpstreamConfig
from proxy.routing.breaker import BreakerConfig
from proxy.routing.retry import RetryConfig
from proxy.settings import Settings, load
from proxy.settings.ground import dispatcher_config
from proxy.types import Failure
from tests.settings.faults import Write


def test_the_defaults_of_the_settings_are_those_of_the_ground() -> None:
    config = dispatcher_config(Settings(upstreams=({"url": "http://e:1", "name": "e"},)))  # type: ignore[arg-type]
    assert config == DispatcherConfig(classes=config.classes, upstreams=(UpstreamConfig("e"),))
    assert config.classes[2] == ClassConfig("normal", 0.10, 0.93, 2048, 60)


def test_every_setting_reaches_its_place_in_the_unit_of_the_ground(write: Write) -> None:
    path = write("""
upstreams:
- {name: a, url: 'http://a:1', engine: sglang, models: [m], weight: 2, shared_by: auto,
   limit: {mode: fixed, law: seed, initial: 3, min: 2, max: 9}, target: {itl_ms: 20},
   seed_law: {interval: 5, increase: 2, decrease: 0.5, deadband: 0.7}}
target: {itl_ms: 40, ttft_ms: 250, attainment: 0.9}
queue: {max_bytes: 4096, tenant_share: 0.25}
classes: [{name: normal, floor: 0.5, holdback: 0.9, queue_max: 7, queue_timeout_s: 8}]
tenants:
  list: [{name: t, weight: 3, default_class: normal, max_class: normal, max_in_flight: 4, max_queued: 5,
          tokens_per_minute: 6, requests_per_minute: 7}]
  anonymous: {default_class: normal, max_class: normal}
routing: {policy: round_robin, retries: 1, retry_on: [connect], retry_budget: 0.3}
breaker: {window_s: 1, min_requests: 2, failure_ratio: 0.4, open_s: 3}
telemetry: {max_age_s: 9}
""")
    assert dispatcher_config(load(path, {}, {})) == DispatcherConfig(
        classes=(ClassConfig("normal", 0.5, 0.9, 7, 8),),
        upstreams=(
            UpstreamConfig(
                name="a",
                models=("m",),
                weight=2,
                shared_by=None,
                limit=LimitConfig("fixed", "seed", 3, 2, 9, SeedLawConfig(5, 2, 0.5, 0.7)),
                target=Target(0.02, 0.25, 0.9),
                slow_abort=True,
            ),
        ),
        tenants=(TenantConfig("t", 3, 4, 5, 6, 7),),
        queue=QueueConfig(4096, 0.25),
        policy="round_robin",
        breaker=BreakerConfig(1, 2, 0.4, 3),
        retry=RetryConfig(1, frozenset({Failure.CONNECT}), 0.3),
        telemetry_max_age_s=9,
    )


@pytest.mark.parametrize(
    ("memory", "bound"),
    [
        ("{}", MemoryBound(tokens=9, source="plan")),
        ("{source: tokens, tokens: 5}", MemoryBound(tokens=5, source="config")),
        ("{source: seats, seats: 6}", MemoryBound(seats=6, source="config")),
        ("{source: none}", MemoryBound(source="none")),
        ("{source: plan, plan: {model: m, accelerator: a}}", MemoryBound(tokens=9, source="plan")),
    ],
)
def test_the_memory_bound_comes_from_the_chosen_source(write: Write, memory: str, bound: MemoryBound) -> None:
    settings = load(write(f"upstreams: [{{name: a, url: 'http://a:1', memory: {memory}}}]"), {}, {})
    planned = {"a": MemoryBound(tokens=9, source="plan")}
    assert dispatcher_config(settings, planned).upstreams[0].memory == bound
    assert dispatcher_config(settings, engines={"a": "sglang"}).upstreams[0].slow_abort
