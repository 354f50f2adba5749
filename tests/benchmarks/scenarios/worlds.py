"""A simulated world as data, and one run of it under a law."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from proxy.admission.ceiling import MemoryBound
from proxy.admission.limits import LimitConfig, Target
from proxy.admission.queue import ClassConfig, QueueConfig, TenantConfig
from proxy.dispatcher import DispatcherConfig, UpstreamConfig
from proxy.laboratory.lab import Lab, Scrape
from proxy.laboratory.workload import Arrival, Stream, arrivals
from proxy.simulator.profiles import H100_QWEN3_14B, EngineProfile
from proxy.types import Telemetry
from tests.benchmarks.scenarios.laws import LadderSizer

OURS = "ours"
PATIENT = (ClassConfig("only", queue_max=100_000, queue_timeout_s=3600.0),)
TARGET = Target(itl_s=0.04, ttft_s=0.5)
AT_ONCE = Scrape()
ONE_FOR_ALL = QueueConfig(tenant_share=1.0)
# Qwen3-14B on one H100 with room for every target: 1,024 sequences and 600k tokens of KV cache.
ROOMY = replace(H100_QWEN3_14B, max_seqs=1024, kv_tokens=600_000)


@dataclass(frozen=True, slots=True)
class World:
    """Everything that decides a run but the law and the seed. `slow`: (time, factor of every step's duration)."""

    streams: tuple[Stream, ...]
    until_s: float
    profile: EngineProfile = ROOMY
    target: Target = TARGET
    slow: tuple[tuple[float, float], ...] = ()
    scrape: Scrape | None = AT_ONCE
    classes: tuple[ClassConfig, ...] = PATIENT
    tenants: tuple[TenantConfig, ...] = ()
    queue: QueueConfig = ONE_FOR_ALL
    proxies: int = 1
    shared_by: int | None = 1
    initials: tuple[int, ...] = (8,)
    minimum: int = 1
    label: str = field(default="", compare=False)

    def trace(self, seed: int) -> list[Arrival]:
        """The same for every law."""
        return arrivals(self.streams, random.Random(seed))

    @property
    def mean_output(self) -> float:
        """Over all arrivals."""
        rates = [(one.rate * (one.end_s - one.begin_s), one.output_mean) for one in self.streams]
        return sum(count * output for count, output in rates) / sum(count for count, _ in rates)


def slowed(factor: float) -> Callable[[Lab], None]:
    """A change for `Lab.run`."""

    def change(lab: Lab) -> None:
        for bench in lab.benches.values():
            bench.engine.slowdown = factor

    return change


def run(world: World, law: str, seed: int) -> Lab:
    """One run. `law`: ours, a name of the ladder, or static:N."""
    scrape = Scrape(every_s=0.05) if law == "saturation" else world.scrape
    lab = Lab([_config(world, law, proxy) for proxy in range(world.proxies)], {"engine": world.profile}, seed, scrape)
    if law != OURS:
        _install(lab, world, law)
    enabled = gc.isenabled()
    gc.disable()  # a run makes no garbage in cycles worth the time of looking for it
    try:
        return lab.run(world.trace(seed), world.until_s, [(at_s, slowed(factor)) for at_s, factor in world.slow])
    finally:
        if enabled:
            gc.enable()


def _config(world: World, law: str, proxy: int) -> DispatcherConfig:
    limit = LimitConfig(initial=world.initials[proxy % len(world.initials)], minimum=world.minimum)
    memory = None if law == OURS else MemoryBound(source="none")
    upstream = UpstreamConfig(
        "engine", ("m",), shared_by=world.shared_by, limit=limit, target=world.target, memory=memory
    )
    age_s = 5.0 if law == OURS else -1.0  # the other laws read telemetry themselves, if at all
    return DispatcherConfig(world.classes, (upstream,), world.tenants, replace(world.queue), telemetry_max_age_s=age_s)


def _install(lab: Lab, world: World, law: str) -> None:
    """Put another law where the dispatcher's own sizer stands."""
    for dispatcher in lab.dispatchers:
        station = dispatcher._board.stations["engine"]
        sizer = LadderSizer(law, world.target, world.mean_output, 0.0)
        station.sizer = sizer
        station.seats = sizer.seats
        told = station.told

        def hear(telemetry: Telemetry, sizer: LadderSizer = sizer, told: Callable[[Telemetry], bool] = told) -> bool:
            sizer.told(telemetry)
            return told(telemetry)

        station.told = hear  # type: ignore[method-assign]
