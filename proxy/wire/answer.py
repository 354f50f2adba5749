"""Response heads on their way to the client.

Hop-by-hop headers end here (RFC 9110 section 7.6.1) and the framing is written anew: Content-Length where the upstream
gave a valid one, else chunked for clients that know it, else the end of the connection. A header whose value holds
control bytes is dropped whole. Names that this proxy sets itself always win over the upstream's. An event stream gets
no Content-Length: an error event may have to follow, or its end may come early.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from proxy.wire.errors import BadAnswer

Headers = Sequence[tuple[bytes, bytes]]

RETRY_AFTER_S_MAX: Final = 86_400.0
SPELLINGS_MAX: Final = 4096
SPELLING_BYTES_MAX: Final = 64

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROLS: Final = bytes(range(32)).replace(b"\t", b"") + b"\x7f"
_PHRASE: Final = re.compile(rb"[\t -~]{0,100}")
_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_USUAL_LINES: Final = {
    (status, phrase): b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in _PHRASES.items()
}
_BODILESS: Final = frozenset({204, 304})

# What a name means for us; everything else passes.
_PASS, _DROP, _CONNECTION, _LENGTH, _TYPE, _ENCODING, _RETRY, _CODING = range(8)
_KINDS: Final = {
    b"connection": _CONNECTION,
    b"content-length": _LENGTH,
    b"content-type": _TYPE,
    b"content-encoding": _ENCODING,
    b"retry-after": _RETRY,
    b"transfer-encoding": _CODING,
} | dict.fromkeys(
    b"keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer upgrade alt-svc "
    b"x-request-id request-id".split(),
    _DROP,
)


@dataclass(slots=True)
class AnswerFacts:
    """What a response head says, and how the body is framed towards the client."""

    event_stream: bool = False
    json: bool = False
    content_length: int | None = None
    encoded: bool = False  # a content coding other than identity: the body cannot be read here
    retry_after_s: float | None = None
    chunked: bool = False  # the head written says chunked


class AnswerWriter:
    """Turns upstream response heads into downstream ones. One per process: it remembers spellings of names."""

    def __init__(self) -> None:
        self._spellings = dict(_KINDS)

    def head(
        self, status: int, reason: bytes, headers: Headers, extra: bytes, chunked: bool, bodiless: bool = False
    ) -> tuple[bytes, AnswerFacts]:
        """Head bytes with the final blank line, and its facts; BadAnswer when it cannot be passed on.

        `extra` is whole lines, each with CRLF. `chunked`: the client takes a chunked body where the length is unknown.
        `bodiless`: the answer to a HEAD.
        """
        if not 200 <= status <= 599:
            raise BadAnswer(f"the upstream answered with status {status}")
        facts = AnswerFacts()
        lines: list[tuple[bytes, bytes]] = []
        listed: bytes = b""
        spellings = self._spellings
        for header in headers:
            name, value = header
            kind = spellings.get(name)
            if kind is None:
                kind = self._learn(name)
            if kind != _PASS:
                if kind == _CONNECTION:
                    listed += b"," + value.lower()
                if kind <= _CONNECTION or not _read(kind, facts, value):
                    continue
            lines.append(header)
        if listed:
            lines = _unlisted(lines, listed)
        if facts.event_stream and facts.content_length is not None:
            lines = [(name, value) for name, value in lines if name.lower() != b"content-length"]
            facts.content_length = None
        facts.chunked = chunked and facts.content_length is None and not bodiless and status not in _BODILESS
        framing = b"transfer-encoding: chunked\r\n" if facts.chunked else b""
        return _start_line(status, reason) + _join(lines) + framing + extra + b"\r\n", facts

    def _learn(self, name: bytes) -> int:
        lowered = name.lower()
        kind = _KINDS.get(lowered, _PASS)
        if not _TOKEN.fullmatch(name) or lowered.startswith(b"x-penstock-"):
            kind = _DROP
        if len(self._spellings) < SPELLINGS_MAX and len(name) <= SPELLING_BYTES_MAX:
            self._spellings[name] = kind
        return kind


def is_sized(headers: Headers) -> bool:
    """Whether the head written for these says where the body ends."""
    names = {name.lower(): value for name, value in headers}
    return b"content-length" in names and names.get(b"content-type", b"")[:17].lower() != b"text/event-stream"


def _read(kind: int, facts: AnswerFacts, value: bytes) -> bool:
    """Notes one header; false where the line must not be passed on again."""
    if kind == _TYPE:
        lowered = value[:32].lower()
        facts.json = lowered[:16] == b"application/json"
        facts.event_stream = lowered[:17] == b"text/event-stream"
    elif kind == _LENGTH:
        digits = value if value.isdigit() else value.strip(b" \t")
        if not digits.isdigit() or len(digits) > 18:
            raise BadAnswer("the upstream sent an invalid content-length")
        if facts.content_length is not None:
            if facts.content_length != int(digits):
                raise BadAnswer("the upstream sent two different content-length headers")
            return False
        facts.content_length = int(digits)
    elif kind == _ENCODING:
        facts.encoded = value.strip(b" \t").lower() not in (b"identity", b"")
    elif kind == _CODING:
        if value.strip(b" \t").lower() not in (b"chunked", b"identity"):
            raise BadAnswer("the upstream sent a transfer coding that was not asked for")
        return False
    else:
        digits = value.strip(b" \t")
        if digits.isdigit() and len(digits) < 10:
            facts.retry_after_s = min(float(digits), RETRY_AFTER_S_MAX)
    return True


def _unlisted(lines: list[tuple[bytes, bytes]], listed: bytes) -> list[tuple[bytes, bytes]]:
    """Lines not named by a Connection header. The length stays: it frames this message, whoever lists it."""
    names = {name.strip(b" \t") for name in listed.split(b",")} - {b"content-length"}
    return [(name, value) for name, value in lines if name.lower() not in names]


def _start_line(status: int, reason: bytes) -> bytes:
    usual = _USUAL_LINES.get((status, reason))
    if usual is not None:
        return usual
    if not reason or not _PHRASE.fullmatch(reason):
        reason = _PHRASES.get(status, b"")
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def _join(lines: list[tuple[bytes, bytes]]) -> bytes:
    if not lines:
        return b""
    block = b"\r\n".join(map(b": ".join, lines)) + b"\r\n"
    if len(block.translate(None, _CONTROLS)) != len(block) - 2 * len(lines):
        return _join([(name, value) for name, value in lines if value.translate(None, _CONTROLS) == value])
    return block
