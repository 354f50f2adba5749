"""A few hundred random faults through one proxy: afterwards every seat, byte and descriptor is back."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import Bench, ask, settings, upstream
from tests.e2e.harness import assert_clean, running
from tests.e2e.raw_client import RawClient, chat, post
from tests.e2e.scripted_upstream import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Call,
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

REQUESTS = 400
AT_ONCE = 24
FILES_SLACK = 6

SCRIPTS: list[Script] = [
    (answer(),),
    (whole_stream(),),
    (answer("busy", 503),),
    (answer("{}", 500),),
    (Do.CLOSE,),
    (Do.RESET,),
    (STREAM_HEAD, Do.CLOSE),
    (STREAM_HEAD + chunk(token()), Do.RESET),
    (STREAM_HEAD + chunk(token()), Wait(0.02), chunk(token(finish="stop")) + LAST_CHUNK),
    (Wait(0.02), answer()),
    (Do.HOLD,),
    (STREAM_HEAD + chunk(token()), Do.HOLD),
]


def one_request(port: int, seed: int) -> str:
    """Send a request, whole or in part, and leave in one of the ways that clients do."""
    rng = random.Random(seed)
    model, stream = rng.choice(["m", "narrow", "tiny", "pair", "none"]), rng.random() < 0.5
    request = post(chat(model, stream=stream), headers=[f"x-priority: {rng.choice(['high', 'normal', 'low'])}"])
    with RawClient(port) as client:
        if rng.random() < 0.1:
            client.send(request[: rng.randrange(1, len(request))])
        else:
            client.send(request)
        way = rng.choice(["read", "read", "leave", "reset", "half"])
        client.socket.settimeout(rng.choice([0.001, 0.02, 0.1]) if way != "read" else 10)
        try:
            client.receive()
        except TimeoutError:
            way = way if way != "read" else "leave"
        if way == "reset":
            client.reset()
        elif way == "half":
            client.half_close()
        return way


def files(bench: Bench) -> int:
    return len(os.listdir(Path("/proc") / str(bench.proxy.process.pid) / "fd"))  # noqa: PTH208


@pytest.mark.parametrize("seed", [1, 2])
def test_random_faults_leave_nothing_behind(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    for one in (bench.main, bench.first, bench.second):
        one.scripts = [rng.choice(SCRIPTS) for _ in range(REQUESTS)]
    before = files(bench)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ways = list(pool.map(lambda number: one_request(bench.proxy.port, seed * 10_000 + number), range(REQUESTS)))
    assert set(ways) == {"read", "leave", "reset", "half"}
    for one in (bench.main, bench.first, bench.second):
        one.release.set()
        one.reset()
    assert_clean(bench.proxy, 5.0)
    wait_for(lambda: files(bench) <= before + FILES_SLACK, f"descriptors back at {before}")
    state = bench.proxy.state()
    assert state["permits"]["granted"] == state["permits"]["released"]
    assert [ask(bench, post(chat(model))).status for model in ("m", "narrow", "tiny", "pair")] == [200] * 4


class Echo(ScriptedUpstream):
    """Tells each request what it sent, in one answer or in a stream."""

    def script_of(self, call: Call) -> Script:
        found = re.search(rb'"user": ?"([^"]*)"', call.body)
        assert found
        digest = hashlib.sha256(call.body).hexdigest()
        told = f"{found[1].decode()} {digest}"
        if b'"stream": true' in call.body:
            return (
                STREAM_HEAD,
                chunk(token(told)),
                Wait(0.001),
                chunk(token(finish="stop")) + chunk(DONE) + LAST_CHUNK,
            )
        return (answer(json.dumps({"told": told})),)


def test_every_answer_is_that_of_its_own_request_and_every_byte_arrives(tmp_path: Path) -> None:
    """Bodies of all sizes, streams and whole answers, on kept connections, while others leave in the middle."""
    engine = Echo()

    def one_client(seed: int) -> int:
        rng, checked = random.Random(seed), 0
        client = RawClient(proxy.port)
        for turn in range(40):
            nonce = f"nonce-{seed}-{turn}"
            body = json.dumps(chat(user=nonce, stream=rng.random() < 0.5, pad="x" * rng.choice([0, 10, 4000, 150_000])))
            client.send(post(body.encode()))
            if rng.random() < 0.15:
                client.reset()
                client = RawClient(proxy.port)
                continue
            found = client.answer()
            assert (found.status, found.complete) == (200, True)
            assert f"{nonce} {hashlib.sha256(body.encode()).hexdigest()}".encode() in found.body
            checked += 1
        client.socket.close()
        return checked

    with (
        running(tmp_path, settings(upstream("one", engine.url, "m", seats=8))) as proxy,
        ThreadPoolExecutor(12) as pool,
    ):
        assert sum(pool.map(one_client, range(12))) > 300
    engine.close()


def test_every_seat_is_usable_after_all_of_this(bench: Bench) -> None:
    """As many run at once as the limit says, neither fewer (a leak) nor more (a double release)."""
    main = bench.play(Do.HOLD, answer())
    clients = [RawClient(bench.proxy.port) for _ in range(12)]
    try:
        for client in clients:
            client.send(post(chat(), headers=["x-priority: high"]))
        main.wait_calls(8)
        wait_for(lambda: bench.proxy.state()["classes"][0]["queued"] == 4, "four wait")
        assert (bench.proxy.state()["permits"]["held"], len(main.calls)) == (8, 8)
        main.release.set()
        assert [client.answer().status for client in clients] == [200] * 12
    finally:
        for client in clients:
            client.socket.close()
