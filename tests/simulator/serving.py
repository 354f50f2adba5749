"""A simulated engine behind a real socket, for tests that speak HTTP to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from openai import AsyncOpenAI

from proxy.simulator.profiles import EngineProfile, StepTime
from proxy.simulator.server.app import create_app
from proxy.simulator.server.serve import listen

PROFILE = EngineProfile(
    name="quick",
    model="m",
    step_time=StepTime(base_s=0.01, sequence_s=0.0, kv_token_s=0.0, prefill_token_s=0.0),
    kv_tokens=16_000,
    context_tokens=1000,
    max_seqs=64,
    chunk_tokens=512,
    output_mean=20.0,
)


@dataclass
class Served:
    url: str
    http: aiohttp.ClientSession
    sdk: AsyncOpenAI

    async def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        async with self.http.get(self.url + "/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))

    async def until(self, name: str, value: float) -> None:
        """Poll until a metric has reached a value; the test's own time limit ends a wait in vain."""
        while await self.metric(name) < value:
            pass

    async def control(self, **faults: object) -> int:
        async with self.http.post(self.url + "/sim/control", json=faults) as answer:
            return answer.status


@asynccontextmanager
async def served(profile: EngineProfile = PROFILE, speed: float = 200.0, seed: int = 1) -> AsyncIterator[Served]:
    runner, url = await listen(create_app(profile, speed, seed), "127.0.0.1", 0)
    sdk = AsyncOpenAI(base_url=url + "/v1", api_key="k", max_retries=0)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as http, sdk:
            yield Served(url, http, sdk)
    finally:
        await runner.cleanup()
