"""What llhttp tells of the answer that comes on a connection, and where it has got to.

Whether the connection stays open is asked inside `on_message_complete`: at the end of a message llhttp resets before
`feed_data` returns, and then says no.
"""

from __future__ import annotations

from typing import Final

import httptools

from proxy.adapters.repeats import KnownStream

SPENT: Final = httptools.HttpResponseParser(object())  # of a connection that is over: its own would keep it alive


class AnswerReader:
    """State and callbacks of one answer after another. No parser is fed while `unseen`: a stream with a known head."""

    # fmt: off
    __slots__ = (
        "between_chunks", "chunked_or_sized", "close_delimited", "complete", "head_bytes", "headers", "in_head",
        "keep_alive", "names_chunks", "on_body", "parser", "pieces", "reason", "status", "unseen",
    )
    # fmt: on

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append  # read by llhttp's wrapper: no Python frame per piece
        self.status, self.reason = 0, b""
        self.reset()
        self.parser = httptools.HttpResponseParser(self)

    def reset(self) -> None:
        """Another answer is to come."""
        self.in_head = True
        self.complete = self.keep_alive = self.close_delimited = False
        self.chunked_or_sized = self.names_chunks = self.between_chunks = False
        self.head_bytes = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.unseen: KnownStream | None = None  # whose head the parser has not been given

    def begin_unseen(self, known: KnownStream) -> None:
        """A stream whose head has come before: llhttp would say the same of it as of that one."""
        self.unseen, self.status, self.reason, self.headers = known, 200, known.reason, known.headers
        self.head_bytes = known.size
        self.in_head = False
        self.chunked_or_sized = self.names_chunks = self.between_chunks = True

    def show(self) -> None:
        """Give the parser the head that it has not seen: what comes is no whole chunk."""
        known, self.unseen = self.unseen, None
        if known is not None:
            self.parser.feed_data(known.head)

    # ---- llhttp ----
    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second answer to one request")

    def on_status(self, reason: bytes) -> None:
        self.reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:  # trailers are dropped, never merged
            self.headers.append((name, value))
            lower = name.lower()
            if lower == b"content-length":
                self.chunked_or_sized = True
            elif lower == b"transfer-encoding" and value.strip().lower() == b"chunked":
                self.chunked_or_sized = self.names_chunks = True

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        if 100 <= self.status < 200 and self.status != 101:
            return  # interim: the final answer follows
        self.in_head = False
        self.between_chunks = self.names_chunks
        self.close_delimited = not self.chunked_or_sized and self.status not in (204, 304)

    def on_chunk_header(self) -> None:
        self.between_chunks = False

    def on_chunk_complete(self) -> None:
        self.between_chunks = True

    def on_message_complete(self) -> None:
        if self.in_head:  # what is interim counts with the head that follows: a flood of it has a bound, too
            head_bytes = self.head_bytes
            self.reset()
            self.head_bytes = head_bytes
            return
        self.complete = True
        self.keep_alive = self.parser.should_keep_alive()
