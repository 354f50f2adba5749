"""The demo's load: streamed chat requests of random size, Poisson arrivals, calm and busy by turns, never too many."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import aiohttp

from proxy.adapters.tasks import Tasks

OUTSTANDING_MAX = 64  # more would only wait: a bound for this machine, not for the proxy
PERIOD_S = 40.0  # half of it calm, half busy
CALM, BUSY = 0.5, 1.5  # times the mean rate
CLASSES = {"critical": 1, "high": 2, "normal": 5, "low": 2}
PROMPT_WORDS_MEAN = 150
OUTPUT_TOKENS_MEAN = 120
WORDS = ("water", "gate", "wheel", "river", "stone", "light")


def rate_at(elapsed_s: float, mean_rate: float) -> float:
    """Requests per second at a moment."""
    return mean_rate * (BUSY if elapsed_s % PERIOD_S >= PERIOD_S / 2 else CALM)


def request(rng: random.Random, model: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers and body of one random request."""
    words = rng.choices(WORDS, k=1 + min(1000, int(rng.expovariate(1 / PROMPT_WORDS_MEAN))))
    body = {
        "model": model,
        "stream": True,
        "max_tokens": 1 + min(500, int(rng.expovariate(1 / OUTPUT_TOKENS_MEAN))),
        "messages": [{"role": "user", "content": " ".join(words)}],
    }
    return {"x-priority": rng.choices(list(CLASSES), list(CLASSES.values()))[0]}, body


class Load:
    """Sends until it is cancelled. What comes back is counted by the proxy, so here it is only read."""

    def __init__(self, session: aiohttp.ClientSession, tasks: Tasks, url: str, rate: float, seed: int) -> None:
        self._session = session
        self._tasks = tasks
        self._url = url
        self._rate = rate
        self._rng = random.Random(seed)  # noqa: S311  # a load, not a secret
        self._outstanding = 0

    async def run(self) -> None:
        model = await self._model()
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        while True:
            await asyncio.sleep(self._rng.expovariate(rate_at(loop.time() - started_s, self._rate)))
            if self._outstanding < OUTSTANDING_MAX:
                self._outstanding += 1
                self._tasks.start("demo request", self._send(model))

    async def _model(self) -> str:
        async with self._session.get(f"{self._url}/v1/models") as answer:
            answer.raise_for_status()
            return str((await answer.json())["data"][0]["id"])

    async def _send(self, model: str) -> None:
        headers, body = request(self._rng, model)
        try:
            async with self._session.post(f"{self._url}/v1/chat/completions", headers=headers, json=body) as answer:
                async for _ in answer.content.iter_any():
                    pass
        except aiohttp.ClientError:
            pass  # the proxy is ending; its own counters say so
        finally:
            self._outstanding -= 1
