"""Memory stays flat: over twenty thousand faulty requests, and under readers that do not read."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.raw_client import CHAT, RawClient, bare, chat, post
from tests.e2e.scripted_upstream import (
    STREAM_HEAD,
    Do,
    Script,
    ScriptedUpstream,
    answer,
    chunk,
    token,
    wait_for,
    whole_stream,
)

PAGE_BYTES = 4096
HALF = 10_000
SLACK_BYTES = 1_500_000  # an allocator takes memory in arenas of a megabyte
STALLED = 40
ENDLESS = 8_000_000

SCRIPTS: list[Script] = [
    (answer(),),
    (whole_stream(),),
    (answer("busy", 503),),
    (answer("x" * 30_000, 500),),
    (Do.RESET,),
    (STREAM_HEAD + chunk(token()), Do.RESET),
    (STREAM_HEAD + chunk(b"data: {"), Do.CLOSE),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", Do.CLOSE),
    (b"no HTTP\r\n", Do.CLOSE),
]


def faults(number: int) -> bytes:
    """One of the things that clients do wrong; names never repeat, so that what is kept by name would grow."""
    unique = f"{number:x}" * 4
    return [
        post(chat(unique)),
        post(chat(user=unique, stream=True), headers=[f"X-{unique}: a", f"x-request-id: {unique}"]),
        post(chat(), headers=[f"x-priority: {unique}"]),
        post(b"{" + unique.encode()),
        bare(f"GET /{unique} HTTP/1.1"),
        bare(f"{unique[:8].upper()} {CHAT} HTTP/1.1"),
        post(chat(), headers=[f"Authorization: Bearer {unique}", f"Authorization: Bearer {unique}"]),
        bare(f"POST {CHAT} HTTP/1.1", "Content-Length: 99", f"x-tenant-id: {unique}"),
        post(chat(pad=unique * 500))[:-20],
        bare(f"POST {CHAT} HTTP/1.1", "Transfer-Encoding: chunked") + b"zz\r\n",
    ][number % 10]


def rss_bytes(proxy: ProxyProcess) -> int:
    return int(Path(f"/proc/{proxy.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[ProxyProcess, ScriptedUpstream]]:
    engine = ScriptedUpstream()
    patience = dict.fromkeys(
        ("connect_timeout_s", "ttft_timeout_s", "itl_timeout_s", "response_timeout_s"), 20
    )  # a busy machine is no fault
    config = settings(
        upstream("one", engine.url, "m", seats=64),
        log={"sample_rate": 0.0},
        metrics={"top_tenants": 10},
        routing=patience,
    )
    with running(tmp_path, config) as proxy:
        yield proxy, engine
    engine.close()


@pytest.mark.system
def test_ten_thousand_faulty_requests_more_take_no_more_memory(faulty: tuple[ProxyProcess, ScriptedUpstream]) -> None:
    proxy, engine = faulty
    rng = random.Random(1)

    def one(number: int) -> None:
        with RawClient(proxy.port) as client, suppress(TimeoutError):
            client.socket.settimeout(1.0)
            client.send(faults(number))
            if number % 10 not in (7, 8):  # these two wait for more
                client.receive()

    def many(first: int) -> int:
        engine.scripts = [rng.choice(SCRIPTS) for _ in range(HALF)]
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(one, range(first, first + HALF)))
        engine.reset()
        assert_clean(proxy, 5.0)
        return rss_bytes(proxy)

    many(0)
    before = many(HALF)
    after = many(2 * HALF)
    print(f"{before / 1e6:.1f} MB, and {after / 1e6:.1f} MB after {HALF} further faults")
    assert after - before < max(0.02 * before, SLACK_BYTES)


def test_readers_that_do_not_read_hold_no_memory(faulty: tuple[ProxyProcess, ScriptedUpstream]) -> None:
    """Forty stalled readers of eight megabytes each: what is kept for each is one buffer, and it is given back."""
    proxy, engine = faulty
    piece = chunk(token("x" * 100_000))
    engine.reset(STREAM_HEAD, *[piece] * (ENDLESS // len(piece)), Do.HOLD)
    before = rss_bytes(proxy)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(proxy.port, receive_bytes=4096)) for _ in range(STALLED)]
        request = post(chat(stream=True), headers=["x-priority: high"])
        most = 0
        for client in clients:
            client.send(request)
        until_s = time.monotonic() + 3.0
        while time.monotonic() < until_s:
            most = max(most, rss_bytes(proxy) - before)
            time.sleep(0.02)
        assert most < STALLED * 1_000_000
        wait_for(
            lambda: proxy.metric("penstock_requests_total", outcome="client_stalled") >= STALLED, "all are cut", 40
        )
    assert_clean(proxy, 5.0)
