from __future__ import annotations

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.wire.chunks import DIGITS_MAX, chunk_start, chunks_of
from tests.adapters.shell import chunk


@pytest.mark.parametrize("size", [1, 15, 16, 255, 256, 4095, 4096, 8191])
def test_one_whole_chunk_is_known_by_its_size(size: int) -> None:
    content = b"x" * size
    whole = b"%x\r\n%b\r\n" % (size, content)
    start = chunk_start(whole)
    assert whole[start:-2] == content and start == len(b"%x\r\n" % size)
    for other in (
        whole[:-1], whole + b"\n", whole[:-2] + b"xx", b"0" + whole, whole + whole,
        b"%x\r\n%b\r\n" % (size + 1, content), b"%x;a=b\r\n%b\r\n" % (size, content),
    ):  # fmt: skip
        assert chunk_start(other) == 0


@pytest.mark.parametrize(
    "data", [b"", b"0\r\n\r\n", b"1\r\n\r\n", b"x" * 300, chunk(b"x" * 8192), chunk(b"x" * 70_000)]
)
def test_what_is_no_whole_chunk_or_too_large_a_one(data: bytes) -> None:
    assert chunk_start(data) == 0


HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Parsed:
    """What llhttp finds in a chunked body: its content, and whether it has ended."""

    def __init__(self, body: bytes) -> None:
        self.content, self.between, self.ended, self.failed = b"", True, False, False
        try:
            httptools.HttpResponseParser(self).feed_data(HEAD + body)
        except httptools.HttpParserError:
            self.failed = True

    def on_body(self, piece: bytes) -> None:
        self.content += piece

    def on_chunk_header(self) -> None:
        self.between = False

    def on_chunk_complete(self) -> None:
        self.between = True

    def on_message_complete(self) -> None:
        self.ended = True


ODD = [
    b"0\r\n\r\n",
    b"0",
    b"\r\n",
    b"\n",
    b"5;a=b\r\nhello\r\n",
    b"x: y\r\n",
    b"-1\r\n",
    b"g\r\n",
    b" 1\r\na\r\n",
    b"1\r\n",
]
BODIES = st.lists(st.one_of(st.binary(min_size=1, max_size=20).map(chunk), st.sampled_from(ODD)), max_size=8)


@settings(max_examples=500)
@given(BODIES.map(b"".join), st.integers(0, 9))
@example(b"A\r\n0123456789\r\n", 0)
@example(b"0" * (DIGITS_MAX - 1) + b"1\r\na\r\n", 0)
@example(b"0" * DIGITS_MAX + b"1\r\na\r\n", 0)
@example(b"", 0)
def test_whole_chunks_are_what_llhttp_says(body: bytes, ahead: int) -> None:
    pieces: list[bytes] = []
    found = chunks_of(b"#" * ahead + body, ahead, pieces)
    parsed = Parsed(body)
    if found:
        assert not parsed.failed and parsed.ended == (found == 2) and parsed.between
        assert b"".join(pieces) == parsed.content


@pytest.mark.parametrize("content", [[b"a"], [b"a" * 15, b"b" * 16], [b"x" * 70_000], [b"a"] * 40, []])
def test_usual_framing_is_known(content: list[bytes]) -> None:
    body = b"".join(map(chunk, content))
    for end, told in ((b"", 1), (b"0\r\n\r\n", 2)):
        pieces: list[bytes] = []
        assert chunks_of(body + end, 0, pieces) == told and pieces == content
        cut = [chunks_of((body + end)[:at], 0, []) for at in range(len(body) - 3, len(body)) if at > 0]
        assert not any(cut)


@pytest.mark.parametrize(
    "end", [b"0\r\nx: y\r\n\r\n", b"0\r\n\r\njunk", b"0\r\n", b"1\r\nab\n", b"1\n\nab\r\n", b"1\r\nab\r"]
)
def test_what_the_parser_has_to_read(end: bytes) -> None:
    assert chunks_of(chunk(b"a") + end, 0, []) == 0
