"""An event loop in virtual time: no selector, no waiting, the same schedule for the same seed.

When nothing is ready the clock jumps to the next timer. Nothing ready and no timer is a deadlock, which is an error.
Ready callbacks run in the order in which they came: asyncio promises that, and what breaks it finds faults that do not
exist. `after_turn` runs between turns, so that what is checked there holds whenever other code could run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from heapq import heappop
from typing import Any

START_S = 1000.0

Factory = Callable[[], asyncio.Protocol]
Connect = Callable[[Factory, str], Awaitable[tuple[asyncio.Transport, Any]]]


class DeadlockError(AssertionError):
    """Somebody waits, and nothing will ever happen."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`connect` makes outgoing connections; `errors` collects what callbacks raised."""

    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S
        self.turns = 0
        self.strict = True  # what a callback raises ends the run
        self.errors: list[BaseException] = []
        self.after_turn: Callable[[], None] = lambda: None
        self.connect: Connect | None = None
        self.set_exception_handler(
            lambda _, context: self.errors.append(context.get("exception") or DeadlockError(context))
        )

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0]._cancelled:
            heappop(scheduled)._scheduled = False
        if not ready and not self._stopping:
            if not scheduled:
                raise DeadlockError("nothing is ready and no timer is set")
            self.now_s = max(self.now_s, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self.now_s + 1e-9:
            handle = heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        self.turns += 1
        if self.strict and self.errors:
            raise self.errors[0]
        self.after_turn()

    def let_go(self) -> None:
        """Cancel what still runs, and close."""
        self.strict, self.after_turn = False, lambda: None
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.close()

    def _process_events(self, event_list: object) -> None:
        """There is no selector."""

    def _write_to_self(self) -> None:
        """There is no other thread."""

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:  # type: ignore[override]  # the one overload used here
        assert self.connect is not None
        return await self.connect(factory, str(host))
