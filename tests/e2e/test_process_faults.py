"""The process short of files, with nobody reading its log, and with its admin listener under siege."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.load import Load
from tests.e2e.raw_client import RawClient, bare, chat, post
from tests.e2e.scripted_upstream import HOST, ScriptedUpstream, wait_for

TOKEN = "token-of-the-operator"


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedUpstream]:
    made = ScriptedUpstream()
    yield made
    made.close()


@pytest.fixture(scope="module")
def proxy(engine: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    config = settings(upstream("one", engine.url, "m"), listen={"head_timeout_s": 30}, admin={"token": TOKEN})
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


def cpu_s(proxy: ProxyProcess) -> float:
    fields = Path(f"/proc/{proxy.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_p04_without_free_files_it_neither_spins_nor_falls_and_recovers(proxy: ProxyProcess) -> None:
    pid = proxy.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    allowed = len(list(Path(f"/proc/{pid}/fd").iterdir())) + 20
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (allowed, before[1]))
    with ExitStack() as stack:
        stack.callback(resource.prlimit, pid, resource.RLIMIT_NOFILE, before)
        clients = [stack.enter_context(RawClient(proxy.port)) for _ in range(100)]
        started_s, used_s = time.monotonic(), cpu_s(proxy)
        time.sleep(1.0)
        assert cpu_s(proxy) - used_s < 0.3 * (time.monotonic() - started_s)
        assert sum(map(is_answered, clients)) >= 10, "those who came in are served"
        for client in clients:
            client.socket.close()
        wait_for(lambda: is_served(proxy), "it serves again, with as few as before")


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
        admin = stack.enter_context(RawClient(proxy.admin_port))
        for _ in range(50):
            assert admin.send(scrape).answer().status == 200
            refused = admin.send(wrong).answer()
            assert (refused.status, refused.error["code"]) == (401, "invalid_token")
        load.wait_more(50)
    assert load.bad() == []
    assert proxy.admin("/ready")[0] == 200, "no wrong token drained it"
    time.sleep(1.1)  # the page is a second old at most
    count = proxy.metric("penstock_event_loop_lag_seconds_count") - lag[0]
    assert (proxy.metric("penstock_event_loop_lag_seconds_sum") - lag[1]) / count < 0.05
