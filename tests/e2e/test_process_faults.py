"""The process short of files, with nobody reading its log, and with its admin listener under siege."""

from __future__ import annotations

import os
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.load import Load
from tests.e2e.raw_client import Answer, RawClient, bare, chat, is_refusal, post
from tests.e2e.scripted_upstream import HOST, Do, ScriptedUpstream, answer, wait_for

TOKEN = "token-of-the-operator"


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedUpstream]:
    made = ScriptedUpstream()
    yield made
    made.close()


@pytest.fixture(scope="module")
def proxy(engine: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    config = settings(
        upstream("one", engine.url, "m", seats=20), listen={"head_timeout_s": 30}, admin={"token": TOKEN},
        routing={"response_timeout_s": 10}, breaker={"min_requests": 1, "failure_ratio": 0.1},
    )  # fmt: skip
    with running(tmp_path_factory.mktemp("faults"), config) as made:
        yield made


HEALTH = bare("GET /health HTTP/1.1")


def is_served(proxy: ProxyProcess) -> bool:
    with RawClient(proxy.port) as client:
        return is_answered(client, post(chat()))


def is_answered(client: RawClient, request: bytes = HEALTH) -> bool:
    try:
        return client.send(request).answer().status == 200
    except (AssertionError, OSError):  # turned away
        return False


def is_readable(client: RawClient) -> bool:
    return bool(select.select([client.socket], [], [], 0)[0])


def cpu_s(proxy: ProxyProcess) -> float:
    fields = Path(f"/proc/{proxy.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def few_files(proxy: ProxyProcess, more: int) -> Iterator[None]:
    """So many files more than the process has open now."""
    pid = proxy.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + more, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_p04_without_free_files_it_neither_spins_nor_falls_tells_why_and_recovers(proxy: ProxyProcess) -> None:
    with few_files(proxy, 20), ExitStack() as stack:
        clients = [stack.enter_context(RawClient(proxy.port)) for _ in range(100)]
        started_s, used_s = time.monotonic(), cpu_s(proxy)
        time.sleep(0.7)
        assert cpu_s(proxy) - used_s < 0.3 * (time.monotonic() - started_s)
        assert sum(map(is_answered, clients)) >= 10, "those who came in are served"
        refused = wait_for(lambda: told_503(proxy), "who comes now hears why")
        is_refusal(refused, 503, "server_is_overloaded")
        assert "short of open files" in refused.error["message"]
        assert (refused.headers["retry-after"], refused.headers["connection"]) == ("5", "close")
        for client in clients:
            client.socket.close()
        wait_for(lambda: is_served(proxy), "it serves again, with as few as before")
    assert proxy.log().count('"event":"short of open files"') == 1, "a line in ten seconds"
    assert proxy.metric("penstock_short_of_files_total", side="client") > 1


def told_503(proxy: ProxyProcess) -> Answer | None:
    try:
        with RawClient(proxy.port) as client:
            return client.send(HEALTH).answer()
    except (AssertionError, OSError):  # one of the very last files
        return None


def test_p04_an_upstream_is_not_blamed_for_files_that_the_proxy_lacks(
    proxy: ProxyProcess, engine: ScriptedUpstream
) -> None:
    engine.reset(Do.HOLD, answer())
    time.sleep(1.1)  # the page is a second old at most
    before = proxy.metric("penstock_short_of_files_total", side="upstream")
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(proxy.port)) for _ in range(10)]
        for client in clients:
            assert is_answered(client)
        stack.enter_context(few_files(proxy, 5))
        for client in clients:  # each needs a second file
            client.send(post(chat(), headers=["x-priority: high"]))
        wait_for(lambda: len(engine.calls) + sum(map(is_readable, clients)) == len(clients), "sent on, or answered")
        engine.release.set()
        found = [client.answer() for client in clients]
    assert {one.status for one in found} == {200, 503}
    for one in found:
        if one.status == 503:
            is_refusal(one, 503, "server_is_overloaded")
            assert "short of open files" in one.error["message"]
    assert proxy.upstream("one")["breaker"] == "closed"
    short = sum(one.status == 503 for one in found)
    proxy.wait_metric(before + short, "penstock_short_of_files_total", side="upstream")
    assert_clean(proxy)
    engine.reset()
    assert is_served(proxy)


def test_p08_with_nobody_reading_its_log_every_request_is_served(engine: ScriptedUpstream, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    config = settings(upstream("one", engine.url, "m"))
    proxy = ProxyProcess(tmp_path, config, stdout=writer)
    os.close(writer)
    try:
        proxy.wait_alive("/ready")
        with Load(proxy.port, workers=8, pause_s=0) as load:
            load.wait_more(400)  # more lines than the pipe and one batch hold
        assert load.bad() == []
        assert_clean(proxy)
        ended_s = time.monotonic()
        assert proxy.stop() == 0
        assert time.monotonic() - ended_s < 4.0
    finally:
        os.close(reader)
        proxy.stop()


def test_p08_what_cannot_be_logged_is_counted_and_every_request_is_served(
    engine: ScriptedUpstream, tmp_path: Path
) -> None:
    """Standard output is a disk that is full from the first word on."""
    output = os.open("/dev/full", os.O_WRONLY)
    engine.reset()
    proxy = ProxyProcess(tmp_path, settings(upstream("one", engine.url, "m")), stdout=output)
    os.close(output)
    try:
        proxy.wait_alive("/ready")
        for _ in range(20):
            assert is_served(proxy)
        assert_clean(proxy)
        wait_for(lambda: proxy.metric("penstock_log_lines_dropped_total") >= 20, "the lines are counted")
        assert proxy.stop() == 0
    finally:
        proxy.stop()


def test_p09_p10_a_siege_of_the_admin_listener_leaves_the_public_one_alone(proxy: ProxyProcess) -> None:
    scrape = bare("GET /metrics HTTP/1.1", host="Host: localhost")
    lines = ("Authorization: Bearer wrong-token-of-it", "Content-Length: 0")
    wrong = bare("POST /admin/drain HTTP/1.1", *lines, host="Host: localhost")
    lag = proxy.metric("penstock_event_loop_lag_seconds_count"), proxy.metric("penstock_event_loop_lag_seconds_sum")
    with ExitStack() as stack, Load(proxy.port, workers=4) as load:
        for _ in range(20):  # scrapers that ask and never read
            stalled = stack.enter_context(closing(socket.socket()))
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            stalled.connect((HOST, proxy.admin_port))
            stalled.sendall(scrape * 20)
        for _ in range(100):  # heads that never become whole
            stack.enter_context(RawClient(proxy.admin_port)).send(scrape[:-2])
        admin = stack.enter_context(RawClient(proxy.admin_port))
        for _ in range(50):
            assert admin.send(scrape).answer().status == 200
            refused = admin.send(wrong).answer()
            assert (refused.status, refused.error["code"]) == (401, "invalid_token")
        load.wait_more(50)
        flood = [stack.enter_context(RawClient(proxy.admin_port)) for _ in range(300)]
        assert all(one.closed() for one in flood[200:]), "more than 256 are not let in"
    assert load.bad() == []
    proxy.wait_alive("/ready")  # no wrong token drained it
    time.sleep(1.1)  # the page is a second old at most
    count = proxy.metric("penstock_event_loop_lag_seconds_count") - lag[0]
    assert (proxy.metric("penstock_event_loop_lag_seconds_sum") - lag[1]) / count < 0.05
