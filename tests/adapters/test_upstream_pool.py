from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop

from proxy.adapters.repeats import KnownAnswer
from proxy.adapters.tasks import Tasks
from proxy.adapters.upstream_pool import ANSWER_HEAD_MAX_BYTES, IDLE_S, Carried, UpstreamConnection, UpstreamPool
from tests.adapters.scripted_engine import ScriptedEngine, reply, scripted_engine, unused_port
from tests.adapters.shell import LAST_CHUNK, STREAM_HEAD, ScriptedTransport, Shell, chunk, no_tasks, said

CERTIFICATES = Path(__file__).parent / "certificates"
REQUEST = b"POST / HTTP/1.1\r\nhost: u0\r\n\r\n"


@dataclass
class Heard(Carried):
    """An exchange that keeps what its connection tells, as words."""

    words: list[object] = field(default_factory=list)
    connection: UpstreamConnection | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    told: Callable[[], None] = lambda: None

    def connected(self, connection: UpstreamConnection, reused: bool) -> None:
        self.connection = connection
        self.words.append("reused" if reused else "fresh")
        connection.send(self, [REQUEST])
        self.told()

    def connect_failed(self, reason: str, own: bool) -> None:
        self.words.append((reason, own))
        self.told()

    def answer_head(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.headers = headers
        self.words.append((status, reason))

    def answer_body(self, pieces: list[bytes], last: bool) -> None:
        self.words.append(b"|".join(pieces))

    def answer_end(self) -> None:
        self.words.append("end")
        self.told()

    def lost(self, reason: str) -> None:
        self.words.append(f"lost: {reason}")
        self.told()

    def upload_paused(self, paused: bool) -> None:
        self.words.append(f"paused {paused}")

    def broke(self, error: Exception) -> None:
        raise error


class Line:
    """One exchange on one scripted connection."""

    def __init__(self, shell: Shell | None = None) -> None:
        self.shell = shell or Shell()
        self.pool = self.shell.pools[0]
        self.heard = Heard()
        self.pool.acquire(self.heard)
        self.heard.words.clear()

    @property
    def transport(self) -> ScriptedTransport:
        return self.shell.transport()

    def feed(self, *pieces: bytes) -> list[object]:
        self.shell.answer(*pieces)
        return self.heard.words


OK = (200, b"Said")
STREAM = (200, b"OK")


@pytest.mark.parametrize(
    ("pieces", "words", "kept"),
    [
        pytest.param([said(b"ab")], [OK, b"ab", "end"], True, id="sized"),
        pytest.param([said(b"ab")[:20], said(b"ab")[20:-1], b"b"], [OK, b"a", b"b", "end"], True, id="in pieces"),
        pytest.param([STREAM_HEAD, chunk(b"a") + chunk(b"b"), LAST_CHUNK], [STREAM, b"a|b", "end"], True, id="chunked"),
        pytest.param([STREAM_HEAD + chunk(b"a") + b"0\r\nx: y\r\n\r\n"], [STREAM, b"a", "end"], True, id="trailer"),
        pytest.param([b"HTTP/1.1 204 Gone\r\n\r\n"], [(204, b"Gone"), "end"], True, id="204"),
        pytest.param([b"HTTP/1.1 100 Go\r\n\r\n" + said(b"a")], [OK, b"a", "end"], True, id="after 100"),
        pytest.param([b"HTTP/1.1 102 On\r\n\r\n" * 4000], ["lost: answer head too large"], False, id="only interim"),
        pytest.param([b"HTTP/1.1 103 Hint\r\nx: 1\r\n\r\n", said(b"a")], [OK, b"a", "end"], True, id="after 103"),
        pytest.param([said(b"a", lines=b"Connection: close\r\n")], [OK, b"a", "end"], False, id="close"),
        pytest.param([said(b"a").replace(b"1.1", b"1.0", 1)], [OK, b"a", "end"], False, id="HTTP/1.0"),
        pytest.param([said(b"a") + said(b"b")], [OK, b"a", "end"], False, id="a second answer"),
        pytest.param([said(b"a") + b"junk"], [OK, b"a", "end"], False, id="junk behind"),
        pytest.param([b"SSH-2.0-server\r\n"], ["lost: malformed answer"], False, id="not HTTP"),
        pytest.param([STREAM_HEAD, b"zz\r\n"], [STREAM, "lost: malformed answer"], False, id="bad chunk"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\n", *[b"x: " + b"a" * 16_000 + b"\r\n"] * (ANSWER_HEAD_MAX_BYTES // 16_000 + 1)],
            ["lost: answer head too large"], False, id="endless head",
        ),
    ],
)  # fmt: skip
def test_what_an_answer_tells_and_whether_its_connection_is_used_again(
    pieces: list[bytes], words: list[object], kept: bool
) -> None:
    line = Line()
    assert line.feed(*pieces) == words
    assert len(line.pool.idle) == kept
    assert line.transport.ended is not kept
    assert len(line.pool.open) == kept


def test_headers_of_interim_answers_and_trailers_are_not_those_of_the_answer() -> None:
    line = Line()
    line.feed(b"HTTP/1.1 103 Hint\r\nlink: x\r\n\r\n" + STREAM_HEAD + chunk(b"a") + b"0\r\ntrailer: y\r\n\r\n")
    assert [name for name, _ in line.heard.headers] == [b"Content-Type", b"Transfer-Encoding"]


CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "error", "words"),
    [
        pytest.param([], None, ["lost: closed"], id="before the answer"),
        pytest.param([], ConnectionResetError(), ["lost: reset"], id="reset"),
        pytest.param([CLOSE_DELIMITED + b"ab"], None, [STREAM, b"ab", "end"], id="close-delimited"),
        pytest.param([CLOSE_DELIMITED + b"ab"], ConnectionResetError(), [STREAM, b"ab", "lost: reset"], id="and reset"),
        pytest.param([said(b"ab")[:-1]], None, [OK, b"a", "lost: closed"], id="cut short"),
        pytest.param([STREAM_HEAD + chunk(b"a")], None, [STREAM, b"a", "lost: closed"], id="no last chunk"),
        pytest.param([said(b"a")], None, [OK, b"a", "end"], id="after the answer"),
    ],
)
def test_how_the_end_of_a_connection_is_told(pieces: list[bytes], error: Exception | None, words: list[object]) -> None:
    line = Line()
    line.feed(*pieces)
    line.shell.lose(error)
    assert line.heard.words == words
    assert (list(line.pool.idle), line.pool.open) == ([], set())


