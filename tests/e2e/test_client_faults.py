"""What clients do wrong, one case a row: the answer, and that nothing is held and no upstream is troubled after it."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import pytest

from tests.e2e.conftest import KEYS, Bench, ask
from tests.e2e.raw_client import CHAT, RawClient, bare, chat, is_refusal, post
from tests.e2e.scripted_upstream import (
    LAST_CHUNK,
    STREAM_HEAD,
    Do,
    answer,
    chunk,
    token,
    wait_for,
    whole_stream,
)

AT_ONCE_S = 0.25  # 50 ms is the aim; the machine that runs this is busy


@pytest.mark.parametrize(
    ("headers", "body", "class_name", "counter"),
    [
        pytest.param([], {}, "normal", "", id="C08 none"),
        pytest.param(["x-priority: urgent"], {}, "normal", "penstock_priority_unknown_total", id="C08 unknown"),
        pytest.param(["x-priority: low"], {}, "low", "", id="C08 named"),
        pytest.param(["x-request-priority: -9"], {}, "high", "", id="C08 number"),
        pytest.param(["x-request-priority: 3"], {"priority": -9}, "low", "", id="C08 header before body"),
        pytest.param([], {"priority": -9}, "high", "", id="C08 body"),
        pytest.param([], {"service_tier": "flex"}, "low", "", id="C08 tier"),
        pytest.param(["traceparent: 00-zz-1-01"], {}, "normal", "", id="C20 malformed traceparent"),
    ],
)
def test_is_served_in_its_class(
    bench: Bench, headers: list[str], body: dict[str, object], class_name: str, counter: str
) -> None:
    before = bench.proxy.metric(counter) if counter else 0.0
    found = ask(bench, post(chat() | body, headers=headers))
    assert (found.status, found.body) == (200, b'{"ok":true}')
    assert found.headers["x-penstock-class"] == class_name
    assert found.headers["x-penstock-upstream"] == "main"
    assert b"priority" not in bench.main.wait_calls(1).body
    if counter:
        bench.proxy.wait_metric(before + 1, counter)


@pytest.mark.parametrize(
    ("key", "model", "status", "code"),
    [
        pytest.param("", "m", 401, "invalid_api_key", id="C06 none"),
        pytest.param("wrong", "m", 401, "invalid_api_key", id="C06 wrong"),
        pytest.param("wr\xf6ng", "m", 400, "invalid_header", id="C06 not ASCII"),
        pytest.param(KEYS["small"], "other", 403, "model_not_allowed", id="C07 not allowed"),
        pytest.param(KEYS["small"], "none", 404, "model_not_found", id="C07 unknown"),
    ],
)
def test_key_and_model_are_checked(keyed: Bench, key: str, model: str, status: int, code: str) -> None:
    keyed.play()
    found = ask(keyed, post(chat(model), headers=[f"Authorization: Bearer {key}"] if key else []))
    is_refusal(found, status, code)
    assert ("www-authenticate" in found.headers) is (status == 401)
    assert keyed.main.calls == []


def test_c08_a_class_above_the_tenants_is_lowered_and_counted(keyed: Bench) -> None:
    keyed.play()
    before = keyed.proxy.metric("penstock_priority_clamped_total")
    found = ask(keyed, post(chat(), headers=[f"x-api-key: {KEYS['acme']}", "x-priority: high"]))
    assert (found.status, found.headers["x-penstock-class"]) == (200, "normal")
    keyed.proxy.wait_metric(before + 1, "penstock_priority_clamped_total")
    assert KEYS["acme"] not in keyed.main.calls[0].head + keyed.proxy.log()


def test_c24_a_tenant_over_its_own_concurrency_waits_or_is_refused_while_others_are_served(keyed: Bench) -> None:
    keyed.play(Do.HOLD, answer())
    mine = [f"Authorization: Bearer {KEYS['small']}"]
    with RawClient(keyed.proxy.port) as busy:
        busy.send(post(chat(), headers=mine))
        keyed.main.wait_calls(1)
        keyed.main.script = (answer(),)
        with RawClient(keyed.proxy.port) as other:
            assert other.send(post(chat(), headers=[f"x-api-key: {KEYS['acme']}"])).answer().status == 200
        refused = ask(keyed, post(chat(), headers=mine))
        is_refusal(refused, 429, "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        keyed.main.release.set()
        assert busy.answer().status == 200


def test_c27_idle_connections_are_bounded_and_the_others_go_on_being_served(keyed: Bench) -> None:
    keyed.play()
    request = post(chat(), headers=[f"Authorization: Bearer {KEYS['acme']}"])
    with RawClient(keyed.proxy.port) as early:
        assert early.send(request).answer().status == 200
        idle = [RawClient(keyed.proxy.port) for _ in range(5000)]
        for _ in range(20):
            assert early.send(request).answer().status == 200
        for client in idle:
            client.socket.close()
        assert keyed.proxy.state()["server"]["connections"] <= 5001
    assert wait_for(lambda: ask(keyed, request).status == 200, "a place is free again")


def leave(client: RawClient, how: str) -> float:
    if how == "RST":
        client.reset()
    elif how == "half":
        client.half_close()
    else:
        client.socket.close()
    return time.monotonic()


@pytest.mark.parametrize("how", ["FIN", "RST", "half"])
def test_c09_leaving_the_queue_frees_the_place_and_nothing_is_sent(bench: Bench, how: str) -> None:
    main = bench.play(Do.HOLD, answer())
    with RawClient(bench.proxy.port) as runs, RawClient(bench.proxy.port) as waits:
        runs.send(post(chat("narrow")))
        main.wait_calls(1)
        waits.send(post(chat("narrow"), headers=[f"x-request-id: c09-{how}"]))
        wait_for(lambda: bench.proxy.state()["classes"][1]["queued"] == 1, "one waits")
        left_s = leave(waits, how)
        wait_for(lambda: bench.proxy.state()["classes"][1]["queued"] == 0, "none waits", 1.0)
        assert time.monotonic() - left_s < AT_ONCE_S
        main.release.set()
        assert runs.answer().status == 200
    assert len(main.calls) == 1
    record = bench.proxy.record(f"c09-{how}")
    assert (record["outcome"], record["status"], record["gone_phase"]) == ("client_gone", 499, "queued")


@pytest.mark.parametrize("how", ["FIN", "RST", "half"])
@pytest.mark.parametrize(
    ("stream", "steps", "phase"),
    [
        pytest.param(True, (), "waiting", id="C10 stream"),
        pytest.param(False, (), "waiting", id="C10 whole"),
        pytest.param(True, (STREAM_HEAD + chunk(token()),), "streaming", id="C11"),
    ],
)
def test_leaving_closes_the_upstream_at_once(
    bench: Bench, stream: bool, steps: tuple[bytes, ...], phase: str, how: str
) -> None:
    main = bench.play(*steps, Do.HOLD)
    request_id = f"leaves-{stream}-{phase}-{how}"
    with RawClient(bench.proxy.port) as client:
        client.send(post(chat(stream=stream), headers=[f"x-request-id: {request_id}"]))
        call = main.wait_calls(1)
        if steps:
            client.read_until(b"data: ")
        left_s = leave(client, how)
        assert call.wait_gone() - left_s < AT_ONCE_S
    record = bench.proxy.record(request_id)
    assert (record["outcome"], record["status"], record["gone_phase"]) == ("client_gone", 499, phase)
    assert 0 <= record["abort_s"] < AT_ONCE_S
    connections = main.connections
    main.reset()
    assert ask(bench, post(chat())).status == 200
    assert main.connections == connections + 1  # the abandoned connection was not used again


def test_c12_leaving_while_uploading_makes_no_ticket(bench: Bench) -> None:
    before = bench.proxy.state()["permits"]["granted"]
    with RawClient(bench.proxy.port) as client:
        client.send(post(chat(), headers=["x-request-id: c12"])[:-5])
    assert bench.proxy.record("c12")["gone_phase"] == "upload"
    assert bench.proxy.state()["permits"]["granted"] == before
    assert bench.main.calls == []


BIG = 4_000_000


def test_c14_a_slow_but_steady_reader_is_never_cut(bench: Bench) -> None:
    bench.play(STREAM_HEAD, *[chunk(token("x" * 50_000))] * (BIG // 50_000), chunk(token(finish="stop")), LAST_CHUNK)
    with RawClient(bench.proxy.port, receive_bytes=65536) as client:
        client.send(post(chat(stream=True)))
        started_s, received = time.monotonic(), b""
        while not received.endswith(LAST_CHUNK):
            piece = client.receive()
            assert piece, f"cut after {len(received)} bytes"
            received += piece
            if len(received) < BIG * 3 // 4:
                time.sleep(0.03)
    assert time.monotonic() - started_s > 1.2  # longer than the deadline of one that does not read at all
    assert len(received) > BIG


def test_c15_a_client_that_stops_reading_is_cut_and_the_upstream_with_it(bench: Bench) -> None:
    main = bench.play(STREAM_HEAD, *[chunk(token("x" * 50_000))] * 400, Do.HOLD)
    with RawClient(bench.proxy.port, receive_bytes=4096) as client:
        client.send(post(chat(stream=True), headers=["x-request-id: c15"]))
        main.wait_calls(1).wait_gone(5.0)
        assert bench.proxy.record("c15")["outcome"] == "client_stalled"


def test_c16_nothing_is_carried_over_between_requests_of_one_connection(bench: Bench) -> None:
    ids = set()
    with RawClient(bench.proxy.port) as client:
        for number in range(1000):
            odd = number % 3
            request = [post(chat(), headers=["x-priority: low"]), post(chat()), post(b"{")][odd]
            found = client.send(request).answer()
            assert found.status == (200, 200, 400)[odd]
            assert found.headers.get("x-penstock-class") == ("low", "normal", None)[odd]
            ids.add(found.headers["x-request-id"])
    assert len(ids) == 1000
    assert len(bench.main.calls) == 667


def test_c17_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    bench.main.scripts = [(answer(json.dumps({"number": number})),) for number in range(5)]
    with RawClient(bench.proxy.port) as client:
        client.send(post(chat()) * 5)
        assert [json.loads(client.answer().body)["number"] for _ in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
def test_c18_head_is_get_without_its_body(bench: Bench, path: str) -> None:
    with RawClient(bench.proxy.port) as client:
        head = client.send(bare(f"HEAD {path} HTTP/1.1")).answer(head_only=True)
        full = client.send(bare(f"GET {path} HTTP/1.1")).answer()
        assert (head.status, full.status) == (200, 200)
        assert head.headers["content-length"] == full.headers["content-length"] == str(len(full.body))


@pytest.mark.parametrize("value", ["x" * 600, "two words", "", "a\xe9"])
def test_c19_an_unusable_request_id_is_replaced(bench: Bench, value: str) -> None:
    found = ask(bench, post(chat(), headers=[f"x-request-id: {value}"]))
    assert found.status in (200, 400)
    assert found.headers["x-request-id"] not in ("", value)
    assert value == "" or value not in bench.proxy.log()


def test_c19_a_usable_request_id_is_kept(bench: Bench) -> None:
    found = ask(bench, post(chat(), headers=["x-request-id: mine-1"]))
    assert found.headers["x-request-id"] == found.headers["request-id"] == "mine-1"


def test_c25_c26_a_full_queue_refuses_and_a_long_wait_ends(bench: Bench) -> None:
    main = bench.play(Do.HOLD, answer())
    low = post(chat("narrow"), headers=["x-priority: low"])
    with ExitStack() as stack:
        runs, *waiting, late = (stack.enter_context(RawClient(bench.proxy.port)) for _ in range(4))
        runs.send(low)
        main.wait_calls(1)
        for client in waiting:
            client.send(low)
        sent_s = time.monotonic()
        wait_for(lambda: bench.proxy.state()["classes"][2]["queued"] == 2, "two wait")
        full = late.send(low).answer()
        is_refusal(full, 429, "queue_full")
        assert 1 <= int(full.headers["retry-after"]) <= 60
        assert int(full.headers["retry-after-ms"]) >= 1
        for client in waiting:
            found = client.answer()
            is_refusal(found, 503, "queue_timeout")
            assert 0.45 <= time.monotonic() - sent_s < 0.9
            assert "retry-after" in found.headers
        main.release.set()
        assert runs.answer().status == 200


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n", "head_timeout", id="head"),
        pytest.param(post(chat())[:-5], "body_timeout", id="body"),
    ],
)
def test_a_request_that_never_becomes_whole_is_ended(bench: Bench, sent: bytes, code: str) -> None:
    with RawClient(bench.proxy.port) as client:
        found = client.send(sent).answer()
        is_refusal(found, 408, code)
        assert client.closed()


def test_n01_a_request_in_single_bytes_is_the_same_request(bench: Bench) -> None:
    bench.play(whole_stream())
    body = json.dumps(chat(stream=True)).encode()
    with RawClient(bench.proxy.port) as client:
        request = post(body)
        client.send(*[request[at : at + 1] for at in range(len(request))])
        found = client.answer()
    assert (found.status, found.complete) == (200, True)
    assert found.body.endswith(b"data: [DONE]\n\n")
    assert bench.main.calls[0].body == body


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(post(chat(), headers=["Expect: 100-continue"]), 100, id="granted"),
        pytest.param(post(chat(), "/none", ["Expect: 100-continue"]), 404, id="path"),
        pytest.param(bare(f"POST {CHAT} HTTP/1.1", "Expect: 100-continue", "Content-Length: 9999999"), 413, id="size"),
    ],
)
def test_100_continue_comes_only_after_the_checks_of_the_head(bench: Bench, head: bytes, status: int) -> None:
    with RawClient(bench.proxy.port) as client:
        before, _, body = head.partition(b"\r\n\r\n")
        client.send(before + b"\r\n\r\n")
        if status != 100:
            assert client.answer().status == status
            return
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        found = client.send(body).answer()
        assert (found.status, found.interim) == (200, (100,))
