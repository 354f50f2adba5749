from __future__ import annotations

import pytest

from proxy.adapters.answer_reader import AnswerReader
from proxy.adapters.repeats import KnownStream
from tests.adapters.shell import LAST_CHUNK, STREAM_HEAD, chunk, said

HEADERS = [(b"Content-Type", b"text/event-stream"), (b"Transfer-Encoding", b"chunked")]
KNOWN = KnownStream(STREAM_HEAD, b"OK", HEADERS)
FIELDS = ("status", "reason", "headers", "in_head", "between_chunks", "names_chunks", "chunked_or_sized", "complete")


def facts(reader: AnswerReader) -> list[object]:
    return [getattr(reader, name) for name in FIELDS] + [reader.close_delimited]


def test_a_known_head_says_what_the_parser_says() -> None:
    parsed, known = AnswerReader(), AnswerReader()
    parsed.parser.feed_data(STREAM_HEAD)
    known.begin_unseen(KNOWN)
    assert facts(known) == facts(parsed)
    known.show()
    assert facts(known) == facts(parsed) and known.unseen is None
    for data in (chunk(b"a")[:2], chunk(b"a")[2:], LAST_CHUNK):
        for reader in (parsed, known):
            reader.parser.feed_data(data)
        assert facts(known) == facts(parsed)
    assert known.complete and known.keep_alive and known.pieces == [b"a"]


def test_a_head_is_shown_once() -> None:
    reader = AnswerReader()
    reader.show()
    assert reader.in_head
    reader.begin_unseen(KNOWN)
    reader.reset()
    reader.show()
    assert reader.in_head


@pytest.mark.parametrize(("line", "stays"), [(b"", True), (b"connection: close\r\n", False)])
def test_keep_alive_is_asked_at_the_end_of_the_message(line: bytes, stays: bool) -> None:
    reader = AnswerReader()
    reader.parser.feed_data(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + said(b"{}", 200, line))
    assert reader.complete and reader.keep_alive == stays and reader.status == 200
