"""Server-sent events: bytes in any chunking -> events, with a bound on what is buffered.

Format: WHATWG HTML, section "Server-sent events": UTF-8, lines ended by LF, CR or CRLF, an optional byte order mark, an
event ends at a blank line, lines that start with a colon are comments. This parser serves clients of streams (load
tests, tools); the data path relays bytes and only counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

EVENT_BYTES_MAX = 16 * 1024 * 1024  # one event; a whole Responses object travels in one

_LINE_END = re.compile(rb"\r\n|\n|\r")
_MARK = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):  # noqa: N818 - says what it is
    """One event exceeds the bound."""


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event. `name` is empty for the default type; `data` has its lines joined by LF."""

    name: str
    data: str
    last_id: str | None = None


class EventParser:
    """Feed it bytes, get the events that they complete. What has no blank line at the end of a stream is no event."""

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._rest = b""
        self._started = False
        self._size = 0  # bytes of the event at hand, without the incomplete line
        self._data: list[bytes] = []
        self._name = b""
        self._last_id: bytes | None = None

    def feed(self, piece: bytes) -> list[Event]:
        """Events completed by this piece, in order."""
        buffer = self._rest + piece
        if not self._started:
            if _MARK.startswith(buffer):
                self._rest = buffer
                return []
            self._started = True
            buffer = buffer.removeprefix(_MARK)
        events: list[Event] = []
        position = 0
        for match in _LINE_END.finditer(buffer):
            if match.end() == len(buffer) and match[0] == b"\r":
                break  # may be the first half of CRLF
            self._line(buffer[position : match.start()], events)
            position = match.end()
        self._rest = buffer[position:]
        if self._size + len(self._rest) > self._event_bytes_max:
            raise EventTooLarge(f"one event is longer than {self._event_bytes_max} bytes")
        return events

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            if self._data:
                events.append(Event(_text(self._name), _text(b"\n".join(self._data)), self._id()))
            self._data, self._name, self._size = [], b"", 0
            return
        self._size += len(line)
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        elif field == b"id" and b"\0" not in value:
            self._last_id = value

    def _id(self) -> str | None:
        return None if self._last_id is None else _text(self._last_id)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
