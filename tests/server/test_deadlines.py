from __future__ import annotations

from itertools import count

import pytest

from proxy.server.deadlines import IDLE_S, LAST_CALL_S
from tests.adapters.shell import CHAT, DONE, STREAM_HEAD, Shell, chunk, said, token
from tests.server.edge import Client, Edge, intake_of, post, stream

AUDIO = "/v1/audio/transcriptions"
FORM = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b\r\n'


def upload() -> bytes:
    """A form whose model is known and whose sound is still to come."""
    head = f"POST {AUDIO} HTTP/1.1\r\nhost: p\r\ncontent-type: multipart/form-data; boundary=b\r\n"
    return f"{head}content-length: 9000\r\n\r\n".encode() + FORM


def slow_edge(seats: int = 2, **listen: float) -> Edge:
    shell = Shell(seats=seats)
    return Edge(shell, intake_of(shell, body_timeout_s=4.0, body_min_bytes_per_s=1e9), **listen)


@pytest.mark.parametrize(
    ("sent", "after_s", "status", "outcomes"),
    [
        pytest.param(b"POST /v1/chat", 10.0, [408], ["head_timeout"], id="a head that stops"),
        pytest.param(post(b"x" * 9)[:-1], 4.0, [408], ["body_timeout"], id="a body that stops"),
        pytest.param(b"", IDLE_S, [], [], id="an idle connection ends in silence"),
    ],
)
def test_each_state_has_one_deadline(sent: bytes, after_s: float, status: list[int], outcomes: list[str]) -> None:
    edge = slow_edge()
    client = edge.client(sent)
    edge.pass_time(after_s)
    assert (client.take(), edge.outcomes()) == (b"", [])
    edge.pass_time(0.5)
    assert (client.statuses(), edge.outcomes(), edge.shell.clean()) == (status, outcomes, True)
    edge.pass_time(2.5)  # what the client still sends is read away for a while
    assert client.transport.ended
    assert not edge.listener.connections


def test_the_deadline_of_a_head_is_absolute() -> None:
    edge = slow_edge()
    client = edge.client(b"POST /v1/chat")
    for number in range(11):
        edge.pass_time(1.0)
        client.send(b"%d" % number)
    assert client.statuses() == [408]


def test_idle_time_starts_after_each_answer_and_a_drain_ends_it() -> None:
    edge = slow_edge()
    client = edge.client()
    for _ in range(2):
        edge.pass_time(IDLE_S - 1.0)
        client.send(post())
        edge.shell.answer(said())
    assert not client.transport.ended
    edge.listener.draining = True
    edge.pass_time(LAST_CALL_S)
    assert not client.transport.ended
    edge.pass_time(0.5)
    assert (client.transport.ended, edge.outcomes()) == (True, ["success"] * 2)


def test_at_a_drain_a_request_that_is_on_its_way_is_still_served() -> None:
    edge = slow_edge()
    clients = [edge.client(), edge.client(post())]
    edge.shell.answer(said())  # now idle, just as the one that has just connected
    edge.listener.let_go()
    assert [client.transport.ended for client in clients] == [False, False]
    for client in clients:
        client.take()
        client.send(post())
        edge.shell.answer(said())
        assert b"connection: close" in client.take().lower()
    assert edge.outcomes() == ["success"] * 3
    assert all(client.transport.ended for client in clients)


def test_a_draining_listener_waits_for_the_request_that_runs() -> None:
    edge = slow_edge()
    client = edge.client(stream())
    edge.listener.draining = True
    edge.pass_time(1.0)
    assert not client.transport.ended
    edge.shell.answer(STREAM_HEAD, chunk(token("stop")) + chunk(DONE), b"0\r\n\r\n")
    assert (client.transport.ended, edge.outcomes()) == (True, ["success"])


def test_a_stream_that_waits_is_kept_awake() -> None:
    edge = Edge(Shell(seats=1, keepalive_s=2.0))
    edge.shell.fill()
    client = edge.client(stream())
    edge.pass_time(2.5)
    assert client.take().count(b":") > 0
    assert edge.outcomes() == []


@pytest.mark.parametrize("begun", [False, True], ids=["nothing answered yet", "in the middle of an answer"])
def test_an_upload_that_stops_is_ended_by_its_own_deadline(begun: bool) -> None:
    edge = slow_edge()
    client = edge.client(upload())
    if begun:
        edge.shell.answer(STREAM_HEAD, chunk(b"x"))
        client.take()
    edge.pass_time(4.0)
    assert edge.outcomes() == []
    edge.pass_time(0.5)
    assert (client.statuses(), edge.outcomes()) == ([] if begun else [408], ["body_timeout"])
    assert edge.shell.clean()


def test_the_time_of_an_upload_stands_still_while_its_request_is_queued() -> None:
    edge = slow_edge(seats=1)
    _, sink = edge.shell.ask()
    client = edge.client(upload())
    edge.pass_time(6.0)
    assert edge.outcomes() == []
    edge.shell.answer(said())
    assert (sink.overs, bool(edge.shell.transport().written)) == (1, True)
    edge.pass_time(4.0)
    assert client.statuses() == []
    edge.pass_time(0.5)
    assert (client.statuses(), edge.outcomes()[1:]) == ([408], ["body_timeout"])


def stalled(edge: Edge, unsent: int = 1000) -> Client:
    """A client that takes nothing of a stream."""
    client = edge.client(stream())
    edge.shell.answer(STREAM_HEAD, chunk(token()))
    client.transport.unsent_bytes = unsent
    client.connection.pause_writing()
    return client


def test_a_client_that_takes_nothing_is_cut_and_counted() -> None:
    edge = slow_edge(write_timeout_s=3.0)
    client = stalled(edge)
    edge.pass_time(3.0)
    assert not client.transport.aborted
    edge.pass_time(0.5)
    assert (client.transport.aborted, edge.outcomes()) == (True, ["client_stalled"])
    assert edge.shell.transport().ended
    assert edge.shell.clean()


def test_a_client_that_takes_a_little_is_no_stalled_one() -> None:
    edge = slow_edge(write_timeout_s=3.0)
    edge.shell.caps = edge.shell.caps.__class__(itl_s=600.0)
    client = stalled(edge)
    for left in count(999, -1):
        edge.pass_time(2.5)
        client.transport.unsent_bytes = left
        if left < 990:
            break
    assert (client.transport.aborted, edge.outcomes()) == (False, [])
    client.connection.resume_writing()
    edge.pass_time(9.0)
    assert not client.transport.aborted


def test_a_last_answer_that_nobody_takes_is_cut_too() -> None:
    edge = slow_edge(write_timeout_s=3.0)
    client = edge.client(post(b'{"model":"m"}', CHAT, "connection: close"))
    client.transport.close = lambda: None  # type: ignore[method-assign]  # the flush before the end never ends
    edge.shell.answer(said())
    client.transport.unsent_bytes = 10
    edge.pass_time(4.5)
    assert (client.transport.aborted, edge.outcomes()) == (True, ["success"])


def test_after_the_end_nothing_is_looked_at() -> None:
    edge = slow_edge()
    client = edge.client()
    client.connection.transport = None
    edge.pass_time(2 * IDLE_S)
    assert not client.transport.ended