def test_bytes_on_an_idle_connection_end_it() -> None:
    line = Line()
    line.feed(said())
    line.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    assert (line.transport.ended, list(line.pool.idle), line.heard.words) == (True, [], [OK, b"{}", "end"])


def test_an_answer_to_a_request_that_is_not_sent_yet_is_no_connection_to_keep() -> None:
    line = Line()
    line.transport.unsent_bytes = 100
    assert line.feed(said()) == [OK, b"{}", "end"]
    assert line.transport.ended


def test_abandoned_is_closed_hard_and_told_when_it_is_over() -> None:
    line = Line()
    told: list[str] = []
    line.shell.upstream().abandon(lambda: told.append("closed"))
    assert (line.transport.aborted, told) == (True, [])
    line.shell.settle()
    assert (told, line.heard.words, line.pool.open) == (["closed"], [], set())


def test_reading_and_writing_are_held_back_both_ways() -> None:
    line = Line()
    connection = line.shell.upstream()
    connection.set_reading(False)
    connection.set_reading(True)
    connection.pause_writing()
    connection.resume_writing()
    assert line.heard.words == ["paused True", "paused False"]
    line.feed(said())
    connection.pause_writing()
    connection.resume_writing()
    assert len(line.heard.words) == 5
    assert line.transport.held == [False, True]
    connection.close()
    connection.set_reading(False)
    assert line.transport.held == [False, True]


def test_idle_connections_are_taken_newest_first_and_never_when_old() -> None:
    shell = Shell()
    first, second = Line(shell), Line(shell)
    one, two = first.heard.connection, second.heard.connection
    assert one is not None and two is not None
    for connection in (one, two):
        connection.data_received(said())
        shell.now += 1.0
    pool = first.pool
    assert repr(pool) == "UpstreamPool(u0:80 open=2 idle=2)"
    again = Heard()
    pool.acquire(again)
    assert (again.words, again.connection) == (["reused"], two)
    fresh = Heard()
    pool.acquire(fresh, fresh=True)
    assert (fresh.words, list(pool.idle)) == (["fresh"], [one])
    shell.now += IDLE_S - 2.0
    late = Heard()
    pool.acquire(late)
    assert (late.words, list(pool.idle)) == (["fresh"], [])
    shell.settle()
    assert one not in pool.open


def test_a_connection_that_is_closing_is_not_used() -> None:
    line = Line()
    line.feed(said())
    line.transport.ended = True
    after = Heard()
    line.pool.acquire(after)
    assert after.words == ["fresh"]


@pytest.mark.parametrize(("age_s", "left"), [(IDLE_S - 0.1, 1), (IDLE_S, 0)])
def test_the_sweep_closes_what_has_idled_too_long(age_s: float, left: int) -> None:
    line = Line()
    line.feed(said())
    line.pool.sweep(line.shell.now + age_s)
    assert len(line.pool.idle) == left


def test_a_closed_pool_keeps_no_connection() -> None:
    shell = Shell()
    idle, running = Line(shell), Line(shell)
    assert idle.heard.connection is not None
    idle.heard.connection.data_received(said())
    running.pool.close()
    assert running.feed(said()) == [OK, b"{}", "end"]
    shell.settle()
    assert (list(running.pool.idle), running.pool.open) == ([], set())


