from __future__ import annotations

import asyncio

from proxy.loadtest import Options, Slo, read_endpoint, run
from proxy.loadtest.client.tune import Found, tune
from proxy.loadtest.search import Aim, Search, Step, Trial
from proxy.loadtest.workload import Arrival, Flow, Workload
from tests.loadtest.support import scripted

SHORT = Workload("w", (Flow("f"),), Arrival("closed"), warmup_s=0, duration_s=0.1)


def test_each_step_is_measured_and_the_confirmation_takes_longer() -> None:
    heard: list[tuple[Step, Trial | None]] = []
    search = Search(Aim(5000, 5000, concurrency_max=2))

    async def scenario() -> Found:
        async with scripted() as endpoint, asyncio.timeout(20):
            told = lambda step, trial: heard.append((step, trial))  # noqa: E731
            return await tune(read_endpoint(endpoint.url), SHORT, search, Options(slo=Slo(5, 5)), told)

    run(scenario())
    assert [trial for _, trial in heard[1::2]] == search.trials
    assert [trial for _, trial in heard[::2]] == [None] * len(search.trials)
    assert search.confirmed is not None
    assert [trial.step.phase for trial in search.trials][-1] == "confirm"


def test_an_interruption_ends_it_without_an_answer() -> None:
    search = Search(Aim(5000, 5000))

    async def scenario() -> None:
        stop = asyncio.Event()
        async with scripted() as endpoint, asyncio.timeout(20):
            endpoint.seen = lambda said: stop.set() if search.trials else None
            await tune(read_endpoint(endpoint.url), SHORT, search, Options(stop=stop), lambda step, trial: None)

    run(scenario())
    assert (len(search.trials), search.confirmed) == (1, None)


def test_failures_and_warnings_are_told_with_their_concurrency() -> None:
    assert Found("vllm", {"WARNING late": 4}).lines() == ["WARNING late (at 4)"]
