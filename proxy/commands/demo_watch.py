"""The running part of `demo`: sends the load and shows the proxy's state once a second."""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import Namespace

import aiohttp

from proxy.adapters.tasks import Tasks
from proxy.commands.base import CommandError, say
from proxy.commands.demo_load import demo_workload, send
from proxy.commands.demo_view import HOME_AND_CLEAR, line, screen

INTERVAL_S = 1.0


async def watch(arguments: Namespace, public_url: str, admin_url: str) -> None:
    """Load and view until the time is over. CommandError when the proxy ends before."""
    tasks = Tasks(lambda name, error: say(f"{name}: {error!r}"))
    on_terminal = sys.stdout.isatty()
    started_s = time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        load = demo_workload(arguments.rate, arguments.duration, arguments.seed)
        tasks.serve("demo load", lambda: send(public_url, load))
        try:
            while (elapsed_s := time.monotonic() - started_s) < arguments.duration:
                try:
                    async with session.get(f"{admin_url}/admin/state") as answer:
                        state = await answer.json()
                except (aiohttp.ClientError, OSError):
                    raise CommandError("the proxy has ended; run penstock serve to see why") from None
                if on_terminal:
                    say(HOME_AND_CLEAR + screen(state, elapsed_s, arguments.duration))
                else:
                    say(line(state, elapsed_s))
                await asyncio.sleep(min(INTERVAL_S, max(0.0, arguments.duration - elapsed_s)))
        finally:
            await tasks.close()
    say(f"{arguments.duration:g} s are over")
