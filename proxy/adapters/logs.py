"""Logs: one line per request and ordinary messages, through one sink that never holds up the event loop.

Ordinary code uses `structlog.get_logger()`; what libraries say through `logging` takes the same way. `proxy.adapters.
log_lines` decides what a line may hold.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import structlog

from proxy.adapters.log_lines import Fields, error_fields, json_line, request_fields, safe_fields, text_line
from proxy.adapters.log_sink import Sink
from proxy.adapters.records import RequestRecord
from proxy.adapters.request_log import RequestLines, RequestLog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True, slots=True)
class LogConfig:
    """`auto` is text on a terminal, JSON otherwise; `sample_rate` (0..1) thins out successes only."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    sample_rate: float = 1.0


def configure(config: LogConfig, fd: int | None = None) -> RequestLog:
    """Send everything that the process says to `fd` (default: standard output)."""
    fd = sys.stdout.fileno() if fd is None else fd
    text = config.format == "text" or (config.format == "auto" and os.isatty(fd))
    sink = Sink(fd)
    output = _Output(sink, text_line if text else json_line)
    structlog.configure(
        processors=[_Messages(output)],
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logging.getLogger().handlers = [_LibraryHandler(output)]
    requests = RequestLog(sink, _text_request if text else RequestLines().line)
    adjust(requests, config)
    return requests


def adjust(requests: RequestLog, config: LogConfig) -> None:
    """Take over another level and sample rate; the format stays as it was."""
    level = LEVELS[config.level]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    logging.getLogger().setLevel(max(level, logging.WARNING))  # libraries are heard only when something is wrong
    requests.adjust(level, config.sample_rate)


def _text_request(wall_s: float, level: int, record: RequestRecord) -> bytes:
    return text_line(wall_s, level, request_fields(record))


@dataclass(frozen=True, slots=True)
class _Output:
    """Where messages go, and what makes lines of them."""

    sink: Sink
    line: Callable[[float, int, Fields], bytes]

    def tell(self, wall_s: float, level: int, event: object, fields: Fields) -> None:
        self.sink.put(self.line(wall_s, level, {"time": "", "level": "", "event": event, **fields}))


class _Messages:
    """The one structlog processor: cleans an event and puts it into the sink."""

    def __init__(self, output: _Output) -> None:
        self._output = output

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        error = event.pop("exc_info", None)
        error = sys.exc_info()[1] if error is True else error[1] if isinstance(error, tuple) else error
        fields = safe_fields(event)
        if isinstance(error, BaseException):
            fields.update(error_fields(error))
        level = LEVELS.get(method, logging.ERROR)  # `exception` and `critical` are errors
        self._output.tell(time.time(), level, fields.pop("event", ""), fields)
        raise structlog.DropEvent


class _LibraryHandler(logging.Handler):
    """Messages of libraries: the first line only, because asyncio appends the repr of what failed after it."""

    def __init__(self, output: _Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        first = record.getMessage().split("\n", 1)[0]
        fields = safe_fields({"event": first, "logger": record.name})
        if record.exc_info and record.exc_info[1]:
            fields.update(error_fields(record.exc_info[1]))
        self._output.tell(record.created, record.levelno, fields.pop("event"), fields)
