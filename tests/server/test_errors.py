from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.server.errors import BY_CODE, BY_OUTCOME, REASONS, Refusal, refusal_for, render, stream_error
from proxy.types import Outcome
from proxy.wire.errors import ErrorStyle

O = Outcome  # noqa: E741 - keeps the table to one line per case
RATE, GONE, INVALID = "rate_limit_error", "service_unavailable_error", "invalid_request_error"
# case, status, type, x-should-retry may be left out, closes, status in Anthropic's shape
TABLE = [
    (O.RATE_LIMITED, "rate_limit_exceeded", 429, RATE, True, False, 429),
    (O.QUEUE_FULL, "queue_full", 429, RATE, True, False, 529),
    (O.DISPLACED, "displaced", 429, RATE, True, False, 529),
    (O.QUEUE_TIMEOUT, "queue_timeout", 503, GONE, True, False, 529),
    (O.NO_UPSTREAM, "server_is_overloaded", 503, GONE, True, False, 529),
    (O.SHUTTING_DOWN, "shutting_down", 503, GONE, True, True, 503),
    (O.TOO_LARGE_FOR_ENGINE, "context_length_exceeded", 400, INVALID, False, False, 400),
    (O.DEADLINE_EXCEEDED, "deadline_exceeded", 504, "timeout_error", False, False, 504),
    (O.UPSTREAM_ERROR, "upstream_error", 502, "api_error", True, False, 502),
    (O.UPSTREAM_TIMEOUT, "upstream_timeout", 504, "timeout_error", False, False, 504),
    (O.AUTH, "invalid_api_key", 401, INVALID, False, False, 401),
    (O.AUTH, "model_not_allowed", 403, INVALID, False, False, 403),
    (O.BAD_REQUEST, "model_not_found", 404, INVALID, False, False, 404),
    (O.BAD_REQUEST, "not_found", 404, INVALID, False, False, 404),
    (O.BAD_REQUEST, "invalid_json", 400, INVALID, False, False, 400),
    (O.BAD_REQUEST, "invalid_value", 400, INVALID, False, False, 400),
    (O.BAD_REQUEST, "invalid_header", 400, INVALID, False, False, 400),
    (O.BAD_REQUEST, "malformed_request", 400, INVALID, False, True, 400),
    (O.BAD_REQUEST, "method_not_allowed", 405, INVALID, False, False, 405),
    (O.BAD_REQUEST, "body_too_large", 413, INVALID, False, True, 413),
    (O.BAD_REQUEST, "uri_too_long", 414, INVALID, False, True, 414),
    (O.BAD_REQUEST, "encoded_body", 415, INVALID, False, False, 415),
    (O.BAD_REQUEST, "header_too_large", 431, INVALID, False, True, 431),
    (O.BAD_REQUEST, "not_implemented", 501, INVALID, False, True, 501),
    (O.BAD_REQUEST, "http_version_not_supported", 505, INVALID, False, True, 505),
    (O.HEAD_TIMEOUT, "head_timeout", 408, "timeout_error", True, True, 408),
    (O.BODY_TIMEOUT, "body_timeout", 408, "timeout_error", True, True, 408),
    (O.INTERNAL_ERROR, "internal_error", 500, "internal_error", True, False, 500),
]  # fmt: skip
CODES = [case[1] for case in TABLE]


def row_of(outcome: Outcome, code: str) -> Refusal:
    return refusal_for(outcome, code) if code in BY_CODE else refusal_for(outcome)


def parts(answer: bytes) -> tuple[bytes, dict[str, str], Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines)
    assert int(headers["content-length"]) == len(body)
    return first.encode(), headers, orjson.loads(body)


