"""Chunks of a chunked body (RFC 9112, 7.1) that came in one read each, known without a parser."""

from __future__ import annotations

from typing import Final

CHUNKS: Final = 8192
_STARTS: Final = [b"%x\r\n" % number for number in range(CHUNKS)]


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
