"""What is read by its bytes alone gives the same as what llhttp reads."""

from __future__ import annotations

import gc
import re
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.adapters.repeats import MISSES_MAX
from proxy.adapters.upstream_pool import UpstreamConnection
from proxy.server.connection import PIPELINE_MAX, ClientConnection
from proxy.server.reading import PIPELINED_MAX
from tests.adapters.shell import CHAT, DONE, LAST_CHUNK, STREAM_HEAD, Shell, chunk, said, token
from tests.server.edge import Client, Edge, post
from tests.wire.documents import split

HEALTH = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n"
DATE = re.compile(rb"date: [^\r]*\r\n")
USAGE = b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2}}}'
REQUESTS = (
    post(b'{"model":"m"}'),
    post(b'{"model":"m","max_tokens":50}'),
    post(b'{"model":"m","priority":-5,"n":2}'),
    post(b'{"model":"m","service_tier":"priority"}'),
    post(b'{"model":"m","stream":true}'),
    post(b'{"model":"m","max_tokens":0}'),
    post(b'{"model":"unknown"}'),
    post(b"no json"),
    post(b""),
    post(b'{"model":"m"}', CHAT, "x-priority: high", "user-agent: a"),
    post(b'{"model":"m"}', CHAT, "x-priority: none", "x-request-id: mine"),
    post(b'{"model":"m"}', CHAT, "expect: 100-continue"),
    post(b'{"model":"m"}', CHAT, "x-request-timeout-ms: 5000"),
    post(b'{"model":"m"}', CHAT, "connection: close"),
    post(b'{"model":"m"}', "/v1/embeddings"),
    post(b'{"model":"m"}', "/tokenize"),
    post(b'{"model":"m"}', CHAT, version="1.0"),
    b"GET /health HTTP/1.1\r\nhost: p\r\n\r\n",
    b"\r\n" + post(b'{"model":"m"}'),
    post(b'{"model":"m"}') + b"\r\n",
    post(b'{"model":"m"}') + post(b'{"model":"m","max_tokens":9}'),
    post(b'{"model":"m"}').replace(b"th: 13", b"th: +13"),
    post(b'{"model":"m"}').replace(b"th: 13", b"th: 12"),
    post(b'{"model":"m"}').replace(b"th: 13", b"th: 013"),
)
ANSWERS = (
    said(USAGE),
    said(b'{"choices":[]}'),
    said(b"x" * 70_000 + USAGE),
    said(USAGE, 200, b"server: engine\r\nx-request-id: theirs\r\n"),
    said(USAGE, 200, b"content-encoding: gzip\r\n"),
    said(USAGE, 200, b"connection: close\r\n"),
    said(USAGE, 200, b"content-length: %d\r\n" % len(USAGE)),
    said(b'{"error":{}}', 400),
    said(b'{"error":{}}', 503),
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    + chunk(USAGE)
    + b"0\r\n\r\n",
    said(USAGE).replace(b"application/json", b"text/event-stream"),
    said(USAGE) + b"junk",
    b"no http",
    STREAM_HEAD + chunk(token()) + chunk(token("stop")) + chunk(DONE) + LAST_CHUNK,
    STREAM_HEAD + chunk(token()) + chunk(DONE) + LAST_CHUNK + b"junk",
    STREAM_HEAD + chunk(token()) + chunk(DONE) + b"0\r\nx: y\r\n\r\n",
    STREAM_HEAD + LAST_CHUNK,
)


ONE = chunk(token())
STREAMED = tuple(
    [*pieces, end]
    for end in (chunk(token("stop")) + chunk(DONE) + LAST_CHUNK, chunk(DONE), b"", b"zz\r\n", LAST_CHUNK)
    for pieces in (
        [STREAM_HEAD + ONE, ONE, ONE, ONE + ONE, ONE, chunk(b": x\n\n")],
        [STREAM_HEAD, ONE, ONE[:9], ONE[9:], ONE, b"0" + ONE, ONE],
        [STREAM_HEAD + ONE[:-1], b"\n", ONE, ONE.replace(b"\r\n", b";a=b\r\n", 1), ONE],
        [STREAM_HEAD + ONE, ONE + b"5", b"\r\nhello\r\n", ONE],
    )
)


Act = tuple[str, int, int]
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(range(len(REQUESTS))), st.sampled_from([0, 0, 0, 9, 60])),
        st.tuples(st.just("answer"), st.sampled_from(range(len(ANSWERS))), st.sampled_from([0, 0, 0, 9, 60])),
    ),
    max_size=14,
)


def in_pieces(data: bytes, at: int) -> list[bytes]:
    return [data[:at], data[at:]] if at else [data]


