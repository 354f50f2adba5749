"""A hundred clients leave at one moment: the engine stops their work, and within a second nothing of them is held."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.crowd import Crowd
from tests.e2e.engines import MODEL, SimulatedEngine
from tests.e2e.harness import ProxyProcess, running, unclean
from tests.e2e.raw_client import RawClient, chat, post
from tests.e2e.scripted_upstream import wait_for

CLIENTS = 100
SECOND_S = 1.0
ENDLESS = chat(MODEL, max_tokens=2000, ignore_eos=True)  # 2,000 tokens each fit the engine's memory a hundred times
STREAM = post({**ENDLESS, "stream": True})
WHOLE = post(ENDLESS)


@dataclass
class Service:
    proxy: ProxyProcess
    engine: SimulatedEngine

    def counts(self) -> dict[str, float]:
        """What leaving changes, read from the process and from the engine."""
        state = self.proxy.state()
        phases = ("queued", "waiting", "streaming")
        left = {phase: self.proxy.metric("penstock_client_disconnects_total", phase=phase) for phase in phases}
        return left | {
            "client_gone": state["outcomes"]["client_gone"],
            "aborted": self.engine.control()["aborted"],
            "aborts timed": self.proxy.metric("penstock_abort_seconds_count"),
            "aborts within 0.1 s": self.proxy.metric("penstock_abort_seconds_bucket", le="0.1"),
        }

    def growth(self, before: dict[str, float]) -> dict[str, float]:
        return {name: count - before[name] for name, count in self.counts().items() if count != before[name]}

    def all_gone(self) -> bool:
        engine = self.engine.control()
        return not unclean(self.proxy) and engine["running"] == engine["waiting"] == 0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    patient = {"ttft_timeout_s": 30, "itl_timeout_s": 30, "response_timeout_s": 30}
    with SimulatedEngine() as engine:
        one = upstream("engine", engine.url, MODEL, seats=2 * CLIENTS) | {"engine": "vllm"}
        with running(tmp_path_factory.mktemp("cancel"), settings(one, routing=patient)) as proxy:
            yield Service(proxy, engine)


def counted(service: Service, before: dict[str, float], **expected: int) -> None:
    """The page of metrics is rendered at most once a second, so the counters may be read a little later."""
    streams = expected["aborted"]
    wanted = {**expected, "aborts timed": streams, "aborts within 0.1 s": streams}
    wait_for(lambda: service.growth(before) == wanted, f"{wanted}, not {service.growth(before)}", 3.0)


@pytest.mark.parametrize(
    ("request_bytes", "stalled", "phase"),
    [
        pytest.param(STREAM, False, "streaming", id="streams that run"),
        pytest.param(STREAM, True, "waiting", id="streams before their first token"),
        pytest.param(WHOLE, False, "waiting", id="whole answers"),
    ],
)
def test_what_runs_is_aborted_when_its_client_is_killed(
    service: Service, request_bytes: bytes, stalled: bool, phase: str
) -> None:
    before = service.counts()
    service.engine.control(stall=stalled)
    answered = request_bytes is STREAM and not stalled
    with Crowd(service.proxy.port, CLIENTS, request_bytes, answered) as crowd:
        wait_for(lambda: service.proxy.upstream("engine")["in_flight"] == CLIENTS, "all have a seat")
        found = service.engine
        wait_for(lambda: sum(found.control()[name] for name in ("running", "waiting")) == CLIENTS, "all are at work")
        crowd.kill()
        wait_for(service.all_gone, "everything is given back", SECOND_S)
    service.engine.control(stall=False)
    counted(service, before, client_gone=CLIENTS, aborted=CLIENTS, **{phase: CLIENTS})
    assert service.proxy.metric("penstock_leaked_permits") == 0


def test_who_waits_in_the_queue_never_reaches_the_engine(service: Service) -> None:
    before = service.counts()
    with RawClient(service.proxy.port) as first:
        service.proxy.hold_limit("engine", 1)
        first.send(STREAM).read_until(b"data: ")
        with Crowd(service.proxy.port, CLIENTS, STREAM, answered=False) as crowd:
            wait_for(lambda: service.proxy.state()["classes"][1]["queued"] == CLIENTS, "all wait")
            crowd.kill()
            wait_for(lambda: service.proxy.state()["classes"][1]["queued"] == 0, "the queue is empty", SECOND_S)
        assert service.engine.control()["running"] == 1
        assert service.proxy.state()["queue_bytes"] == 0
    wait_for(service.all_gone, "the first one, too", SECOND_S)
    service.proxy.hold_limit("engine", None)
    counted(service, before, queued=CLIENTS, streaming=1, client_gone=CLIENTS + 1, aborted=1)


@pytest.mark.parametrize(
    "leave",
    [lambda client: client.socket.close(), RawClient.half_close, RawClient.reset],
    ids=["FIN", "half-close", "RST"],
)
def test_the_way_of_leaving_does_not_matter(service: Service, leave: Callable[[RawClient], None]) -> None:
    aborted = service.engine.control()["aborted"]
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(service.proxy.port)).send(STREAM) for _ in range(10)]
        for client in clients:
            client.read_until(b"data: ")
        started_s = time.monotonic()
        for client in clients:
            leave(client)
        wait_for(service.all_gone, "everything is given back", SECOND_S)
        assert time.monotonic() - started_s < SECOND_S
    assert service.engine.control()["aborted"] == aborted + 10


def test_every_other_one_leaves_and_the_rest_get_whole_answers(service: Service) -> None:
    aborted = service.engine.control()["aborted"]
    short = post({**ENDLESS, "max_tokens": 50, "stream": True})
    with ExitStack() as stack:
        stay, go = ([stack.enter_context(RawClient(service.proxy.port)).send(short) for _ in range(25)] for _ in "ab")
        for client in (*stay, *go):
            client.read_until(b"data: ")
        for client in go:
            client.socket.shutdown(socket.SHUT_RDWR)
        for client in stay:
            found = client.answer()
            assert (found.status, found.complete, found.body.count(b'"content":"')) == (
                200,
                True,
                51,
            )  # role, 50 tokens
    wait_for(service.all_gone, "everything is given back", SECOND_S)
    assert service.engine.control()["aborted"] == aborted + 25
