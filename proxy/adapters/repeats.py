"""Heads that come again and again on one connection, remembered by their bytes.

The client of a keep-alive connection sends the same head with each request, and an engine with each answer; only the
digits of Content-Length differ. A head that llhttp and our own checks have judged is kept with that verdict. A read
that begins with the same bytes, apart from those digits, and ends with the last byte of the body that they announce
is one whole message whose verdict is known: the same bytes cannot be read in another way, since both parsers begin
anew with each message. Everything else (a body in several reads, pipelining, another head) goes through llhttp.

A stream whose head is known needs no parser as long as whole chunks come, up to the last one. For the first read that
is anything else, llhttp is given the head, which puts it where it would be: between two chunks.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.wire.chunks import chunks_of

HEAD_BYTES_MAX: Final = 4096  # no bound of a head is near
MISSES_MAX: Final = 8  # misses in a row after which a connection's heads are not worth remembering
DECIMALS: Final = 8192
_DECIMALS: Final = [b"%d" % number for number in range(DECIMALS)]
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})(?=\r\n)", re.IGNORECASE)


def decimal(number: int) -> bytes:
    """The digits of a number. Formatting costs four times as much as a look at the table."""
    return _DECIMALS[number] if 0 <= number < DECIMALS else b"%d" % number


class Repeat:
    """One head, cut at the digits of its Content-Length."""

    __slots__ = ("after", "before", "digits", "fixed")

    def __init__(self, before: bytes, after: bytes) -> None:
        self.before, self.after = before, after
        self.fixed = len(before) + len(after)
        self.digits = 3  # of the last length; the next one has mostly as many

    def body_of(self, data: bytes) -> bytes | None:
        """The body, where `data` is one whole message with this head and a body.

        There is one length that a message of so many bytes can announce: the head is written with it and compared.
        """
        rest = len(data) - self.fixed  # digits and body
        length = rest - self.digits
        digits = decimal(length)
        if len(digits) != self.digits:
            length = rest - len(decimal(rest))
            if length + len(decimal(length)) != rest:
                length += 1
            digits = decimal(length)
            if length + len(digits) != rest:
                return None
            self.digits = len(digits)
        head = self.before + digits + self.after
        return data[len(head) :] if length > 0 and data.startswith(head) else None


def cut(data: bytes, body_bytes: int) -> tuple[bytes, bytes] | None:
    """What stands before and after the digits of Content-Length, where `data` is one message that ends with its body.

    None: the head is not of the kind that can be known again.
    """
    size = len(data) - body_bytes
    if not body_bytes > 0 or size > HEAD_BYTES_MAX or data.find(b"\r\n\r\n") != size - 4:
        return None
    parts = around_length(data[:size])
    return parts if parts is not None and int(data[len(parts[0]) : size - len(parts[1])]) == body_bytes else None


def around_length(head: bytes) -> tuple[bytes, bytes] | None:
    """A head without the digits of its Content-Length; None unless it has exactly one."""
    found = list(_LENGTH.finditer(head))
    return (head[: found[0].start(1)], head[found[0].end(1) :]) if len(found) == 1 else None


class KnownAnswer(Repeat):
    """The head of an answer that was read in one piece with its body, and what its status line and headers are."""

    __slots__ = ("headers", "reason", "status", "written")

    def __init__(self, parts: tuple[bytes, bytes], reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        super().__init__(parts[0], parts[1])
        self.status, self.reason, self.headers = 200, reason, headers
        # As clients get it, around the digits of its length and without what is the request's own; empty: not that way.
        self.written: tuple[bytes, bytes] | tuple[()] | None = None


def remember(data: bytes, pieces: list[bytes], reason: bytes, headers: list[tuple[bytes, bytes]]) -> KnownAnswer | None:
    """The head of an answer with status 200 that was all of `data`; None: it cannot be known again."""
    parts = cut(data, len(pieces[0])) if len(pieces) == 1 else None
    return None if parts is None else KnownAnswer(parts, reason, headers)


class KnownStream:
    """The head of a stream in chunks, with status 200, that leaves the connection open."""

    __slots__ = ("head", "headers", "reason", "size", "written")

    def __init__(self, head: bytes, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.head, self.size, self.reason, self.headers = head, len(head), reason, headers
        # As clients get it, in chunks and without what is the request's own, and its end; empty: not that way.
        self.written: bytes | None = None


def stream_of(
    data: bytes, pieces: list[bytes], reason: bytes, headers: list[tuple[bytes, bytes]]
) -> KnownStream | None:
    """The head that `data` begins with, where whole chunks follow it that hold what llhttp found; None: they do not."""
    size = data.find(b"\r\n\r\n") + 4
    found: list[bytes] = []
    if not 4 <= size <= HEAD_BYTES_MAX or chunks_of(data, size, found) != 1 or found != pieces:
        return None
    return KnownStream(data[:size], reason, headers)
