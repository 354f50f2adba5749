"""One request and its exchange with an upstream: granted -> connected -> head held -> relayed -> ended, exactly once.

The answer's head is held until its first body byte, so that a failure before it can still be retried or told as a
status. From then on bytes pass as they come; the stamps for TTFT and inter-token gaps are taken when they are read
from the upstream, so a slow client never looks like a slow engine. Every way out goes through `_over`, which gives
the permit back and writes the record.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from proxy.adapters import mishap, silence
from proxy.adapters.endings import Ended, own_lines, plausible, record_of, written_head, written_stream
from proxy.adapters.gate import Lane
from proxy.adapters.inbound import Inbound
from proxy.adapters.records import RequestRecord
from proxy.adapters.relay import Relay, Sink
from proxy.adapters.repeats import KnownAnswer, KnownStream, decimal
from proxy.adapters.upstream_pool import UpstreamConnection
from proxy.types import Failure, Outcome, Phase, Refuse, Ticket, Usage
from proxy.wire.answer import is_sized
from proxy.wire.chunks import chunk_of
from proxy.wire.errors import BadAnswer
from proxy.wire.headers import forward_head
from proxy.wire.usage import StreamEnd, StreamTail, usage_of

STALE_S: Final = 1.0  # a dead connection says so within a round trip; what is lost later is not repeated
HELD_ANSWER_MAX_BYTES: Final = 64 * 1024
EVENT_STREAM: Final = [(b"content-type", b"text/event-stream")]
WAITING: Final = b": waiting\n\n"
SHED_STATUSES: Final = frozenset({429, 503})


class Exchange(Ended):
    """The ticket's client. Created when the body has been read, gone when the last byte has been relayed."""

    # fmt: off
    __slots__ = (
        "answer_headers", "begun", "connection", "early", "ended", "held", "lane", "last_read_s", "paused", "reason",
        "rest", "reused", "sink", "slowed", "status", "stream", "tail", "upload_started",
    )
    # fmt: on

    def __init__(self, relay: Relay, sink: Sink, inbound: Inbound, ticket: Ticket) -> None:
        super().__init__(relay, inbound, ticket)
        self.sink = sink
        ticket.client = self
        self.lane: Lane | None = None
        self.connection: UpstreamConnection | None = None
        self.reused = self.begun = self.ended = self.paused = self.upload_started = self.early = False
        self.slowed = False  # its client has read too slowly at some time: its time per token is not the engine's
        self.last_read_s = 0.0
        self.status, self.reason = 0, b""
        self.answer_headers: list[tuple[bytes, bytes]] = []
        self.held: list[bytes] | None = None  # body of a shed answer, which a retry may replace
        self.rest = b""  # the last bytes of an answer, on their way out with its end
        self.tail: StreamTail  # from the answer's head on
        self.stream: KnownStream | None  # which has the same head

    def __repr__(self) -> str:
        return f"Exchange({self.inbound.request_id} {self.ticket.state.value} at {self.ticket.upstream or '-'})"

    # ---- the permit ----
    def granted(self, upstream: str) -> None:
        gate = self.relay.gate
        lane = self.lane = gate.lanes[upstream]
        now = self.granted_s = self.last_read_s = gate.clock()
        if not self.ticket.tried:
            gate.metrics.queue_left(self.inbound.class_name, "dispatched", now - self.ticket.arrived_s)
        self.upload_started = False
        self.held = None
        lane.running[self] = None
        lane.pool.acquire(self, fresh=bool(self.ticket.tried))

    def refused(self, refusal: Refuse) -> None:
        outcome, now = refusal.outcome, self.relay.gate.clock()
        if not self.granted_s:
            self.relay.gate.metrics.queue_left(self.inbound.class_name, outcome.value, now - self.ticket.arrived_s)
        if outcome is Outcome.UPSTREAM_STATUS:
            body, self.held = b"".join(self.held or ()), None
            if self._begin(body):
                self.sink.end(b"")
                self._over(outcome, self.status)
                return
            outcome = Outcome.UPSTREAM_ERROR  # the engine's own refusal cannot be shown
            refusal = replace(refusal, outcome=outcome)
        if self.early:
            self.sink.cut(outcome)
        self._over(outcome, 200 if self.early else self.sink.refuse(self.inbound, refusal))

    def keep_waiting(self, now: float) -> None:
        """While a stream is queued, a comment every `queue.keepalive_s` keeps what is in between from giving up."""
        every_s = self.relay.keepalive_s
        due = now - max(self.ticket.arrived_s, self.last_read_s) >= every_s > 0
        if self.granted_s or not due or not self.inbound.streaming:
            return
        self.last_read_s = now
        if self.early:
            self.sink.relay(WAITING)
            return
        self.early = True
        self.inbound.keep_alive = self.inbound.keep_alive and not self.sink.http10
        head, facts = self.relay.writer.head(200, b"OK", EVENT_STREAM, self._extra(), chunked=not self.sink.http10)
        self.sink.begin(head, facts.chunked, WAITING)

    # ---- the upstream's side ----
    def connected(self, connection: UpstreamConnection, reused: bool) -> None:
        if self.ended or self.lane is None:
            connection.pool.give_back(connection)  # the client left while it was being opened; nothing was sent
            return
        self.connection, self.reused, self.upload_started = connection, reused, True
        inbound, lane = self.inbound, self.lane
        if inbound.known is not None and inbound.priority_span is None:
            connection.send(self, inbound.pieces_as_before(inbound.known, lane, lane.base_path, lane.lines))
            return
        body = inbound.body_to_send()
        length = sum(map(len, body)) if inbound.complete else inbound.declared_bytes
        assert inbound.head is not None
        head = forward_head(
            inbound.method, lane.base_path + inbound.target, inbound.head, lane.lines, length, inbound.request_id,
            inbound.client_ip,
        )  # fmt: skip
        if length is None:
            body = [chunk_of(piece) for piece in body]
        connection.send(self, [head, *body], inbound.complete)

    def connect_failed(self, reason: str, own: bool) -> None:
        if not self.ended:
            self.failed(Failure.LOCAL if own else Failure.CONNECT)

    def upload(self, piece: bytes, last: bool) -> None:
        """One more piece of a body that is streamed through; before the permit it waits in `inbound.body`."""
        if self.connection is None or not self.upload_started:
            return
        if self.inbound.declared_bytes is None:
            piece = (chunk_of(piece) if piece else b"") + (b"0\r\n\r\n" if last else b"")
        self.connection.write(piece, last)

    def upload_paused(self, paused: bool) -> None:
        if not self.inbound.complete:
            self.sink.set_reading(not paused)

    def answer_head(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.status, self.reason, self.answer_headers = status, reason, headers
        self.tail, self.stream = StreamTail(), None
        self.last_read_s = self.relay.gate.clock()
        if status in SHED_STATUSES and self.ticket.retryable:
            self.held = []

    def answer_stream(self, known: KnownStream) -> None:
        self.answer_head(200, known.reason, known.headers)
        self.stream = known

    def answer_body(self, pieces: list[bytes], last: bool) -> None:
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self.held is not None:
            self.held.append(data)
            if sum(map(len, self.held)) <= HELD_ANSWER_MAX_BYTES:
                return
            data, self.held = b"".join(self.held), None
        now = self.last_read_s = self.relay.gate.clock()
        if self.streamed or not self.begun:
            self._count(data, now)
        self.tail.add(data)
        if self.begun and last:
            self.rest = data
        elif self.begun:
            self.sink.relay(data)
        elif not self._begin(data):
            self.drop_connection()
            self.failed(Failure.RESET)

    def answer_chunk(self, framed: bytes, start: int) -> None:
        """`answer_body` in fewer steps, for the next event of a running stream, framed as its client gets it."""
        tail = self.tail
        if not (self.begun and self.streamed and tail.started and self.last_token_s):
            self.answer_body([framed[start:-2]], False)
            return
        now = self.last_read_s = self.relay.gate.clock()
        events = tail.add_chunk(framed, start)
        if events:
            lane = self.lane
            assert lane is not None
            lane.gap_s += now - self.last_token_s
            lane.events += events
            self.events += events
            self.last_token_s = now
        self.sink.relay_framed(framed, start)

    def _count(self, data: bytes, now: float) -> None:
        """Signals of a stream: the first token, then gaps and events. Non-streams only get their TTFT."""
        if not self.begun:
            self.ttft_s = now
            if not self.inbound.streaming:
                return
            self.streamed = True
        events = self.tail.count(data, self.inbound.route)
        if not events:
            return
        if self.last_token_s:
            lane = self.lane
            assert lane is not None
            lane.gap_s += now - self.last_token_s
            lane.events += events
        elif not self.events:
            self.relay.gate.first_token(self.ticket, now)
        self.events += events
        self.last_token_s = now

    def _begin(self, first: bytes) -> bool:
        """Send the held head with the first bytes: from here on there is no second try. False: it cannot be sent."""
        inbound, writer, stream = self.inbound, self.relay.writer, self.stream
        now, chunked = self.relay.gate.clock(), True
        if not inbound.complete or (self.sink.http10 and (self.early or not is_sized(self.answer_headers))):
            inbound.keep_alive = False  # the rest of its body is not wanted, or its end ends the answer
        head = b"" if stream is None or self.sink.http10 else written_stream(stream, writer)
        if head:
            head = b"".join((head, self._extra(), b"\r\n"))
        else:
            takes_chunks, extra = not self.sink.http10, self._extra()
            try:
                head, facts = writer.head(self.status, self.reason, self.answer_headers, extra, takes_chunks)
            except BadAnswer:
                return False
            if self.early and not (self.status == 200 and facts.event_stream):
                return False
            self.streamed = self.streamed and facts.event_stream and not facts.encoded
            self.tail.encoded, chunked = facts.encoded, facts.chunked
        self.begun, self.ttft_s = True, now if self.ttft_s is None else self.ttft_s
        inbound.drop_body(self.relay.gate.dispatcher)
        if self.early:
            self.sink.relay(first)
        else:
            self.sink.begin(head, chunked, first)
        return True

    def _extra(self) -> bytes:
        """The header lines that are ours."""
        inbound = self.inbound
        waited_s = (self.granted_s or self.relay.gate.clock()) - self.ticket.arrived_s
        lines = own_lines(inbound.request_id, inbound.class_name, waited_s, self.ticket.upstream)
        if inbound.keep_alive:
            return lines + b"connection: keep-alive\r\n" if self.sink.http10 else lines
        return lines + b"connection: close\r\n"

    def answer_end(self) -> None:
        self.connection = None
        empty = not self.begun and self.inbound.streaming and self.status == 200 and self.must_finish()
        if self.held is not None or empty or (not self.begun and not self._begin(b"")):
            self.failed(Failure.RESET if self.held is None else Failure.SHED)
            return
        end = self.tail.verdict(self.inbound.route, self.streamed)
        if self.status >= 400:
            self.relay.gate.refused_by_engine(self.ticket, self.status, self.tail.kept())
            self.end_answer(Outcome.UPSTREAM_STATUS, end)
        elif self.streamed and self.must_finish() and (end.error or not end.finished):
            self.broken(Outcome.UPSTREAM_ERROR, end, seen=end.error)
        else:
            self.end_answer(Outcome.SUCCESS, end)

    def takes_whole(self, known: KnownAnswer) -> bool:
        """Whether a whole answer may go to the client as it comes: nothing was sent or held, and it is no stream."""
        inbound = self.inbound
        if inbound.streaming or self.early or self.held is not None or not inbound.complete or inbound.route is None:
            return False
        return bool(written_head(known, self.relay.writer))

    def answer_whole(self, known: KnownAnswer, body: bytes) -> None:
        """`answer_head`, `answer_body` and `answer_end` in one, where `takes_whole` allowed it."""
        inbound, gate = self.inbound, self.relay.gate
        assert known.written and inbound.route is not None, "only what is taken whole comes whole"
        before, after = known.written
        self.connection, self.status, self.begun = None, known.status, True
        self.ttft_s = self.last_read_s = gate.clock()
        inbound.drop_body(gate.dispatcher)
        self.sink.begin(b"".join((before, decimal(len(body)), after, self._extra(), b"\r\n")), False, body)
        usage, problem = usage_of(body, inbound.route)
        self._over(Outcome.SUCCESS, known.status, usage, problem)

    def must_finish(self) -> bool:
        route = self.inbound.route
        return route is not None and bool(route.terminal)

    def end_answer(self, outcome: Outcome, end: StreamEnd) -> None:
        self.sink.end(self.rest)
        usage, problem = plausible(end, self.events) if self.streamed else (end.usage, end.usage_problem)
        self._over(outcome, self.status, usage, problem)

    def broken(self, outcome: Outcome, end: StreamEnd | None = None, seen: bool = False) -> None:
        """The answer cannot be completed: an error event unless the upstream sent its own, then the cut."""
        if self.rest:
            self.sink.relay(self.rest)
        self.sink.cut(None if seen or not self.streamed else outcome)
        usage, problem = (end.usage, end.usage_problem) if end is not None else (None, None)
        self._over(outcome, self.status, usage, problem)

    def lost(self, reason: str) -> None:
        connection, self.connection = self.connection, None
        if not self.begun:
            quiet_s = self.relay.gate.clock() - self.last_read_s
            untouched = self.reused and connection is not None and not (connection.head_bytes or connection.taken)
            self.failed(Failure.STALE if untouched and quiet_s < STALE_S else Failure.RESET)
            return
        end = self.tail.verdict(self.inbound.route, self.streamed)
        if self.streamed and end.finished and not end.error:
            self.end_answer(Outcome.SUCCESS, end)
        else:
            self.broken(Outcome.UPSTREAM_ERROR, end)

    def failed(self, failure: Failure) -> None:
        """One try is over with nothing sent to the client; the dispatcher says what comes next."""
        if self.lane is not None:
            self.lane.running.pop(self, None)
            self.lane = None
        self.connection = None
        self.relay.gate.failed(self.ticket, failure)

    # ---- time ----
    def sweep(self, now: float) -> None:
        """Called twice a second while running."""
        silence.judge(self, now)

    def tokens_so_far(self) -> int:
        return round(self.events * self.lane.tokens_per_event) if self.lane is not None else 0

    # ---- the client's side ----
    def client_paused(self, paused: bool) -> None:
        """A slow reader holds the upstream back; the next gap is ours, not the engine's."""
        self.paused, self.slowed = paused, self.slowed or paused
        if self.connection is not None:
            self.connection.set_reading(not paused)
        if not paused:
            self.last_read_s = self.relay.gate.clock()
            self.last_token_s = 0.0

    def client_left(self, outcome: Outcome = Outcome.CLIENT_GONE) -> None:
        """The client is gone or stalled: free the seat, close the upstream exchange, record when that was done."""
        if self.ended:
            return
        now = self.relay.gate.clock()
        connection, self.connection = self.connection, None
        if not self.granted_s:
            self.relay.gate.metrics.queue_left(self.inbound.class_name, outcome.value, now - self.ticket.arrived_s)
        phase = Phase.STREAMING if self.begun else Phase.WAITING if self.granted_s else Phase.QUEUED
        record = self._close(outcome, 499, phase)
        self.relay.gate.cancelled(self.ticket)
        if connection is None:
            self.relay.record(record)
            return

        def closed() -> None:
            record.abort_s = self.relay.gate.clock() - now
            self.relay.record(record)

        connection.abandon(closed)

    def drop_connection(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()

    def expel(self, outcome: Outcome = Outcome.SHUTTING_DOWN) -> None:
        """We end it ourselves: an error event and the cut where the answer has begun, else the refusal."""
        self.drop_connection()
        if self.begun or self.early:
            self.broken(outcome)
        else:
            self._over(outcome, self.sink.refuse(self.inbound, Refuse(self.ticket, outcome)))

    def broke(self, error: Exception) -> None:
        """Something of ours has failed while it dealt with this request."""
        mishap.end_broken(self, error)

    # ---- the end ----
    def _over(self, outcome: Outcome, status: int, usage: Usage | None = None, problem: str | None = None) -> None:
        """The one way out of a request that was not left by its client."""
        running = self.lane is not None
        record = self._close(outcome, status, None, usage, problem)
        if running:
            last_token_s = None if self.slowed else self.last_token_s or None
            self.relay.gate.finished(self.ticket, outcome, usage, last_token_s, self.status)
        self.relay.record(record)
        self.sink.over()

    def _close(
        self, outcome: Outcome, status: int, phase: Phase | None, usage: Usage | None = None, problem: str | None = None
    ) -> RequestRecord:
        self.ended = True
        self.ticket.client = None  # else the two would keep each other until a garbage collection
        lane, self.lane = self.lane, None
        if lane is not None:
            lane.running.pop(self, None)
            if self.streamed and usage is not None and outcome is Outcome.SUCCESS:
                lane.calibrate(usage.completion_tokens, self.events)
        self.inbound.drop_body(self.relay.gate.dispatcher)
        record = record_of(self, outcome, status, phase, usage, problem, self.relay.gate.clock())
        record.retries -= lane is None and record.retries > 0  # the last failure was not followed by a try
        return record