def test_a_connection_beyond_its_age_is_not_used_again() -> None:
    shell = Shell()
    line = Line(shell)
    line.pool.max_age_s = 30.0
    for age_s, idle in ((29.0, 1), (2.0, 0)):
        shell.now += age_s
        line.feed(said())
        shell.settle()
        assert len(line.pool.idle) == idle
        line.pool.acquire(line.heard)
    assert line.heard.words[-1] == "fresh"


class Opened:
    """What a transport shows of its socket."""

    def __init__(self) -> None:
        self.options: list[tuple[int, ...]] = []

    def fileno(self) -> int:
        return 7

    def setsockopt(self, *option: int) -> None:
        self.options.append(option)


def test_a_connection_is_adjusted_as_it_is_made() -> None:
    opened = Opened()
    pool = UpstreamPool("u0", 80, None, 1.0, no_tasks(), lambda: 0.0)
    UpstreamConnection(pool).connection_made(ScriptedTransport([], sock=opened))
    assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in opened.options
    assert (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0) in opened.options


@pytest.mark.parametrize(("spare", "words"), [(2, ["fresh"]), (1, [("short of files", True)])])
def test_the_last_files_are_not_spent_on_upstreams(
    monkeypatch: pytest.MonkeyPatch, spare: int, words: list[object]
) -> None:
    """Of so few files 8 are kept, and a quarter of those for upstreams not."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 + spare, 8 + spare))
    short: list[str] = []
    transport, heard = ScriptedTransport([], sock=Opened()), Heard()
    pool = UpstreamPool("u0", 80, None, 1.0, no_tasks(), lambda: 0.0, short=short.append)

    async def connect(factory: Callable[[], asyncio.Protocol], *_: object, **__: object) -> None:
        transport.set_protocol(factory())
        transport.protocol.connection_made(transport)

    async def scenario() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", connect)
        await pool.connect(heard)

    asyncio.run(scenario())
    assert (heard.words, short) == (words, ["upstream"] * (spare < 2))
    assert transport.ended is (spare < 2)


# ---- real sockets ----


def test_having_no_file_for_a_connection_is_not_the_upstreams_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    short: list[str] = []

    async def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def scenario() -> Heard:
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fails)
        async with scripted_engine() as engine:
            return await heard_from(engine, None, short=short.append)

    assert asyncio.run(scenario()).words == [("Too many open files", True)]
    assert short == ["upstream"]


async def heard_from(
    engine: ScriptedEngine, tls: ssl.SSLContext | None, port: int = 0, timeout_s: float = 5,
    short: Callable[[str], None] | None = None,
) -> Heard:  # fmt: skip
    """What one exchange hears until it ends."""
    failures: list[BaseException] = []
    tasks = Tasks(lambda _, error: failures.append(error))
    pool = UpstreamPool("127.0.0.1", port or engine.port, tls, timeout_s, tasks, lambda: 0.0, short=short)
    over = asyncio.Event()
    heard = Heard()
    heard.told = lambda: over.set() if heard.words[-1] != "fresh" else None
    pool.acquire(heard)
    await over.wait()
    pool.close()
    await tasks.close()
    assert failures == []
    return heard


def client_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "valid.pem", CERTIFICATES / "key.pem")
    return context


async def plain(engine: ScriptedEngine) -> Heard:
    return await heard_from(engine, None)


async def refused(engine: ScriptedEngine) -> Heard:
    return await heard_from(engine, None, await unused_port())


async def untrusted(engine: ScriptedEngine) -> Heard:
    async with scripted_engine(tls=server_context()) as secure:
        return await heard_from(secure, client_context())


async def silent(engine: ScriptedEngine) -> Heard:
    with socket.create_server(("127.0.0.1", 0)) as quiet:  # connects, and never answers a handshake
        return await heard_from(engine, client_context(), quiet.getsockname()[1], timeout_s=0.05)


@pytest.mark.parametrize(
    ("connect", "words"),
    [
        (plain, ["fresh", (200, b"Status"), b"hello", "end"]),
        (refused, [("Connection refused", False)]),
        (untrusted, [("TLS: self-signed certificate", False)]),
        (silent, [("connect timed out", False)]),
    ],
)
def test_connecting(connect: Callable[[ScriptedEngine], Awaitable[Heard]], words: list[object]) -> None:
    async def scenario() -> Heard:
        async with scripted_engine({"/": reply("hello")}) as engine:
            return await connect(engine)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # its reasons differ from asyncio's
        assert runner.run(scenario()).words == words


def test_for_who_knows_no_shorter_way_a_chunk_is_a_piece_of_the_body_and_no_answer_is_taken_whole() -> None:
    heard = Heard()
    heard.answer_chunk(b"2\r\nab\r\n", 3)
    known = KnownAnswer((b"", b""), b"OK", [])
    assert (heard.words, heard.takes_whole(known)) == ([b"ab"], False)
    with pytest.raises(AssertionError):
        heard.answer_whole(known, b"ab")
