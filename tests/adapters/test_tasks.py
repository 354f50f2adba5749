from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from proxy.adapters.tasks import STEADY_S, Tasks


class Bench:
    """Tasks on a false clock: sleeping moves it at once."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.waits: list[float] = []
        self.now = 0.0
        self.tasks = Tasks(lambda name, error: self.told.append((name, str(error))), self.sleep, lambda: self.now)

    async def sleep(self, wait_s: float) -> None:
        self.waits.append(wait_s)
        self.now += wait_s
        await asyncio.sleep(0)


async def fail(text: str) -> None:
    raise ValueError(text)


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_a_task_is_named_kept_and_forgotten() -> None:
    async def scenario() -> None:
        bench = Bench()
        release = asyncio.Event()

        async def work() -> int:
            await release.wait()
            return 7

        task = bench.tasks.start("answer", work())
        assert (task.get_name(), len(bench.tasks), repr(bench.tasks)) == ("answer", 1, "Tasks(answer)")
        gc.collect()
        release.set()
        assert await task == 7
        await asyncio.sleep(0)
        assert (len(bench.tasks), bench.told) == (0, [])

    asyncio.run(scenario())


def test_a_failure_is_told_with_the_name_and_still_reaches_who_awaits() -> None:
    async def scenario() -> None:
        bench = Bench()
        with pytest.raises(ValueError, match="broken"):
            await bench.tasks.start("probe", fail("broken"))
        await asyncio.sleep(0)
        assert bench.told == [("probe", "broken")]

    asyncio.run(scenario())


def test_a_service_starts_again_with_growing_waits_that_fall_back_after_a_long_run() -> None:
    async def scenario() -> None:
        bench = Bench()
        runs_s = iter([0, 0, 0, 0, 0, 0, 0, 0, 31, 0])

        async def loop() -> None:
            run_s = next(runs_s, None)
            if run_s is None:
                return  # a service may end by itself
            bench.now += run_s
            raise ValueError("again")

        await bench.tasks.serve("scrape", loop)
        assert bench.waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 0.5, 1]
        assert bench.told == [("scrape", "again")] * 10

    asyncio.run(scenario())


def test_a_service_counts_as_restarting_until_it_has_run_steadily_again() -> None:
    async def scenario() -> None:
        bench = Bench()
        seen: list[list[str]] = []

        async def loop() -> None:
            seen.append(bench.tasks.restarting())
            if len(seen) == 1:
                raise ValueError("once")
            bench.now += STEADY_S - 0.01
            seen.append(bench.tasks.restarting())
            bench.now += 0.02
            seen.append(bench.tasks.restarting())

        await bench.tasks.serve("gate", loop)
        assert seen == [[], ["gate"], ["gate"], []]

    asyncio.run(scenario())


def test_close_cancels_all_even_what_a_dying_task_starts_and_tells_nothing() -> None:
    async def scenario() -> None:
        bench = Bench()

        async def stubborn() -> None:
            try:
                await for_ever()
            finally:
                bench.tasks.start("late", for_ever())

        works: list[Coroutine[Any, Any, None]] = [stubborn(), for_ever()]
        for work in works:
            bench.tasks.start("work", work)
        bench.tasks.serve("loop", for_ever)
        await asyncio.sleep(0)
        await bench.tasks.close()
        assert (len(bench.tasks), bench.told) == (0, [])

    asyncio.run(scenario())
