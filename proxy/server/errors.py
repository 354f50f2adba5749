"""Outcome and case -> status, type, code, headers: the one table of refusals.

The openai SDK retries 408, 409, 429 and every 5xx, obeys `retry-after-ms`, then `retry-after`, and
`x-should-retry`; the table says "false" wherever a second try cannot help. `/v1/messages` answers in Anthropic's
shape, with 529 overloaded_error where a place is lacking. Messages echo nothing that the client sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

from proxy.server.own_head import own_lines
from proxy.types import Outcome
from proxy.wire.errors import ErrorStyle, error_body, error_event

OVERLOADED_STATUS: Final = 529  # Anthropic's own status for "no room now"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row: what a client gets to see. `retry` False adds `x-should-retry: false`."""

    status: int
    type: str
    code: str
    message: str
    outcome: Outcome
    retry: bool = True
    close: bool = False


def _row(
    status: int, kind: str, code: str, message: str, outcome: Outcome, retry: bool = True, close: bool = False
) -> Refusal:
    return Refusal(status, kind, code, message, outcome, retry, close)


INVALID: Final = "invalid_request_error"
UNAVAILABLE: Final = "service_unavailable_error"

BY_OUTCOME: Final[dict[Outcome, Refusal]] = {
    row.outcome: row
    for row in (
        _row(
            429, "rate_limit_error", "rate_limit_exceeded", "This tenant is over its own limit.", Outcome.RATE_LIMITED
        ),
        _row(429, "rate_limit_error", "queue_full", "The queue is full. Retry later.", Outcome.QUEUE_FULL),
        _row(429, "rate_limit_error", "displaced", "A request of a higher class took this place.", Outcome.DISPLACED),
        _row(503, UNAVAILABLE, "queue_timeout", "Waited too long for a free seat.", Outcome.QUEUE_TIMEOUT),
        _row(503, UNAVAILABLE, "server_is_overloaded", "No upstream is usable now.", Outcome.NO_UPSTREAM),
        _row(503, UNAVAILABLE, "shutting_down", "The proxy is shutting down.", Outcome.SHUTTING_DOWN, close=True),
        _row(
            400,
            INVALID,
            "context_length_exceeded",
            "The prompt is longer than any upstream can hold.",
            Outcome.TOO_LARGE_FOR_ENGINE,
            retry=False,
        ),
        _row(
            504,
            "timeout_error",
            "deadline_exceeded",
            "The request's deadline has passed or cannot be met.",
            Outcome.DEADLINE_EXCEEDED,
            retry=False,
        ),
        _row(502, "api_error", "upstream_error", "The upstream failed.", Outcome.UPSTREAM_ERROR),
        _row(
            504,
            "timeout_error",
            "upstream_timeout",
            "The upstream did not answer in time.",
            Outcome.UPSTREAM_TIMEOUT,
            retry=False,
        ),
        _row(408, "timeout_error", "head_timeout", "The request head took too long.", Outcome.HEAD_TIMEOUT, close=True),
        _row(408, "timeout_error", "body_timeout", "The request body took too long.", Outcome.BODY_TIMEOUT, close=True),
        _row(500, "internal_error", "internal_error", "Internal error.", Outcome.INTERNAL_ERROR),
        _row(401, INVALID, "invalid_api_key", "The API key is missing or not valid.", Outcome.AUTH, retry=False),
    )
}


def _bad(status: int, code: str, message: str, outcome: Outcome = Outcome.BAD_REQUEST, close: bool = False) -> Refusal:
    return _row(status, INVALID, code, message, outcome, retry=False, close=close)


