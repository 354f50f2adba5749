"""Hosts that vanish: no FIN, no RST, nothing acknowledged. And those that come back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.raw_client import RawClient, chat, is_refusal, post
from tests.e2e.scripted_upstream import (
    STREAM_HEAD,
    Do,
    ScriptedUpstream,
    answer,
    chunk,
    token,
    wait_for,
    whole_stream,
)

WATCHFUL = {"interval_s": 0.1, "timeout_s": 0.3, "fail_after": 2, "pass_after": 1}
KEEP_ALIVE_TIMER = "02"  # `tr` in proc(5) net/tcp


def timers(proxy: ProxyProcess, port: int) -> list[str]:
    """Which timer each established connection to or from a port has in the kernel."""
    lines = Path(f"/proc/{proxy.process.pid}/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return [row[5][:2] for row in rows if row[3] == "01" and row[2].endswith(f":{port:04X}")]


@dataclass
class Pair:
    proxy: ProxyProcess
    lost: ScriptedUpstream
    left: ScriptedUpstream

    def healthy(self, name: str) -> bool:
        found: bool = self.proxy.upstream(name)["healthy"]
        return found


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    lost, left = ScriptedUpstream(models=("m", "lost")), ScriptedUpstream()
    config = settings(
        upstream("lost", lost.url, "m", "lost"), upstream("left", left.url, "m"), probe=WATCHFUL,
        routing={"itl_timeout_s": 0.6, "ttft_timeout_s": 0.6, "response_timeout_s": 0.8, "connect_timeout_s": 0.3},
    )  # fmt: skip
    with running(tmp_path, config) as proxy:
        yield Pair(proxy, lost, left)
    for one in (lost, left):
        one.close()


def test_u27_each_exchange_with_a_host_that_vanished_ends_within_its_cap_and_the_rest_goes_elsewhere(
    pair: Pair,
) -> None:
    proxy, lost = pair.proxy, pair.lost
    lost.scripts = [(answer(),), (STREAM_HEAD + chunk(token()), Do.HOLD), (Do.HOLD,)]
    with ExitStack() as stack:
        pooled, streams, waits, late = (stack.enter_context(RawClient(proxy.port)) for _ in range(4))
        streaming = post(chat("lost", stream=True))
        assert pooled.send(post(chat("lost"))).answer().status == 200
        streams.send(streaming).read_until(b"data: ")
        waits.send(post(chat("lost")))
        lost.wait_calls(3)
        client_port = waits.socket.getsockname()[1]
        wait_for(lambda: KEEP_ALIVE_TIMER in timers(proxy, lost.port), "the kernel watches the upstream")
        wait_for(lambda: KEEP_ALIVE_TIMER in timers(proxy, client_port), "and the client")
        lost.vanish()
        late.send(streaming)  # on a pooled connection, or a new one that never comes about
        broken = streams.answer()
        assert (broken.status, broken.complete, b"upstream_timeout" in broken.body) == (200, False, True)
        is_refusal(waits.answer(), 504, "upstream_timeout")
        assert late.answer().status in (502, 503, 504)
    for _ in range(6):
        with RawClient(proxy.port) as client:
            assert client.send(post(chat())).answer().status == 200, "the other one serves"
    wait_for(lambda: not pair.healthy("lost"), "it is seen")
    assert_clean(proxy)
    lost.return_to_life()
    lost.reset(whole_stream())
    wait_for(lambda: pair.healthy("lost"), "it is back")
    with RawClient(proxy.port) as client:
        assert client.send(streaming).answer().status == 200
    assert_clean(proxy)


def test_u26_an_engine_that_returns_is_met_at_its_initial_limit(tmp_path: Path) -> None:
    engine = ScriptedUpstream(script=(Do.HOLD, answer()))
    one = upstream("one", engine.url, "m") | {"limit": {"initial": 3}}
    config = settings(one, probe=WATCHFUL, routing={"response_timeout_s": 20})
    request = post(chat(), headers=["x-priority: high"])
    with running(tmp_path, config) as proxy:
        proxy.hold_limit("one", 40)
        proxy.hold_limit("one", None)
        engine.pages["/v1/models"], ready = answer("loading", 503), engine.pages["/v1/models"]
        wait_for(lambda: not proxy.upstream("one")["healthy"], "it is away")
        engine.pages["/v1/models"] = ready
        wait_for(lambda: proxy.upstream("one")["healthy"], "it is back")
        with ExitStack() as stack:
            clients = [stack.enter_context(RawClient(proxy.port)).send(request) for _ in range(60)]
            wait_for(lambda: proxy.state()["classes"][0]["queued"] == 57, "the rest waits")
            assert len(engine.calls) == 3
            engine.script = (answer(),)
            engine.release.set()
            assert {client.answer().status for client in clients} == {200}
        engine.reset(answer("busy", 429, "Retry-After: 7\r\n"))
        with RawClient(proxy.port) as client:
            found = client.send(request).answer()
        assert (found.status, found.headers["retry-after"]) == (429, "7")
        assert [one["reason"] for one in proxy.state()["limit_changes"]][-1] == "shed", "U08: overload is heard of"
        assert proxy.stop(2.5) == 0
    engine.close()


@pytest.mark.system  # for its length: a server's keep-alive is five seconds
def test_u18_a_server_that_closes_idle_connections_at_five_seconds_is_never_met_at_the_wrong_moment(
    tmp_path: Path,
) -> None:
    """Two requests each of five hundred clients, 4.9 to 5.1 s apart (uvicorn's default is 5 s)."""
    engine, count = ScriptedUpstream(idle_s=5.0, backlog=1024), 500
    one = upstream("one", engine.url, "m", seats=count)
    request = post(chat(), headers=["x-priority: high"])
    with running(tmp_path, settings(one, routing={"response_timeout_s": 20})) as proxy, ExitStack() as stack:
        clients = [stack.enter_context(RawClient(proxy.port)) for _ in range(count)]
        answered_s = []
        for client in clients:
            client.send(request)
        for client in clients:
            assert client.answer().status == 200
            answered_s.append(time.monotonic())
        for number, client in enumerate(clients):
            time.sleep(max(0.0, answered_s[number] + 4.9 + 0.2 * number / count - time.monotonic()))
            client.send(request)
        assert {client.answer().status for client in clients} == {200}
        assert len(engine.calls) == 2 * count
        assert proxy.metric("penstock_upstream_retries_total") == 0, "nothing was saved by a second try"
    engine.close()
