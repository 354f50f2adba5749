"""Chunks of a chunked body (RFC 9112, 7.1) that came whole in one read, known without a parser."""

from __future__ import annotations

from typing import Final

CHUNKS: Final = 8192
_STARTS: Final = [b"%x\r\n" % number for number in range(CHUNKS)]
DIGITS_MAX: Final = 6
_DIGITS: Final = [int(chr(byte), 16) if chr(byte) in "0123456789abcdefABCDEF" else -1 for byte in range(256)]
CR: Final = 13
LF: Final = 10


def size_line(content: bytes) -> bytes:
    """What stands before content in a chunk."""
    size = len(content)
    return _STARTS[size] if size < CHUNKS else b"%x\r\n" % size


def chunk_of(content: bytes) -> bytes:
    """Content, which is not empty, as one chunk."""
    return b"".join((size_line(content), content, b"\r\n"))


def chunk_start(data: bytes) -> int:
    """Where the content begins, if `data` is one whole chunk, framed as everybody frames: no extension, no leading
    zero. It ends two bytes before the end. 0: it is not one, or a large one.

    As with heads, there is one size that a chunk of so many bytes can announce.
    """
    size = len(data)
    count = size - (7 if 262 < size < 4103 else 6 if 21 < size < 262 else 8 if size > 4103 else 5)
    if not 0 < count < CHUNKS:
        return 0
    start = _STARTS[count]
    at = len(start)
    return at if at + count + 2 == size and data.startswith(start) and data.endswith(b"\r\n") else 0


def chunks_of(data: bytes, at: int, pieces: list[bytes]) -> int:
    """Adds the contents of the chunks from `at` on to `pieces`. 1: they are whole and more may come; 2: the last chunk
    ends them, and `data`; 0: a chunk is cut, or framed in another way, or there are trailers."""
    size = len(data)
    while at < size:
        count, begun = 0, at
        while at < size and at - begun < DIGITS_MAX and (digit := _DIGITS[data[at]]) >= 0:
            count = 16 * count + digit
            at += 1
        content = at + 2
        end = content + count
        if at == begun or end + 2 > size or data[at] != CR or data[at + 1] != LF:
            return 0
        if data[end] != CR or data[end + 1] != LF:
            return 0
        at = end + 2
        if count == 0:
            return 2 if at == size else 0
        pieces.append(data[content:end])
    return 1
