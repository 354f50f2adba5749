"""What engines do wrong, one case a row: what the client gets, how often the engine was asked, how it was counted."""

from __future__ import annotations

import gzip
import json
import time

import pytest

from tests.e2e.conftest import Bench, ask
from tests.e2e.raw_client import Answer, RawClient, chat, is_refusal, post
from tests.e2e.scripted_upstream import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Do,
    Script,
    Wait,
    answer,
    chunk,
    token,
    whole_stream,
)

ERROR_EVENT = b'data: {"error":'
SAID = answer('{"error":{"message":"own words","code":7}}', 500, "x-own: kept\r\n")
BUSY = answer('{"error":"busy"}', 429, "Retry-After: 7\r\n")
LOADING = answer('{"error":"loading"}', 503)
CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
DRIBBLE = tuple(step for byte in HEAD for step in (bytes([byte]), Wait(0.05)))


def send(bench: Bench, request_id: str, stream: bool, model: str = "m") -> tuple[Answer, str]:
    """The answer and the outcome in the log."""
    found = ask(bench, post(chat(model, stream=stream), headers=[f"x-request-id: {request_id}"]))
    return found, bench.proxy.record(request_id)["outcome"]


@pytest.mark.parametrize(
    ("stream", "script", "status", "code"),
    [
        pytest.param(True, (Do.HOLD,), 504, "upstream_timeout", id="U05 silent stream"),
        pytest.param(False, (Do.HOLD,), 504, "upstream_timeout", id="U05 silent"),
        pytest.param(True, (STREAM_HEAD, Do.HOLD), 504, "upstream_timeout", id="U05 head only"),
        pytest.param(True, (*DRIBBLE, Do.HOLD), 504, "upstream_timeout", id="U07 dribbled head"),
        pytest.param(True, (Do.CLOSE,), 502, "upstream_error", id="U19 FIN"),
        pytest.param(False, (Do.RESET,), 502, "upstream_error", id="U19 RST"),
        pytest.param(True, (STREAM_HEAD, Do.CLOSE), 502, "upstream_error", id="U19 after the head"),
        pytest.param(True, (STREAM_HEAD, Do.RESET), 502, "upstream_error", id="U19 reset after the head"),
        pytest.param(False, (HEAD + b"Content-Length: 9\r\n\r\n", Do.CLOSE), 502, "upstream_error", id="U19 whole"),
        pytest.param(False, (b"SSH-2.0-server\r\n", Do.CLOSE), 502, "upstream_error", id="not HTTP"),
        pytest.param(False, (answer("x", 999),), 502, "upstream_error", id="status 999"),
        pytest.param(False, (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", Do.HOLD), 502, "", id="unasked 101"),
        pytest.param(False, (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000,), 502, "upstream_error", id="endless head"),
    ],
)  # fmt: skip
def test_a_failure_before_the_first_byte_is_a_status(
    bench: Bench, request: pytest.FixtureRequest, stream: bool, script: Script, status: int, code: str
) -> None:
    main = bench.play(*script)
    name = "before-" + request.node.callspec.id.replace(" ", "-")
    found, outcome = send(bench, name, stream)
    is_refusal(found, status, code or found.error["code"])
    assert outcome == found.headers["x-penstock-reason"] == found.error["code"]
    assert (found.headers.get("x-should-retry") == "false") is (status == 504)
    stale = main.calls[0].reused and script[0] in (Do.CLOSE, Do.RESET)
    assert len(main.calls) == 1 + stale  # never a second execution, but for a reused connection without an answer
    main.calls[0].wait_gone()


@pytest.mark.parametrize(
    ("script", "outcome", "own_error"),
    [
        pytest.param((STREAM_HEAD + chunk(token()), Do.HOLD), "upstream_timeout", False, id="U06 silence"),
        pytest.param((STREAM_HEAD + chunk(token()), Do.CLOSE), "upstream_error", False, id="FIN"),
        pytest.param((STREAM_HEAD + chunk(token()), Do.RESET), "upstream_error", False, id="RST"),
        pytest.param((STREAM_HEAD + chunk(token()) + LAST_CHUNK,), "upstream_error", False, id="no finish mark"),
        pytest.param((CLOSE_DELIMITED + token(), Do.CLOSE), "upstream_error", False, id="close-delimited, cut"),
        pytest.param((STREAM_HEAD + chunk(token()), Wait(0.05), b"zz\r\n"), "upstream_error", False, id="bad chunk"),
        pytest.param(
            (whole_stream(token(), b'data: {"error":{"message":"CUDA"}}\n\n', DONE),), "upstream_error", True, id="U13"
        ),
    ],
)
def test_a_stream_that_breaks_says_so_and_is_not_ended_properly(
    bench: Bench, request: pytest.FixtureRequest, script: Script, outcome: str, own_error: bool
) -> None:
    main = bench.play(*script)
    found, counted = send(bench, "breaks-" + request.node.callspec.id.replace(" ", "-").replace(",", ""), stream=True)
    assert (found.status, counted) == (200, outcome)
    assert found.body.startswith(token())
    assert found.body.count(ERROR_EVENT) == 1
    assert (b"CUDA" in found.body) is own_error
    assert not found.complete
    assert len(main.calls) == 1


EVENTS = token() + token(finish="stop") + DONE
OWN = {"x-own": "kept"}


@pytest.mark.parametrize(
    ("stream", "script", "status", "body", "headers", "outcome"),
    [
        pytest.param(False, (SAID,), 500, SAID, OWN, "upstream_status", id="U09 500"),
        pytest.param(False, (BUSY,), 429, BUSY, {"retry-after": "7"}, "upstream_status", id="U08 429"),
        pytest.param(False, (LOADING,), 503, LOADING, {}, "upstream_status", id="U10 503"),
        pytest.param(
            False, (answer('{"error":{"code":"context_length_exceeded"}}', 400),), 400,
            answer('{"error":{"code":"context_length_exceeded"}}'), {}, "upstream_status", id="U11 400",
        ),
        pytest.param(
            False, (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",), 200,
            b"\r\n\r\n<html>", {"content-type": "text/html"}, "success", id="U12 HTML",
        ),
        pytest.param(False, (whole_stream(),), 200, b"\r\n\r\n" + EVENTS, {}, "success", id="U12 SSE"),
        pytest.param(
            False, (answer(gzip.compress(b"{}", mtime=0), 200, "Content-Encoding: gzip\r\n"),), 200,
            answer(gzip.compress(b"{}", mtime=0)), {"content-encoding": "gzip"}, "success", id="U17 gzip",
        ),
        pytest.param(
            True, (CLOSE_DELIMITED + token(finish="stop") + DONE, Do.CLOSE), 200,
            b"\r\n\r\n" + token(finish="stop") + DONE, {}, "success", id="close-delimited",
        ),
        pytest.param(
            True, (whole_stream(token(finish="stop"), DONE, b": more\n\n"),), 200,
            b"\r\n\r\n" + token(finish="stop") + DONE + b": more\n\n", {}, "success", id="U16 bytes after DONE",
        ),
        pytest.param(
            True, tuple(whole_stream()[at : at + 1] for at in range(len(whole_stream()))), 200,
            b"\r\n\r\n" + EVENTS, {}, "success", id="N01 single bytes",
        ),
        pytest.param(False, (b"HTTP/1.1 204 No Content\r\n\r\n",), 204, b"\r\n\r\n", {}, "success", id="204"),
    ],
)  # fmt: skip
def test_passes_through_unchanged(
    bench: Bench, request: pytest.FixtureRequest, stream: bool, script: Script, status: int, body: bytes,
    headers: dict[str, str], outcome: str,
) -> None:  # fmt: skip
    main = bench.play(*script)
    found, counted = send(bench, "passes-" + request.node.callspec.id.replace(" ", "-"), stream)
    assert (found.status, found.body, counted) == (status, body.partition(b"\r\n\r\n")[2], outcome)
    assert found.complete
    assert headers.items() <= found.headers.items()
    assert "server" not in found.headers or "aiohttp" not in found.headers["server"]
    assert len(main.calls) == 1


def usage(prompt: object, completion: object) -> bytes:
    return answer(json.dumps({"usage": {"prompt_tokens": prompt, "completion_tokens": completion}}))


USAGES: list[tuple[object, object]] = [
    (None, None),
    (10**6, 10**6),
    (-1, -5),
    (1e300, 2),
    ("many", 1),
    ([], {}),
    (10**30, 10**30),
    (True, False),
]
BELIEVED = 2  # the first two: none, and ten times what was expected


def test_u14_u17_usage_that_cannot_be_believed_is_counted_and_leaves_the_ledger_sound(bench: Bench) -> None:
    proxy = bench.proxy
    time.sleep(1.1)  # the page is a second old at most
    before = proxy.metric("penstock_usage_rejected_total")
    for prompt, completion in USAGES:
        bench.play(usage(prompt, completion))
        found = ask(bench, post(chat("tiny")))
        assert (found.status, found.complete) == (200, True)
        assert 0 <= proxy.upstream("tiny")["kv_reserved_tokens"] <= 1000
    bench.play(answer(gzip.compress(b"{}"), 200, "Content-Encoding: gzip\r\n"))
    assert ask(bench, post(chat("tiny"))).status == 200
    proxy.wait_metric(before + len(USAGES) - BELIEVED + 1, "penstock_usage_rejected_total")


def test_u15_a_connection_that_stays_open_after_done_is_ended(bench: Bench) -> None:
    main = bench.play(STREAM_HEAD + chunk(token(finish="stop")) + chunk(DONE), Do.HOLD)
    started_s = time.monotonic()
    found, outcome = send(bench, "u15", stream=True)
    assert time.monotonic() - started_s < 2.0
    assert (found.status, found.complete, outcome) == (200, True, "success")
    assert found.body.endswith(DONE)
    main.calls[0].wait_gone()


FINE = (answer('{"from":"the second try"}'),)
LONG = answer("x" * 200_000, 503)


@pytest.mark.parametrize("failing", [pytest.param(BUSY, id="U08 429"), pytest.param(LOADING, id="U10 503")])
def test_an_engine_that_sheds_is_replaced_by_the_other(bench: Bench, failing: bytes) -> None:
    bench.play_pair((failing,), FINE)
    found = ask(bench, post(chat("pair")))
    assert (found.status, found.body) == (200, b'{"from":"the second try"}')
    assert len(bench.first.calls) == len(bench.second.calls) == 1


def test_a_shed_answer_too_long_to_hold_back_passes(bench: Bench) -> None:
    bench.play_pair((LONG,), FINE)
    found = ask(bench, post(chat("pair")))
    assert (found.status, len(found.body), bench.pair_calls()) == (503, 200_000, 1)


def test_when_all_shed_the_last_answer_passes_with_its_header(bench: Bench) -> None:
    bench.play_pair((BUSY,), (BUSY,), (BUSY,))
    found = ask(bench, post(chat("pair")))
    assert (found.status, found.body, found.headers["retry-after"]) == (429, b'{"error":"busy"}', "7")
    assert 2 <= bench.pair_calls() <= 3


def test_u18_a_reused_connection_that_was_reset_is_replaced_once(bench: Bench) -> None:
    main = bench.main
    main.scripts = [(answer(),), (Do.RESET,), FINE]
    with RawClient(bench.proxy.port) as client:
        assert client.send(post(chat())).answer().status == 200
        found = client.send(post(chat())).answer()
    assert (found.status, found.body) == (200, b'{"from":"the second try"}')
    assert len(main.calls) == 3
    assert len({call.connection for call in main.calls[1:]}) == 2


def test_u18_a_request_that_was_taken_before_the_connection_closed_is_not_sent_again(bench: Bench) -> None:
    """Its kernel has acknowledged all of it, so the engine may have begun: a killed one ends that way."""
    main = bench.main
    main.scripts = [(answer(),), (Do.CLOSE,), FINE]
    with RawClient(bench.proxy.port) as client:
        assert client.send(post(chat())).answer().status == 200
        is_refusal(client.send(post(chat())).answer(), 502, "upstream_error")
    assert len(main.calls) == 2


def test_u18_stored_responses_are_not_sent_again(bench: Bench) -> None:
    main = bench.main
    main.scripts = [(answer(),), (Do.RESET,), FINE]
    body = {"model": "m", "input": "hello"}
    with RawClient(bench.proxy.port) as client:
        assert client.send(post(body, "/v1/responses")).answer().status == 200
        found = client.send(post(body, "/v1/responses")).answer()
    is_refusal(found, 502, "upstream_error")
    assert len(main.calls) == 2


LONG_PROMPT = {"model": "roomy", "prompt": "word " * 8_000, "max_tokens": 1}
ESTIMATE = len(json.dumps(LONG_PROMPT)) // 4
TOO_LONG = "This model's maximum context length is 8192 tokens. However, "


def refusal_of(tokens: int, engine: str) -> bytes:
    """What engines answer to a prompt of so many tokens."""
    words = {
        "vLLM": f"{TOO_LONG}you requested {tokens + 1} tokens ({tokens} in the messages, 1 in the completion).",
        "SGLang": f"The input ({tokens} tokens) is longer than the model's context length (8192 tokens).",
        "TGI": f"Input validation error: `inputs` must have less than 8192 tokens. Given: {tokens}",
    }
    error: object = {"type": "exceed_context_size_error", "message": "too long", "n_prompt_tokens": tokens}
    if engine in words:
        error = words[engine] if engine == "TGI" else {"message": words[engine], "code": 400}
    return answer(json.dumps({"error": error}), 422 if engine == "TGI" else 400)


def test_u11_a_refusal_for_length_corrects_the_estimate_of_prompts(bench: Bench) -> None:
    """What a later request of the same size is booked for follows the engine's own count, and a lie moves it no
    further than to one token for each byte."""
    request = post(LONG_PROMPT, "/v1/completions")

    def booked() -> int:
        main = bench.play(Do.HOLD, answer())
        with RawClient(bench.proxy.port) as client:
            client.send(request)
            main.wait_calls(1)
            found: int = bench.proxy.upstream("roomy")["kv_reserved_tokens"]
            main.release.set()
            assert client.answer().status == 200
        return found

    before = booked()
    assert abs(before - ESTIMATE) <= 2
    last = before
    for engine, factor in (("vLLM", 2), ("SGLang", 0.5), ("TGI", 3), ("llama.cpp", 0.5)):
        refused = refusal_of(round(factor * ESTIMATE), engine)
        bench.play(refused)
        found = ask(bench, request)
        assert found.status == (422 if engine == "TGI" else 400)
        assert found.body == refused.partition(b"\r\n\r\n")[2], "it passes as it came"
        now = booked()
        assert now > last * 1.2 if factor > 1 else now < last * 0.9, engine
        last = now
    bench.play(refusal_of(99_000_000, "SGLang"))
    for _ in range(30):
        ask(bench, request)
    assert booked() <= 4 * ESTIMATE + 2
