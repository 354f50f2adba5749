"""From settings to what the data path and the prober need of each upstream. Follows reloads."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog

from proxy.adapters.files import load_plan
from proxy.adapters.gate import Gate, Lane
from proxy.adapters.prober import ProbeConfig, ProbeTarget
from proxy.adapters.relay import Caps
from proxy.adapters.session import tls_context
from proxy.adapters.tasks import Tasks
from proxy.adapters.upstream_pool import UpstreamPool
from proxy.admission.ceiling import MemoryBound
from proxy.planning.engines import ENGINE_NAMES
from proxy.settings.ground import target
from proxy.settings.root import Settings
from proxy.settings.upstreams import Upstream
from proxy.wire.headers import upstream_lines

log = structlog.get_logger()


def _tls(upstream: Upstream) -> ssl.SSLContext | None:
    if not upstream.url.startswith("https:"):
        return None
    return tls_context(str(upstream.tls.ca) if upstream.tls.ca else None, upstream.tls.verify)


def _key(upstream: Upstream) -> str | None:
    return upstream.api_key.get_secret_value() if upstream.api_key is not None else None


def _address(upstream: Upstream) -> tuple[str, int, bytes]:
    """Host, port, Host header. There is no base path: settings refuse one."""
    parts = urlsplit(upstream.url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return host, port, parts.netloc.encode("ascii")


class Fleet:
    """Lanes of the gate, by upstream name; a lane lives on over a reload while its address stays the same."""

    def __init__(
        self, gate: Gate, tasks: Tasks, clock: Callable[[], float], short: Callable[[str], None] | None = None
    ) -> None:
        self.gate, self.tasks, self.clock, self.short = gate, tasks, clock, short
        self._made_of: dict[str, tuple[object, ...]] = {}
        self._caps: dict[str, Caps] = {}
        self.caps: Callable[[str], Caps] = self._caps.__getitem__  # by upstream; asked at each request's end

    def follow(self, settings: Settings, tls: dict[str, ssl.SSLContext | None]) -> None:
        """Make, keep or replace lanes. A replaced lane's running exchanges finish on their old connections."""
        for upstream in settings.upstreams:
            made_of = (upstream.url, upstream.tls, _key(upstream), settings.routing.connect_timeout_s)
            if self._made_of.get(upstream.name) != made_of:
                self._replace(upstream, settings, tls[upstream.name])
                self._made_of[upstream.name] = made_of
            general = settings.routing
            self.gate.lanes[upstream.name].pool.max_age_s = general.connection_max_age_s
            goal = target(settings, upstream)
            self._caps[upstream.name] = Caps(
                ttft_s=general.ttft_timeout_s,
                itl_s=general.itl_timeout_s,
                response_s=general.response_timeout_s,
                good_ttft_s=goal.ttft_s,
                good_tpot_s=goal.itl_s,
            )
        for name in self._made_of.keys() - {upstream.name for upstream in settings.upstreams}:
            self.gate.lanes[name].pool.close()
            del self._made_of[name]

    def _replace(self, upstream: Upstream, settings: Settings, tls: ssl.SSLContext | None) -> None:
        host, port, netloc = _address(upstream)
        old = self.gate.lanes.get(upstream.name)
        if old is not None:
            old.pool.close()
        key = _key(upstream)
        self.gate.lanes[upstream.name] = Lane(
            name=upstream.name,
            pool=UpstreamPool(
                host, port, tls, settings.routing.connect_timeout_s, self.tasks, self.clock, short=self.short
            ),
            lines=upstream_lines(netloc, key.encode("ascii") if key is not None else None),
            running=old.running if old is not None else {},
        )


def contexts(settings: Settings) -> dict[str, ssl.SSLContext | None]:
    """TLS contexts by upstream; ValueError names what is wrong with a certificate file."""
    return {upstream.name: _tls(upstream) for upstream in settings.upstreams}


def planned_memory(settings: Settings) -> dict[str, MemoryBound]:
    """Bounds computed from model and accelerator, for upstreams with a `memory.plan`, their notes in the log.

    PlanError names the key.
    """
    bounds: dict[str, MemoryBound] = {}
    for upstream in settings.upstreams:
        if upstream.memory.plan is not None:
            engine = upstream.engine if upstream.engine in ENGINE_NAMES else "vllm"
            plan = load_plan(upstream.memory.plan.model_dump() | {"engine": engine})
            bounds[upstream.name] = MemoryBound(tokens=plan.kv_tokens, source="plan")
            for note in plan.notes:
                log.warning("memory plan", upstream=upstream.name, note=note)
    return bounds


def probe_targets(settings: Settings, tls: dict[str, ssl.SSLContext | None]) -> list[ProbeTarget]:
    return [
        ProbeTarget(
            name=upstream.name,
            url=upstream.url,
            engine=upstream.engine,
            api_key=_key(upstream),
            models=None if upstream.models == "auto" else upstream.models,
            tls=tls[upstream.name],
        )
        for upstream in settings.upstreams
    ]


def probe_config(settings: Settings) -> ProbeConfig:
    return ProbeConfig(
        path=settings.probe.path,
        interval_s=settings.probe.interval_s,
        timeout_s=settings.probe.timeout_s,
        fail_after=settings.probe.fail_after,
        pass_after=settings.probe.pass_after,
        telemetry_interval_s=settings.telemetry.interval_s,
        telemetry_max_age_s=settings.telemetry.max_age_s,
    )
