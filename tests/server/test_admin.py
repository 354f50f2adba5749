from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from itertools import count
from typing import Any

import aiohttp
import orjson
import pytest
import structlog

from proxy.adapters.gauges import Scrape
from proxy.adapters.metrics import Metrics, MetricsConfig
from proxy.adapters.metrics_page import MetricsPage
from proxy.admission.limits import Target
from proxy.dispatcher.snapshot import Snapshot
from proxy.server.admin import PAGE_FILES, SUBSCRIBERS_MAX, AdminListener
from proxy.server.admin_guard import AdminConfig
from tests.snapshots import NOW_S, TARGETS, snapshot, upstream


class Process:
    """The part of the process that the listener steers."""

    def __init__(self) -> None:
        self.is_ready = True
        self.reload_answer = (True, "2 upstreams")
        self.calls: list[tuple[Any, ...]] = []
        self.broken = False
        self.snapshots = 0

    def snapshot(self, now: float) -> Snapshot:
        self.snapshots += 1
        if self.broken:
            raise RuntimeError("planted-secret")
        return snapshot(upstream())

    def targets(self) -> Mapping[str, Target]:
        return TARGETS

    def outcomes(self) -> Mapping[str, int]:
        return {"success": 5}

    def totals(self) -> Mapping[str, int]:
        return {"requests": 6, "good": 4}

    def server_info(self) -> Mapping[str, Any]:
        return {"version": "1.2.3", "config_hash": "abc"}

    def ready(self) -> tuple[bool, str]:
        return self.is_ready, "" if self.is_ready else "no usable upstream"

    async def reload(self) -> tuple[bool, str]:
        return self.reload_answer

    def drain(self) -> None:
        self.calls.append(("drain",))

    def hold_limit(self, name: str, seats: int | None) -> None:
        self._known(name)
        self.calls.append(("hold", name, seats))

    def drain_upstream(self, name: str, draining: bool) -> None:
        self._known(name)
        self.calls.append(("drain", name, draining))

    @staticmethod
    def _known(name: str) -> None:
        if name != "vllm-0":
            raise KeyError(name)


class Client:
    """Asks a running listener over a real socket."""

    def __init__(self, session: aiohttp.ClientSession, listener: AdminListener, process: Process) -> None:
        self.session = session
        self.listener = listener
        self.process = process
        self.base = f"http://127.0.0.1:{listener.port}"

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any, aiohttp.ClientResponse]:
        async with self.session.request(method, self.base + path, **options) as answer:
            body = await answer.read()
            is_json = answer.content_type == "application/json" and body
            return answer.status, orjson.loads(body) if is_json else body, answer

    async def raw(self, sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        writer.write(sent)
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def running(config: AdminConfig, step_s: float = 1.0) -> AsyncIterator[Client]:
    process = Process()
    metrics = Metrics(MetricsConfig(("high", "low"), version="1"))
    page = MetricsPage(Scrape(metrics, lambda: snapshot(upstream()), lambda: TARGETS))
    clock = count(NOW_S, step_s)
    listener = AdminListener(config, process, page, lambda: next(clock), event_interval_s=0.01)
    await listener.start()
    async with aiohttp.ClientSession() as session:
        try:
            yield Client(session, listener, process)
        finally:
            await listener.close()


def play(scene: Callable[[Client], Coroutine[Any, Any, None]], **config: Any) -> None:
    async def whole() -> None:
        async with running(AdminConfig(port=0, **config)) as client:
            await scene(client)

    asyncio.run(whole())


def test_health_readiness_and_state() -> None:
    async def scene(client: Client) -> None:
        assert (await client.ask("GET", "/health"))[:2] == (200, {"status": "ok"})
        assert (await client.ask("GET", "/ready"))[:2] == (200, {"status": "ready"})
        client.process.is_ready = False
        assert (await client.ask("GET", "/ready"))[:2] == (503, {"status": "not ready", "reason": "no usable upstream"})
        status, state, answer = await client.ask("GET", "/admin/state")
        assert (status, state["version"], state["server"]["config_hash"]) == (200, 1, "abc")
        assert answer.headers["Cache-Control"] == "no-store"
        assert (await client.ask("HEAD", "/health"))[0] == 200

    play(scene)


OPENMETRICS = "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accept", "kind", "end"),
    [("*/*", "text/plain", b"\n"), (f"{OPENMETRICS};version=1.0.0,*/*;q=0.1", OPENMETRICS, b"# EOF\n")],
)
def test_metrics_come_in_the_form_asked_for(accept: str, kind: str, end: bytes) -> None:
    async def scene(client: Client) -> None:
        status, text, answer = await client.ask("GET", "/metrics", headers={"Accept": accept})
        assert (status, answer.content_type) == (200, kind)
        assert b'penstock_concurrency_limit{upstream="vllm-0"} 12.6\n' in text
        assert text.endswith(end)

    play(scene)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "call"),
    [
        ("POST", "/admin/drain", None, 202, ("drain",)),
        ("POST", "/admin/upstreams/vllm-0/drain", None, 200, ("drain", "vllm-0", True)),
        ("POST", "/admin/upstreams/vllm-0/resume", None, 200, ("drain", "vllm-0", False)),
        ("PUT", "/admin/upstreams/vllm-0/limit", b'{"limit": 7}', 200, ("hold", "vllm-0", 7)),
        ("PUT", "/admin/upstreams/vllm-0/limit", b'{"limit": null}', 200, ("hold", "vllm-0", None)),
    ],
)
def test_writes_reach_the_process(
    method: str, path: str, body: bytes | None, status: int, call: tuple[object, ...]
) -> None:
    async def scene(client: Client) -> None:
        assert (await client.ask(method, path, data=body))[0] == status
        assert client.process.calls == [call]

    play(scene)