@pytest.mark.parametrize(("outcome", "code", "status", "kind", "retry", "closes", "status_there"), TABLE, ids=CODES)
def test_each_case_has_its_row(
    outcome: Outcome, code: str, status: int, kind: str, retry: bool, closes: bool, status_there: int
) -> None:
    row = row_of(outcome, code)
    assert (row.code, row.close) == (code, closes)
    told, answer = render(row, "openai", b"r-1", close=row.close)
    first, headers, body = parts(answer)
    assert (told, first) == (status, b"HTTP/1.1 %d %b" % (status, REASONS[status]))
    error = body["error"]
    assert (error["type"], error["code"], error["param"], error["message"][: len(row.message)]) == (
        kind,
        code,
        None,
        row.message,
    )
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"] == headers["request-id"] == "r-1"
    assert headers["x-penstock-reason"] == outcome.value
    assert (headers.get("x-should-retry"), headers.get("connection")) == (
        None if retry else "false",
        "close" if closes else None,
    )
    assert ("www-authenticate" in headers) is (status == 401)
    assert ("Request id: r-1" in error["message"]) is (status == 500)
    assert "retry-after" not in headers

    told, answer = render(row, "anthropic", b"r-1", close=False)
    _, headers, body = parts(answer)
    assert (told, body["type"], set(body["error"])) == (status_there, "error", {"type", "message"})
    assert (body["error"]["type"] == "overloaded_error") is (status_there == 529)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (BY_OUTCOME[O.AUTH], "authentication_error"),
        (BY_CODE["model_not_allowed"], "permission_error"),
        (BY_CODE["model_not_found"], "not_found_error"),
        (BY_CODE["body_too_large"], "request_too_large"),
        (BY_CODE["method_not_allowed"], "invalid_request_error"),
        (BY_OUTCOME[O.RATE_LIMITED], "rate_limit_error"),
        (BY_OUTCOME[O.QUEUE_FULL], "overloaded_error"),
        (BY_OUTCOME[O.UPSTREAM_TIMEOUT], "timeout_error"),
        (BY_OUTCOME[O.SHUTTING_DOWN], "api_error"),
    ],
    ids=lambda value: value.code if isinstance(value, Refusal) else value,
)
def test_messages_are_refused_with_anthropics_own_types(row: Refusal, kind: str) -> None:
    assert parts(render(row, "anthropic", b"r", close=False)[1])[2]["error"]["type"] == kind
    if row.outcome in BY_OUTCOME and BY_OUTCOME[row.outcome] is row:
        assert f'"type":"{kind}"'.encode() in stream_error(row.outcome, "anthropic")


def test_the_table_is_whole() -> None:
    told_otherwise = {O.SUCCESS, O.UPSTREAM_STATUS, O.CLIENT_GONE, O.CLIENT_STALLED, O.BAD_REQUEST}
    assert set(BY_OUTCOME) == set(Outcome) - told_otherwise
    assert sorted(CODES) == sorted({row.code for row in (*BY_OUTCOME.values(), *BY_CODE.values())})


@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds"), [(0.0, 1, 1), (0.25, 1, 250), (1.0, 1, 1000), (7.3, 8, 7300)]
)
def test_retry_after_rounds_up_and_has_a_finer_twin(wait_s: float, seconds: int, milliseconds: int) -> None:
    _, answer = render(BY_OUTCOME[O.QUEUE_FULL], "openai", b"r", False, retry_after_s=wait_s)
    _, headers, _ = parts(answer)
    assert (headers["retry-after"], headers["retry-after-ms"]) == (str(seconds), str(milliseconds))


def test_what_a_case_may_add() -> None:
    row = BY_CODE["method_not_allowed"]
    _, answer = render(row, "openai", b"r", True, None, "More.", "model", b"GET, HEAD", b"x-penstock-class: low\r\n")
    _, headers, body = parts(answer)
    assert (headers["allow"], headers["x-penstock-class"], headers["connection"]) == ("GET, HEAD", "low", "close")
    assert body["error"] == {"message": f"{row.message} More.", "type": INVALID, "param": "model", "code": row.code}


@pytest.mark.parametrize(
    ("style", "start"), [("openai", b'\n\ndata: {"error":'), ("anthropic", b'\n\nevent: error\ndata: {"type":"error"')]
)
def test_a_stream_ends_with_an_event_of_its_own_shape(style: ErrorStyle, start: bytes) -> None:
    event = stream_error(O.UPSTREAM_ERROR, style)
    assert event.startswith(start)
    assert event.endswith(b"}\n\n")
    error = orjson.loads(event.partition(b"data: ")[2])["error"]
    assert error["message"] == BY_OUTCOME[O.UPSTREAM_ERROR].message
