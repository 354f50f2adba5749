from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxy.adapters.tasks import Tasks
from proxy.commands import demo_load
from proxy.commands.demo_load import CLASSES, Load, rate_at, request


@pytest.mark.parametrize(("elapsed_s", "rate"), [(0, 1), (19.9, 1), (20, 3), (39.9, 3), (40, 1)])
def test_calm_and_busy_take_turns_around_the_mean(elapsed_s: float, rate: float) -> None:
    assert rate_at(elapsed_s, 2.0) == rate


def test_requests_are_bounded_and_of_every_class() -> None:
    rng = random.Random(1)
    made = [request(rng, "m") for _ in range(2000)]
    seen = Counter(headers["x-priority"] for headers, _ in made)
    assert seen.keys() == CLASSES.keys()
    assert seen.most_common(1)[0][0] == "normal"
    assert {body["max_tokens"] >= 1 and body["max_tokens"] <= 501 for _, body in made} == {True}
    words = [len(body["messages"][0]["content"].split()) for _, body in made]
    assert min(words) >= 1
    assert max(words) <= 1001


@pytest.mark.parametrize("broken", [False, True])
def test_the_load_never_has_more_outstanding_than_its_bound(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_load, "OUTSTANDING_MAX", 3)

    async def scenario() -> None:
        now, most, models, enough = 0, 0, set(), asyncio.Event()
        told: list[str] = []
        seen = 0

        async def chat(asked: web.Request) -> web.StreamResponse:
            nonlocal now, most, seen
            now, seen = now + 1, seen + 1
            most = max(most, now)
            models.add((await asked.json())["model"])
            if seen >= 12:
                enough.set()
            await asyncio.sleep(0)
            now -= 1
            if broken and asked.transport is not None:
                asked.transport.abort()
            return web.Response(text="data: [DONE]")

        async def names(asked: web.Request) -> web.Response:
            listing: dict[str, Any] = {"data": [{"id": "m"}]}
            return web.json_response(listing)

        app = web.Application()
        app.add_routes([web.get("/v1/models", names), web.post("/v1/chat/completions", chat)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        tasks = Tasks(lambda name, error: told.append(repr(error)))
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            tasks.start("load", Load(session, tasks, url, 5000.0, 1).run())
            async with asyncio.timeout(20):
                await enough.wait()
            await tasks.close()
        await runner.cleanup()
        assert (models, told) == ({"m"}, [])
        assert 1 <= most <= 3

    asyncio.run(scenario())