BY_CODE: Final[dict[str, Refusal]] = {
    row.code: row
    for row in (
        BY_OUTCOME[Outcome.AUTH],
        _bad(403, "model_not_allowed", "This key may not use this model.", Outcome.AUTH),
        _bad(404, "model_not_found", "No upstream serves this model."),
        _bad(404, "not_found", "Unknown path."),
        _bad(400, "invalid_json", "The body is not valid JSON."),
        _bad(400, "invalid_value", "A field has a value that is not allowed."),
        _bad(400, "invalid_header", "A header is not valid."),
        _bad(400, "malformed_request", "The request is not valid HTTP.", close=True),
        _bad(405, "method_not_allowed", "This path takes another method."),
        _bad(413, "body_too_large", "The body is larger than listen.max_body_bytes.", close=True),
        _bad(414, "uri_too_long", "The request target is too long.", close=True),
        _bad(415, "encoded_body", "Send the body without a content encoding."),
        _bad(431, "header_too_large", "The request head is too large.", close=True),
        _bad(501, "not_implemented", "This method or transfer coding is not supported.", close=True),
        _bad(505, "http_version_not_supported", "Use HTTP/1.1.", close=True),
    )
}

REASONS: Final = {
    400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found", 405: b"Method Not Allowed",
    408: b"Request Timeout", 413: b"Content Too Large", 414: b"URI Too Long", 415: b"Unsupported Media Type",
    429: b"Too Many Requests", 431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported", OVERLOADED_STATUS: b"Overloaded",
}  # fmt: skip

# Types by status (Anthropic API reference, "Errors"); other 4xx are invalid_request_error, other 5xx api_error.
ANTHROPIC_TYPES: Final = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 408: "timeout_error",
    413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", OVERLOADED_STATUS: "overloaded_error",
}  # fmt: skip

_OVERLOAD: Final = frozenset({Outcome.QUEUE_FULL, Outcome.DISPLACED, Outcome.QUEUE_TIMEOUT, Outcome.NO_UPSTREAM})


def refusal_for(outcome: Outcome, code: str = "") -> Refusal:
    """The row for an outcome, or for the finer `code` where one outcome has several."""
    return BY_CODE[code] if code else BY_OUTCOME[outcome]


def _shown(row: Refusal, style: ErrorStyle) -> tuple[int, str]:
    """Status and type in the words of the route's own API."""
    if style == "openai":
        return row.status, row.type
    status = OVERLOADED_STATUS if row.outcome in _OVERLOAD else row.status
    return status, ANTHROPIC_TYPES.get(status, INVALID if status < 500 else "api_error")


def render(
    row: Refusal,
    style: ErrorStyle,
    request_id: bytes,
    close: bool,
    retry_after_s: float | None = None,
    detail: str = "",
    param: str | None = None,
    allow: bytes = b"",
    extra: bytes = b"",
) -> tuple[int, bytes]:
    """Status and the whole answer, head and body, ready to write. `extra` holds complete header lines."""
    status, kind = _shown(row, style)
    message = row.message
    if detail:
        message = f"{message} {detail}" if detail.endswith(".") else f"{message.rstrip('.')} ({detail})."
    if row.outcome is Outcome.INTERNAL_ERROR:
        message = f"{message} Request id: {request_id.decode('ascii')}"
    body = error_body(row.code, kind, message, param, style)
    lines = [
        b"HTTP/1.1 %d %b\r\n%bcontent-length: %d\r\n"
        b"x-request-id: %b\r\nrequest-id: %b\r\nx-penstock-reason: %b\r\n"
        % (status, REASONS[status], own_lines(), len(body), request_id, request_id, row.outcome.value.encode()),
        extra,
    ]
    if retry_after_s is not None:
        seconds = max(1, ceil(retry_after_s))
        lines.append(b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (seconds, max(1, round(retry_after_s * 1000))))
    if not row.retry:
        lines.append(b"x-should-retry: false\r\n")
    if status == 401:
        lines.append(b'www-authenticate: Bearer realm="penstock"\r\n')
    if allow:
        lines.append(b"allow: %b\r\n" % allow)
    lines.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    lines.append(body)
    return status, b"".join(lines)


def stream_error(outcome: Outcome, style: ErrorStyle) -> bytes:
    """The event that ends a stream that cannot go on."""
    row = BY_OUTCOME[outcome]
    return error_event(row.code, _shown(row, style)[1], row.message, None, style)