def play(acts: list[Act], knows: bool) -> tuple[list[bytes], list[object], list[bytes]]:
    """What the client got after each act, the records, and what each upstream connection was sent."""
    shell = Shell()
    edge = Edge(shell)
    edge.listener.new_id = lambda: "some"

    def come() -> Client:
        client = edge.client()
        if not knows:
            client.connection.misses = MISSES_MAX
        return client

    client, seen = come(), []
    for act, index, at in acts:
        shell.now += 0.01
        made = shell.dials[0].made
        if act == "ask":
            if client.transport.ended or client.transport.eof:
                client = come()
            for piece in in_pieces(REQUESTS[index], at):
                if not client.transport.ended:
                    client.send(piece)
        elif busy := [one for one in made if one.exchange is not None]:
            for piece in in_pieces(ANSWERS[index], at):
                if not knows:
                    shell.pools[0].known = shell.pools[0].known_stream = None
                if not busy[0].transport.is_closing():  # type: ignore[union-attr]
                    busy[0].data_received(piece)
                    shell.settle()
        seen.append(DATE.sub(b"", client.take()))
    edge.pass_time(30.0)
    client.leave()
    sent = [bytes(one.transport.written) for one in shell.dials[0].made]  # type: ignore[union-attr]
    assert shell.clean()
    return [*seen, DATE.sub(b"", client.take())], [repr(record) for record in shell.records], sent


@settings(max_examples=150)
@given(ACTS)
def test_a_head_known_by_its_bytes_changes_nothing(acts: list[Act]) -> None:
    assert play(acts, knows=True) == play(acts, knows=False)


def test_an_answer_known_by_its_head_has_the_length_of_its_own_body() -> None:
    acts: list[Act] = [("ask", 0, 0), ("answer", 0, 0), ("ask", 4, 0), ("answer", 1, 0)]
    assert play(acts, knows=True) == play(acts, knows=False)


@pytest.mark.parametrize("request_at", range(len(REQUESTS)))
@pytest.mark.parametrize("answer_at", range(len(ANSWERS)))
def test_nor_does_it_the_second_and_third_time(request_at: int, answer_at: int) -> None:
    acts: list[Act] = [("ask", request_at, 0), ("answer", answer_at, 0)] * 3
    assert play(acts, knows=True) == play(acts, knows=False)


