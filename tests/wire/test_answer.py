"""Response heads: framing, own names, control bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.answer import RETRY_AFTER_S_MAX, SPELLINGS_MAX, AnswerFacts, AnswerWriter, is_sized
from proxy.wire.errors import BadAnswer

Pairs = list[tuple[bytes, bytes]]


def write(
    *headers: tuple[bytes, bytes],
    status: int = 200,
    reason: bytes = b"",
    extra: bytes = b"",
    chunked: bool = True,
    bodiless: bool = False,
) -> tuple[list[bytes], AnswerFacts]:
    head, facts = AnswerWriter().head(status, reason, list(headers), extra, chunked, bodiless)
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n"), facts


def test_a_usual_answer() -> None:
    lines, facts = write(
        (b"Content-Type", b"application/json"), (b"Content-Length", b"5 "), extra=b"x-request-id: 1\r\n"
    )
    assert lines == [b"HTTP/1.1 200 OK", b"Content-Type: application/json", b"Content-Length: 5 ", b"x-request-id: 1"]
    assert facts == AnswerFacts(json=True, content_length=5)


@pytest.mark.parametrize(
    ("status", "chunked", "bodiless", "framed"),
    [(200, True, False, True), (200, False, False, False), (204, True, False, False), (304, True, False, False),
     (200, True, True, False)],
)  # fmt: skip
def test_unknown_length(status: int, chunked: bool, bodiless: bool, framed: bool) -> None:
    lines, facts = write(status=status, chunked=chunked, bodiless=bodiless)
    assert facts.chunked is framed
    assert (b"transfer-encoding: chunked" in lines) is framed


def test_hop_by_hop_and_own_names_end_here() -> None:
    lines, facts = write(
        (b"Connection", b"close, X-Gone"), (b"X-Gone", b"1"), (b"Keep-Alive", b"5"), (b"Transfer-Encoding", b"chunked"),
        (b"X-Request-Id", b"theirs"), (b"request-id", b"theirs"), (b"X-Penstock-Class", b"critical"),
        (b"Content-Length", b"1"), (b"connection", b"content-length"), (b"bad name", b"1"), (b"X-Kept", b"1"),
        extra=b"x-request-id: ours\r\n",
    )  # fmt: skip
    assert lines == [b"HTTP/1.1 200 OK", b"Content-Length: 1", b"X-Kept: 1", b"x-request-id: ours"]
    assert facts.content_length == 1


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        (b"content-type", b"text/event-stream; charset=utf-8", "event_stream", True),
        (b"content-type", b"Text/Event-Stream", "event_stream", True),
        (b"content-type", b"text/html", "json", False),
        (b"content-encoding", b"gzip", "encoded", True),
        (b"content-encoding", b"identity", "encoded", False),
        (b"Retry-After", b"7", "retry_after_s", 7.0),
        (b"retry-after", b"999999999", "retry_after_s", RETRY_AFTER_S_MAX),
        (b"retry-after", b"Fri, 31 Dec 1999 23:59:59 GMT", "retry_after_s", None),
    ],
)
def test_facts(name: bytes, value: bytes, attribute: str, expected: object) -> None:
    lines, facts = write((name, value))
    assert getattr(facts, attribute) == expected
    assert name + b": " + value in lines


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (99, []),
        (101, []),
        (600, []),
        (200, [(b"content-length", b"-1")]),
        (200, [(b"content-length", b"1"), (b"content-length", b"2")]),
        (200, [(b"transfer-encoding", b"gzip, chunked")]),
        (200, [(b"Transfer-Encoding", b"xchunked")]),
    ],
)
def test_what_cannot_be_passed_on(status: int, headers: Pairs) -> None:
    with pytest.raises(BadAnswer):
        write(*headers, status=status)


def test_an_event_stream_has_no_length_of_its_own() -> None:
    """An error event may have to follow what came, and a stream that is over may not have filled its length."""
    stream, length = (b"content-type", b"text/event-stream"), (b"Content-Length", b"100")
    lines, facts = write(stream, length)
    assert (any(line.lower().startswith(b"content-length") for line in lines), facts.chunked) == (False, True)
    assert [is_sized(headers) for headers in ([stream, length], [length], [stream], [])] == [False, True, False, False]


def test_equal_lengths_become_one() -> None:
    assert write((b"content-length", b"1"), (b"content-length", b"1"))[0].count(b"content-length: 1") == 1


def test_a_value_with_control_bytes_takes_its_header_along() -> None:
    lines, _ = write(
        (b"a", b"1"), (b"b", b"x\r\ninjected: 1"), (b"c", b"\x01"), (b"d", b"\x7f"), (b"e", b"t\tb"), (b"f", b"\xff")
    )
    assert lines[1:4] == [b"a: 1", b"e: t\tb", b"f: \xff"]


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        (200, b"Fine", b"HTTP/1.1 200 Fine"),
        (200, b"a\r\nb", b"HTTP/1.1 200 OK"),
        (404, b"", b"HTTP/1.1 404 Not Found"),
        (599, b"", b"HTTP/1.1 599 "),
    ],
)
def test_reason(status: int, reason: bytes, line: bytes) -> None:
    assert write(status=status, reason=reason)[0][0] == line


def test_remembered_spellings_are_bounded() -> None:
    writer = AnswerWriter()
    writer.head(
        200, b"", [(b"x-%d" % number, b"") for number in range(SPELLINGS_MAX + 9)] + [(b"y" * 65, b"")], b"", True
    )
    assert len(writer._spellings) == SPELLINGS_MAX


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=10) | st.just(b"Connection"), st.binary(max_size=10)), max_size=5))
def test_no_answer_makes_a_line_of_its_own(headers: Pairs) -> None:
    try:
        lines, _ = write(*headers, chunked=False)
    except BadAnswer:
        return
    assert all(tuple(line.split(b": ", 1)) in headers for line in lines[1:])
