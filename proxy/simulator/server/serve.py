"""Runs the simulated engine as a process of its own, until a signal, or until its parent is gone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from proxy.simulator.profiles import profile_named
from proxy.simulator.server.app import create_app

SHUTDOWN_S = 0.2  # nothing of value is lost with a simulated answer


class _EndOfInput(asyncio.Protocol):
    """Sets `ended` when the pipe closes; what comes through it is not looked at."""

    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    def connection_lost(self, error: Exception | None) -> None:
        self._ended.set()


async def listen(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, str]:
    """Bind and serve; returns the runner to clean up and the base URL. Port 0 takes a free one. OSError if taken."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_address=True).start()
    except BaseException:
        await runner.cleanup()
        raise
    shown = f"[{host}]" if ":" in host else host
    return runner, f"http://{shown}:{runner.addresses[0][1]}"


async def serve(
    app: web.Application, host: str, port: int, announce: Callable[[str], None], follow_stdin: bool
) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    runner, url = await listen(app, host, port)
    try:
        async with contextlib.AsyncExitStack() as stack:
            if follow_stdin:
                transport, _ = await loop.connect_read_pipe(lambda: _EndOfInput(ended), sys.stdin)
                stack.callback(transport.close)
            announce(url)
            await ended.wait()
    finally:
        await runner.cleanup()


def run(
    profile: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    speed: float = 1.0,
    seed: int = 0,
    announce: Callable[[str], None] = lambda url: None,
    follow_stdin: bool = False,
    max_seqs: int | None = None,
) -> int:
    """Serve the named profile; 0 after SIGTERM, SIGINT or, with `follow_stdin`, the end of standard input (a pipe).

    `max_seqs` replaces the profile's. `announce(base_url)` is called once it listens. Raises ValueError for an unknown
    profile, a speed of 0 or less, or more sequences than a step has tokens, and OSError for a taken port.
    """
    chosen = profile_named(profile)
    app = create_app(replace(chosen, max_seqs=max_seqs or chosen.max_seqs), speed, seed)
    asyncio.run(serve(app, host, port, announce, follow_stdin))
    return 0