SECRET_PATH = "/planted-secret"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", SECRET_PATH, None, 404, "not_found"),
        ("GET", "/admin/upstreams/a/b/limit", None, 404, "not_found"),
        ("GET", "/admin/reload", None, 405, "method_not_allowed"),
        ("DELETE", "/admin/upstreams/vllm-0/limit", None, 405, "method_not_allowed"),
        ("POST", "/health", None, 405, "method_not_allowed"),
        ("POST", "/admin/upstreams/planted-secret/drain", None, 404, "upstream_not_found"),
        ("PUT", "/admin/upstreams/planted-secret/limit", b'{"limit": 1}', 404, "upstream_not_found"),
        ("PUT", "/admin/upstreams/vllm-0/limit", b"planted-secret", 400, "invalid_value"),
        ("PUT", "/admin/upstreams/vllm-0/limit", b"", 400, "invalid_value"),
        ("PUT", "/admin/upstreams/vllm-0/limit", b"[1]", 400, "invalid_value"),
        ("PUT", "/admin/upstreams/vllm-0/limit", b'{"limit": 0}', 400, "invalid_value"),
        ("PUT", "/admin/upstreams/vllm-0/limit", b'{"limit": true}', 400, "invalid_value"),
        ("PUT", "/admin/upstreams/vllm-0/limit", b'{"limit": 1.5}', 400, "invalid_value"),
        ("PUT", "/admin/upstreams/vllm-0/limit", b'{"limit": 1, "planted-secret": 2}', 400, "invalid_value"),
        ("PUT", "/admin/upstreams/vllm-0/limit", b" " * 2_000_000, 413, "body_too_large"),
    ],
)
def test_every_error_has_our_shape_and_echoes_nothing(
    method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    async def scene(client: Client) -> None:
        got, document, answer = await client.ask(method, path, data=BytesIO(body) if body else None)
        assert (got, document["error"]["code"]) == (status, code)
        assert document["error"].keys() == {"message", "type", "param", "code"}
        assert "planted-secret" not in str(document)
        assert ("Allow" in answer.headers) == (status == 405)
        assert client.process.calls == []

    play(scene)


def test_405_names_what_is_allowed() -> None:
    async def scene(client: Client) -> None:
        assert (await client.ask("POST", "/metrics"))[2].headers["Allow"] == "GET, HEAD"
        assert (await client.ask("GET", "/admin/drain"))[2].headers["Allow"] == "POST"

    play(scene)


def test_malformed_requests_are_answered_without_their_bytes() -> None:
    async def scene(client: Client) -> None:
        answer = await client.raw(b"GET /health HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer planted\x00secret\r\n\r\n")
        assert answer.startswith(b"HTTP/1.")
        assert b" 400 " in answer.split(b"\r\n", 1)[0]
        assert b"malformed_request" in answer
        assert b"planted" not in answer

    play(scene)


def test_our_own_fault_is_a_500_that_tells_nothing() -> None:
    async def scene(client: Client) -> None:
        client.process.broken = True
        with structlog.testing.capture_logs() as told:
            status, document, _ = await client.ask("GET", "/admin/state")
        assert (status, document["error"]["code"]) == (500, "internal_error")
        assert "planted-secret" not in str(document)
        assert [line["event"] for line in told] == ["admin request failed"]

    play(scene)


def test_reload_tells_what_was_applied_or_what_is_wrong() -> None:
    async def scene(client: Client) -> None:
        assert (await client.ask("POST", "/admin/reload"))[:2] == (200, {"result": "applied", "message": "2 upstreams"})
        client.process.reload_answer = (False, "penstock.yaml:3 classes: floors add up to more than 1")
        status, document, _ = await client.ask("POST", "/admin/reload")
        assert (status, document["error"]["code"]) == (400, "invalid_configuration")
        assert document["error"]["message"].startswith("penstock.yaml:3")

    play(scene)


def test_the_token_opens_writes_and_a_wrong_one_does_not() -> None:
    async def scene(client: Client) -> None:
        status, document, answer = await client.ask("POST", "/admin/drain")
        assert (status, document["error"]["code"]) == (401, "invalid_token")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        wrong = {"Authorization": "Bearer planted-secret"}
        assert (await client.ask("POST", "/admin/drain", headers=wrong))[0] == 401
        raw = await client.raw(b"POST /admin/drain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                               b"Authorization: Bearer \xff\xe9\r\nContent-Length: 0\r\n\r\n")  # fmt: skip
        assert raw.startswith(b"HTTP/1.1 401 ")
        assert client.process.calls == []
        assert (await client.ask("POST", "/admin/drain", headers={"Authorization": "Bearer s3cret-token"}))[0] == 202

    play(scene, token="s3cret-token")


def test_elsewhere_without_a_token_little_answers_and_a_warning_says_so() -> None:
    async def whole() -> None:
        with structlog.testing.capture_logs() as told:
            async with running(AdminConfig(host="0.0.0.0", port=0)) as client:
                assert [(await client.ask("GET", path))[0] for path in ("/health", "/ready", "/metrics")] == [200] * 3
                assert [(await client.ask("GET", path))[0] for path in ("/", "/admin/state", "/no")] == [403] * 3
        assert [line["remedy"] for line in told] == ["set admin.token"]

    asyncio.run(whole())


async def next_event(answer: aiohttp.ClientResponse) -> Any:
    name, data, blank = [await answer.content.readline() for _ in range(3)]
    assert (name, blank) == (b"event: state\n", b"\n")
    return orjson.loads(data.removeprefix(b"data: "))


def test_events_come_again_and_again_and_end_with_the_listener() -> None:
    async def scene(client: Client) -> None:
        async with client.session.get(client.base + "/admin/events") as answer:
            assert answer.content_type == "text/event-stream"
            assert (await client.ask("HEAD", "/admin/events"))[2].content_type == "text/event-stream"
            for _ in range(3):
                assert (await next_event(answer))["version"] == 1
            await client.listener.close()
            await answer.content.read()
            assert answer.content.at_eof()

    play(scene)


def test_one_document_serves_all_who_listen_at_one_moment() -> None:
    async def whole() -> None:
        async with running(AdminConfig(port=0), step_s=0.0) as client:
            streams = [await client.session.get(client.base + "/admin/events") for _ in range(3)]
            for _ in range(2):
                assert [(await next_event(stream))["version"] for stream in streams] == [1, 1, 1]
            assert client.process.snapshots == 1
            await client.ask("GET", "/admin/state")
            assert client.process.snapshots == 2
            for stream in streams:
                stream.close()

    asyncio.run(whole())


def test_event_streams_are_bounded_and_places_come_back() -> None:
    async def scene(client: Client) -> None:
        streams = [await client.session.get(client.base + "/admin/events") for _ in range(SUBSCRIBERS_MAX)]
        status, document, _ = await client.ask("GET", "/admin/events")
        assert (status, document["error"]["code"]) == (503, "too_many_subscribers")
        streams.pop().close()
        for _ in range(500):  # the next event finds the connection closed
            if (reopened := await client.session.get(client.base + "/admin/events")).status == 200:
                break
            await reopened.read()
        assert reopened.status == 200
        for stream in [*streams, reopened]:
            stream.close()

    play(scene)


@pytest.mark.parametrize("path", sorted(PAGE_FILES))
def test_the_page_is_self_contained_and_fenced_in(path: str) -> None:
    async def scene(client: Client) -> None:
        status, body, answer = await client.ask("GET", path)
        assert (status, answer.content_type) == (200, PAGE_FILES[path][1])
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert body

    play(scene)


def test_the_past_is_remembered_whether_anybody_looks_or_not() -> None:
    async def scene(client: Client) -> None:
        client.listener.note()
        client.listener.note()
        status, document, _ = await client.ask("GET", "/admin/history")
        assert (status, document["version"], document["totals"]["good"]) == (200, 1, [4, 4])
        assert document["upstreams"]["vllm-0"]["in_flight"] == [9, 9]
        client.listener.note()
        assert len((await client.ask("GET", "/admin/history"))[1]["queued"]) == 3

    play(scene)


def test_one_copy_of_the_past_serves_all_who_ask_at_one_moment() -> None:
    async def whole() -> None:
        async with running(AdminConfig(port=0), step_s=0.0) as client:
            client.listener.note()
            for _ in range(2):
                assert len((await client.ask("GET", "/admin/history"))[1]["queued"]) == 1
                client.listener.note()

    asyncio.run(whole())


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.server.admin.BODY_TIMEOUT_S", 0.01)

    async def scene(client: Client) -> None:
        head = b"PUT /admin/upstreams/vllm-0/limit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n"
        answer = await client.raw(head + b"Connection: close\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"body_timeout" in answer

    play(scene)
