from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable

import pytest

from proxy.simulator.engine import Engine
from proxy.simulator.server.loop import EngineLoop, Piece
from tests.simulator.serving import PROFILE


class Tokens:
    """A stream that notes what it is told."""

    def __init__(self) -> None:
        self.told = ""

    def open(self) -> None:
        self.told += "<"

    def token(self) -> None:
        self.told += "."

    def finish(self) -> None:
        self.told += ">"


async def idle(loop: EngineLoop) -> None:
    """Let the loop turn until the engine has nothing left."""
    while loop.engine.busy:  # noqa: ASYNC110  # nothing signals that an aborted sequence is gone
        await asyncio.sleep(0)


def with_loop(scenario: Callable[[EngineLoop], Awaitable[None]], step_s: float = 0.001, **changes: int) -> EngineLoop:
    step_time = dataclasses.replace(PROFILE.step_time, base_s=step_s)
    profile = dataclasses.replace(PROFILE, step_time=step_time, **changes)  # type: ignore[arg-type]
    loop = EngineLoop(Engine(profile, random.Random(1)), speed=10.0)

    async def run() -> None:
        async with asyncio.timeout(5):
            await scenario(loop)
        loop.close()

    asyncio.run(run())
    return loop


def test_a_request_ends_with_its_last_sequence_and_each_gets_its_tokens() -> None:
    one, four = Tokens(), Tokens()

    async def scenario(loop: EngineLoop) -> None:
        await loop.submit([Piece(5, 1, "length", one), Piece(5, 4, "stop", four), Piece(5, 0, "stop")]).done

    loop = with_loop(scenario)
    assert (one.told, four.told) == ("<>", "<...>")
    assert loop.ended == {"length": 1, "stop": 2} and not loop.engine.busy


def test_requests_of_one_turn_share_steps_and_later_ones_join() -> None:
    async def scenario(loop: EngineLoop) -> None:
        jobs = [loop.submit([Piece(1, 10)]) for _ in range(20)]
        await jobs[0].done
        assert loop.engine.counters.steps == 10 and all(job.done.done() for job in jobs)
        long = loop.submit([Piece(1, 100)])
        await loop.submit([Piece(1, 1)]).done
        assert not long.done.done()
        await long.done

    with_loop(scenario)


def test_steps_take_their_time_divided_by_the_speed() -> None:
    async def scenario(loop: EngineLoop) -> None:
        start_s = asyncio.get_running_loop().time()
        await loop.submit([Piece(1, 20)]).done
        took_s = asyncio.get_running_loop().time() - start_s
        assert 0.0999 <= took_s < 1.0

    with_loop(scenario, step_s=0.05)


def test_an_engine_that_fell_behind_goes_on_from_the_present() -> None:
    class Slow(Tokens):
        def open(self) -> None:
            late_s = loop_time() + 0.2
            while loop_time() < late_s:
                pass

    def loop_time() -> float:
        return asyncio.get_running_loop().time()

    async def scenario(loop: EngineLoop) -> None:
        job = loop.submit([Piece(1, 4, stream=Slow())])
        began_s = loop_time()
        await job.done
        assert loop_time() - began_s >= 0.2 + 3 * 0.03

    with_loop(scenario, step_s=0.3)


@pytest.mark.parametrize("delay_s", [0.0, 0.02])
def test_an_abort_frees_the_engine_at_once_or_after_its_delay(delay_s: float) -> None:
    tokens = Tokens()

    async def scenario(loop: EngineLoop) -> None:
        loop.abort_delay_s = delay_s
        job = loop.submit([Piece(1, 900, stream=tokens), Piece(1, 900)])
        await loop.submit([Piece(1, 2)]).done
        job.abort()
        job.abort()
        assert loop.engine.running == (2 if delay_s else 0)
        heard = tokens.told
        await idle(loop)
        assert (loop.engine.counters.aborted, tokens.told) == (2, heard)
        assert not job.done.done()

    with_loop(scenario, step_s=0.01)


def test_an_aborted_sequence_that_ends_in_its_last_step_is_not_counted_twice() -> None:
    async def scenario(loop: EngineLoop) -> None:
        loop.abort_delay_s = 1.0
        job = loop.submit([Piece(1, 3)])
        job.abort()
        await loop.submit([Piece(1, 9)]).done
        assert loop.ended == {"stop": 1} and loop.engine.counters.finished == 2

    with_loop(scenario)


def test_a_stalled_engine_makes_no_step_until_it_goes_on() -> None:
    async def scenario(loop: EngineLoop) -> None:
        job = loop.submit([Piece(1, 500)])
        await loop.submit([Piece(1, 2)]).done
        loop.stall(True)
        last = loop.submit([Piece(1, 1)])
        for _ in range(100):
            await asyncio.sleep(0)
        steps = loop.engine.counters.steps
        assert steps <= 3 and not last.done.done()
        loop.stall(False)
        await job.done
        assert last.done.done() and loop.engine.counters.steps == 500

    with_loop(scenario, step_s=0.0001)


@pytest.mark.parametrize("speed", [0.0, -1.0])
def test_speed_must_be_positive(speed: float) -> None:
    with pytest.raises(ValueError, match="speed must be positive"):
        EngineLoop(Engine(PROFILE, random.Random(1)), speed)
