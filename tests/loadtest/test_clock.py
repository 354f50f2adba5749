from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.loadtest.client.clock import Lag, TurnClock


def test_all_stamps_of_a_turn_are_one() -> None:
    later: list[Callable[[], None]] = []
    clock = TurnClock(later.append)
    first = clock.turn()
    moment = clock.now()
    while clock.now() == moment:
        pass
    assert clock.turn() == first
    assert len(later) == 1
    later[0]()
    assert clock.turn() > first


def test_lag_is_how_late_our_own_timers_fire() -> None:
    async def scenario() -> Lag:
        lag = Lag()
        loop = asyncio.get_running_loop()
        watch = loop.create_task(lag.run())  # a test's own task
        until_s = loop.time() + 0.3
        while loop.time() < until_s:
            busy_s = loop.time() + 0.03
            while loop.time() < busy_s:
                pass
            await asyncio.sleep(0)
        watch.cancel()
        return lag

    lag = asyncio.run(scenario())
    assert lag.sketch.total >= 2
    assert lag.sketch.max_s >= 0.015
    assert 0 < lag.cpu_share < 1.5
