"""Every way in which an endpoint can answer, and the record that comes of it."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.adapters.tasks import Tasks
from proxy.adapters.upstream_pool import UpstreamConnection, UpstreamPool
from proxy.loadtest.client.call import Call
from proxy.loadtest.client.clock import TurnClock
from proxy.loadtest.client.endpoint import read_endpoint
from proxy.loadtest.client.measure import run
from proxy.loadtest.client.runner import Runner
from proxy.loadtest.records import Ending, Record
from proxy.loadtest.workload import Arrival, Flow, Lengths, Workload
from proxy.wire.routes import ROUTES
from tests.adapters.shell import ScriptedTransport
from tests.loadtest.support import DONE, HANG, RESET, STREAM, chunk, good, scripted, stream, token, usage, whole


def one_request(stream_asked: bool = True, **more: object) -> Workload:
    flow = Flow("f", prompt_tokens=Lengths(mean=5), output_tokens=Lengths(mean=8), stream=stream_asked)
    closed = Arrival("closed", concurrency=1)
    return Workload("w", (flow,), closed, warmup_s=0, requests=1, **more)  # type: ignore[arg-type]


async def sent(url: str, workload: Workload) -> list[Record]:
    async with asyncio.timeout(10):
        return (await Runner(read_endpoint(url), workload, "m").run()).whole().records


def answered(*script: bytes, stream_asked: bool = True, **more: object) -> Record:
    async def scenario() -> Record:
        async with scripted(*script) as endpoint:
            (record,) = await sent(endpoint.url, one_request(stream_asked, **more))
            return record

    return asyncio.run(scenario())


ERROR = b'data: {"error": {"message": "x"}}\n\n'
CASES: dict[str, tuple[tuple[bytes, ...], Ending, str]] = {
    "a whole stream": ((good(),), Ending.SUCCESS, ""),
    "no DONE but a finish reason": ((stream(token(), token(finish="stop")),), Ending.SUCCESS, ""),
    "reset after the last event": ((STREAM, chunk(token(), DONE), RESET), Ending.SUCCESS, ""),
    "a refusal": ((whole({"error": "full"}, 429),), Ending.STATUS, 'status 429: {"error": "full"}'),
    "a redirect": ((whole(b"", 302, "Location: /elsewhere\r\n"),), Ending.STATUS, "status 302"),
    "reset at once": ((RESET,), Ending.RESET, "connection reset before an answer"),
    "reset in the stream": ((STREAM, chunk(token()), RESET), Ending.RESET, "in the answer"),
    "an early end": ((stream(token(), token()),), Ending.TRUNCATED, "without a finish mark"),
    "an error event": (
        (stream(token(), b'data: {"error": {"message": "x"}}\n\n'),),
        Ending.STREAM_ERROR,
        "error event",
    ),
    "not HTTP": ((b"SSH-2.0-OpenSSH_9.2\r\n\r\n",), Ending.GARBAGE, "malformed answer"),
    "an endless head": ((b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, HANG), Ending.GARBAGE, "head too large"),
    "a stream of noise": ((stream(b"\x00\xff{{{" * 50),), Ending.GARBAGE, "no event in the stream carries output"),
    "a web page": (
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nhi!",),
        Ending.GARBAGE,
        "no event stream but text/html",
    ),
    "an untyped answer": ((b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",), Ending.GARBAGE, "untyped"),
    "finished without output": ((stream(DONE),), Ending.EMPTY, "without any output"),
    "an empty stream": ((stream(),), Ending.EMPTY, ""),
    "silence at once": ((HANG,), Ending.SILENCE, "no byte for 0.2 s before an answer"),
    "silence in the stream": ((STREAM, chunk(token()), HANG), Ending.SILENCE, "in the answer"),
}


@pytest.mark.parametrize(("script", "ending", "detail"), CASES.values(), ids=CASES)
def test_each_answer_has_its_ending(script: tuple[bytes, ...], ending: Ending, detail: str) -> None:
    record = answered(*script, silence_s=0.2)
    assert record.ending is ending, record.detail
    assert detail in record.detail
    assert record.ended_s > 0


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        (whole({"choices": [{"text": "a"}], "usage": {"prompt_tokens": 5, "completion_tokens": 8}}), Ending.SUCCESS),
        (whole(b"{"), Ending.GARBAGE),
        (whole([]), Ending.GARBAGE),
        (whole({"choices": 3}), Ending.GARBAGE),
        (whole({"choices": []}), Ending.EMPTY),
        (whole({}, 500), Ending.STATUS),
    ],
)
def test_whole_answers(script: bytes, ending: Ending) -> None:
    record = answered(script, stream_asked=False)
    assert record.ending is ending
    if record.ok:
        assert (record.output_tokens, record.prompt_tokens, record.tokens_from) == (8, 5, "usage")
        assert (record.first_s, record.tpot_s, record.events) == (None, None, 0)


@pytest.mark.parametrize(
    ("told", "tokens", "source", "problem"),
    [
        (usage(4), 4, "usage", ""),
        (usage(8), 8, "usage", ""),
        (usage(1_000), 4, "events", "above what was asked for"),
        (usage(1), 4, "events", "below the events that came"),
        (usage(-3), 4, "events", "malformed (negative)"),
        (usage("four"), 4, "events", "malformed (type)"),
        (usage(10**30), 4, "events", "malformed (range)"),
        (b"", 4, "events", "missing"),
    ],
)
def test_lies_about_usage_are_told_and_not_believed(told: bytes, tokens: int, source: str, problem: str) -> None:
    record = answered(stream(*[token()] * 4, told, DONE))
    assert (record.ending, record.output_tokens, record.tokens_from) == (Ending.SUCCESS, tokens, source)
    assert record.usage_problem == problem
    assert record.events == 4


def test_the_role_alone_is_no_first_token_and_events_in_one_read_are_all_counted() -> None:
    role = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    record = answered(STREAM, chunk(role), chunk(token() * 3), chunk(usage(3), DONE), b"0\r\n\r\n")
    assert (record.events, record.output_tokens) == (3, 3)


def test_a_request_that_takes_too_long_ends() -> None:
    record = answered(STREAM, chunk(token()), HANG, timeout_s=0.3)
    assert (record.ending, record.tokens_from, record.output_tokens) == (Ending.TIMEOUT, "events", 1)


def test_a_connection_that_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (record,) = run(sent(f"http://127.0.0.1:{port}", one_request()))
    assert (record.ending, record.status) == (Ending.CONNECT, 0)
    assert "refused" in record.detail


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.loadtest.client.call.BODY_MAX_BYTES", 10_000)
    record = answered(STREAM, *[chunk(b"x" * 1000)] * 20, HANG)
    assert (record.ending, "answer above" in record.detail) == (Ending.GARBAGE, True)


def test_a_closed_idle_connection_costs_a_second_try_once() -> None:
    async def scenario() -> list[Record]:
        async with scripted(good(), first=[(good(),), (RESET,)]) as endpoint:
            workload = Workload("w", one_request().flows, Arrival("closed"), warmup_s=0, requests=3)
            return await sent(endpoint.url, workload)

    records = asyncio.run(scenario())
    assert Counter(record.ending for record in records) == {Ending.SUCCESS: 3}
    assert [record.reconnects for record in records] == [0, 1, 0]


@pytest.mark.parametrize(("value", "queue_s"), [("12.5", 0.0125), ("soon", None)])
def test_queue_time_is_taken_where_the_endpoint_tells(value: str, queue_s: float | None) -> None:
    head = STREAM.replace(b"\r\n\r\n", f"\r\nX-Penstock-Queue-Ms: {value}\r\n\r\n".encode())
    assert answered(head, chunk(token(), DONE), b"0\r\n\r\n").queue_s == queue_s


def test_our_own_lack_of_descriptors_is_not_the_endpoint_s_fault() -> None:
    async def scenario() -> Call:
        runner = Runner(read_endpoint("http://127.0.0.1:9"), one_request(), "m")
        record = Record(0, "f", 0.0, 0.0, 5, 8)
        call = Call(record, [], ROUTES[b"/v1/chat/completions"], runner.pool, runner.clock, lambda one: None, 5.0, 5.0)
        call.connect_failed("Too many open files", True)
        call.connect_failed("again", False)  # only the first ending counts
        late, transport = UpstreamConnection(runner.pool), ScriptedTransport([])
        transport.protocol = late
        late.connection_made(transport)
        call.connected(late, False)
        assert transport.ended  # nothing is sent for a request that is over
        return call

    call = asyncio.run(scenario())
    assert (call.record.ending, call.record.detail) == (Ending.GENERATOR, "Too many open files")
    assert repr(call) == "Call(0 f over)"


PIECES = [
    b"HTTP/1.1 200 OK\r\n", b"Content-Type: text/event-stream\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n", STREAM,
    b"Content-Length: 5\r\n", b"HTTP/1.1 500 No\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", chunk(token()), chunk(DONE),
    chunk(usage(3)), b"0\r\n\r\n", b"\r\n", b"data: {", good(), whole({"choices": []}), b"HTTP/2 200\r\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), max_size=12), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_whatever_bytes_come_a_request_ends_once_and_nothing_is_raised(
    pieces: list[bytes], streaming: bool, reset: bool
) -> None:
    tasks = Tasks(lambda name, error: None)
    pool = UpstreamPool("127.0.0.1", 9, None, 1.0, tasks, lambda: 0.0)
    ended: list[Call] = []
    record = Record(0, "f", 0.0, 0.0, 5, 8, streaming=streaming)
    route, clock = ROUTES[b"/v1/chat/completions"], TurnClock(lambda step: None)
    call = Call(record, [b"request"], route, pool, clock, ended.append, 5.0, 5.0)
    connection, transport = UpstreamConnection(pool), ScriptedTransport([])
    transport.protocol = connection
    connection.connection_made(transport)
    call.connected(connection, False)
    for piece in pieces:
        if not transport.ended:
            connection.data_received(piece)
    connection.connection_lost(ConnectionResetError() if reset else None)
    call.drop(Ending.TIMEOUT)
    assert ended == [call]
    assert record.ending in Ending
    assert record.output_tokens <= max(record.events, record.output_asked)
    record.document()
