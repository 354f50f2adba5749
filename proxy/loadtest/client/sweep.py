"""One load test after the other, from setting to setting; what is done is never done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import aiohttp

from proxy.adapters.engines.base import at, items
from proxy.adapters.engines.detect import document as json_of
from proxy.adapters.fetch import FetchError, fetch, reason_of
from proxy.adapters.session import client_session
from proxy.loadtest.client.endpoint import Endpoint
from proxy.loadtest.client.measure import Options, measure
from proxy.loadtest.client.watch import Sources
from proxy.loadtest.results import Document
from proxy.loadtest.workload import Arrival, Workload

KINDS = ("concurrency", "rate", "limit")
TIMEOUT_S = 5.0

Done = dict[float, Document]


class SweepError(Exception):
    """A setting cannot be made; one line that says what to do."""


def loaded(workload: Workload, kind: str, setting: float) -> Workload:
    """The workload at one setting."""
    if kind == "concurrency":
        return replace(workload, arrival=replace(workload.arrival, process="closed", concurrency=int(setting)))
    if kind == "rate":
        keeps = workload.arrival.process in ("poisson", "constant", "gamma")
        process = workload.arrival.process if keeps else "poisson"
        return replace(workload, arrival=Arrival(process, rate=setting, cv=workload.arrival.cv))
    return workload


async def sweep(
    endpoint: Endpoint,
    workload: Workload,
    kind: str,
    settings: Sequence[float],
    options: Options,
    done: Done,
    told: Callable[[float, Done, bool], None],
) -> Done:
    """Measure each setting that `done` lacks. `told` hears before (False) and after (True) each. Ends early by
    `options.stop`; an interrupted point is not kept. Raises SweepError and EndpointError."""
    stop = options.stop or asyncio.Event()
    try:
        for setting in settings:
            if setting in done:
                continue
            told(setting, done, False)
            if kind == "limit":
                await hold_limit(options.sources, int(setting))
            results = await measure(endpoint, loaded(workload, kind, setting), replace(options, stop=stop))
            if stop.is_set():
                break
            slim = dict(results.document)
            if slim["engine"]:
                slim["engine"] = {key: value for key, value in slim["engine"].items() if key != "series"}
            done[setting] = slim
            told(setting, done, True)
    finally:
        if kind == "limit":
            await hold_limit(options.sources, None)
    return done


async def hold_limit(sources: Sources, seats: int | None) -> None:
    """Hold every upstream of a Penstock at `seats`; None lets it adapt again. Raises SweepError."""
    headers = {"Authorization": f"Bearer {sources.admin_token}"} if sources.admin_token else {}
    async with client_session() as session:
        try:
            answer = await fetch(session, f"{sources.admin}/admin/state", TIMEOUT_S, headers)
        except FetchError as error:
            raise SweepError(f"the admin listener does not answer ({error}); check --admin") from None
        names = [at(one, "name") for one in items(json_of(answer.body), "upstreams")]
        if answer.status != 200 or not names:
            raise SweepError(
                f"the admin listener tells no upstreams (status {answer.status}); check --admin and its token"
            )
        for name in names:
            await _put(session, f"{sources.admin}/admin/upstreams/{name}/limit", {"limit": seats}, headers)


async def _put(
    session: aiohttp.ClientSession, url: str, body: Mapping[str, object], headers: Mapping[str, str]
) -> None:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with session.put(url, json=body, headers=headers, timeout=timeout, allow_redirects=False) as answer:
            status = answer.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise SweepError(f"a limit cannot be set ({reason_of(error)}); check --admin") from None
    if status != 200:
        raise SweepError(f"a limit cannot be set (status {status}); check --admin-token-env")
