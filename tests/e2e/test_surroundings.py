"""What surrounds the processes misbehaves: names, clocks, networks. Needs Debian's libnss-wrapper and faketime."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.raw_client import RawClient, chat, post
from tests.e2e.scripted_upstream import (
    HOST,
    LONGEST_WAIT_S,
    STREAM_HEAD,
    Do,
    ScriptedUpstream,
    Wait,
    answer,
    chunk,
    token,
    wait_for,
    whole_stream,
)

pytestmark = pytest.mark.system

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
NAMES = LIBRARIES / "libnss_wrapper.so"
CLOCK = LIBRARIES / "faketime/libfaketimeMT.so.1"
WATCHFUL = {"interval_s": 0.1, "timeout_s": 0.3, "fail_after": 2, "pass_after": 1}


def status(proxy: ProxyProcess, model: str = "m") -> int:
    with RawClient(proxy.port) as client:
        return client.send(post(chat(model))).answer().status


def preload(library: Path, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """For processes started from here on. The library must be there: a test that is skipped proves nothing."""
    assert library.exists(), f"install what brings {library.name}"
    monkeypatch.setenv("LD_PRELOAD", str(library))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def rename(hosts: Path, text: str) -> None:
    """Write a file of names so that the library sees the change: it looks at whole seconds."""
    changed_s = hosts.stat().st_mtime + 2 if hosts.exists() else time.time() - 60
    hosts.write_text(text)
    os.utime(hosts, (changed_s, changed_s))


def test_u03_n03_a_name_that_appears_and_moves_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedUpstream()
    elsewhere = ScriptedUpstream(host="127.0.0.2", port=engine.port)
    hosts = tmp_path / "hosts"
    rename(hosts, "127.0.0.9 other\n")
    preload(NAMES, monkeypatch, NSS_WRAPPER_HOSTS=str(hosts))
    config = settings(
        upstream("moving", f"http://engine.test:{engine.port}", "m"), probe=WATCHFUL,
        routing={"connection_max_age_s": 0.5, "itl_timeout_s": 20},
    )  # fmt: skip
    with running(tmp_path, config, ready="/health") as proxy:
        wait_for(lambda: status(proxy) == 503, "it is known to be away")
        assert proxy.admin("/ready")[0] == 503
        rename(hosts, f"{HOST} engine.test\n")
        wait_for(lambda: status(proxy) == 200, "the name resolves now")
        assert proxy.admin("/ready")[0] == 200
        engine.reset(STREAM_HEAD + chunk(token()), Do.HOLD, whole_stream()[len(STREAM_HEAD) :])
        with RawClient(proxy.port) as runs:
            runs.send(post(chat(stream=True))).read_until(b"data: ")
            engine.script = (answer(),)  # it goes on answering, on connections that are kept busy
            rename(hosts, "127.0.0.2 engine.test\n")
            wait_for(lambda: status(proxy) == 200 and elsewhere.calls, "new connections go to the new address")
            engine.release.set()
            found = runs.answer()
            assert (found.status, found.complete) == (200, True)
    for one in (engine, elsewhere):
        one.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_n04_a_name_with_two_addresses_is_reached_at_the_one_that_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    engine = ScriptedUpstream(host=address)
    hosts = tmp_path / "hosts"
    rename(hosts, "127.0.0.1 both.test\n::1 both.test\n")
    preload(NAMES, monkeypatch, NSS_WRAPPER_HOSTS=str(hosts))
    with running(tmp_path, settings(upstream("one", f"http://both.test:{engine.port}", "m"))) as proxy:
        assert [status(proxy) for _ in range(3)] == [200] * 3
    engine.close()


def test_t01_the_wall_clock_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedUpstream(script=(Do.HOLD, *whole_stream().split(b"|")))
    offset = tmp_path / "offset"
    offset.write_text("+0")
    preload(CLOCK, monkeypatch, FAKETIME_TIMESTAMP_FILE=str(offset), FAKETIME_NO_CACHE="1", DONT_FAKE_MONOTONIC="1")
    config = settings(upstream("one", engine.url, "m", seats=1), routing={"ttft_timeout_s": 5})
    with running(tmp_path, config) as proxy, RawClient(proxy.port) as runs, RawClient(proxy.port) as waits:
        before = proxy.state()["upstreams"][0]["limit"]
        runs.send(post(chat(stream=True)))
        engine.wait_calls(1)
        waits.send(post(chat(stream=True)))
        wait_for(lambda: proxy.state()["classes"][1]["queued"] == 1, "one waits")
        for jump in ("+3600", "-3600", "+86400"):
            offset.write_text(jump)
            time.sleep(0.2)
            assert proxy.state()["classes"][1]["queued"] == 1
        oldest = proxy.state()["classes"][1]["oldest_wait_s"]
        assert 0.5 < oldest < 3
        engine.release.set()
        assert [client.answer().status for client in (runs, waits)] == [200, 200]
        assert proxy.state()["upstreams"][0]["limit"] == before

        def days() -> set[str]:
            return {line[9:19] for line in proxy.log().splitlines() if line.startswith('{"time":"')}

        wait_for(lambda: len(days()) > 1, "the clock has jumped")
    engine.close()


class Relay:
    """A slow network towards clients: each piece is late by 200 +- 100 ms, one in a hundred by a second more."""

    def __init__(self, port: int, rng: Random) -> None:
        self.target, self.rng = port, rng
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection((HOST, self.target))
                self._sockets += [here, there]
                for one, other in ((here, there), (there, here)):
                    self._start(self._carry, one, other)

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while piece := one.recv(65536):
                time.sleep(self.rng.uniform(0.1, 0.3) + (self.rng.random() < 0.01))
                other.sendall(piece)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(LONGEST_WAIT_S)


@contextmanager
def slow_network(port: int) -> Iterator[Relay]:
    relay = Relay(port, Random(1))
    try:
        yield relay
    finally:
        relay.close()


def test_n02_a_slow_network_towards_clients_moves_no_limit(tmp_path: Path) -> None:
    """Latency is measured where the engine's bytes arrive, so it is the engine's."""
    engine = ScriptedUpstream(
        script=(STREAM_HEAD, *[step for _ in range(20) for step in (chunk(token()), Wait(0.02))],
                whole_stream()[len(STREAM_HEAD) :])
    )  # fmt: skip
    one = upstream("one", engine.url, "m") | {"limit": {"initial": 8}}
    config = settings(one, target={"itl_ms": 60, "ttft_ms": 200})
    with running(tmp_path, config) as proxy, slow_network(proxy.port) as relay:
        for _ in range(2):
            clients = [RawClient(relay.port) for _ in range(8)]
            for client in clients:
                client.send(post(chat(stream=True)))
            for client in clients:
                found = client.answer()
                assert (found.status, found.complete) == (200, True)
                client.socket.close()
        assert [change for change in proxy.state()["limit_changes"] if change["direction"] == "down"] == []
        assert 0 < proxy.upstream("one")["itl_ms"] < 60
        assert_clean(proxy)
    engine.close()


def test_u23_u24_the_upstream_that_fails_or_lags_is_seen_by_few(tmp_path: Path) -> None:
    """One upstream fails half of the time, in spells; one is ten times slower: most work goes elsewhere."""
    fast, slow, flaps = ScriptedUpstream(), ScriptedUpstream(), ScriptedUpstream()
    slow.script = (Wait(0.1), *slow.script)
    config = settings(
        *(upstream(name, one.url, "m", seats=4) for name, one in (("fast", fast), ("slow", slow), ("flaps", flaps))),
        breaker={"min_requests": 3, "open_s": 1.0, "window_s": 2},
    )
    good, bad = flaps.script, (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}",)
    ends: list[int] = []
    with running(tmp_path, config) as proxy:
        until_s = time.monotonic() + 5.0

        def go_on() -> None:
            while time.monotonic() < until_s:
                ends.append(status(proxy))
                time.sleep(0.005)

        threads = [threading.Thread(target=go_on) for _ in range(6)]
        for thread in threads:
            thread.start()
        while time.monotonic() < until_s:
            flaps.script = bad if flaps.script is good else good
            time.sleep(0.5)
        for thread in threads:
            thread.join()
        assert len(fast.calls) > 3 * len(slow.calls)
        assert set(ends) <= {200, 500}
        assert ends.count(500) <= 0.05 * len(ends), f"{ends.count(500)} of {len(ends)}"
        assert_clean(proxy)
    for one in (fast, slow, flaps):
        one.close()
