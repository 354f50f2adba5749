"""Connections to one upstream: an own protocol on llhttp, a LIFO pool of idle ones, and nothing per request but a slot.

The answer is tracked by llhttp and handed on as body pieces, one call per read: framing towards the client is made
anew, so odd answers, old clients and errors in a stream need no special relay. Known ones pass by it (`repeats`).
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, cast

import httptools

from proxy.adapters.answer_reader import SPENT, AnswerReader
from proxy.adapters.repeats import KnownAnswer, KnownStream, remember, stream_of
from proxy.adapters.sockets import adjust_upstream, all_taken, is_own_shortage, reserve, spare_files
from proxy.adapters.tasks import Tasks
from proxy.native import mypyc_attr
from proxy.wire.chunks import chunk_start, chunks_of

# An idle connection is dropped well before uvicorn's 5 s keep-alive closes it under a request being sent.
IDLE_S: Final = 4.0
WRITE_HIGH_BYTES: Final = 1 << 18
ANSWER_HEAD_MAX_BYTES: Final = 64 * 1024


@mypyc_attr(allow_interpreted_subclasses=True)
class Carried(ABC):
    """What a connection tells the one exchange it carries. `lost` may follow anything but `ended`.

    After the `last` body `answer_end` comes at once. There are shorter ways for those who override them:
    `answer_stream` is `answer_head` of a stream whose head has come before, `answer_chunk` is `answer_body` of one
    chunk with its frame, whose content begins at `start`; where `takes_whole` says so, `answer_whole` stands for head,
    body and end. No protocol: compiled, those are called by name.
    """

    __slots__ = ()

    @abstractmethod
    def connected(self, connection: UpstreamConnection, reused: bool) -> None: ...
    @abstractmethod
    def connect_failed(self, reason: str, own: bool) -> None: ...
    @abstractmethod
    def answer_head(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None: ...
    @abstractmethod
    def answer_body(self, pieces: list[bytes], last: bool) -> None: ...
    @abstractmethod
    def answer_end(self) -> None: ...
    @abstractmethod
    def lost(self, reason: str) -> None: ...
    @abstractmethod
    def upload_paused(self, paused: bool) -> None: ...
    @abstractmethod
    def broke(self, error: Exception) -> None: ...

    def answer_stream(self, known: KnownStream) -> None:
        self.answer_head(200, known.reason, known.headers)

    def answer_chunk(self, framed: bytes, start: int) -> None:
        self.answer_body([framed[start:-2]], False)

    def takes_whole(self, known: KnownAnswer) -> bool:
        return False

    def answer_whole(self, known: KnownAnswer, body: bytes) -> None:
        raise AssertionError("a whole answer comes only to those who take it")


class UpstreamConnection(AnswerReader):
    """One connection. Carries at most one exchange; closes on anything that it did not ask for."""

    __slots__ = ("exchange", "idle_since_s", "on_lost", "opened_s", "pool", "taken", "transport", "whole")

    def __init__(self, pool: UpstreamPool) -> None:
        super().__init__()
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.exchange: Carried | None = None
        self.on_lost: Callable[[], None] | None = None
        self.opened_s = self.idle_since_s = 0.0
        self.taken = False  # the peer closed after all of the request had come to it
        self.whole = True  # the request has been written to its end; else what follows would be taken for its body

    # ---- asyncio ----
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass of it
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        own = transport.get_extra_info("socket")
        if own is not None:
            adjust_upstream(own)
        self.opened_s = self.pool.clock()
        self.pool.open.add(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.close()  # bytes that nobody asked for: the connection cannot be trusted
            return
        was_in_head = self.in_head
        if self.between_chunks:  # there the parser need not see a read that is one whole chunk
            start = chunk_start(data)
            if start:
                try:
                    exchange.answer_chunk(data, start)
                except Exception as error:
                    self._broke(exchange, error)
                return
            if self.unseen is not None:
                if self._take_chunks(data, None, exchange):
                    return
                self.show()
        elif was_in_head:
            if not self.head_bytes and self._is_known(data, exchange):
                return
            self.head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            if not self.complete:
                self.fail("malformed answer")
                return
            self.keep_alive = False  # extra bytes after a whole answer: the answer stands, the peer goes
        if was_in_head and self.in_head:
            if self.head_bytes > ANSWER_HEAD_MAX_BYTES:
                self.fail("answer head too large")
            return
        try:
            if was_in_head:
                exchange.answer_head(self.status, self.reason, self.headers)
                if self.head_bytes == len(data) and self.status == 200:
                    self._remember(data)
            pieces = self.pieces[:]
            self.pieces.clear()
            self._hand_on(pieces, exchange)
        except Exception as error:
            self._broke(exchange, error)

    def _is_known(self, data: bytes, exchange: Carried) -> bool:
        """Take an answer that begins with a head that has come before. False: llhttp has to read it."""
        known, stream = self.pool.known, self.pool.known_stream
        body = None if known is None else known.body_of(data)
        if known is not None and body is not None:
            self._again(known, body, exchange)
            return True
        return stream is not None and data.startswith(stream.head) and self._take_chunks(data, stream, exchange)

    def _take_chunks(self, data: bytes, known: KnownStream | None, exchange: Carried) -> bool:
        """Take whole chunks of a stream whose head is `known`; None: it was taken before. False: they are not whole."""
        pieces: list[bytes] = []
        found = chunks_of(data, 0 if known is None else known.size, pieces)
        if not found:
            return False
        try:
            if known is not None:
                self.begin_unseen(known)
                exchange.answer_stream(known)
            self.complete = self.keep_alive = found == 2
            self._hand_on(pieces, exchange)
        except Exception as error:
            self._broke(exchange, error)
        return True

    def _hand_on(self, pieces: list[bytes], exchange: Carried) -> None:
        """What has come of the body, and its end. The head, or an earlier piece, may have ended the exchange."""
        if pieces and self.exchange is exchange:
            exchange.answer_body(pieces, self.complete)
        if self.complete and self.exchange is exchange:
            self._finish(exchange)

    def _remember(self, data: bytes) -> None:
        """Know the head of `data` again; that of a stream while it runs, as many heads tell the second."""
        if self.complete and self.keep_alive:
            self.pool.known = remember(data, self.pieces, self.reason, self.headers) or self.pool.known
        elif not self.complete and self.names_chunks and self.parser.should_keep_alive():
            self.pool.known_stream = stream_of(data, self.pieces, self.reason, self.headers) or self.pool.known_stream

    def _broke(self, exchange: Carried, error: Exception) -> None:
        """A fault of ours while this was told. By then the connection may carry another exchange, which goes on."""
        if self.exchange is exchange:
            self.exchange = None
            self.close()
        exchange.broke(error)

    def _again(self, known: KnownAnswer, body: bytes, exchange: Carried) -> None:
        """A whole answer whose head has come before: llhttp would say the same of it as of that one."""
        self.head_bytes = len(known.before) + len(known.after)
        self.in_head, self.complete, self.keep_alive = False, True, True
        try:
            if exchange.takes_whole(known):
                self._let_go()
                exchange.answer_whole(known, body)
                return
            length = b"%d" % len(body)  # the one thing that may differ
            headers = [(name, length if name.lower() == b"content-length" else value) for name, value in known.headers]
            exchange.answer_head(known.status, known.reason, headers)
            self._hand_on([body], exchange)
        except Exception as error:
            self._broke(exchange, error)

    def eof_received(self) -> bool:
        self.taken = all_taken(self.transport)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.forget(self)
        self.parser = SPENT
        if self.on_lost is not None:
            self.on_lost()
        exchange = self.exchange
        if exchange is None:
            return
        try:
            if exc is None and self.close_delimited and not self.complete:
                self.complete, self.keep_alive = True, False
                self._finish(exchange)
                return
            self.exchange = None
            exchange.lost("closed" if exc is None else "reset")
        except Exception as error:
            self._broke(exchange, error)

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upload_paused(True)

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upload_paused(False)

    # ---- the exchange's side ----
    def send(self, exchange: Carried, pieces: list[bytes], whole: bool = True) -> None:
        """Write a request, or its beginning. The next answer on this connection belongs to `exchange`."""
        self.reset()
        self.exchange, self.whole = exchange, whole
        assert self.transport is not None
        if len(pieces) == 1:
            self.transport.write(pieces[0])
        else:
            self.transport.writelines(pieces)

    def write(self, piece: bytes, last: bool) -> None:
        """One more piece of a request whose beginning was sent."""
        assert self.transport is not None
        self.whole = last
        if piece:
            self.transport.write(piece)

    def set_reading(self, on: bool) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            (transport.resume_reading if on else transport.pause_reading)()

    def _finish(self, exchange: Carried) -> None:
        self._let_go()
        exchange.answer_end()

    def _let_go(self) -> None:
        """The exchange is over: whoever comes next may use the connection, or it closes."""
        self.exchange = None
        assert self.transport is not None
        unsent = self.transport.get_write_buffer_size() > 0
        if self.keep_alive and self.whole and not unsent and not self.transport.is_closing():
            self.pool.give_back(self)
        else:
            self.close()

    def fail(self, reason: str) -> None:
        """Drop the connection and tell the exchange."""
        exchange, self.exchange = self.exchange, None
        self.close()
        if exchange is not None:
            exchange.lost(reason)

    def abandon(self, closed: Callable[[], None] | None = None) -> None:
        """The exchange leaves before its end: nothing else may ever use this connection. `closed` hears of its end."""
        self.exchange = None
        self.on_lost = closed
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        self.pool.forget(self)
        if self.transport is not None:
            self.transport.close()


def open_in_task(pool: UpstreamPool, exchange: Carried) -> None:
    """How a pool comes to a new connection, where nothing else is said."""
    pool.tasks.start(f"connect {pool.host}:{pool.port}", pool.connect(exchange))


class UpstreamPool:
    """Idle connections of one upstream, newest first, and the opening of new ones.

    A connection older than `max_age_s` is not used again: a name that has moved would never be followed by a busy one.
    `short` hears of connections that this process has no file for. `opens` makes a new connection for an exchange.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        connect_timeout_s: float,
        tasks: Tasks,
        clock: Callable[[], float],
        max_age_s: float = inf,
        short: Callable[[str], None] | None = None,
        opens: Callable[[UpstreamPool, Carried], None] = open_in_task,
    ) -> None:
        self.host, self.port, self.tls = host, port, tls
        self.max_age_s, self.short, self.opens = max_age_s, short, opens
        self.connect_timeout_s = connect_timeout_s
        self.tasks, self.clock = tasks, clock
        self.idle: deque[UpstreamConnection] = deque()
        self.open: set[UpstreamConnection] = set()
        self.closed = False
        self.known: KnownAnswer | None = None  # the head of the last answer that came whole
        self.known_stream: KnownStream | None = None  # and of the last stream

    def __repr__(self) -> str:
        return f"UpstreamPool({self.host}:{self.port} open={len(self.open)} idle={len(self.idle)})"

    def acquire(self, exchange: Carried, fresh: bool = False) -> None:
        """Call `exchange.connected` now with an idle connection, or later with a new one."""
        while self.idle and not fresh:
            connection = self.idle.pop()
            transport = connection.transport
            if transport is not None and not transport.is_closing() and self.clock() - connection.idle_since_s < IDLE_S:
                try:
                    exchange.connected(connection, True)
                except Exception:
                    connection.close()
                    raise
                return
            connection.close()
        self.opens(self, exchange)

    async def connect(self, exchange: Carried) -> None:
        loop, connection = asyncio.get_running_loop(), UpstreamConnection(self)
        protocol = cast(asyncio.Protocol, connection)
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                await loop.create_connection(lambda: protocol, self.host, self.port, ssl=self.tls)
        except TimeoutError:
            exchange.connect_failed("connect timed out", False)
        except ssl.SSLError as error:
            exchange.connect_failed(f"TLS: {getattr(error, 'verify_message', '') or error.reason or 'failed'}", False)
        except OSError as error:
            own = is_own_shortage(error)
            if own and self.short is not None:
                self.short("upstream")
            exchange.connect_failed(error.strerror or "connect failed", own)
        else:
            try:
                if not self._affordable(connection):
                    connection.close()
                    exchange.connect_failed("short of files", True)
                    return
                exchange.connected(connection, False)
            except Exception as error:
                connection.close()
                exchange.broke(error)

    def _affordable(self, connection: UpstreamConnection) -> bool:
        """The last files are kept for telling clients, for probes and for logs."""
        own = None if connection.transport is None else connection.transport.get_extra_info("socket")
        if self.short is None or own is None or spare_files(own.fileno()) >= reserve() // 4:
            return True
        self.short("upstream")
        return False

    def give_back(self, connection: UpstreamConnection) -> None:
        now = self.clock()
        if self.closed or now - connection.opened_s > self.max_age_s:
            connection.close()
            return
        connection.idle_since_s = now
        self.idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        self.open.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    def sweep(self, now: float) -> None:
        """Close what has idled too long; oldest are at the left."""
        while self.idle and now - self.idle[0].idle_since_s >= IDLE_S:
            self.idle[0].close()

    def close(self) -> None:
        self.closed = True
        for connection in list(self.idle):
            connection.close()
