"""Composition root: one uvloop, one `Process`, the signals, and the way from the first one to exit 0.

SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reloads.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import structlog
import uvloop

from proxy.adapters.logs import configure
from proxy.adapters.recorder import Recorder
from proxy.server import assembly
from proxy.server.process import Process, open_recorder
from proxy.settings import Settings

Announce = Callable[[str, str], None]

# Requests make few cycles: collecting the young every 700 allocations costs more than it frees.
GC_THRESHOLDS = (50_000, 20, 100)

OWN_FILES = 64  # listeners, probes, log, event loop

log = structlog.get_logger()


class StartError(Exception):
    """The proxy cannot start; the message names what is in the way and what to do."""


def serve(
    settings: Settings,
    *,
    reload: Callable[[], Settings],
    announce: Announce,
    embedded: bool = False,
    record: Path | None = None,
    checks: bool = False,
) -> int:
    """Run until a signal ends it; the exit code. StartError when it cannot start. `checks`: assert the invariants."""
    try:
        recorder = open_recorder(record)
    except OSError as error:
        raise StartError(f"--record: cannot write {record} ({error.strerror})") from None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, reload, announce, embedded, recorder, checks))


async def _serve(
    settings: Settings,
    reload: Callable[[], Settings],
    announce: Announce,
    embedded: bool,
    recorder: Recorder | None,
    checks: bool,
) -> int:
    request_log = configure(assembly.log_config(settings))
    request_log.gather(asyncio.get_running_loop().call_later)
    claim_files(settings.listen.max_connections)
    try:
        process = Process(settings, request_log, reload, embedded, recorder, checks)
    except (ValueError, OSError) as error:
        request_log.close()
        raise StartError(str(error)) from None
    try:
        await _open(process)
        host = settings.listen.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        announce(f"http{'s' if settings.listen.tls.cert else ''}://{shown}:{process.listener.port}",
                 f"http://{settings.admin.host}:{process.admin.port}")  # fmt: skip
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await _until_drained(process)
    finally:
        await process.close()
        request_log.close()
    return 0


def claim_files(connections: int) -> None:
    """Raise the bound of open files as far as it may go: each connection needs two, its own and its upstream's."""
    needed = 2 * connections + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft in (resource.RLIM_INFINITY, hard) or soft >= needed:
        allowed = soft
    else:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        log.warning(
            "too few open files are allowed for listen.max_connections",
            allowed=allowed, needed=needed, remedy="raise ulimit -n, or LimitNOFILE of the service",
        )  # fmt: skip


async def _open(process: Process) -> None:
    try:
        await process.start()
    except OSError as error:
        raise StartError(
            f"cannot listen: {error.strerror or error}; choose another with --port or --admin-port"
        ) from None


async def _until_drained(process: Process) -> None:
    """Wait for a signal or the operator, then drain; a second signal cuts it short."""
    loop = asyncio.get_running_loop()
    now_over = asyncio.Event()

    def stop() -> None:
        if process.drain_asked.is_set():
            now_over.set()
        process.drain_asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: process.tasks.start("reload", process.reload()))
    await process.drain_asked.wait()
    log.info("draining", running=len(process.listener.busy()))
    draining = process.tasks.start("drain", process.end_service())
    over = process.tasks.start("second signal", now_over.wait())
    await asyncio.wait({draining, over}, return_when=asyncio.FIRST_COMPLETED)
