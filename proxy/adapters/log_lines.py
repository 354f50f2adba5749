"""What a log line may hold, and how it is written: one JSON object, or text for a terminal.

Only plain values pass. An exception is told by its type and place, never by its text: the repr of an HTTP client's
exception holds all request headers, keys included. Control signs and lone surrogates never reach a line raw.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import PurePath
from traceback import extract_tb
from typing import Any, Final

import orjson

from proxy.adapters.records import RequestRecord
from proxy.types import Outcome

TEXT_MAX: Final = 2000  # characters of one value
ITEMS_MAX: Final = 50  # of a list or mapping
FRAMES_MAX: Final = 8  # innermost frames of a traceback
SECRET_NAME: Final = re.compile(r"(authorization|api[_-]?key|cookie|password|secret|token)$", re.IGNORECASE)
SECRET_VALUE: Final = re.compile(r"\b(bearer\s+|sk-)[^\s\"',]+", re.IGNORECASE)
REDACTED: Final = "[redacted]"

APPEND_NEWLINE: Final[int] = orjson.OPT_APPEND_NEWLINE

Fields = dict[str, Any]
Render = Callable[[float, int, RequestRecord], bytes]  # of wall-clock time, level, record: its line with a newline


def error_name(error: BaseException) -> str:
    """Type of an exception, and the system's own words where it is the system's."""
    name = type(error).__qualname__
    return f"{name}: {error.strerror}" if isinstance(error, OSError) and error.strerror else name


def error_fields(error: BaseException) -> Fields:
    """Type, cause and place of an exception; no text of it."""
    fields: Fields = {"error": error_name(error)}
    cause = error.__cause__ or error.__context__
    if cause is not None:
        fields["cause"] = error_name(cause)
    frames = extract_tb(error.__traceback__)[-FRAMES_MAX:]
    if frames:
        fields["frames"] = [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return fields


def safe_fields(fields: Mapping[str, Any]) -> Fields:
    """A copy that holds plain values only, secrets blanked."""
    return {name: REDACTED if SECRET_NAME.search(name) else _safe(value) for name, value in fields.items()}


def _safe(value: Any, depth: int = 2) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | PurePath):
        return SECRET_VALUE.sub(REDACTED, str(value)[:TEXT_MAX])
    if isinstance(value, BaseException):
        return error_name(value)
    if depth and isinstance(value, Mapping):
        few = list(value.items())[:ITEMS_MAX]
        return {str(k): REDACTED if SECRET_NAME.search(str(k)) else _safe(v, depth - 1) for k, v in few}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_safe(item, depth - 1) for item in list(value)[:ITEMS_MAX]]
    return type(value).__qualname__


def _micros(seconds: float) -> float:
    """Rounded to whole microseconds, at half of what `round` costs."""
    return int(seconds * 1e6 + 0.5) / 1e6


def request_fields(record: RequestRecord) -> Fields:
    """The closed set of fields of a request line; what does not apply is left out."""
    fields: Fields = {"time": "", "level": "", "event": "request"}  # the first two are filled in when it is written
    fields.update(shared_fields(record))
    fields.update(own_fields(record))
    return fields


def shared_fields(record: RequestRecord) -> Fields:
    """Those that many requests have alike."""
    fields: Fields = {
        "outcome": record.outcome,
        "status": record.status,
        "streaming": record.streaming,
        "good": record.good,
        "retries": record.retries,
    }
    if record.path:
        fields["path"] = record.path
    if record.tenant:
        fields["tenant"] = record.tenant
    if record.class_name:
        fields["class"] = record.class_name
    if record.model:
        fields["model"] = record.model
    if record.upstream:
        fields["upstream"] = record.upstream
    return fields


def own_fields(record: RequestRecord) -> Fields:
    fields: Fields = {
        "request_id": record.request_id,
        "duration_s": _micros(record.duration_s),
        "prompt_tokens": record.prompt_tokens,
        "output_tokens": record.output_tokens,
        "cached_tokens": record.cached_tokens,
    }
    if record.queue_s is not None:
        fields["queue_s"] = _micros(record.queue_s)
    if record.ttft_s is not None:
        fields["ttft_s"] = _micros(record.ttft_s)
    if record.engine_ttft_s is not None:
        fields["engine_ttft_s"] = _micros(record.engine_ttft_s)
    if record.tpot_s is not None:
        fields["tpot_s"] = _micros(record.tpot_s)
    if record.abort_s is not None:
        fields["abort_s"] = _micros(record.abort_s)
    if record.outcome is not Outcome.SUCCESS or record.client_attempt or record.clamped or record.unknown_priority:
        fields.update(_marks(record))
    if record.usage_problem:
        fields["usage_problem"] = record.usage_problem
    if record.trace is not None:
        fields["trace_id"] = record.trace.trace_hex
    return fields


def _marks(record: RequestRecord) -> Fields:
    """Fields that few requests have."""
    marks = {
        "gone_phase": record.gone_phase,
        "client_attempt": record.client_attempt,
        "clamped": record.clamped,
        "unknown_priority": record.unknown_priority,
    }
    return {name: value for name, value in marks.items() if value}


# A variable: compiled, a format in place is taken to pieces and costs three times as much.
_STAMP = "%s.%03dZ"


_HEAD: Final = frozenset({"time", "level", "event"})


@lru_cache(maxsize=64)
def level_name(level: int) -> str:
    """As it stands in a line."""
    return logging.getLevelName(level).lower()


@lru_cache(maxsize=4)
def _second(wall_s: int) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def stamp(wall_ms: int) -> str:
    """RFC 3339, in UTC."""
    return _STAMP % (_second(wall_ms // 1000), wall_ms % 1000)


def json_line(wall_s: float, level: int, fields: Fields) -> bytes:
    """One JSON object and a newline. What orjson refuses (a lone surrogate, a huge number) goes through `json`.

    Time and level are written into `fields`, at the place that it has kept for them.
    """
    fields["time"], fields["level"] = stamp(int(wall_s * 1000)), level_name(level)
    try:
        return orjson.dumps(fields, option=APPEND_NEWLINE)
    except TypeError:
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def text_line(wall_s: float, level: int, fields: Fields) -> bytes:
    """`2026-01-31T12:00:00.000Z info    request status=200 ...`: for people at a terminal."""
    words = [f"{_printable(name)}={_word(value)}" for name, value in fields.items() if name not in _HEAD]
    head = f"{stamp(int(wall_s * 1000))} {level_name(level):<7} {_printable(str(fields.get('event', '')))}"
    return (" ".join([head, *words]) + "\n").encode("utf-8")


def _word(value: Any) -> str:
    text = _printable(str(value))
    return f'"{text}"' if " " in text or not text else text


def _printable(text: str) -> str:
    """Escape sequences could repaint the terminal of whoever reads."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "?" for sign in text)


class RequestLine:
    """The line of an ended request, made later. Nobody changes its record any more."""

    __slots__ = ("_level", "_record", "_render", "_wall_s")

    def __init__(self, render: Render, wall_s: float, level: int, record: RequestRecord) -> None:
        self._render, self._wall_s, self._level, self._record = render, wall_s, level, record

    def made(self) -> bytes:
        """Where it cannot be made, a line that tells why: those that are made with it are not lost."""
        try:
            return self._render(self._wall_s, self._level, self._record)
        except Exception as error:
            fault = {"time": "", "level": "", "event": "internal error", "task": "log line", **error_fields(error)}
            return json_line(self._wall_s, logging.ERROR, {**fault, "request_id": self._record.request_id})
