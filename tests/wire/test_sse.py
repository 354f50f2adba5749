"""Events from bytes in any chunking."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.sse import Event, EventParser, EventTooLarge
from tests.wire.documents import split


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [Event("", "a")]),
        (b"data:a\r\n\r\n", [Event("", "a")]),
        (b"data: a\r\rx", [Event("", "a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event("", "a")]),
        (b": ping\n\ndata: a\n\n", [Event("", "a")]),
        (b"event: e\ndata: a\ndata:  b\n\n", [Event("e", "a\n b")]),
        (b"event: lost\n\ndata: a\n\n", [Event("", "a")]),
        (b"id: 7\ndata: a\n\ndata: b\n\n", [Event("", "a", "7"), Event("", "b", "7")]),
        (b"id: a\0b\ndata: a\n\n", [Event("", "a")]),
        (b"data\n\nretry: 5\nother\n\n", [Event("", "")]),
        (b"data: \xff\n\n", [Event("", "\ufffd")]),
        (b"data: cut", []),
        (b"\xef\xbb", []),
    ],
)
def test_events(stream: bytes, events: list[Event]) -> None:
    assert EventParser().feed(stream) == events


LINES = st.lists(
    st.sampled_from([b"data: a", b"data", b"event: x", b"id: 1", b": c", b"", b"\xef\xbb\xbf", b"\xc3\xa9"])
    | st.binary(max_size=6),
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 99), max_size=8))
def test_any_pieces_give_the_same_events(lines: list[bytes], end: bytes, cuts: list[int]) -> None:
    stream = b"".join(line + end for line in lines) + b"\n"
    parser = EventParser()
    pieces = [event for piece in split(stream, cuts) for event in parser.feed(piece)]
    assert pieces == EventParser().feed(stream)


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 10, b"data: xx\n"])
def test_an_event_is_bounded(piece: bytes) -> None:
    parser = EventParser(event_bytes_max=100)
    parser.feed(b"data: " + b"y" * 90 + b"\n\n")
    with pytest.raises(EventTooLarge):
        for _ in range(30):
            parser.feed(piece)
