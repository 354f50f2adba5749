"""The text that the simulated engine gives: a cycle of eight words, one per token, that says what it is."""

from __future__ import annotations

WORDS = ("This ", "text ", "is ", "simulated: ", "no ", "model ", "wrote ", "it. ")
WORD_MASK = len(WORDS) - 1  # the count is a power of two, so that `number & WORD_MASK` picks a word


def word(number: int) -> str:
    return WORDS[number & WORD_MASK]


def text_of(tokens: int) -> str:
    return "".join(WORDS) * (tokens // len(WORDS)) + "".join(WORDS[: tokens % len(WORDS)])


def framed(payload: bytes, chunked: bool) -> bytes:
    """One chunk of HTTP/1.1 chunked coding (RFC 9112, 7.1), or the bytes alone for HTTP/1.0."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if chunked else payload
