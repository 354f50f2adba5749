"""The one place that makes asyncio tasks: each has a name, is kept until it ends, and its failure is told.

The loop holds tasks weakly, so a task that nobody keeps can vanish halfway; an exception that nobody reads is lost
(Python documentation, asyncio.create_task). A service is a loop that should never end: when it fails it starts again
after 0.5 s, doubling to 30 s, and from 0.5 s again once it has run for 30 s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

Result = TypeVar("Result")
FailureTold = Callable[[str, BaseException], None]

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0
STEADY_S: Final = 1.0


class Tasks:
    """Keeps every task that it starts; `failed(name, error)` hears of each one that ends in an exception."""

    def __init__(
        self,
        failed: FailureTold,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failed = failed
        self._sleep = sleep
        self._clock = clock
        self._kept: set[asyncio.Task[Any]] = set()
        self._down: dict[str, float] = {}  # services that have failed, until when they count as down

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"Tasks({', '.join(sorted(task.get_name() for task in self._kept))})"

    def start(self, name: str, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Run `work` once, on the running loop. Awaiting the task is allowed; its failure is told either way."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._kept.add(task)
        task.add_done_callback(self._ended)
        return task

    def serve(self, name: str, loop: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run `loop` and start it anew, with back-off, whenever it fails. It ends by returning or by cancellation."""
        return self.start(name, self._served(name, loop))

    def restarting(self) -> list[str]:
        """Services that have failed and wait, or have not run for `STEADY_S` again."""
        now = self._clock()
        self._down = {name: until_s for name, until_s in self._down.items() if now < until_s}
        return sorted(self._down)

    async def close(self) -> None:
        """Cancel all and wait until the last has ended; tasks started meanwhile are cancelled too."""
        while self._kept:
            waiting = list(self._kept)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            await asyncio.sleep(0)  # the callbacks that forget them run in the next turn

    async def _served(self, name: str, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            started_s = self._clock()
            try:
                return await loop()
            except Exception as error:
                self._failed(name, error)
            if self._clock() - started_s >= LONGEST_WAIT_S:
                wait_s = FIRST_WAIT_S
            self._down[name] = self._clock() + wait_s + STEADY_S
            await self._sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._kept.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(task.get_name(), error)
