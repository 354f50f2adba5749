"""Time stamps that the generator's own work does not delay, and a watch over that work.

All sockets that are ready in one turn of the event loop were ready when its poll returned. Reading a thousand of them
takes milliseconds, which are ours and not the endpoint's: so the first to be read takes the time and the others of that
turn share it. What arrives meanwhile waits for the next turn; `Lag` measures how long turns take.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from proxy.loadtest.stats import Sketch

LAG_INTERVAL_S = 0.01


class TurnClock:
    """Seconds since the run began."""

    __slots__ = ("_call_soon", "_turn_s", "started_s")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._turn_s = -1.0
        self.started_s = time.perf_counter()

    def now(self) -> float:
        """This moment."""
        return time.perf_counter() - self.started_s

    def turn(self) -> float:
        """The moment at which this turn's poll returned."""
        if self._turn_s < 0:
            self._turn_s = time.perf_counter() - self.started_s
            self._call_soon(self._forget)
        return self._turn_s

    def _forget(self) -> None:
        self._turn_s = -1.0


class Lag:
    """How late a timer of our own fires: what the generator may add to any stamp. CPU time beside it."""

    def __init__(self) -> None:
        self.sketch = Sketch()
        self._cpu_s = time.process_time()
        self._wall_s = time.perf_counter()

    @property
    def cpu_share(self) -> float:
        """Of one core, since the start."""
        return (time.process_time() - self._cpu_s) / max(1e-9, time.perf_counter() - self._wall_s)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            due_s = time.perf_counter() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self.sketch.add(max(0.0, time.perf_counter() - due_s))
