"""Exceptions planted into the running process (`tests.e2e.planted`): one request, or one service, pays for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.raw_client import RawClient, chat, is_refusal, post
from tests.e2e.scripted_upstream import (
    STREAM_HEAD,
    Do,
    Script,
    ScriptedUpstream,
    Wait,
    answer,
    chunk,
    token,
    wait_for,
    whole_stream,
)

NATIVE = pytest.mark.source  # replaces a method that compiled code calls directly


@dataclass
class Planted:
    proxy: ProxyProcess
    engine: ScriptedUpstream
    folder: Path

    def is_served(self) -> bool:
        self.engine.reset()
        with RawClient(self.proxy.port) as client:
            return client.send(post(chat())).answer().status == 200


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    engine, folder = ScriptedUpstream(), tmp_path_factory.mktemp("planted")
    config = settings(
        upstream("one", engine.url, "m", seats=2), probe={"interval_s": 0.1},
        routing={"ttft_timeout_s": 10, "itl_timeout_s": 10, "response_timeout_s": 10},
    )  # fmt: skip
    with running(folder, config, module="tests.e2e.planted") as proxy:
        yield Planted(proxy, engine, folder)
    engine.close()


WHOLE: Script = (answer(),)
STREAM: Script = (whole_stream(),)
HALTING: Script = (STREAM_HEAD + chunk(token()), Wait(0.05), whole_stream()[len(STREAM_HEAD) :])
ENDS_EARLY: Script = (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Do.CLOSE)


@pytest.mark.parametrize(
    ("place", "script"),
    [
        pytest.param("intake", WHOLE, id="P05 before it is a ticket", marks=NATIVE),
        pytest.param("upload", WHOLE, id="P05 inside the parser"),
        pytest.param("arrival", WHOLE, id="P05 in the dispatcher", marks=NATIVE),
        pytest.param("grant", WHOLE, id="P05 as it gets its permit", marks=NATIVE),
        pytest.param("send", WHOLE, id="P05 as it is sent", marks=NATIVE),
        pytest.param("head", WHOLE, id="P05 at the head of the answer", marks=NATIVE),
        pytest.param("body", WHOLE, id="P05 at its first bytes", marks=NATIVE),
        pytest.param(
            "end",
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",),
            id="P05 at its end, nothing sent yet",
            marks=NATIVE,
        ),
        pytest.param("lost", ENDS_EARLY, id="P05 at the loss of the upstream", marks=NATIVE),
        pytest.param("sweep", (Do.HOLD,), id="P05 in the sweep"),
    ],
)
def test_a_request_whose_handler_breaks_gets_500_and_gives_its_seat_back(
    planted: Planted, place: str, script: Script
) -> None:
    proxy, engine = planted.proxy, planted.engine
    before = proxy.state()["outcomes"]["internal_error"]
    engine.reset(*script)
    name = f"{place}-1"
    with RawClient(proxy.port) as client:
        found = client.send(post(chat(), headers=[f"x-request-id: {name}"])).answer()
    is_refusal(found, 500, "internal_error")
    identity = found.headers["x-request-id"]
    assert identity in found.error["message"]
    assert place == "upload" or identity == name
    assert proxy.record(identity)["outcome"] == "internal_error"
    assert proxy.state()["outcomes"]["internal_error"] == before + 1
    assert_clean(proxy)
    assert planted.is_served()
    assert proxy.metric("penstock_requests_total", outcome="upstream_error") == 0, "nobody else is blamed"


@NATIVE
@pytest.mark.parametrize("place", ["middle", "end"])
def test_a_stream_whose_handler_breaks_says_so_and_is_cut(planted: Planted, place: str) -> None:
    proxy = planted.proxy
    planted.engine.reset(*HALTING)
    with RawClient(proxy.port) as client:
        found = client.send(post(chat(stream=True), headers=[f"x-request-id: {place}-stream"])).answer()
    assert (found.status, found.complete) == (200, False)
    assert found.body.count(b'data: {"error":') == 1
    assert b"internal_error" in found.body
    assert proxy.record(f"{place}-stream")["outcome"] == "internal_error"
    assert_clean(proxy)
    assert planted.is_served()


@NATIVE
def test_what_breaks_again_while_it_is_ended_closes_its_connection(planted: Planted) -> None:
    planted.engine.reset(*WHOLE)
    with RawClient(planted.proxy.port) as client:
        client.send(post(chat(), headers=["x-request-id: twice-1"]))
        assert client.closed()
    assert_clean(planted.proxy)
    assert planted.is_served()


def test_a_client_that_leaves_at_a_fault_keeps_no_seat(planted: Planted) -> None:
    planted.engine.reset(Do.HOLD)
    with RawClient(planted.proxy.port) as client:
        client.send(post(chat(), headers=["x-request-id: leaving-1"]))
        call = planted.engine.wait_calls(1)
    call.wait_gone()
    assert_clean(planted.proxy)
    assert planted.is_served()


def test_what_cannot_be_counted_is_answered_all_the_same(planted: Planted) -> None:
    planted.engine.reset(*STREAM)
    with RawClient(planted.proxy.port) as client:
        for _ in range(3):  # the connection lives on
            found = client.send(post(chat(stream=True), headers=["x-request-id: record-1"])).answer()
            assert (found.status, found.complete) == (200, True)
    planted.proxy.wait_metric(3, "penstock_internal_errors_total", part="record")


SERVICES = {"Gate.tick": "gate", "Listener.sweep": "listener", "UpstreamProbe.turn": "probe"}


@NATIVE
def test_p06_a_service_that_fails_is_told_starts_again_and_holds_up_no_request(planted: Planted) -> None:
    proxy = planted.proxy

    def restarting() -> set[str]:
        return {name.split(" ")[0] for name in proxy.state()["server"]["restarting"]}

    def failures(part: str) -> float:
        return proxy.metric("penstock_internal_errors_total", part=part)

    before = {part: failures(part) for part in SERVICES.values()}
    faults = [planted.folder / service for service in SERVICES]
    for fault in faults:
        fault.touch()
    try:
        wait_for(lambda: restarting() == set(SERVICES.values()), "all are told as failing")
        assert planted.is_served()
        status, text = proxy.admin("/ready")
        assert (status, json.loads(text)["reason"]) == (503, "restarting: gate, listener")
        wait_for(lambda: all(failures(part) > before[part] for part in before), "their failures are counted")
    finally:
        for fault in faults:
            fault.unlink()
    wait_for(lambda: not restarting(), "all run again")
    assert proxy.admin("/ready")[0] == 200
    lines = [json.loads(line) for line in proxy.log().splitlines() if '"event":"internal error"' in line]
    told = [line for line in lines if line["task"].split(" ")[0] in before]
    assert {line["task"].split(" ")[0] for line in told} == set(before)
    assert {line["error"] for line in told} == {"Planted"}
    assert planted.is_served()
