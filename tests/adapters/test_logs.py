from __future__ import annotations

import asyncio
import logging
import os
import pty
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from tempfile import TemporaryFile
from typing import Any

import orjson
import pytest
import structlog

from proxy.adapters.logs import LogConfig, adjust, configure
from proxy.adapters.records import RequestRecord
from proxy.adapters.request_log import GATHER_S, GATHERED, RequestLog
from proxy.types import Outcome
from tests.counting import lines_executed

RECORD = RequestRecord(
    "r-1", "/v1/chat/completions", Outcome.SUCCESS, 200, 1.5, "acme", "high", "llama", "vllm-0", ttft_s=0.2
)
log = structlog.get_logger()


class Output:
    """Configured logs that write into a file."""

    def __init__(self, **config: Any) -> None:
        self._file = TemporaryFile()  # noqa: SIM115  # closed when its lines have been read
        self.log: RequestLog = configure(LogConfig(**{"format": "json", **config}), self._file.fileno())

    def lines(self) -> list[dict[str, Any]]:
        self.log.close()
        with self._file as file:
            file.seek(0)
            return [orjson.loads(line) for line in file]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_request_is_one_json_line() -> None:
    output = Output()
    output.log.request(RECORD)
    [line] = output.lines()
    assert line["event"] == "request"
    assert line["level"] == "info"
    assert (line["request_id"], line["tenant"], line["class"], line["upstream"]) == ("r-1", "acme", "high", "vllm-0")
    output.log.request(RECORD)  # too late: the sink is closed
    assert output.log.take_dropped() == 1


@pytest.mark.parametrize(("rate", "kept"), [(1.0, 100), (0.25, 25), (0.0, 0)])
def test_only_successes_are_thinned_out(rate: float, kept: int) -> None:
    output = Output(sample_rate=rate)
    for _ in range(100):
        output.log.request(RECORD)
        output.log.request(replace(RECORD, outcome=Outcome.QUEUE_FULL))
    outcomes = [line["outcome"] for line in output.lines()]
    assert outcomes.count("success") == kept
    assert outcomes.count("queue_full") == 100


@pytest.mark.parametrize(
    ("level", "outcomes"),
    [
        ("info", ["success", "rate_limited", "internal_error"]),
        ("warning", ["rate_limited", "internal_error"]),
        ("error", ["internal_error"]),
    ],
)
def test_the_level_decides_which_requests_are_told(level: str, outcomes: list[str]) -> None:
    output = Output(level=level)
    for outcome in (Outcome.SUCCESS, Outcome.RATE_LIMITED, Outcome.INTERNAL_ERROR):
        output.log.request(replace(RECORD, outcome=outcome))
    assert [line["outcome"] for line in output.lines()] == outcomes


def test_lines_are_made_a_few_at_a_time_or_when_the_first_has_waited() -> None:
    output = Output()
    calls: list[tuple[float, Callable[[], None]]] = []
    output.log.gather(lambda delay_s, call: calls.append((delay_s, call)))
    for number in range(GATHERED + 1):
        output.log.request(replace(RECORD, request_id=f"r-{number}"))
    log.info("in between")
    [(delay_s, made_late)] = calls  # one, however many lines
    assert delay_s == GATHER_S
    made_late()
    output.log.request(replace(RECORD, request_id="r-last"))
    assert len(calls) == 2
    told = [line.get("request_id", line["event"]) for line in output.lines()]  # the end waits for no call
    first = [f"r-{number}" for number in range(GATHERED)]
    assert told == [*first, "in between", f"r-{GATHERED}", "r-last"]


class LeakyError(Exception):
    def __repr__(self) -> str:
        return "<ClientResponse Authorization: Bearer planted-secret>"

    __str__ = __repr__


def test_level_and_sample_rate_may_change_meanwhile() -> None:
    output = Output(sample_rate=0.0)
    library = logging.getLogger("library")
    output.log.request(RECORD)
    log.debug("too fine")
    adjust(output.log, LogConfig(level="debug", format="text"))
    output.log.request(RECORD)
    log.debug("told")
    library.warning("told, too")
    adjust(output.log, LogConfig(level="error"))
    output.log.request(RECORD)
    log.warning("held back")
    library.warning("held back, too")
    assert [line["event"] for line in output.lines()] == ["request", "told", "told, too"]


def test_ordinary_messages_share_the_sink_and_tell_no_secret() -> None:
    output = Output()
    log.debug("not told")
    log.info("reloaded", upstreams=2, api_key="planted-secret")
    try:
        raise LeakyError
    except LeakyError as error:
        log.exception("failed", error=error)
        log.error("again", exc_info=error)
        log.error("thrice", exc_info=(type(error), error, error.__traceback__))
        logging.getLogger("aiohttp.server").exception("Error handling request")
    log.error("without", exc_info=True)
    lines = output.lines()
    assert [line["event"] for line in lines] == [
        *("reloaded", "failed", "again", "thrice", "Error handling request", "without"),
    ]
    assert [line.get("error") for line in lines] == [None, *["LeakyError"] * 4, None]
    assert b"planted-secret" not in orjson.dumps(lines)


def test_asyncio_tells_of_a_lost_exception_without_its_repr() -> None:
    output = Output()

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "never retrieved", "exception": LeakyError(), "future": LeakyError()})

    asyncio.run(scene())
    [line] = output.lines()
    assert (line["event"], line["logger"], line["error"]) == ("never retrieved", "asyncio", "LeakyError")
    assert b"planted-secret" not in orjson.dumps(line)


def test_libraries_are_heard_only_when_something_is_wrong() -> None:
    output = Output(level="debug")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble")
    assert [line["event"] for line in output.lines()] == ["trouble"]


def test_a_terminal_gets_text() -> None:
    leader, follower = pty.openpty()
    requests = configure(LogConfig(format="auto"), follower)
    requests.request(RECORD)
    requests.close()
    assert b"request outcome=success" in os.read(leader, 4096)
    os.close(follower)
    os.close(leader)


def test_a_line_costs_few_lines_of_code() -> None:
    output = Output(sample_rate=1.0)
    output.log.request(RECORD)
    output.log.gather(lambda delay_s, call: None)
    executed = lines_executed(lambda: deque(map(output.log.request, [RECORD] * GATHERED), 0))
    assert executed <= 45 * GATHERED
    assert len(output.lines()) == 1 + GATHERED
