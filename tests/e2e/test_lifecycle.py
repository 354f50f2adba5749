"""Start, reload, drain and end of the process, with requests running."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.server.deadlines import LAST_CALL_S
from tests.children import environ
from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, running
from tests.e2e.load import Load, can_connect
from tests.e2e.raw_client import RawClient, chat, is_refusal, post
from tests.e2e.scripted_upstream import (
    HOST,
    STREAM_HEAD,
    Do,
    ScriptedUpstream,
    Wait,
    chunk,
    token,
    wait_for,
    whole_stream,
)

HEALTH = b"GET /health HTTP/1.1\r\nHost: proxy\r\n\r\n"
STREAM = post(chat(stream=True))
HELD_STREAM = (STREAM_HEAD + chunk(token()), Do.HOLD, whole_stream()[len(STREAM_HEAD) :])
PATIENT = {"ttft_timeout_s": 10, "itl_timeout_s": 10, "response_timeout_s": 10}


@pytest.fixture
def engine() -> Iterator[ScriptedUpstream]:
    made = ScriptedUpstream()
    yield made
    made.close()


# ---- out of service ----


def test_a_drain_is_announced_then_closed_and_takes_nothing_from_what_runs(
    engine: ScriptedUpstream, tmp_path: Path
) -> None:
    engine.reset(*HELD_STREAM)
    config = settings(
        upstream("one", engine.url, "m", seats=40), routing=PATIENT, listen={"drain_delay_s": 0.5, "head_timeout_s": 9}
    )
    with running(tmp_path, config) as proxy, ExitStack() as stack:
        streams = [stack.enter_context(RawClient(proxy.port)).send(STREAM) for _ in range(20)]
        for client in streams:
            client.read_until(b"data: ")
        halfway = stack.enter_context(RawClient(proxy.port)).send(STREAM[:40])
        reused = stack.enter_context(RawClient(proxy.port))
        assert reused.send(HEALTH).answer().status == 200
        proxy.process.terminate()
        wait_for(lambda: proxy.admin("/ready")[0] == 503, "it is told")
        assert json.loads(proxy.admin("/ready")[1])["reason"] == "draining"
        late = stack.enter_context(RawClient(proxy.port)).send(STREAM)
        late.read_until(b"data: ")  # until the balancer in front has noticed, who comes is served
        wait_for(lambda: not can_connect(proxy.port), "the port is closed")
        assert reused.closed()
        time.sleep(LAST_CALL_S + 0.2)  # who was on the way has come
        found = halfway.send(STREAM[40:]).answer()
        is_refusal(found, 503, "shutting_down")
        assert (found.headers["connection"], int(found.headers["retry-after"]) >= 1) == ("close", True)
        assert proxy.process.poll() is None
        engine.release.set()
        for client in (*streams, late):
            whole = client.answer()
            assert (whole.status, whole.complete, b"[DONE]" in whole.body) == (200, True, True)
        ended_s = time.monotonic()
        assert proxy.process.wait(5) == 0
        assert time.monotonic() - ended_s < 1.0


def test_what_is_killed_leaves_nothing_at_the_engine_and_starts_again_at_once(
    engine: ScriptedUpstream, tmp_path: Path
) -> None:
    config = settings(upstream("one", engine.url, "m", seats=40), routing=PATIENT)
    first = ProxyProcess(tmp_path, config).wait_alive("/ready")
    engine.reset(*HELD_STREAM)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(first.port)).send(STREAM) for _ in range(10)]
        for client in clients:
            client.read_until(b"data: ")
        first.process.kill()
        first.process.wait()
        for call in engine.calls:
            call.wait_gone(1.0)
        engine.reset(whole_stream())
        config["listen"]["port"] = first.port
        with running(tmp_path, config) as second, RawClient(second.port) as client:
            assert client.send(STREAM).answer().status == 200


def test_a_process_that_was_frozen_blames_nobody_for_it(engine: ScriptedUpstream, tmp_path: Path) -> None:
    """Longer than every deadline in the file: what came meanwhile is read before any of them is judged."""
    pieces = [step for _ in range(30) for step in (chunk(token()), Wait(0.05))]
    engine.reset(STREAM_HEAD, *pieces, whole_stream()[len(STREAM_HEAD) :])
    with running(tmp_path, settings(upstream("one", engine.url, "m"))) as proxy, ExitStack() as stack:
        streams = [stack.enter_context(RawClient(proxy.port)).send(STREAM) for _ in range(4)]
        for client in streams:
            client.read_until(b"data: ")
        proxy.process.send_signal(signal.SIGSTOP)
        sent = [stack.enter_context(RawClient(proxy.port)).send(STREAM) for _ in range(4)]
        time.sleep(1.2)
        proxy.process.send_signal(signal.SIGCONT)
        for client in (*streams, *sent):
            whole = client.answer()
            assert (whole.status, whole.complete) == (200, True)
        assert proxy.metric("penstock_event_loop_lag_seconds_sum") > 1.0


# ---- reload ----


@dataclass
class Reloading:
    proxy: ProxyProcess
    one: ScriptedUpstream
    two: ScriptedUpstream

    def configs(self) -> list[dict[str, Any]]:
        """Both engines, either one, other limits, other classes."""
        one, two = upstream("one", self.one.url, "m"), upstream("two", self.two.url, "m")
        few = [{"name": "high", "priority_max": 0}, {"name": "normal"}]
        return [
            settings(one, two, routing=PATIENT),
            settings(one, routing=PATIENT),
            settings(two, routing=PATIENT) | {"classes": few},
            settings(upstream("one", self.one.url, "m", seats=1), two, routing=PATIENT),
        ]


@pytest.fixture(scope="module")
def reloading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    one, two = ScriptedUpstream(), ScriptedUpstream()
    config = settings(upstream("one", one.url, "m"), upstream("two", two.url, "m"), routing=PATIENT)
    with running(tmp_path_factory.mktemp("reload"), config) as proxy:
        yield Reloading(proxy, one, two)
    one.close()
    two.close()


def test_a_storm_of_reloads_loses_no_request(reloading: Reloading) -> None:
    proxy = reloading.proxy
    for engine in (reloading.one, reloading.two):
        engine.reset(STREAM_HEAD, chunk(token()), Wait(0.01), whole_stream()[len(STREAM_HEAD) :])
    ended = sum(proxy.state()["outcomes"].values())
    with Load(proxy.port, workers=8) as load:
        for turn in range(24):
            proxy.configure(reloading.configs()[turn % 4])
            if turn % 3:
                assert proxy.admin("/admin/reload", "POST")[0] == 200
            else:
                proxy.process.send_signal(signal.SIGHUP)
            load.wait_more(6)
    assert load.bad() == []
    assert load.reconnects == 0
    calls = [call.head for engine in (reloading.one, reloading.two) for call in engine.calls]
    ids = [head.split("x-request-id: ")[1].split("\r\n")[0] for head in calls]
    assert sorted(ids) == sorted(one.request_id for one in load.endings), "each was sent exactly once"
    assert sum(proxy.state()["outcomes"].values()) - ended == len(load.endings)


BAD = {
    "upstreams: [{name: a, url: 'http://e:1'}, {name: a, url: 'http://e:2'}]\n": "has the name of upstreams.0",
    "upstreams: [{url: 'http://e:1', limit: {min: 9, max: 3}}]\n": "limit.min: 9 is above max 3",
    "upstreams: [{url: 'http://e:1'}]\nlisten: {prot: 1}\n": "penstock.yaml:2: listen.prot: no such key",
    "upstreams: [": "penstock.yaml:2: not YAML",
    "": "upstreams: none is given",
}


def test_a_bad_reload_keeps_the_old_configuration_and_says_why(reloading: Reloading) -> None:
    proxy = reloading.proxy
    for engine in (reloading.one, reloading.two):
        engine.reset()
    before = proxy.state()
    with Load(proxy.port, workers=4) as load:
        for text, reason in BAD.items():
            proxy.config_path.write_text(text)
            status, answer = proxy.admin("/admin/reload", "POST")
            error = json.loads(answer)["error"]
            assert (status, error["code"], reason in error["message"]) == (400, "invalid_configuration", True), error
            load.wait_more(5)
        proxy.process.send_signal(signal.SIGHUP)
        wait_for(lambda: proxy.log().count("reload refused") == len(BAD) + 1, "the log says so, too")
    assert load.bad() == []
    after = proxy.state()
    assert after["server"]["config_hash"] == before["server"]["config_hash"]
    assert [one["name"] for one in after["upstreams"]] == [one["name"] for one in before["upstreams"]]
    with RawClient(proxy.port) as client:
        assert client.send(post(chat())).answer().status == 200
    proxy.config_path.unlink()
    assert proxy.admin("/admin/reload", "POST")[0] == 400, "a file that is gone"
    proxy.wait_metric(len(BAD) + 2, "penstock_config_reloads_total", result="invalid")


# ---- start ----


def test_a_start_on_a_taken_port_says_so_in_one_line_and_exits_1(tmp_path: Path) -> None:
    path = tmp_path / "penstock.yaml"
    with closing(socket.create_server((HOST, 0))) as other:
        port = other.getsockname()[1]
        path.write_text(
            f"listen: {{host: {HOST}, port: {port}}}\nadmin: {{port: 0}}\nupstreams: [{{url: 'http://e:1'}}]"
        )
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(path)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=environ())
    assert found.returncode == 1
    said = found.stdout + found.stderr
    errors = [line for line in said.splitlines() if line.startswith("penstock: ")]
    assert len(errors) == 1, said
    assert str(port) in errors[0]
    assert "choose another with --port" in errors[0]
    assert "Traceback" not in said


UNUSABLE = {
    "upstreams: [{url: 'http://e:1', api_key: planted-secret, weight: -1}]\n": "upstreams.0.weight",
    "upstreams: [{url: 'http://e:1'}]\nclasses: [{name: a, floor: 0.7}, {name: b, floor: 0.7}]\n": "the floors sum up",
}


def test_p03_g03_a_start_with_an_unusable_configuration_says_which_key_and_exits_2(tmp_path: Path) -> None:
    started = []
    for number, (text, reason) in enumerate([*UNUSABLE.items(), (None, "cannot be read")]):
        path = tmp_path / f"{number}" / "penstock.yaml"
        path.parent.mkdir()
        if text is not None:
            path.write_text(text)
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(path)]
        started.append((reason, subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ())))
    for reason, process in started:
        _, said = process.communicate(timeout=30)
        assert (process.returncode, reason in said) == (2, True), said
        assert "Traceback" not in said
        assert "planted-secret" not in said


# ---- two on one port ----


def test_two_processes_on_one_port_are_restarted_in_turn_without_a_failed_request(
    engine: ScriptedUpstream, tmp_path: Path
) -> None:
    engine.reset(STREAM_HEAD, chunk(token()), Wait(0.01), whole_stream()[len(STREAM_HEAD) :])
    config = settings(upstream("one", engine.url, "m", seats=40), routing=PATIENT, listen={"reuse_port": True})
    first = ProxyProcess(tmp_path / "0", config)
    config["listen"]["port"] = first.port
    processes = [first.wait_alive("/ready"), ProxyProcess(tmp_path / "1", config).wait_alive("/ready")]
    rounds = int(os.environ.get("PENSTOCK_TEST_RESTARTS", "2"))
    try:
        with Load(first.port, 6) as kept, Load(first.port, 6, fresh=True) as fresh:
            for turn in range(rounds):
                kept.wait_more(20)
                fresh.wait_more(20)
                assert processes[turn % 2].stop() == 0
                processes[turn % 2] = ProxyProcess(tmp_path / str(turn + 2), config).wait_alive("/ready")
    finally:
        for process in processes:
            process.stop()
    assert kept.bad() == []
    assert fresh.bad() == []
    assert all("Traceback" not in process.log() for process in processes)