@pytest.mark.source
@pytest.mark.parametrize("number", range(len(STREAMED)))
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_chunks_known_by_their_size_change_nothing(number: int, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def play_stream(knows: bool) -> tuple[bytes, list[str], list[bool]]:
        shell = Shell(checks=False)
        edge = Edge(shell)
        edge.listener.new_id = lambda: "some"
        known: list[bool] = []
        whole = ClientConnection.relay_framed

        def relay_framed(self: ClientConnection, framed: bytes, start: int) -> None:
            known.append(True)
            whole(self, framed, start)

        with monkeypatch.context() as patch:
            patch.setattr(ClientConnection, "relay_framed", relay_framed)
            client = edge.client(post(b'{"model":"m","stream":true}', version=version))
            for piece in STREAMED[number]:
                shell.now += 0.01
                if not shell.transport().is_closing():
                    shell.upstream().between_chunks = knows and shell.upstream().between_chunks
                    shell.answer(piece)
        edge.pass_time(30.0)
        return client.take(), [repr(record) for record in shell.records], known

    got, records, known = play_stream(knows=True)
    plain, plain_records, none = play_stream(knows=False)
    assert known and not none
    assert plain_records == records
    assert unchunked(got) == unchunked(plain)


PARTS = [STREAM_HEAD, chunk(b": x\n\n"), ONE, ONE, ONE, chunk(token("stop")), chunk(DONE) + LAST_CHUNK]
WHOLE = b"".join(PARTS)
EDGES = list(accumulate(map(len, PARTS)))[:-1]


@settings(max_examples=150)
@given(st.lists(st.lists(st.one_of(st.sampled_from(EDGES), st.integers(0, len(WHOLE))), max_size=6), max_size=4))
def test_a_stream_whose_head_has_come_before_ends_as_the_first_did(turns: list[list[int]]) -> None:
    def play_streams(knows: bool) -> tuple[list[bytes], list[str], list[int]]:
        shell = Shell(checks=False)
        edge = Edge(shell)
        edge.listener.new_id = lambda: "some"
        client, got, fed = edge.client(), [], []
        for cuts in [[], *turns]:
            client.send(post(b'{"model":"m","stream":true}'))
            counting: Any = Fed(shell.upstream().parser)
            shell.upstream().parser = counting
            for piece in split(WHOLE, cuts):
                shell.now += 0.01
                if not knows:
                    shell.pools[0].known_stream = None
                shell.answer(piece)
            shell.upstream().parser = counting.parser
            got.append(DATE.sub(b"", client.take()))
            fed.append(counting.reads)
        assert shell.clean()
        return got, [repr(record) for record in shell.records], fed

    first, again = play_streams(knows=False), play_streams(knows=True)
    assert again[:2] == first[:2]
    assert all(reads <= before for reads, before in zip(again[2], first[2], strict=True))


@pytest.mark.parametrize(
    ("cuts", "reads"), [([], 0), (EDGES, 0), (EDGES[1:], 0), ([5], 2), ([EDGES[2], EDGES[2] + 1], 3)]
)
def test_no_parser_reads_the_whole_chunks_of_a_known_stream(cuts: list[int], reads: int) -> None:
    shell = Shell(checks=False)
    client = Edge(shell).client()
    for turn in range(3):
        client.send(post(b'{"model":"m","stream":true}'))
        counting: Any = Fed(shell.upstream().parser)
        shell.upstream().parser = counting
        for piece in split(WHOLE, cuts if turn else EDGES[:2]):
            shell.answer(piece)
        shell.upstream().parser = counting.parser
        assert turn == 0 or counting.reads == reads
    assert [record.outcome for record in shell.records] == ["success"] * 3
    assert client.take().endswith(DONE + b"\r\n" + LAST_CHUNK)


@pytest.mark.parametrize(
    ("head", "known"),
    [
        (STREAM_HEAD, True),
        (STREAM_HEAD.replace(b"\r\n", b"\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 1), True),
        (STREAM_HEAD.replace(b"\r\n", b"\r\nconnection: close\r\n", 1), False),
        (STREAM_HEAD.replace(b"1.1", b"1.0"), False),
        (STREAM_HEAD.replace(b"200 OK", b"201 Created"), False),
        (STREAM_HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 500"), False),
    ],
)
def test_only_a_stream_in_chunks_that_stays_open_is_known_again(head: bytes, known: bool) -> None:
    shell = Shell(checks=False)
    Edge(shell).client(post(b'{"model":"m","stream":true}'))
    shell.answer(head)
    assert (shell.pools[0].known_stream is not None) == known


def unchunked(answer: bytes) -> bytes:
    """An answer without its framing: what came in one read may be one chunk or several."""
    return re.sub(rb"(?:^|\r\n)[0-9a-f]+\r\n", b"", answer.partition(b"\r\n\r\n")[2])


class Fed:
    """A parser that counts the reads that come to it."""

    def __init__(self, parser: Any) -> None:
        self.parser, self.reads = parser, 0

    def feed_data(self, data: bytes) -> None:
        self.reads += 1
        self.parser.feed_data(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.parser, name)


def hits(client: Client, *requests: bytes) -> int:
    """How many of these requests are known again."""
    fed: Any = Fed(client.connection.parser)
    client.connection.parser = fed
    client.send(*requests)
    client.connection.parser = fed.parser
    return len(requests) - int(fed.reads)


def test_a_client_that_never_repeats_its_head_is_not_remembered_for_ever() -> None:
    client = Edge().client()

    def ask(*numbers: int) -> list[bytes]:
        return [post(b"no json", CHAT, f"x-number: {number}") for number in numbers]

    assert hits(client, *ask(1, 1, 2, 2, 2)) == 3
    assert hits(client, *ask(*range(10, 10 + MISSES_MAX))) == 0
    assert hits(client, *ask(7, 7)) == 0


@pytest.mark.parametrize("change", ["reload", "drain", "last call"])
def test_what_has_changed_since_is_judged_anew(change: str) -> None:
    edge = Edge()
    client = edge.client(post(b"no json"))
    if change == "reload":
        edge.listener.intake = Edge(edge.shell).listener.intake
    elif change == "drain":
        edge.listener.intake.draining = True
    else:
        edge.listener.draining = True
    assert hits(client, post(b"no json")) == 0
    assert client.statuses() == [400, 503 if change == "drain" else 400]
    assert client.transport.ended is (change != "reload")


def test_a_request_refused_as_it_comes_leaves_its_connection_to_the_next() -> None:
    edge = Edge()
    edge.shell.gate.perform(edge.shell.dispatcher.health("u0", False, edge.shell.now))
    client = edge.client(post() * 2, post())
    assert (client.statuses(), client.transport.ended, edge.errors) == ([503] * 3, False, [])


def test_a_connection_may_have_so_many_requests_waiting_and_no_more() -> None:
    """What a client sends while an answer is due is kept, so its number is bounded: the rest of the read is refused."""
    edge = Edge()
    client = edge.client(post(), HEALTH * (PIPELINE_MAX - 1))
    assert client.transport.held == []
    client.send(HEALTH)
    assert client.transport.held == [False], "nothing more is read"
    client.send(HEALTH * PIPELINED_MAX)
    assert len(client.connection.inbox) == PIPELINED_MAX
    edge.shell.answer(said())
    assert client.statuses() == [200] * PIPELINED_MAX + [400]
    assert (client.transport.eof, edge.errors) == (True, [])


def alive() -> list[int]:
    kinds = (ClientConnection, UpstreamConnection)
    return [sum(isinstance(one, kind) for one in gc.get_objects()) for kind in kinds]


def test_connections_that_are_over_are_no_garbage_in_cycles() -> None:
    edge = Edge()
    gc.disable()
    try:
        before = alive()
        client = edge.client(post())
        edge.shell.answer(said(b"one"))
        client.leave()
        edge.shell.pools[0].close()
        edge.shell.settle()
        edge.shell.transport().protocol = client.transport.protocol = None  # as uvloop lets go of them
        edge.shell.dials[0].made.clear()
        del client
        assert alive() == before
    finally:
        gc.enable()
