"""One load test from an endpoint and a workload to results. `await measure(...)` in a notebook; `run` elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import resource
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import uvloop

from proxy import __version__
from proxy.adapters.session import client_session
from proxy.adapters.tasks import Tasks
from proxy.loadtest.client.endpoint import Endpoint, read_endpoint
from proxy.loadtest.client.probe import probe
from proxy.loadtest.client.runner import Progress, Runner
from proxy.loadtest.client.watch import Sources, Watch
from proxy.loadtest.results import Generator, Results, results_of
from proxy.loadtest.slo import Slo
from proxy.loadtest.workload import Workload

PROGRESS_INTERVAL_S = 0.2

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said beyond endpoint and workload. `model` '' asks the endpoint for its first."""

    model: str = ""
    slo: Slo = field(default_factory=Slo)
    sources: Sources = field(default_factory=Sources)
    label: str = ""
    progress: Callable[[Progress], None] | None = field(default=None, repr=False)
    stop: asyncio.Event | None = field(default=None, repr=False)  # set it to end early and keep what was measured


async def measure(endpoint: Endpoint | str, workload: Workload, options: Options | None = None) -> Results:
    """Run the workload. Raises EndpointError for an address or key that cannot be used; nothing else of the network."""
    options = options or Options()
    if isinstance(endpoint, str):
        endpoint = read_endpoint(endpoint)
    began = datetime.now(UTC)
    tasks = Tasks(lambda name, error: None)
    async with client_session() as session:
        watch = Watch(session, endpoint, options.sources)
        try:
            await watch.list_models()
            model, notes = _model(options.model, watch.models, workload)
            left_out, found = await probe(session, endpoint, workload, model)
            runner = Runner(endpoint, workload, model, left_out)
            if options.stop is not None:
                tasks.start("load test stop", _stop(runner, options.stop))
            tasks.start("load test watch", watch.run(runner.clock))
            if options.progress is not None:
                tasks.start("load test progress", _tell(runner, options.progress))
            tally = await runner.run()
        finally:
            await tasks.close()
    if runner.hopeless:
        notes.append(f"given up after {runner.ended} requests: none could connect to {endpoint.root}")
    if runner.interrupted:
        notes.append("interrupted: the figures are those of the time before")
    meta = {
        "label": options.label,
        "url": endpoint.root,
        "model": model,
        "started_at": began.isoformat(timespec="seconds"),
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "interrupted": runner.interrupted,
        "penstock": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    generator = Generator(runner.lag.sketch, runner.send_delay, runner.lag.cpu_share)
    return results_of(tally, workload, options.slo, meta, generator, watch.observations, [*notes, *found])


def _model(asked: str, listed: tuple[str, ...], workload: Workload) -> tuple[str, list[str]]:
    if asked or listed:
        return asked or listed[0], []
    if all(flow.model for flow in workload.flows):
        return "", []
    return "default", ["the endpoint lists no models: requests name the model `default`; say which with --model"]


async def _stop(runner: Runner, asked: asyncio.Event) -> None:
    await asked.wait()
    runner.stop()


async def _tell(runner: Runner, progress: Callable[[Progress], None]) -> None:
    while True:
        progress(runner.progress())
        await asyncio.sleep(PROGRESS_INTERVAL_S)


def allow_connections() -> None:
    """Every stream is a file descriptor, and the usual soft limit is 1,024: take what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems name a limit that they do not accept
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """`measure`, or anything made of it, on the faster event loop; for scripts, where no loop runs yet."""
    allow_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
