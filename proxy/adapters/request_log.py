"""The line of each request that has ended, handed to the sink.

Made between two requests, a line costs about twice what it costs made right after another: the code and data that
make it have left the processor's caches. So a few gather and are made in a row, on the event loop's thread; more at a
time save nothing that shows and hold up the next request. Most are of successes, and what these share is written once
and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import time
from typing import Final

import orjson

from proxy.adapters.log_lines import (
    APPEND_NEWLINE,
    Render,
    RequestLine,
    json_line,
    level_name,
    own_fields,
    request_fields,
    shared_fields,
    stamp,
)
from proxy.adapters.log_sink import Sink
from proxy.adapters.records import RequestRecord
from proxy.types import Outcome

QUIET: Final = frozenset({Outcome.SUCCESS, Outcome.UPSTREAM_STATUS, Outcome.CLIENT_GONE})  # at `info`
SHARED_MAX: Final = 1024
GATHERED: Final = 32  # lines; some 50 us
GATHER_S: Final = 0.02  # and no longer than this
SUCCESS: Final = Outcome.SUCCESS
INFO: Final = 20  # logging.INFO, which is looked up by name

_HEAD = '{"time":"%s","level":"%s","event":"request",'  # as a variable: see `log_lines`

Later = Callable[[float, Callable[[], None]], object]  # as `call_later` of an event loop
Shared = tuple[int, bool, bool, int, str, str, str, str, str]


def level_of(outcome: Outcome) -> int:
    """What a client does is told at `info`, what we or an engine refuse at `warning`, our own faults as errors."""
    if outcome is Outcome.INTERNAL_ERROR:
        return logging.ERROR
    return INFO if outcome in QUIET else logging.WARNING


class RequestLog:
    """The request lines. `request` belongs to the event loop's thread."""

    def __init__(self, sink: Sink, render: Render) -> None:
        self._sink = sink
        self._render = render
        self._level, self._rate = INFO, 1.0
        self._credit = 0.0
        self._later: Later | None = None
        self._gathered: list[RequestLine] = []
        self._awaited = False  # `_make_late` will be called

    def gather(self, later: Later) -> None:
        """From now on a few lines are made at a time; before that each at once."""
        self._later = later

    def adjust(self, level: int, sample_rate: float) -> None:
        """From the next request on."""
        self._level, self._rate = level, sample_rate

    def request(self, record: RequestRecord) -> None:
        """Write one line for an ended request. Successes are thinned out evenly: one of every 1/rate is kept."""
        success = record.outcome is SUCCESS
        level = INFO if success else level_of(record.outcome)
        if level < self._level:
            return
        if success and self._rate < 1.0:
            self._credit += self._rate
            if self._credit < 1.0:
                return
            self._credit -= 1.0
        self._gathered.append(RequestLine(self._render, time(), level, record))
        if self._later is None or len(self._gathered) >= GATHERED:
            self._make()
        elif not self._awaited:
            self._awaited = True
            self._later(GATHER_S, self._make_late)

    def take_dropped(self) -> int:
        """Lines lost since the last call."""
        return self._sink.take_dropped()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, for at most `timeout_s` seconds."""
        self._make()
        self._sink.close(timeout_s)

    def _make_late(self) -> None:
        self._awaited = False
        self._make()

    def _make(self) -> None:
        lines, self._gathered = self._gathered, []
        for line in [one.made() for one in lines]:
            self._sink.put(line)


class RequestLines:
    """Request lines as JSON, the same as `json_line` of `request_fields`. What successes share is kept, up to
    `SHARED_MAX` different ones; the time is that of the millisecond. For one thread."""

    __slots__ = ("_head", "_ms", "_shared")

    def __init__(self) -> None:
        self._shared: dict[Shared, bytes] = {}
        self._ms, self._head = -1, b""

    def line(self, wall_s: float, level: int, record: RequestRecord) -> bytes:
        if record.outcome is not SUCCESS:
            return json_line(wall_s, level, request_fields(record))
        alike: Shared = (
            record.status, record.streaming, record.good, record.retries, record.path, record.tenant,
            record.class_name, record.model, record.upstream,
        )  # fmt: skip
        shared = self._shared.get(alike)
        try:
            if shared is None:
                shared = self._keep(alike, orjson.dumps(shared_fields(record))[1:-1])
            own: bytes = orjson.dumps(own_fields(record), option=APPEND_NEWLINE)
        except TypeError:  # a lone surrogate
            return json_line(wall_s, level, request_fields(record))
        ms = int(wall_s * 1000)
        if ms != self._ms:
            head = _HEAD % (stamp(ms), level_name(level))
            self._ms, self._head = ms, head.encode()
        return b"".join((self._head, shared, b",", own[1:]))

    def _keep(self, alike: Shared, shared: bytes) -> bytes:
        if len(self._shared) >= SHARED_MAX:
            self._shared.clear()
        self._shared[alike] = shared
        return shared
