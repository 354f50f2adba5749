"""Streams of one sequence's tokens, written to the transport itself with all bytes of a token prepared beforehand.

An answer's words repeat, and its length is known at the start, so each response makes its few distinct events once and
a token costs one table look-up and one write. Nothing waits for the client to read: what a client can leave unread is
bounded by the length of its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from proxy.simulator.server.text import WORD_MASK, framed


class FrameStream:
    """`frames` holds the framed event of each word of the cycle; `last` replaces the event of the last token."""

    __slots__ = ("_frames", "_last", "_opening", "_sent", "_transport")

    def __init__(self, transport: asyncio.Transport, opening: bytes, frames: Sequence[bytes], last: bytes) -> None:
        self._transport = transport
        self._opening = opening
        self._frames = frames
        self._last = last
        self._sent = 0

    def open(self) -> None:
        if self._opening:
            self._write(self._opening)

    def token(self) -> None:
        sent = self._sent
        self._sent = sent + 1
        if not self._transport.is_closing():
            self._transport.write(self._frames[sent & WORD_MASK])

    def finish(self) -> None:
        self._write(self._last)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


class NumberedStream(FrameStream):
    """Events that carry a running number: `event(word_index, number)` makes the payload."""

    __slots__ = ("_chunked", "_event", "_first")

    def __init__(
        self, transport: asyncio.Transport, event: Callable[[int, int], bytes], first: int, last: bytes, chunked: bool
    ) -> None:
        super().__init__(transport, b"", (), last)
        self._event = event
        self._first = first
        self._chunked = chunked

    def token(self) -> None:
        sent = self._sent
        self._sent = sent + 1
        self._write(framed(self._event(sent & WORD_MASK, self._first + sent), self._chunked))


class CutStream:
    """Drops the connection once `tokens` tokens of another stream have gone out."""

    __slots__ = ("_left", "_stream", "_transport")

    def __init__(self, stream: FrameStream, transport: asyncio.Transport, tokens: int) -> None:
        self._stream = stream
        self._transport = transport
        self._left = tokens

    def open(self) -> None:
        self._stream.open()

    def token(self) -> None:
        if not self._left:
            self._transport.close()
            return
        self._left -= 1
        self._stream.token()

    def finish(self) -> None:
        self._transport.close()
