"""The admin listener: health, readiness, metrics, state, live events, status page, and the operator's few writes.

It reads and steers the process through `AdminTarget` alone. Every answer but metrics and the page is JSON; every error,
also one that the HTTP library makes itself, has our shape and echoes nothing that came in.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any, Protocol

import orjson
import structlog
from aiohttp import web

from proxy.adapters.metrics_page import MetricsPage
from proxy.admission.limits import Target
from proxy.dispatcher.snapshot import Snapshot
from proxy.server.admin_connections import Connections, Handler
from proxy.server.admin_guard import READS, AdminConfig, Guard
from proxy.server.history import History
from proxy.server.state import state_document

EVENT_INTERVAL_S = 1.0
SUBSCRIBERS_MAX = 16
WRITE_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 10.0
SHUTDOWN_S = 1.0

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
PAGE_HEADERS = {**SAFE_HEADERS, "Content-Security-Policy": CONTENT_SECURITY, "X-Frame-Options": "DENY"}
EVENT_HEADERS = {**SAFE_HEADERS, "Content-Type": "text/event-stream"}
PAGE_FILES = {
    "/": ("index.html", "text/html"),
    "/status.css": ("status.css", "text/css"),
    "/status.js": ("status.js", "text/javascript"),
    "/words.js": ("words.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/uplot/uPlot.min.css": ("uplot/uPlot.min.css", "text/css"),
    "/uplot/uPlot.iife.min.js": ("uplot/uPlot.iife.min.js", "text/javascript"),
    "/uplot/LICENSE": ("uplot/LICENSE", "text/plain"),
}
UPSTREAM_PATH = re.compile(r"/admin/upstreams/([^/]+)/(limit|drain|resume)")
SEATS_MAX = 1_000_000

log = structlog.get_logger()


class AdminTarget(Protocol):
    """What the listener needs of the process. `hold_limit` and `drain_upstream` raise LookupError for unknown names."""

    def snapshot(self, now: float) -> Snapshot: ...
    def targets(self) -> Mapping[str, Target]: ...
    def outcomes(self) -> Mapping[str, int]: ...
    def totals(self) -> Mapping[str, int]: ...
    def server_info(self) -> Mapping[str, Any]: ...
    def ready(self) -> tuple[bool, str]: ...
    def reload(self) -> Awaitable[tuple[bool, str]]: ...
    def drain(self) -> None: ...
    def hold_limit(self, name: str, seats: int | None) -> None: ...
    def drain_upstream(self, name: str, draining: bool) -> None: ...


class AdminError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str, allow: str = "") -> None:
        super().__init__(message)
        self.answer = _error(status, code, message, allow)


def _json(status: int, document: Mapping[str, Any]) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(document), content_type="application/json", headers=SAFE_HEADERS
    )


def _error(status: int, code: str, message: str, allow: str = "") -> web.Response:
    kind = "internal_error" if status >= 500 else "invalid_request_error"
    answer = _json(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})
    if allow:
        answer.headers["Allow"] = allow
    if status == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="penstock admin"'
    return answer


def _malformed(status: int) -> web.Response:
    return _error(status, "malformed_request", "The request is not valid HTTP.")


class AdminListener:
    """The listener with its routes. `start` binds (OSError where it cannot), `close` ends event streams at once."""

    def __init__(
        self,
        config: AdminConfig,
        target: AdminTarget,
        metrics: MetricsPage,
        clock: Callable[[], float],
        event_interval_s: float = EVENT_INTERVAL_S,
    ) -> None:
        self.config = config
        self.guard = Guard(config)
        self._target = target
        self._metrics = metrics
        self._clock = clock
        self._interval_s = event_interval_s
        self._closing = asyncio.Event()
        self._subscribers = 0
        self._history = History()
        self._past: tuple[float, bytes] = (float("-inf"), b"")
        self._state: tuple[float, bytes] = (float("-inf"), b"")
        self.connections = Connections(self._answer, _malformed, clock)
        self._runner = web.ServerRunner(self.connections, shutdown_timeout=SHUTDOWN_S)
        folder = files("proxy.server") / "status_page"
        self._pages = {path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in PAGE_FILES.items()}
        self._routes: dict[str, dict[str, Handler]] = {
            "/health": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self._render_metrics},
            "/admin/state": {"GET": self._show_state},
            "/admin/events": {"GET": self._stream_events},
            "/admin/history": {"GET": self._show_history},
            "/admin/reload": {"POST": self._reload},
            "/admin/drain": {"POST": self._drain},
            **{path: {"GET": self._page} for path in PAGE_FILES},
        }
        self._upstream_routes: dict[str, dict[str, Handler]] = {
            "limit": {"PUT": self._hold_limit},
            "drain": {"POST": self._drain_upstream},
            "resume": {"POST": self._drain_upstream},
        }

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, self.config.host, self.config.port).start()
        if self.guard.locked:
            log.warning(
                "admin listener is reachable from elsewhere without a token: only /health, /ready and /metrics answer",
                remedy="set admin.token",
            )

    @property
    def port(self) -> int:
        """The bound port, also where the configuration says 0."""
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The one entrance: rules, then route, then whatever goes wrong in our shape."""
        refused = self.guard.refusal(request.method, request.path, request.headers)
        if refused is not None:
            return _error(refused.status, refused.code, refused.message)
        try:
            return await self._handler(request)(request)
        except AdminError as error:
            return error.answer
        except ConnectionError:
            raise  # the client has left
        except Exception:
            log.exception("admin request failed", path=request.path)
            return _error(500, "internal_error", "Internal error.")

    def _handler(self, request: web.BaseRequest) -> Handler:
        match = UPSTREAM_PATH.fullmatch(request.path)
        methods = self._upstream_routes[match[2]] if match else self._routes.get(request.path)
        if methods is None:
            raise AdminError(404, "not_found", "Unknown path.")
        handler = methods.get("GET" if request.method in READS else request.method)
        if handler is None:
            allow = ", ".join(["GET, HEAD" if method == "GET" else method for method in methods])
            raise AdminError(405, "method_not_allowed", "This path takes another method.", allow)
        return handler

    async def _health(self, request: web.BaseRequest) -> web.Response:
        return _json(200, {"status": "ok"})

    async def _ready(self, request: web.BaseRequest) -> web.Response:
        ready, reason = self._target.ready()
        return _json(200, {"status": "ready"}) if ready else _json(503, {"status": "not ready", "reason": reason})

    async def _render_metrics(self, request: web.BaseRequest) -> web.Response:
        openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "")
        text = await self._metrics.render(openmetrics)
        headers = {**SAFE_HEADERS, "Content-Type": OPENMETRICS if openmetrics else PLAIN}
        return web.Response(body=text, headers=headers)

    async def _page(self, request: web.BaseRequest) -> web.Response:
        body, kind = self._pages[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=PAGE_HEADERS)

    def _state_json(self) -> bytes:
        """The document, made once per half interval however many ask."""
        now = self._clock()
        made_s, text = self._state
        if now - made_s >= self._interval_s / 2:
            target = self._target
            document = state_document(
                target.snapshot(now), target.targets(), target.server_info(), target.outcomes(), target.totals()
            )
            text = orjson.dumps(document)
            self._state = (now, text)
        return text

    async def _show_state(self, request: web.BaseRequest) -> web.Response:
        self._state = (float("-inf"), b"")  # a single question deserves the present
        return web.Response(body=self._state_json(), content_type="application/json", headers=SAFE_HEADERS)

    def note(self) -> None:
        """Remember this moment for the chart, and end silent connections; called once a second."""
        self.connections.sweep()
        target = self._target
        self._history.note(target.snapshot(self._clock()), target.targets(), target.totals())

    async def _show_history(self, request: web.BaseRequest) -> web.Response:
        now = self._clock()
        made_s, text = self._past
        if now - made_s >= self._interval_s:  # one copy of the rows an interval, however many ask
            text = orjson.dumps(self._history.document(now))
            self._past = (now, text)
        return web.Response(body=text, content_type="application/json", headers=SAFE_HEADERS)

    async def _stream_events(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "HEAD":  # there is no body to wait for
            return web.Response(headers=EVENT_HEADERS)
        if self._subscribers >= SUBSCRIBERS_MAX:
            raise AdminError(503, "too_many_subscribers", f"At most {SUBSCRIBERS_MAX} event streams are open at once.")
        self._subscribers += 1
        try:
            stream = web.StreamResponse(headers=EVENT_HEADERS)
            await stream.prepare(request)
            await self._send_events(stream)
        finally:
            self._subscribers -= 1
        return stream

    async def _send_events(self, stream: web.StreamResponse) -> None:
        """One event per interval until the listener closes, or the client leaves or stops reading."""
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await stream.write(b"event: state\ndata: %b\n\n" % self._state_json())
            except (ConnectionError, TimeoutError):
                return
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._closing.wait()
            except TimeoutError:
                continue

    async def _reload(self, request: web.BaseRequest) -> web.Response:
        applied, message = await self._target.reload()
        if not applied:
            raise AdminError(400, "invalid_configuration", message)
        return _json(200, {"result": "applied", "message": message})

    async def _drain(self, request: web.BaseRequest) -> web.Response:
        self._target.drain()
        return _json(202, {"result": "draining"})

    async def _hold_limit(self, request: web.BaseRequest) -> web.Response:
        name, _ = _upstream_of(request)
        seats = await _seats_of(request)
        try:
            self._target.hold_limit(name, seats)
        except LookupError:
            raise AdminError(404, "upstream_not_found", "No upstream has this name.") from None
        return _json(200, {"upstream": name, "limit": seats, "held": seats is not None})

    async def _drain_upstream(self, request: web.BaseRequest) -> web.Response:
        name, action = _upstream_of(request)
        try:
            self._target.drain_upstream(name, action == "drain")
        except LookupError:
            raise AdminError(404, "upstream_not_found", "No upstream has this name.") from None
        return _json(200, {"upstream": name, "draining": action == "drain"})


def _upstream_of(request: web.BaseRequest) -> tuple[str, str]:
    match = UPSTREAM_PATH.fullmatch(request.path)
    assert match is not None
    return match[1], match[2]


async def _seats_of(request: web.BaseRequest) -> int | None:
    """The body `{"limit": N}` or `{"limit": null}`."""
    wanted = AdminError(400, "invalid_value", f'Send {{"limit": N}} with N from 1 to {SEATS_MAX}, or null to let go.')
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            document = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise wanted from None
    except web.HTTPRequestEntityTooLarge:
        raise AdminError(413, "body_too_large", "The body is too large.") from None
    except TimeoutError:
        raise AdminError(408, "body_timeout", "The body took too long.") from None
    if not isinstance(document, dict) or document.keys() != {"limit"}:
        raise wanted
    seats = document["limit"]
    if seats is not None and (type(seats) is not int or not 1 <= seats <= SEATS_MAX):
        raise wanted
    return seats
