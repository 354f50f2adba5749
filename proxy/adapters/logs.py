"""Logs: one line per request and ordinary messages, through one sink that never holds up the event loop.

Ordinary code uses `structlog.get_logger()`; what libraries say through `logging` takes the same way. `proxy.adapters.
log_lines` decides what a line may hold.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import structlog

from proxy.adapters.log_lines import (
    Fields,
    RequestLines,
    error_fields,
    json_line,
    request_fields,
    safe_fields,
    text_line,
)
from proxy.adapters.log_sink import Sink
from proxy.adapters.records import RequestRecord
from proxy.types import Outcome

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
QUIET = frozenset({Outcome.SUCCESS, Outcome.UPSTREAM_STATUS, Outcome.CLIENT_GONE})  # at `info`, others at `warning`
LEVEL_OF = {outcome: logging.INFO if outcome in QUIET else logging.WARNING for outcome in Outcome}
LEVEL_OF[Outcome.INTERNAL_ERROR] = logging.ERROR

Entry = tuple[float, int, RequestRecord | Fields]


@dataclass(frozen=True, slots=True)
class LogConfig:
    """`auto` is text on a terminal, JSON otherwise; `sample_rate` (0..1) thins out successes only."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    sample_rate: float = 1.0


class RequestLog:
    """The request lines. `request` belongs to the event loop's thread."""

    def __init__(self, sink: Sink[Entry], level: int, sample_rate: float) -> None:
        self._sink = sink
        self._level = level
        self._rate = sample_rate
        self._credit = 0.0

    def request(self, record: RequestRecord) -> None:
        """Write one line for an ended request. Successes are thinned out evenly: one of every 1/rate is kept."""
        success = record.outcome is Outcome.SUCCESS
        level = logging.INFO if success else LEVEL_OF[record.outcome]  # the key's hash costs more than all of this
        if level < self._level:
            return
        if success and self._rate < 1.0:
            self._credit += self._rate
            if self._credit < 1.0:
                return
            self._credit -= 1.0
        self._sink.put((time.time(), level, record))

    def take_dropped(self) -> int:
        """Lines lost since the last call."""
        return self._sink.take_dropped()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, for at most `timeout_s` seconds."""
        self._sink.close(timeout_s)


def configure(config: LogConfig, fd: int | None = None) -> RequestLog:
    """Send everything that the process says to `fd` (default: standard output)."""
    fd = sys.stdout.fileno() if fd is None else fd
    text = config.format == "text" or (config.format == "auto" and os.isatty(fd))
    json_request = RequestLines().line

    def render(entry: Entry) -> bytes:
        wall_s, level, what = entry
        if not text and isinstance(what, RequestRecord):
            return json_request(wall_s, level, what)
        fields = request_fields(what) if isinstance(what, RequestRecord) else what
        return text_line(wall_s, level, fields) if text else json_line(wall_s, level, fields)

    sink: Sink[Entry] = Sink(fd, render)
    level = LEVELS[config.level]
    structlog.configure(
        processors=[_Messages(sink)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryHandler(sink)]
    root.setLevel(max(level, logging.WARNING))  # libraries are heard only when something is wrong
    return RequestLog(sink, level, config.sample_rate)


class _Messages:
    """The one structlog processor: cleans an event and puts it into the sink."""

    def __init__(self, sink: Sink[Entry]) -> None:
        self._sink = sink

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        error = event.pop("exc_info", None)
        error = sys.exc_info()[1] if error is True else error[1] if isinstance(error, tuple) else error
        fields = safe_fields(event)
        if isinstance(error, BaseException):
            fields.update(error_fields(error))
        level = LEVELS.get(method, logging.ERROR)  # `exception` and `critical` are errors
        self._sink.put((time.time(), level, {"time": "", "level": "", "event": fields.pop("event", ""), **fields}))
        raise structlog.DropEvent


class _LibraryHandler(logging.Handler):
    """Messages of libraries: the first line only, because asyncio appends the repr of what failed after it."""

    def __init__(self, sink: Sink[Entry]) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        first = record.getMessage().split("\n", 1)[0]
        fields = safe_fields({"time": "", "level": "", "event": first, "logger": record.name})
        if record.exc_info and record.exc_info[1]:
            fields.update(error_fields(record.exc_info[1]))
        self._sink.put((record.created, record.levelno, fields))
