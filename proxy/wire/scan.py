"""Large JSON bodies, read in pieces of any size with bounded memory.

Only the top level is parsed: keys, colons, commas, the values of the keys that are read. What lies below is skipped by
regular expressions that match whole runs of strings, scalars and flat containers, so that a step is taken per nested
bracket and not per token. The engine judges what is skipped; brackets and strings must balance, so that it cannot see
another top level than the one read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import orjson

from proxy.wire.errors import BadRequest, invalid_json
from proxy.wire.facts import KEYS, MEDIA_BODY_BYTES_MIN, MEDIA_BYTES_MIN, Media, PrioritySpan, RequestFacts, build_facts
from proxy.wire.routes import Route

SLICE_BYTES = 65_536  # longest stretch handed to one match
KEY_BYTES_MAX = 128  # no key that is read is longer, even with every letter escaped (21 letters of 6 bytes)
VALUE_BYTES_MAX = 4096  # raw bytes of a value that is read
DEPTH_MAX = 1024  # as in orjson

# Repeats of one character class are possessive: a match that fails gives nothing back and stays linear.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'
_PLAIN_STRING = rb'"(?!data[:"]|input_audio")[^"\\]*+(?:\\.[^"\\]*+)*"'  # not media, nor what announces it
_SHORT_DATA = rb'"data"[ \t\r\n]*+:[ \t\r\n]*+"(?!data:)[^"\\]{0,%d}+"' % (MEDIA_BYTES_MIN - 1)
_SKIPPED_STRING = _PLAIN_STRING + rb"|" + _SHORT_DATA
_ITEM = rb'[^"\[\]{}]++|' + _SKIPPED_STRING
_FLAT_LEVELS = 3  # of containers matched in one go: a message, its list of parts, a part


def _container(item: bytes) -> bytes:
    return rb"\{(?:" + item + rb")*\}|\[(?:" + item + rb")*\]"


_FLAT = _container(_ITEM)
for _ in range(_FLAT_LEVELS - 1):
    _FLAT = _container(_ITEM + rb"|" + _FLAT)

_WHITE = re.compile(rb"[ \t\r\n]*+")
_WHOLE_STRING = re.compile(_STRING, re.DOTALL)
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]*+")
_STRING_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*', re.DOTALL)
_SKIP = re.compile(rb"(?:" + _ITEM + rb"|" + _FLAT + rb")*", re.DOTALL)
_SKIP_INNERMOST = re.compile(rb"(?:" + _ITEM + rb")*", re.DOTALL)  # no further container
_SKIP_ITEM = re.compile(rb'(?:[^"\[\]{},]++|' + _SKIPPED_STRING + rb"|" + _FLAT + rb")*", re.DOTALL)

_QUOTE, _COMMA, _COLON, _BACKSLASH = b'",:\\'
_OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST = b"{}[]"
_CLOSING = {_OPEN: _CLOSE, _OPEN_LIST: _CLOSE_LIST}
_MORE = -1  # the token at hand is not complete yet
_UNUSABLE = object()  # stands for a container, or a value too long, where a scalar is read

_TEXT, _IMAGE, _AUDIO, _KEYED = range(4)  # what a skipped string is


def _broken() -> BadRequest:
    return invalid_json("The body is not valid JSON.")


class BodyScanner:
    """Feed it the body, then `finish`. Both raise BadRequest (400) as soon as the body must be refused."""

    def __init__(self, route: Route, max_choices: int = 128) -> None:
        self._route = route
        self._max_choices = max_choices
        self._step: Callable[[bytes, int], int] = self._start
        self._rest = b""  # beginning of an incomplete token, at most VALUE_BYTES_MAX
        self._base = 0  # offset in the body of the buffer at hand
        self._received = 0
        self._values: dict[str, object] = {}
        self._key = ""  # of the value at hand, empty when it is not read
        self._stack = bytearray()  # open brackets below the top level
        self._after_string: Callable[[bytes, int], int] = self._after
        self._string_kind = _TEXT
        self._string_bytes = 0
        self._media = Media()
        self._keyed_media = 0
        self._has_input_audio = False
        self._counting = False  # the value at hand is a list of prompts
        self._prompts = 1
        self._comma: int | None = None  # offset of the comma before the key at hand
        self._key_start = 0
        self._value_start = 0
        self._value_end = 0
        self._span: PrioritySpan | None = None

    def feed(self, piece: bytes) -> None:
        """The next bytes of the body, any number of them."""
        if len(piece) <= SLICE_BYTES:
            self._feed(piece)
            return
        for start in range(0, len(piece), SLICE_BYTES):
            self._feed(piece[start : start + SLICE_BYTES])

    def finish(self) -> RequestFacts:
        """The facts, once the whole body has been fed."""
        if self._step != self._end:
            raise _broken()
        if self._has_input_audio:
            self._media.audios += self._keyed_media
        else:
            self._media.images += self._keyed_media
        return build_facts(
            self._values,
            self._received,
            self._media if self._received >= MEDIA_BODY_BYTES_MIN else None,
            self._prompts,
            self._span,
            self._route,
            self._max_choices,
        )

    def _feed(self, piece: bytes) -> None:
        buffer = self._rest + piece if self._rest else piece
        self._base = self._received - len(self._rest)
        self._received += len(piece)
        position, size = 0, len(buffer)
        while position < size:
            following = self._step(buffer, position)
            if following == _MORE:
                break
            position = following
        self._rest = buffer[position:]

    # The top level: each step gets the buffer and a position, and returns the next position or _MORE.

    def _start(self, buffer: bytes, position: int) -> int:
        position = _skip_white(buffer, position)
        if position < len(buffer):
            if buffer[position] != _OPEN:
                raise invalid_json("The body must be a JSON object.")
            self._step = self._first_key
            position += 1
        return position

    def _first_key(self, buffer: bytes, position: int) -> int:
        position = _skip_white(buffer, position)
        if position < len(buffer):
            if buffer[position] == _CLOSE:
                self._step = self._end
                return position + 1
            self._step = self._next_key
        return position

    def _next_key(self, buffer: bytes, position: int) -> int:
        position = _skip_white(buffer, position)
        if position == len(buffer):
            return position
        if buffer[position] != _QUOTE:
            raise _broken()
        self._key = ""
        match = _WHOLE_STRING.match(buffer, position, position + KEY_BYTES_MAX)
        if match is None:
            if len(buffer) - position < KEY_BYTES_MAX:
                return _MORE
            return self._skip_string(_TEXT, self._colon, position)
        try:
            key = orjson.loads(match[0])
        except ValueError:
            raise _broken() from None
        if key in KEYS or key == "data":
            self._key = key
            if key in self._values:
                raise invalid_json(f"The key {key} appears twice at the top level.")
        self._key_start = self._base + position
        self._step = self._colon
        return match.end()

    def _colon(self, buffer: bytes, position: int) -> int:
        position = _skip_white(buffer, position)
        if position < len(buffer):
            if buffer[position] != _COLON:
                raise _broken()
            self._step = self._value
            position += 1
        return position

    def _value(self, buffer: bytes, position: int) -> int:
        position = _skip_white(buffer, position)
        if position == len(buffer):
            return position
        first = buffer[position]
        self._value_start = self._base + position
        if first in _CLOSING:
            self._keep(_UNUSABLE)
            self._stack.append(first)
            self._step = self._first_item if self._key == "prompt" and first == _OPEN_LIST else self._nested
            return position + 1
        if first == _QUOTE:
            if self._key in KEYS and self._key != "prompt":
                return self._read_string(buffer, position)
            self._keep(_UNUSABLE)
            return self._open_string(buffer, position, self._key == "data", self._after)
        return self._read_scalar(buffer, position)

    def _read_string(self, buffer: bytes, position: int) -> int:
        match = _WHOLE_STRING.match(buffer, position, position + VALUE_BYTES_MAX)
        if match is None:
            if len(buffer) - position < VALUE_BYTES_MAX:
                return _MORE
            self._keep(_UNUSABLE)
            return self._skip_string(_TEXT, self._after, position)
        self._keep(_decode(match[0]))
        return self._end_value(match.end())

    def _read_scalar(self, buffer: bytes, position: int) -> int:
        end = _end_of(_SCALAR, buffer, position)
        if end == position:
            raise _broken()
        if end - position > VALUE_BYTES_MAX:
            self._keep(_UNUSABLE)
            self._step = self._skip_scalar
            return position
        if end == len(buffer):
            return _MORE
        self._keep(_decode(buffer[position:end]))
        return self._end_value(end)

    def _skip_scalar(self, buffer: bytes, position: int) -> int:
        end = _end_of(_SCALAR, buffer, position)
        return end if end == len(buffer) else self._end_value(end)

    def _keep(self, value: object) -> None:
        if self._key in KEYS:
            self._values[self._key] = value

    def _end_value(self, position: int) -> int:
        self._value_end = self._base + position
        self._step = self._after
        return position

    def _after(self, buffer: bytes, position: int) -> int:
        position = _skip_white(buffer, position)
        if position == len(buffer):
            return position
        mark = buffer[position]
        if mark not in (_COMMA, _CLOSE):
            raise _broken()
        offset = self._base + position
        if self._key == "priority":
            if mark == _COMMA:
                start, end = self._key_start, offset + 1
            else:
                start, end = self._key_start if self._comma is None else self._comma, self._value_end
            self._span = PrioritySpan(start, end, self._value_start, self._value_end)
        self._comma = offset
        self._step = self._next_key if mark == _COMMA else self._end
        return position + 1

    def _end(self, buffer: bytes, position: int) -> int:
        position = _skip_white(buffer, position)
        if position < len(buffer):
            raise _broken()
        return position

    # Below the top level.

    def _first_item(self, buffer: bytes, position: int) -> int:
        """A list of numbers is one prompt, given as token ids; a list of anything else is a list of prompts."""
        position = _skip_white(buffer, position)
        if position < len(buffer):
            self._counting = buffer[position] in b'"[{'
            self._step = self._nested
        return position

    def _nested(self, buffer: bytes, position: int) -> int:
        depth = len(self._stack)
        skip = _SKIP if depth < DEPTH_MAX - _FLAT_LEVELS else _SKIP_INNERMOST
        if self._counting and depth == 1:
            skip = _SKIP_ITEM
        position = _end_of(skip, buffer, position)
        if position == len(buffer):
            return position
        mark = buffer[position]
        if mark == _QUOTE:
            return self._nested_string(buffer, position)
        if mark == _COMMA:
            self._prompts += 1
        elif mark in _CLOSING:
            if depth >= DEPTH_MAX - 1:
                raise invalid_json(f"The body is nested deeper than {DEPTH_MAX} levels.")
            self._stack.append(mark)
        else:
            if _CLOSING[self._stack.pop()] != mark:
                raise _broken()
            if not self._stack:
                self._counting = False
                return self._end_value(position + 1)
        return position + 1

    def _nested_string(self, buffer: bytes, position: int) -> int:
        head = buffer[position : position + 13]
        if len(head) < 13 and (b'"input_audio"'.startswith(head) or b'"data"'.startswith(head)):
            return _MORE
        if head == b'"input_audio"':
            self._has_input_audio = True
            return position + 13
        if head[:6] == b'"data"':
            self._step = self._data_colon
            return position + 6
        return self._open_string(buffer, position, False, self._nested)

    def _data_colon(self, buffer: bytes, position: int) -> int:
        position = _skip_white(buffer, position)
        if position < len(buffer):
            is_key = buffer[position] == _COLON
            self._step = self._data_value if is_key else self._nested
            position += is_key
        return position

    def _data_value(self, buffer: bytes, position: int) -> int:
        position = _skip_white(buffer, position)
        if position < len(buffer):
            if buffer[position] == _QUOTE:
                return self._open_string(buffer, position, True, self._nested)
            self._step = self._nested
        return position

    # Strings that are not read.

    def _open_string(self, buffer: bytes, position: int, keyed: bool, then: Callable[[bytes, int], int]) -> int:
        head = buffer[position + 1 : position + 11]
        if len(head) < 10 and b"data:audio".startswith(head):
            return _MORE
        kind = _KEYED if keyed else _TEXT
        if head[:5] == b"data:":
            kind = _AUDIO if head == b"data:audio" else _IMAGE
        return self._skip_string(kind, then, position)

    def _skip_string(self, kind: int, then: Callable[[bytes, int], int], position: int) -> int:
        self._string_kind = kind
        self._string_bytes = 0
        self._after_string = then
        self._step = self._string
        return position + 1

    def _string(self, buffer: bytes, position: int) -> int:
        end = buffer.find(b'"', position)
        if buffer.find(b"\\", position, len(buffer) if end < 0 else end) >= 0:
            end = _end_of(_STRING_REST, buffer, position)
            if end == len(buffer) - 1 and buffer[end] == _BACKSLASH:
                self._string_bytes += end - position
                return end if end > position else _MORE
        elif end < 0:
            end = len(buffer)
        self._string_bytes += end - position
        if end == len(buffer):
            return end
        self._count_media()
        self._step = self._after_string
        return self._end_value(end + 1) if self._step == self._after else end + 1

    def _count_media(self) -> None:
        kind, size = self._string_kind, self._string_bytes
        if kind == _TEXT or (kind == _KEYED and size < MEDIA_BYTES_MIN):
            return
        self._media.media_bytes += size
        if kind == _IMAGE:
            self._media.images += 1
        elif kind == _AUDIO:
            self._media.audios += 1
        else:
            self._keyed_media += 1


def _end_of(pattern: re.Pattern[bytes], buffer: bytes, position: int) -> int:
    """Where a pattern that may match nothing ends."""
    match = pattern.match(buffer, position)
    return position if match is None else match.end()


def _skip_white(buffer: bytes, position: int) -> int:
    return _end_of(_WHITE, buffer, position)


def _decode(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except ValueError:
        raise _broken() from None
