"""What the endpoint's other pages tell while a test runs: the engine's metrics, a Penstock's state, a DCGM exporter.

All are optional and none may disturb the test: a page that does not answer leaves its fields out. Names of DCGM fields:
NVIDIA dcgm-exporter, `default-counters.csv`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from proxy.adapters.engines.base import at, count, items, ratio, summed
from proxy.adapters.engines.detect import document
from proxy.adapters.engines.exposition import Exposition
from proxy.adapters.fetch import Answer, FetchError, fetch
from proxy.adapters.telemetry import EngineReader, read_listing
from proxy.loadtest.client.clock import TurnClock
from proxy.loadtest.client.endpoint import Endpoint
from proxy.loadtest.observations import Observation

INTERVAL_S = 0.5
PAGE_TIMEOUT_S = 2.0
GPU_UTILIZATION, GPU_USED_MIB = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look. `engine` is the root of an engine ('' for none), `admin` that of a Penstock's admin listener."""

    engine: str = ""
    admin: str = ""
    dcgm: str = ""
    admin_token: str = ""


class Watch:
    """Polls until it is cancelled; `observations` grows."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint, sources: Sources) -> None:
        self.session, self.endpoint, self.sources = session, endpoint, sources
        self.observations: list[Observation] = []
        self.models: tuple[str, ...] = ()
        self.reader = EngineReader(self._engine_page, "auto", INTERVAL_S, lambda: 1.0)

    async def _engine_page(self, path: str) -> Answer:
        same = self.sources.engine == self.endpoint.root
        headers = {"Authorization": f"Bearer {self.endpoint.key}"} if same and self.endpoint.key else None
        return await self.page(self.sources.engine + path, headers)

    async def page(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        tls = self.endpoint.tls if url.startswith("https") else None
        return await fetch(self.session, url, PAGE_TIMEOUT_S, headers, tls)

    async def list_models(self) -> None:
        """Models as the endpoint lists them; none where it does not answer."""
        headers = {"Authorization": f"Bearer {self.endpoint.key}"} if self.endpoint.key else None
        try:
            answer = await self.page(f"{self.endpoint.root}/v1/models", headers)
        except FetchError:
            return
        listing = read_listing(answer.body) if answer.status == 200 else None
        self.models = listing.models if listing else ()

    async def run(self, clock: TurnClock) -> None:
        while True:
            self.observations.append(await self.look(clock.now()))
            await asyncio.sleep(INTERVAL_S)

    async def look(self, at_s: float) -> Observation:
        seen = Observation(at_s)
        if self.sources.admin:
            await self._look_at_admin(seen)
        if self.sources.engine:
            await self._look_at_engine(seen)
        if self.sources.dcgm:
            await self._look_at_gpus(seen)
        return seen

    async def _look_at_engine(self, seen: Observation) -> None:
        now = asyncio.get_running_loop().time()
        told = await self.reader.turn(now, None)
        if told is None:
            return
        seen.engine = told.engine or seen.engine
        for name in ("running", "waiting", "kv_usage", "preemptions", "kv_tokens", "running_cap"):
            if (value := getattr(told, name)) is not None:
                setattr(seen, name, value)

    async def _look_at_admin(self, seen: Observation) -> None:
        headers = {"Authorization": f"Bearer {self.sources.admin_token}"} if self.sources.admin_token else None
        try:
            answer = await self.page(f"{self.sources.admin}/admin/state", headers)
        except FetchError:
            return
        state = document(answer.body)
        upstreams = list(items(state, "upstreams"))
        seen.engine = str(at(upstreams, 0, "engine") or "") if upstreams else ""
        seen.running = summed(count(at(one, "engine_running")) for one in upstreams)
        seen.waiting = summed(count(at(one, "engine_waiting")) for one in upstreams)
        seen.preemptions = summed(count(at(one, "engine_preemptions")) for one in upstreams)
        usages = [usage for one in upstreams if (usage := ratio(at(one, "engine_kv_usage"))) is not None]
        seen.kv_usage = max(usages, default=None)
        limits = [limit for one in upstreams if isinstance(limit := at(one, "limit"), int | float)]
        seen.limit = float(sum(limits)) if limits else None
        seen.queued = summed(count(at(one, "queued")) for one in items(state, "classes"))

    async def _look_at_gpus(self, seen: Observation) -> None:
        url = self.sources.dcgm
        try:
            answer = await self.page(url if url.endswith("/metrics") else f"{url}/metrics")
        except FetchError:
            return
        gpus = Exposition(answer.body.decode("utf-8", "replace"), (GPU_UTILIZATION, GPU_USED_MIB))
        busy = [value for _, value in gpus.rows(GPU_UTILIZATION)]
        seen.gpu_utilization = sum(busy) / len(busy) / 100 if busy else None
        used = gpus.total(GPU_USED_MIB)
        seen.gpu_memory_bytes = None if used is None else int(used * MIB)
