"""A JSON body with its long strings cut out, so that what is parsed is short however long a prompt is.

Where a string ends is told by its quotes and the backslashes before them alone: a quote after an even number of
backslashes ends it. So a body and its short form have the same keys, values and nesting, whatever its strings hold.
The inside of a long one is not judged here: the engine reads it, and the scanner of larger bodies does not judge it
either.
"""

from __future__ import annotations

from typing import Final

LONG_BYTES: Final = 1024
MEDIA: Final = b'"data'  # how embedded media begins, or its key
MEDIA_BEGIN: Final = 100  # its first letter
FILLER: Final = b"." * 512  # longer than any bound of a value that is read
BYTES_PER_QUOTE: Final = 256  # a body with more quotes than this is parsed whole sooner
NEAR_BYTES: Final = 64  # looked at one by one in the time that one call of a method takes
QUOTE: Final = 34
BACKSLASH: Final = 92


def shortened(body: bytes) -> bytes | None:
    """The short form; None where that would cost more than it saves, and where media may be embedded."""
    pieces: list[bytes] = []
    copied = at = 0
    for _ in range(len(body) // BYTES_PER_QUOTE):
        opened = _find_quote(body, at)
        if opened < 0:
            pieces.append(body[copied:])
            return b"".join(pieces)
        if opened + 1 < len(body) and body[opened + 1] == MEDIA_BEGIN and body.startswith(MEDIA, opened):
            return None
        closed = _closing(body, opened + 1)
        if closed < 0:
            return None
        if closed - opened > LONG_BYTES:
            pieces.append(body[copied : opened + 1])
            pieces.append(FILLER)
            copied = closed
        at = closed + 1
    return None


def _closing(body: bytes, at: int) -> int:
    """Where the string ends whose content begins at `at`; -1: nowhere, or behind too many escaped quotes."""
    for _ in range(len(body) // BYTES_PER_QUOTE):
        closed = _find_quote(body, at)
        if closed < 0:
            return -1
        before = closed - 1
        while body[before] == BACKSLASH:  # the opening quote ends this at the latest
            before -= 1
        if (closed - before) % 2:
            return closed
        at = closed + 1
    return -1


def _find_quote(body: bytes, at: int) -> int:
    """`body.find(b'"', at)`; most quotes stand near."""
    stop = min(at + NEAR_BYTES, len(body))
    while at < stop:
        if body[at] == QUOTE:
            return at
        at += 1
    return body.find(b'"', at)
