"""A line on standard error that says how far a long measurement is, where that is a terminal; Ctrl-C ends it early."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from proxy.loadtest.client.runner import Progress

BAR_CHARS = 24
ENDLESS_S = 86_400.0
CLEAR = "\r\x1b[K"


class ProgressLine:
    """Called with each `Progress`. `title` names the part of a longer measurement."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.shown = self.stream.isatty()
        self.title = ""
        self.ending = False
        self._before: tuple[float, int] = (0.0, 0)
        self._rate = 0.0

    def __call__(self, now: Progress) -> None:
        if self.shown:
            self.stream.write(CLEAR + self.line(now))
            self.stream.flush()

    def line(self, now: Progress) -> str:
        before_s, before = self._before
        if now.elapsed_s < before_s:
            self._before = (0.0, 0)  # the next run of a longer measurement
        elif now.elapsed_s - before_s >= 1.0:
            self._rate = (now.ended - before) / (now.elapsed_s - before_s)
            self._before = (now.elapsed_s, now.ended)
        share = min(1.0, now.elapsed_s / now.end_s)
        full = round(BAR_CHARS * share)
        bounded = now.end_s < ENDLESS_S
        bar = f"[{'#' * full}{'.' * (BAR_CHARS - full)}] " if bounded else ""
        of = f"/{now.end_s:.0f}" if bounded else ""
        ttft = "-" if now.ttft_p50_s is None else f"{now.ttft_p50_s * 1e3:.0f} ms"
        state = "ending, " if self.ending else "last answers, " if bounded and share >= 1 else ""
        return (
            f"{self.title}{bar}{now.elapsed_s:.0f}{of} s, {state}{self._rate:.1f} req/s, {now.in_flight} under way, "
            f"TTFT {ttft}, {now.ended} ended, {now.failed} failed"
        )

    def clear(self) -> None:
        if self.shown:
            self.stream.write(CLEAR)
            self.stream.flush()


@asynccontextmanager
async def interruptible(told: Callable[[], None] = lambda: None) -> AsyncIterator[asyncio.Event]:
    """The event is set by the first Ctrl-C or SIGTERM; a second one ends the process as usual."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def once() -> None:
        stop.set()
        told()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, once)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
