"""The running proxy: owns every part, hears the prober, serves the operator, follows reloads, drains.

One object per process. It is the prober's sink and the admin listener's target, so that each of them sees a few
methods and not the parts.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import structlog

from proxy import __version__
from proxy.adapters.build_info import COMPILED
from proxy.adapters.gate import Bypass, Gate, drive
from proxy.adapters.gauges import Scrape
from proxy.adapters.logs import adjust
from proxy.adapters.metrics import Metrics
from proxy.adapters.metrics_page import MetricsPage
from proxy.adapters.prober import Prober
from proxy.adapters.recorder import Recorder
from proxy.adapters.records import RequestRecord
from proxy.adapters.relay import Relay
from proxy.adapters.request_log import RequestLog
from proxy.adapters.session import client_session
from proxy.adapters.tasks import Tasks
from proxy.adapters.tracing import open_tracer
from proxy.admission.limits import Target
from proxy.dispatcher import Dispatcher, Snapshot
from proxy.server import assembly, fleet
from proxy.server.admin import AdminListener
from proxy.server.catalog import Catalog
from proxy.server.deadlines import LAST_CALL_S
from proxy.server.intake import Intake
from proxy.server.public import Listener
from proxy.server.request_ids import RequestIds
from proxy.server.tenancy import Tenancy
from proxy.settings import ConfigError, Settings, restart_needed
from proxy.settings.ground import dispatcher_config, target
from proxy.types import Telemetry
from proxy.wire.answer import AnswerWriter

HOUSEKEEPING_S = 1.0
SHORT_TOLD_S = 10.0  # between two lines about the same want
VITAL = frozenset({"gate", "listener"})  # without these two no deadline is kept and no limit moves

log = structlog.get_logger()


class Process:
    """Built inside the running loop; `start` opens the listeners, `drain` ends the service, `close` lets go of all."""

    def __init__(
        self,
        settings: Settings,
        request_log: RequestLog,
        reload: Callable[[], Settings],
        embedded: bool,
        recorder: Recorder | None,
        checks: bool = False,
    ) -> None:
        self.settings, self.request_log, self._load, self.embedded = settings, request_log, reload, embedded
        self.recorder = recorder
        self.clock = time.monotonic
        self.started_s = self.clock()
        self._short_told_s = 0.0
        self.tasks = Tasks(self._failed)
        self.engines: dict[str, str] = {}
        self.tracer = open_tracer(lambda name: self.engines.get(name, "")) if settings.tracing.enabled else None
        self.told: dict[str, Telemetry] = {}
        self.planned = fleet.planned_memory(settings)
        self.rng = random.Random()  # noqa: S311 - jitter and tie-breaks, no secret
        self.dispatcher = Dispatcher(dispatcher_config(settings, self.planned), self.clock(), self.rng, checks)
        self.metrics = Metrics(assembly.metrics_config(settings, __version__))
        self.gate = Gate(self.dispatcher, self.metrics, self.clock, self._failed)
        self.fleet = fleet.Fleet(self.gate, self.tasks, self.clock, self._short_of_files)
        self.tls = fleet.contexts(settings)
        self.fleet.follow(settings, self.tls)
        self.catalog = Catalog(self.dispatcher, self.clock)
        self.new_id = RequestIds().next
        writer = AnswerWriter()
        relay = Relay(self.gate, writer, self.fleet.caps, self.record, settings.queue.keepalive_s)
        light = replace(relay, gate=Bypass(self.gate))
        self.listener = Listener(
            assembly.listen_config(settings), self._intake(settings), relay, light, self.dispatcher, self.record,
            self._failed, self.clock, self._short_of_files, self.new_id,
        )  # fmt: skip
        self.session = client_session()
        self.prober = Prober(
            self.session, fleet.probe_targets(settings, self.tls), fleet.probe_config(settings), self, self.clock,
            self.tasks,
        )  # fmt: skip
        scrape = Scrape(self.metrics, lambda: self.dispatcher.snapshot(self.clock()), self.targets)
        self.admin = AdminListener(assembly.admin_config(settings), self, MetricsPage(scrape), self.clock)
        self.drained = asyncio.Event()
        self.drain_asked = asyncio.Event()
        self._reloading = asyncio.Lock()

    def _intake(self, settings: Settings, ticket_ids: count[int] | None = None) -> Intake:
        return Intake(
            assembly.intake_config(settings), Tenancy(assembly.tenancy_config(settings)),
            assembly.head_reader(settings, self.tracer is not None), self.catalog, self.dispatcher, self.clock,
            self.new_id, ticket_ids or count(1),
        )  # fmt: skip

    # ---- life ----
    async def start(self) -> None:
        """Open both listeners. OSError names the address that cannot be had."""
        await self.admin.start()
        await self.listener.start()
        self.prober.start()
        self.tasks.serve("gate", partial(drive, self.gate))
        self.tasks.serve("listener", self.listener.run)
        self.tasks.serve("housekeeping", self._housekeeping)

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self.admin.note()
            dropped = self.request_log.take_dropped()
            if dropped:
                self.metrics.log_dropped(dropped)
            if self.recorder is not None:
                self.recorder.flush()
                if self.recorder.failed is not None:
                    log.error("recording stopped", reason=self.recorder.failed.strerror)
                    self.recorder = None

    async def end_service(self) -> None:
        """Not ready, then closed to new connections; what waits is refused, what runs may finish, for a while.

        A client that has just connected, or whose next request crosses our goodbye, is served once more.
        """
        listen = self.settings.listen
        self.listener.let_go()
        await asyncio.sleep(listen.drain_delay_s)
        await self.listener.close_sockets()
        last_call_s = self.clock() + LAST_CALL_S
        while self.listener.quiet() and self.clock() < last_call_s:  # noqa: ASYNC110 - they end one by one
            await asyncio.sleep(0.02)
        self.listener.stop_accepting()
        self.gate.perform(self.dispatcher.drain(self.clock()))
        deadline_s = self.clock() + listen.drain_timeout_s
        while self.listener.busy() and self.clock() < deadline_s:  # noqa: ASYNC110 - the endings are spread over connections
            await asyncio.sleep(0.02)
        for exchange in self.listener.busy():
            exchange.expel()
        await asyncio.sleep(0)
        self.drained.set()

    async def close(self) -> None:
        self.listener.stop_accepting()
        self.listener.abort()
        await self.admin.close()
        await self.tasks.close()
        await self.session.close()
        for lane in self.gate.lanes.values():
            lane.pool.close()
        if self.recorder is not None:
            self.recorder.close()
        if self.tracer is not None:
            self.tracer.close()

    def record(self, record: RequestRecord) -> None:
        """The one place where an ended request is counted and logged. What fails here holds no request up."""
        try:
            self.metrics.request_ended(record)
            self.request_log.request(record)
            if record.trace is not None:
                self._trace(record)
            if self.recorder is not None:
                self.recorder.record(record, self.clock())
        except Exception as error:
            self._failed("record", error)

    def _trace(self, record: RequestRecord) -> None:
        if self.tracer is not None and record.trace is not None and record.trace.sampled:
            self.metrics.point_to_trace(record, time.time())
            self.tracer.ended(record)

    def _failed(self, name: str, error: BaseException) -> None:
        self.metrics.fault(name.partition(" ")[0])
        log.error("internal error", task=name, kind=type(error).__name__, exc_info=error)

    def _short_of_files(self, side: str) -> None:
        self.metrics.short_of_files(side)
        if self.clock() >= self._short_told_s:
            self._short_told_s = self.clock() + SHORT_TOLD_S
            allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            log.error("short of open files", side=side, allowed=allowed, remedy="raise ulimit -n, or LimitNOFILE")

    # ---- what the prober hears ----
    def health(self, upstream: str, healthy: bool) -> None:
        state = self.prober.states().get(upstream)
        log.info("upstream", name=upstream, healthy=healthy, reason=state.last_error if state else "")
        self.gate.perform(self.dispatcher.health(upstream, healthy, self.clock()))

    def models(self, upstream: str, models: tuple[str, ...], raw: list[dict[str, object]]) -> None:
        self.catalog.listed(upstream, raw)
        self.metrics.models_served(models)
        self.telemetry(upstream, replace(self.told.get(upstream, Telemetry(at_s=self.clock())), models=models))

    def telemetry(self, upstream: str, telemetry: Telemetry) -> None:
        known = self.told.get(upstream)
        if not telemetry.models and known is not None:
            telemetry = replace(telemetry, models=known.models)
        self.told[upstream] = telemetry
        self.gate.perform(self.dispatcher.telemetry(upstream, telemetry, self.clock()))

    def engine(self, upstream: str, name: str) -> None:
        self.engines[upstream] = name
        self._reconfigure(self.settings)

    def _reconfigure(self, settings: Settings) -> None:
        config = dispatcher_config(settings, self.planned, self.engines)
        self.gate.perform(self.dispatcher.reconfigure(config, self.clock()))

    # ---- what the operator may ----
    def snapshot(self, now: float) -> Snapshot:
        return self.dispatcher.snapshot(now)

    def targets(self) -> Mapping[str, Target]:
        return {upstream.name: target(self.settings, upstream) for upstream in self.settings.upstreams}

    def outcomes(self) -> Mapping[str, int]:
        return self.metrics.outcomes()

    def totals(self) -> Mapping[str, int]:
        return self.metrics.totals()

    def server_info(self) -> Mapping[str, Any]:
        return {
            "name": "penstock",
            "version": __version__,
            "compiled": COMPILED,
            "config_hash": self.settings.hash(),
            "uptime_s": round(self.clock() - self.started_s, 3),
            "simulated": self.embedded,
            "draining": self.drain_asked.is_set(),
            "connections": len(self.listener.connections),
            "tasks": len(self.tasks),
            "restarting": self.tasks.restarting(),
            "listen": f"{self.settings.listen.host}:{self.listener.port}",
            "upstreams": {
                state.upstream: {
                    "engine": state.engine,
                    "healthy": state.healthy,
                    "error": state.last_error,
                    "telemetry_error": state.telemetry_error,
                }
                for state in self.prober.states().values()
            },
        }

    def ready(self) -> tuple[bool, str]:
        if self.drain_asked.is_set():
            return False, "draining"
        down = sorted(VITAL & set(self.tasks.restarting()))
        if down:
            return False, f"restarting: {', '.join(down)}"
        healthy = any(state.healthy for state in self.prober.states().values())
        return (True, "ready") if healthy and self.dispatcher.usable() else (False, "no usable upstream")

    async def reload(self) -> tuple[bool, str]:
        """Read the configuration again; keep the old one on any error. Runs on the loop: no request sees half of it.

        One at a time: a slow read that began before another's must not be applied after it.
        """
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> tuple[bool, str]:
        try:
            settings = await asyncio.to_thread(self._load)
            planned = fleet.planned_memory(settings)
            tls = fleet.contexts(settings)
        except (ConfigError, ValueError, OSError) as error:
            self.metrics.config_reload("invalid")
            log.error("reload refused, the old configuration stays", reason=str(error))
            return False, str(error)
        late = restart_needed(self.settings, settings)
        self._apply(settings, planned, tls)
        self.metrics.config_reload("applied")
        log.info("reloaded", config_hash=settings.hash(), restart_needed=late)
        return True, f"applied; needs a restart: {', '.join(late)}" if late else "applied"

    def _apply(self, settings: Settings, planned: dict[str, Any], tls: dict[str, Any]) -> None:
        self.settings, self.planned, self.tls = settings, planned, tls
        names = {upstream.name for upstream in settings.upstreams}
        self.catalog.forget(names)
        self.told = {name: told for name, told in self.told.items() if name in names}
        self.fleet.follow(settings, tls)
        self._reconfigure(settings)
        draining = self.listener.intake.draining
        self.listener.intake = self._intake(settings, self.listener.intake.ticket_ids)
        self.listener.intake.draining = draining
        self.listener.relay.keepalive_s = settings.queue.keepalive_s
        adjust(self.request_log, assembly.log_config(settings))
        self.prober.update(fleet.probe_targets(settings, tls), fleet.probe_config(settings))

    def drain(self) -> None:
        self.drain_asked.set()

    def hold_limit(self, name: str, seats: int | None) -> None:
        self.gate.perform(self.dispatcher.hold_limit(name, seats, self.clock()))

    def drain_upstream(self, name: str, draining: bool) -> None:
        self.gate.perform(self.dispatcher.drain_upstream(name, draining, self.clock()))


def open_recorder(path: Path | None, clock: Callable[[], float] = time.monotonic) -> Recorder | None:
    return None if path is None else Recorder(path, clock())
