"""The benchmark of the data path, without running it: who is started how, what is counted, what the table says."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.benchmarks.data_path import __main__ as bench
from tests.benchmarks.data_path.cases import CASES
from tests.benchmarks.data_path.contestants import KEY, Contestant, contestants
from tests.benchmarks.data_path.load import Books, Client, request
from tests.benchmarks.data_path.table import FEW, FOOTNOTE, show
from tests.benchmarks.data_path.upstream import DONE, EVENT, STREAM_HEAD, chunk

PLAIN, STREAMS = CASES[2], CASES[5]
SECOND_NS = 1_000_000_000


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Contestant]:
    (tmp_path / "nginx").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return contestants(["penstock"], ["/a/sglang-router", "vllm-router", "/b/c/litellm"], tmp_path, 8001)


def test_nginx_and_penstock_come_first_and_nobody_shares_a_port(found: dict[str, Contestant]) -> None:
    assert list(found) == ["nginx", "penstock", "sglang-router", "vllm-router", "litellm"]
    assert len({one.port for one in found.values()}) == len(found)


def test_routers_are_told_their_upstream_and_their_ports(found: dict[str, Contestant]) -> None:
    for name, begin in (("sglang-router", ["/a/sglang-router", "launch"]), ("vllm-router", ["vllm-router", "--host"])):
        command = found[name].command
        assert command[:2] == begin
        assert command[command.index("--port") + 1] == str(found[name].port)
        assert command[command.index("--worker-urls") + 1] == "http://127.0.0.1:8001"


def test_penstock_runs_with_a_line_for_each_request(found: dict[str, Contestant]) -> None:
    command = found["penstock"].command
    assert command[:3] == ["penstock", "serve", "--config"]
    settings = yaml.safe_load(Path(command[3]).read_text(encoding="utf-8"))
    assert (settings["listen"]["port"], settings["log"]["sample_rate"]) == (found["penstock"].port, 1.0)


def test_litellm_has_one_worker_no_database_and_the_upstream_as_its_one_model(found: dict[str, Contestant]) -> None:
    command = found["litellm"].command
    assert command[0] == "env"
    assert "LITELLM_LOG=ERROR" in command
    assert command[command.index("/b/c/litellm") :][:2] == ["/b/c/litellm", "--config"]
    assert command[command.index("--num_workers") + 1] == "1"
    assert command[command.index("--port") + 1] == str(found["litellm"].port)
    settings = yaml.safe_load(Path(command[command.index("--config") + 1]).read_text(encoding="utf-8"))
    (model,) = settings["model_list"]
    assert json.loads(request(1_000, streaming=False).partition(b"\r\n\r\n")[2])["model"] == model["model_name"]
    assert model["litellm_params"]["model"].startswith("openai/")
    assert model["litellm_params"]["api_base"] == "http://127.0.0.1:8001/v1"
    assert b"Bearer " + settings["general_settings"]["master_key"].encode() + b"\r\n" in request(1_000, streaming=False)
    assert "database_url" not in settings["general_settings"]


def test_only_who_cannot_carry_a_case_gets_fewer_clients(found: dict[str, Contestant]) -> None:
    for case in CASES:
        assert {found[name].connections(case) for name in found if name != "litellm"} == {case.connections}
    assert [found["litellm"].connections(case) for case in CASES] == [1, 8, 8, 8, 8, 4]


@pytest.fixture
def grandchild() -> Iterator[tuple[int, int]]:
    """Process ids of a child and of what it has started."""
    sleeper = f"import subprocess, sys; one = subprocess.Popen([{sys.executable!r}, '-c', 'input()'], stdin=0)"
    code = f"{sleeper}; print(one.pid, flush=True); one.wait()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout
        yield child.pid, int(child.stdout.readline())
        child.stdin.close()


def test_the_children_of_a_contestant_are_charged_to_it(grandchild: tuple[int, int]) -> None:
    assert bench.family(grandchild[0]) == list(grandchild)
    assert os.getpid() not in bench.family(grandchild[0])


class Sink(asyncio.Transport):
    def write(self, data: object) -> None: ...


def client() -> Client:
    books = Books()
    books.open = True
    one = Client(request(1_000, streaming=True), books, streaming=True)
    one.connection_made(cast(asyncio.BaseTransport, Sink()))
    return one


def test_events_are_counted_by_stamps_that_survive_being_written_anew() -> None:
    event = EVENT % (SECOND_NS, b"null")
    kept = json.loads(event.removeprefix(b"data: "))
    anew = {"id": "c", "choices": [{"delta": {"role": None, **kept["choices"][0]["delta"]}, "index": 0}]}
    for sent in (event, b"data: " + json.dumps(anew).encode() + b"\n\n"):
        one = client()
        data = STREAM_HEAD + chunk(sent) + chunk(sent)
        for at in range(0, len(data), 7):  # in pieces that end anywhere
            one.data_received(data[at : at + 7])
        one.data_received(chunk(DONE) + b"0\r\n\r\n")
        assert (one.books.events, one.books.requests, one.books.errors) == (2, 1, 0)
        assert len(one.books.transit) == 2
        assert min(one.books.transit) > 0


def test_a_stream_that_is_refused_is_an_error() -> None:
    one = client()
    one.data_received(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\n")
    one.data_received(b"{}")
    assert (one.books.events, one.books.errors) == (0, 1)


def measured(us: float, count: int, clients: int, errors: int = 0) -> dict[str, Any]:
    spans = [100.0, 150.0, 200.0]
    return {
        "us": us, "requests": count, "events": count, "errors": errors, "connections": clients,
        "latency_us": spans, "transit_us": spans,
    }  # fmt: skip


def table(**peers: dict[str, Any]) -> list[str]:
    both = {"nginx": measured(25, 8_000, 256), "penstock": measured(100, 2_000, 256), **peers}
    return show({PLAIN.name: [both], STREAMS.name: [both]}, [PLAIN, STREAMS]).split("\n")


def test_a_peer_that_carries_the_case_has_its_figure_and_the_ratio_alone() -> None:
    lines = table(router=measured(200, FEW, 256))
    assert [line.count("|") for line in lines] == [10] * 4
    assert lines[2] == f"| {PLAIN.name} | 25 | 100 | 4.0 | request | 100 / 200 | 100 / 200 | 200 | 0.50 |"


def test_a_peer_that_does_not_says_with_how_many_clients_and_requests() -> None:
    lines = table(slow=measured(20_000, FEW - 1, 4))
    assert lines[2].endswith(f"| 20000 (4 connections, {FEW - 1} requests) | 0.005 |")
    assert lines[3].endswith(f"| 20000 (4 streams, {FEW - 1} events) | 0.005 |")
    assert "\n".join(lines[4:]) == FOOTNOTE.removeprefix("\n")


def test_errors_are_told_with_whose_they_are() -> None:
    lines = table(router=measured(200, FEW, 256, errors=3))
    assert lines[3].startswith("| errors: 3 of router |")
    assert {line.count("|") for line in lines} == {10}


class Clock:
    """Stands in for `time`: sleeping costs nothing."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize(("busy_s", "waits_s"), [(0.0, 0.25), (5.0, 5.25), (1e9, bench.REST_S)])
