"""Multipart form bodies (RFC 7578), read in pieces: the fields `model` and `stream` are found, everything else passes.

The scanner goes on while the body is streamed through, since a second `model` further down would let the engine run
another model than the one that was allowed. Only CRLF ends a line, as in RFC 2046, and one parameter has one value.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from proxy.types import WorkEstimate
from proxy.wire.errors import BadRequest, invalid_value
from proxy.wire.facts import AUDIO_TOKENS, TEXT_CHARS_MAX, RequestFacts
from proxy.wire.routes import Route

PART_HEAD_BYTES_MAX = 8192
VALUE_BYTES_MAX = 1024

_DISPOSITION = re.compile(rb"content-disposition[ \t]*:[ \t]*form-data[ \t]*((?:;.*)?)", re.IGNORECASE)
_PARAMETER = re.compile(rb'[ \t]*;[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^";\s]+)[ \t]*')
_TRUE = frozenset({b"true", b"1", b"yes", b"on"})
_MORE = -1


def _malformed() -> BadRequest:
    return BadRequest(400, "invalid_value", "The multipart body is malformed.")


class MultipartScanner:
    """Feed it the body. `model` is None until that field has been read to its end; BadRequest (400) on doubt."""

    def __init__(self, boundary: bytes) -> None:
        self.model: str | None = None
        self.stream: bool | None = None
        self._delimiter = b"\r\n--" + boundary
        self._rest = b"\r\n"  # the first delimiter may open the body
        self._field = b""
        self._value = bytearray()
        self._step: Callable[[bytes, int], int] = self._preamble

    def feed(self, piece: bytes) -> None:
        """The next bytes of the body, any number of them."""
        buffer = self._rest + piece
        position = 0
        while (following := self._step(buffer, position)) != _MORE:
            position = following
        self._rest = buffer[position:]

    def facts(self, complete: bool, route: Route, body_bytes: int) -> RequestFacts | None:
        """What is known once `model` is, or when the body is complete; None before that."""
        if complete and self._step != self._epilogue:
            raise _malformed()
        if self.model is None and not complete:
            return None
        floor_free = WorkEstimate(prompt_tokens=AUDIO_TOKENS)
        return RequestFacts(self.model or "", self.stream or False, floor_free, route.retryable)

    def _preamble(self, buffer: bytes, position: int) -> int:
        size = len(self._delimiter)
        if len(buffer) < size:
            return _MORE
        if not buffer.startswith(self._delimiter):
            raise _malformed()
        self._step = self._after_delimiter
        return size

    def _after_delimiter(self, buffer: bytes, position: int) -> int:
        mark = buffer[position : position + 2]
        if len(mark) < 2:
            return _MORE
        if mark == b"--":
            self._step = self._epilogue
        elif mark == b"\r\n":
            self._step = self._head
            return position  # the blank line of an empty head begins with this line end
        else:
            raise _malformed()
        return position + 2

    def _head(self, buffer: bytes, position: int) -> int:
        end = buffer.find(b"\r\n\r\n", position, position + PART_HEAD_BYTES_MAX)
        if end < 0:
            if len(buffer) - position >= PART_HEAD_BYTES_MAX:
                raise _malformed()
            return _MORE
        self._field = _field_name(buffer[position + 2 : end])
        self._value.clear()
        self._step = self._content
        return end + 4

    def _content(self, buffer: bytes, position: int) -> int:
        end = buffer.find(self._delimiter, position)
        kept = end if end >= 0 else max(position, len(buffer) - len(self._delimiter) + 1)
        if self._field in (b"model", b"stream"):
            self._value += buffer[position:kept]
            if len(self._value) > VALUE_BYTES_MAX:
                raise invalid_value(self._field.decode(), "The field is too long.")
        if end < 0:
            return kept if kept > position else _MORE
        self._close_field(bytes(self._value))
        self._step = self._after_delimiter
        return end + len(self._delimiter)

    def _epilogue(self, buffer: bytes, position: int) -> int:
        """What follows the last delimiter means nothing and is not kept."""
        return _MORE if position == len(buffer) else len(buffer)

    def _close_field(self, value: bytes) -> None:
        if self._field == b"model":
            if self.model is not None:
                raise invalid_value("model", "The field model appears twice.")
            try:
                self.model = value.decode()
            except ValueError:
                raise invalid_value("model", "The field model must be UTF-8 text.") from None
            if len(self.model) > TEXT_CHARS_MAX:
                raise invalid_value("model", f"model must have at most {TEXT_CHARS_MAX} characters.")
        elif self._field == b"stream":
            if self.stream is not None:
                raise invalid_value("stream", "The field stream appears twice.")
            self.stream = value.lower() in _TRUE


def _field_name(head: bytes) -> bytes:
    """The form field that a part's head names. One Content-Disposition, each of its parameters once."""
    lines = [match for line in head.split(b"\r\n") if (match := _DISPOSITION.fullmatch(line))]
    if len(lines) != 1:
        raise _malformed()
    rest = lines[0][1]
    names: dict[bytes, bytes] = {}
    position = 0
    while match := _PARAMETER.match(rest, position):
        name = match[1].lower()
        if name in names:
            raise _malformed()
        names[name] = match[2].strip(b'"')
        position = match.end()
    if position != len(rest) or b"name" not in names or b"name*" in names or b"\\" in names[b"name"]:
        raise _malformed()
    return names[b"name"]
