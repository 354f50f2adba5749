"""One client connection: llhttp in, our own framing out, one request at a time.

The connection never stops reading while a request runs, because only a read tells that the client has left; what it
pipelines meanwhile is parsed and waits, up to `PIPELINE_MAX_BYTES`. A half-closed client counts as gone. Deadlines are
looked at twice a second (`sweep`), so a request costs no timer. A whole request whose head has come before is known by
its bytes (`KnownHead`) and passes by the parser and the checks of the head.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final, cast

import httptools

from proxy.adapters import mishap
from proxy.adapters.forward import Exchange
from proxy.adapters.inbound import Inbound, KnownHead
from proxy.adapters.repeats import MISSES_MAX
from proxy.server import deadlines
from proxy.server.errors import BY_CODE, BY_OUTCOME, Refusal, refusal_for, render, stream_error
from proxy.server.intake import HEAD_MAX_BYTES, Rejected, head_fault
from proxy.server.reading import SPENT, Crowded, Home, RequestReader
from proxy.types import Outcome, Phase, Refuse
from proxy.wire.chunks import chunk_of, size_line

WRITE_HIGH_BYTES: Final = 1 << 18
PIPELINE_MAX_BYTES: Final = 1 << 20
PIPELINE_MAX: Final = 64  # requests, with the one that runs; beyond it nothing more is read
CROWDED: Final = replace(BY_CODE["malformed_request"], message="Too many requests were sent at once on one connection.")
DISCARD_S: Final = 2.0  # a refused upload is read on for this long, so that its client sees the answer and no reset
JOIN_MAX_BYTES: Final = 1 << 16


class ClientConnection(RequestReader):
    """Protocol, parser callbacks and `Sink` in one object: a request costs no further ones on this side."""

    # fmt: off
    __slots__ = (
        "advancing", "chunked", "closing", "discard_until_s", "held_back", "known", "misses", "paused",
        "pending_row", "since_s", "stall_bytes", "stalled_since_s", "transport",
    )
    # fmt: on

    def __init__(self, listener: Home) -> None:
        super().__init__(listener)
        self.transport: asyncio.Transport | None = None
        self.pending_row: Refusal | None = None  # the bytes after what is in the inbox are not HTTP
        self.chunked = self.closing = self.paused = self.advancing = self.http10 = self.held_back = False
        self.stall_bytes = 0
        self.discard_until_s = self.stalled_since_s = 0.0
        self.known: KnownHead | None = None  # the head of an earlier request
        self.misses = 0  # requests in a row that had another one
        self.since_s = listener.clock()  # of the present state: idle, or the head that is coming

    def __repr__(self) -> str:
        return f"ClientConnection({self.client_ip.decode()} inbox={len(self.inbox)} exchange={self.exchange!r})"

    # ---- asyncio ----
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass of it
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.client_ip = str(peer[0]).partition("%")[0].encode("ascii", "replace")
        self.listener.opened(self)

    def data_received(self, data: bytes) -> None:
        if self.discard_until_s or self.closing:
            return
        fresh = self.parsing is None and not self.inbox
        if fresh:
            if self.known is not None and self._again(self.known, data):
                return
            self.since_s = self.listener.clock()
        if self.parsing is None or not self.inbox:
            self.head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserInvalidMethodError:
            self.pending_row = BY_CODE["not_implemented"]
        except httptools.HttpParserCallbackError as error:
            self._callback_failed(error)
        except httptools.HttpParserUpgrade:
            self.inbox[-1].keep_alive = False  # it is refused, and what follows is not HTTP: one answer, then the end
        except httptools.HttpParserError:
            self.pending_row = BY_CODE["malformed_request"]
        alone = fresh and len(self.inbox) == 1 and self.parsing is None and self.pending_row is None
        first = self.inbox[0] if alone else None
        self._advance()
        if first is not None and first.checked and self.misses < MISSES_MAX:
            self.known = first.remember(data, self.listener.intake)
            self.misses += 1
        waiting = len(self.inbox)
        if waiting > 1 and (
            waiting > PIPELINE_MAX or sum(inbound.body_bytes for inbound in self.inbox) > PIPELINE_MAX_BYTES
        ):
            self.set_reading(False)

    def _callback_failed(self, error: httptools.HttpParserCallbackError) -> None:
        """Too many requests at once, or a fault of ours; either ends the connection after what came before."""
        if isinstance(error.__context__, Crowded):
            self.parsing = self.inbox.pop()
            self.pending_row = CROWDED
            return
        self.pending_row = BY_OUTCOME[Outcome.INTERNAL_ERROR]
        self.listener.failed("connection", error)

    def _again(self, known: KnownHead, data: bytes) -> bool:
        """Serve one whole request whose head has come before. False: llhttp has to read it."""
        listener = self.listener
        intake = listener.intake
        if known.intake is not intake or intake.draining or listener.draining:
            return False
        body = known.body_of(data)
        if body is None:
            return False
        self.misses = 0
        now = self.since_s = listener.clock()
        inbound = Inbound.again(known, known.head.request_id or intake.new_id(), self.client_ip, body, now)
        self.inbox.append(inbound)
        self._serve(inbound)
        return True

    def eof_received(self) -> bool:
        if self.exchange is not None or self.inbox or self.parsing is not None:
            self._left()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self._left()
        finally:
            self.parser = SPENT
            self.listener.closed(self)

    def _left(self) -> None:
        """The client is gone. Everything it had here ends now."""
        self.closing = True
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            mishap.leave(exchange)
            self.inbox.popleft()
        waiting, self.parsing = list(self.inbox), None
        self.inbox.clear()
        for inbound in waiting:
            inbound.drop_body(self.listener.account)
            self.listener.record(inbound.record(Outcome.CLIENT_GONE, 499, self.listener.clock(), Phase.UPLOAD))
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        self.paused = True
        self.stalled_since_s = self.listener.clock()
        self.stall_bytes = self.transport.get_write_buffer_size() if self.transport is not None else 0
        if self.exchange is not None:
            self.exchange.client_paused(True)

    def resume_writing(self) -> None:
        self.paused = False
        if self.exchange is not None:
            self.exchange.client_paused(False)

    # ---- requests ----
    def _check_readable(self, inbound: Inbound) -> None:
        """Requests before the unreadable bytes are still answered; the one whose body they are in ends here."""
        if self.pending_row is not None and inbound is self.parsing:
            row, self.pending_row = self.pending_row, None
            raise Rejected(row)

    def _advance(self) -> None:
        """Serve the inbox as far as it goes without waiting."""
        if self.advancing:
            return
        self.advancing = True
        try:
            while self.inbox and self.exchange is None and not self.closing and not self.discard_until_s:
                if not self._serve(self.inbox[0]):
                    break
        finally:
            self.advancing = False
        if self.exchange is not None and (self.bad_upload is not None or not self.exchange.inbound.complete):
            self._count_upload(self.exchange.inbound)
        if self.exchange is None and not self.closing and not self.discard_until_s:
            self._check_head_bounds()

    def _serve(self, inbound: Inbound) -> bool:
        """One step for the request in front. False: it waits for more bytes or for its answer."""
        try:
            if not inbound.checked:
                answer = self.listener.intake.check_head(inbound)
                inbound.checked = True
                if answer is not None:
                    self._answer_locally(inbound, answer)
                    return True
                if inbound.head is not None and inbound.head.expects_continue and not inbound.complete:
                    self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._check_readable(inbound)
            ticket = self.listener.intake.read_body(inbound)
            if ticket is None:
                return False
        except Rejected as rejected:
            self.reject(inbound, rejected)
            return True
        except Exception as error:
            self.listener.failed("request", error)
            self.reject(inbound, Rejected(BY_OUTCOME[Outcome.INTERNAL_ERROR]))
            return True
        self.http10 = inbound.version == "1.0"
        exchange = self.exchange = Exchange(self.listener.relay_for(inbound), self, inbound, ticket)
        exchange.relay.gate.submit(ticket)
        return self._is_free()

    def _is_free(self) -> bool:
        """Whether what was submitted is over already. A method: where it was set, mypy(c) takes it for still there."""
        return self.exchange is None

    def _count_upload(self, inbound: Inbound) -> None:
        """Bounds of a body that is streamed through while its exchange waits or runs."""
        exchange = self.exchange
        assert exchange is not None
        try:
            self._check_readable(inbound)
            if self.bad_upload is not None:
                raise self.bad_upload
            self.listener.intake.check_size(inbound)
            if not exchange.upload_started and not inbound.count_body(self.listener.account):
                raise Rejected(BY_OUTCOME[Outcome.QUEUE_FULL])
        except Rejected as rejected:
            self.evict(rejected)

    def _check_head_bounds(self) -> None:
        """Sizes of a head that is still coming, and bytes that were not HTTP."""
        inbound = self.parsing
        if self.pending_row is None and inbound is not None and not self.inbox:
            inbound.head_bytes = self.head_bytes
            too_long = self.head_bytes > HEAD_MAX_BYTES
            self.pending_row = head_fault(inbound) or (BY_CODE["header_too_large"] if too_long else None)
        if self.pending_row is not None and not self.inbox:
            row, self.pending_row = self.pending_row, None
            self.refuse_now(inbound or Inbound(self.listener.clock(), self.client_ip), row)

    def reject(self, inbound: Inbound, rejected: Rejected) -> None:
        """Refuse the request in front. An unread body ends the connection."""
        inbound.drop_body(self.listener.account)
        if rejected.row.close or not inbound.complete:
            inbound.keep_alive = False
        status = self._write_row(inbound, rejected)
        self.listener.record(inbound.record(rejected.row.outcome, status, self.listener.clock()))
        self._next(inbound)

    def _write_row(self, inbound: Inbound, rejected: Rejected) -> int:
        close = not inbound.keep_alive or self.listener.draining
        status, answer = render(
            rejected.row, inbound.error_style, (inbound.request_id or self.listener.new_id()).encode(), close,
            rejected.retry_after_s, rejected.detail, rejected.param, rejected.allow,
            b"x-penstock-class: %b\r\n" % inbound.class_name.encode() if inbound.class_name else b"",
        )  # fmt: skip
        if inbound.method == b"HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        self._write(answer)
        return status

    def _answer_locally(self, inbound: Inbound, answer: bytes) -> None:
        self._write(answer)
        inbound.drop_body(self.listener.account)
        if not inbound.complete:
            inbound.keep_alive = False
        if inbound.route is not None:
            self.listener.record(inbound.record(Outcome.SUCCESS, 200, self.listener.clock()))
        self._next(inbound)

    def _next(self, inbound: Inbound) -> None:
        """The request in front has been answered."""
        self.inbox.popleft()
        self.since_s = self.listener.clock()
        if self.closing:
            return
        if not inbound.keep_alive or self.listener.draining:
            self._close_gently(inbound)
        elif self.held_back and len(self.inbox) <= 1:
            self.set_reading(True)

    def _close_gently(self, inbound: Inbound) -> None:
        """Flush, then close; where the client is still sending, end our side first and read its rest away."""
        if self.transport is None or self.transport.is_closing():
            return
        if inbound.complete or not self.transport.can_write_eof():
            self.closing = True
            self.transport.close()
            return
        self.discard_until_s = self.listener.clock() + DISCARD_S
        self.transport.resume_reading()
        self.transport.write_eof()

    # ---- Sink: the exchange's view ----
    def begin(self, head: bytes, chunked: bool, first: bytes) -> None:
        self.chunked = chunked
        if chunked and first:
            self._write(b"".join((head, size_line(first), first, b"\r\n")))
        elif len(first) > JOIN_MAX_BYTES:
            self._write(head)
            self._write(first)
        else:
            self._write(head + first)

    def relay(self, data: bytes) -> None:
        if self.chunked:
            self._write(chunk_of(data))
        else:
            self._write(data)

    def relay_framed(self, framed: bytes, start: int) -> None:
        """`relay` of what has come as one chunk. A transport that has failed drops it, and tells so at once."""
        if self.transport is not None:
            self.transport.write(framed if self.chunked else framed[start:-2])

    def end(self, rest: bytes) -> None:
        """The last bytes of the answer, if they are not out yet, and its end: in one write."""
        if not self.chunked:
            if rest:
                self._write(rest)
        elif rest:
            self._write(b"".join((size_line(rest), rest, b"\r\n0\r\n\r\n")))
        else:
            self._write(b"0\r\n\r\n")

    def cut(self, outcome: Outcome | None) -> None:
        """End a broken answer: an error event where `outcome` is given, and never the last chunk."""
        if self.exchange is not None:
            if outcome is not None:
                self.relay(stream_error(outcome, self.exchange.inbound.error_style))
            self.exchange.inbound.keep_alive = False

    def refuse(self, inbound: Inbound, refusal: Refuse) -> int:
        row = refusal_for(refusal.outcome)
        if row.close or not inbound.complete:
            inbound.keep_alive = False
        return self._write_row(inbound, Rejected(row, refusal.retry_after_s, refusal.detail))

    def set_reading(self, on: bool) -> None:
        self.held_back, transport = not on, self.transport
        if transport is not None and not transport.is_closing():
            (transport.resume_reading if on else transport.pause_reading)()

    def over(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self._next(exchange.inbound)
            if self.inbox or self.parsing is not None or self.pending_row is not None:
                self._advance()

    def _write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    # ---- time ----
    def sweep(self, now: float) -> None:
        deadlines.sweep(self, now)

    def refuse_now(self, inbound: Inbound, row: Refusal) -> None:
        """Refuse what never became a whole request, and close."""
        inbound.keep_alive = False
        status = self._write_row(inbound, Rejected(row))
        self.listener.record(inbound.record(row.outcome, status, self.listener.clock()))
        self.parsing = None
        self._close_gently(inbound)

    def evict(self, rejected: Rejected) -> None:
        """End the exchange whose upload broke a rule: with its row where nothing was answered yet, then the close."""
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        inbound = self.inbox.popleft()
        inbound.keep_alive = False
        self.bad_upload = None
        mishap.leave(exchange, rejected.row.outcome)
        if not exchange.begun:
            self._write_row(inbound, rejected)
        self._close_gently(inbound)