def test_a_turn_ends_when_the_proxy_rests_or_will_not(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Contestant], busy_s: float, waits_s: float
) -> None:
    clock = Clock()
    monkeypatch.setattr(bench, "time", clock)
    monkeypatch.setattr(bench, "cpu_s", lambda pids: min(clock.now_s, busy_s))
    bench.Proxy(found["litellm"], os.getpid()).rest()
    assert clock.now_s == pytest.approx(waits_s)


def test_who_answers_nothing_has_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    said = subprocess.CompletedProcess([], 0, stdout=json.dumps(measured(0, 0, 8, errors=9) | {"cpu_s": 3.0}))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: said)
    with pytest.raises(SystemExit, match=r"no requests in 3\.0 s, 9 errors$"):
        bench.measure(PLAIN, 1, 8, [os.getpid()], 3.0)


@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error"])
def test_who_refuses_the_first_request_is_not_measured(status: str) -> None:
    asked: list[bytes] = []

    def answer() -> None:
        for _ in range(2 if status == "200 OK" else 1):
            connection, _ = server.accept()
            with connection:
                data = connection.recv(65_536)
                while len(data.partition(b"\r\n\r\n")[2]) < 900:
                    data += connection.recv(65_536)
                asked.append(data)
                connection.sendall(f"HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nsaid".encode())

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        answering, port = pool.submit(answer), server.getsockname()[1]
        if status == "200 OK":
            bench.answer_first(port)
            assert [b'"stream": true' in one for one in asked] == [False, True]
        else:
            with pytest.raises(SystemExit, match="500 b'said'"):
                bench.answer_first(port)
        answering.result(10)
        assert all(f"Bearer {KEY}".encode() in one for one in asked)
