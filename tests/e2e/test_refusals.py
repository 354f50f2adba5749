"""Requests that are refused before any upstream hears of them, one a row."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Bench
from tests.e2e.raw_client import CHAT, RawClient, bare, chat, is_refusal, post
from tests.e2e.scripted_upstream import LAST_CHUNK, chunk

JSON = "Content-Type: application/json"
LONG = "a" * 9216
NO_RETRY = {"x-should-retry": "false"}
ENDING = {413, 414, 431, 501}
BAD_JSON = (400, "invalid_json", NO_RETRY)


@pytest.mark.parametrize(
    ("request_bytes", "status", "code", "headers"),
    [
        pytest.param(bare(f"GET {CHAT} HTTP/1.1"), 405, "method_not_allowed", {"allow": "POST"}, id="C01 method"),
        pytest.param(bare("GET /v1/nothing HTTP/1.1"), 404, "not_found", {}, id="C01 unknown path"),
        pytest.param(post({}, "/sleep"), 404, "not_found", {}, id="C01 engine admin path"),
        pytest.param(post({}, "/v1/../sleep"), 404, "not_found", {}, id="C01 dots in the path"),
        pytest.param(post({}, "/v1/chat%2Fcompletions"), 404, "not_found", {}, id="C01 escaped path"),
        pytest.param(post(b"{'model'"), *BAD_JSON, id="C02 not JSON"),
        pytest.param(post(b""), *BAD_JSON, id="C02 empty"),
        pytest.param(post([]), *BAD_JSON, id="C02 array"),
        pytest.param(post(None), *BAD_JSON, id="C02 null"),
        pytest.param(post("m"), *BAD_JSON, id="C02 string"),
        pytest.param(post(b'{"model":"m","model":"m"}'), *BAD_JSON, id="C02 duplicate key"),
        pytest.param(post(b"[" * 100_000), *BAD_JSON, id="C02 deep"),
        pytest.param(
            bare(f"POST {CHAT} HTTP/1.1", JSON, "Content-Length: 200001"), 413, "body_too_large", {}, id="C03 length"
        ),
        pytest.param(
            bare(f"POST {CHAT} HTTP/1.1", JSON, "Transfer-Encoding: chunked") + chunk(b"x" * 150_000) * 2,
            413, "body_too_large", {}, id="C04 chunked",
        ),
        pytest.param(bare("GET /v1/models HTTP/1.1", host=""), 400, "invalid_header", {}, id="C05 no host"),
        pytest.param(
            bare("GET /v1/models HTTP/1.1", "Host: b"), 400, "invalid_header", {}, id="C05 two hosts"
        ),
        pytest.param(bare("GET /v1/models HTTP/1.1", f"x: {LONG}"), 431, "header_too_large", {}, id="C05 long header"),
        pytest.param(
            bare("GET /v1/models HTTP/1.1", *["x: y"] * 200), 431, "header_too_large", {}, id="C05 many headers"
        ),
        pytest.param(bare(f"GET /{LONG} HTTP/1.1"), 414, "uri_too_long", {}, id="C05 long target"),
        pytest.param(post(chat("none")), 404, "model_not_found", NO_RETRY, id="C07 unknown model"),
        pytest.param(post(chat("n" * 5000)), 400, "invalid_value", NO_RETRY, id="C07 endless name"),
        pytest.param(
            post(chat(), headers=["x-request-timeout-ms: 0"]), 504, "deadline_exceeded", NO_RETRY, id="C21 past"
        ),
        pytest.param(
            post(chat(), headers=["x-request-timeout-ms: -5"]), 504, "deadline_exceeded", NO_RETRY, id="C21 negative"
        ),
        pytest.param(post(chat(stream="yes")), 400, "invalid_value", NO_RETRY, id="C22 stream"),
        pytest.param(post(chat(n=0)), 400, "invalid_value", NO_RETRY, id="C22 n"),
        pytest.param(post(chat(n=129)), 400, "invalid_value", NO_RETRY, id="C22 many choices"),
        pytest.param(post(chat(max_tokens="5")), 400, "invalid_value", NO_RETRY, id="C22 max_tokens"),
        pytest.param(
            post({"model": "tiny", "messages": [{"role": "user", "content": "word " * 10_000}]}),
            400, "context_length_exceeded", NO_RETRY, id="C23 prompt",
        ),
        pytest.param(post(chat(), headers=["Content-Encoding: gzip"]), 415, "encoded_body", {}, id="encoded body"),
        pytest.param(
            post(chat(), headers=["Authorization: Bearer a", "Authorization: Bearer b"]),
            400, "invalid_header", {}, id="two keys",
        ),
        pytest.param(
            post(chat(), headers=["Authorization: Bearer a", "x-api-key: b"]),
            400, "invalid_header", {}, id="keys differ",
        ),
        pytest.param(post(chat(), headers=["Authorization: Bearer \x07"]), 400, "malformed_request", {}, id="control"),
        pytest.param(
            bare(f"POST {CHAT} HTTP/1.1", JSON, "Transfer-Encoding: gzip, chunked") + LAST_CHUNK,
            501, "not_implemented", {}, id="other coding",
        ),
        pytest.param(
            bare(f"POST {CHAT} HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked") + LAST_CHUNK,
            400, "malformed_request", {}, id="length and chunked",
        ),
        pytest.param(bare("CONNECT a:1 HTTP/1.1"), 501, "not_implemented", {}, id="CONNECT"),
        pytest.param(bare("TRACE / HTTP/1.1"), 501, "not_implemented", {}, id="TRACE"),
        pytest.param(b"SSH-2.0-client\r\n\r\n", 501, "not_implemented", {}, id="not HTTP"),
        pytest.param(
            post({**chat(), "background": True}, "/v1/responses"), 400, "invalid_value", NO_RETRY, id="background"
        ),
    ],
)  # fmt: skip
def test_is_refused(bench: Bench, request_bytes: bytes, status: int, code: str, headers: dict[str, str]) -> None:
    with RawClient(bench.proxy.port) as client:
        found = client.send(request_bytes).answer()
        is_refusal(found, status, code)
        if status in ENDING or code == "malformed_request":
            assert found.headers["connection"] == "close"
            assert client.closed(), "what is left of it is not read"
        else:
            assert client.send(bare("GET /health HTTP/1.1")).answer().status == 200, "the connection lives on"
    assert headers.items() <= found.headers.items()
    assert bench.main.calls == []
    assert b"aaaaaaaa" not in found.body
    assert b"n" * 65 not in found.body
