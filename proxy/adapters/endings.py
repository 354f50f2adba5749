"""What an exchange needs at its end: the head of an answer that came whole, and the record."""

from __future__ import annotations

from proxy.adapters.gate import Waiter
from proxy.adapters.inbound import Inbound
from proxy.adapters.records import RequestRecord
from proxy.adapters.relay import Relay
from proxy.adapters.repeats import KnownAnswer, KnownStream, around_length
from proxy.types import Outcome, Phase, Ticket, Usage
from proxy.wire.answer import AnswerWriter
from proxy.wire.errors import BadAnswer
from proxy.wire.usage import StreamEnd


def written_head(known: KnownAnswer, writer: AnswerWriter) -> tuple[bytes, bytes] | tuple[()]:
    """The head as clients get it, around the digits of its length, to be followed by the request's own lines and an
    empty one. Empty where the answer has to be looked at: a stream, a content coding, what cannot be passed on."""
    if known.written is None:
        head = _head_of(known.reason, known.headers, writer, stream=False)
        parts = around_length(head) if head else None
        known.written = () if parts is None else (parts[0], parts[1].removesuffix(b"\r\n"))
    return known.written


def written_stream(known: KnownStream, writer: AnswerWriter) -> bytes:
    """The same of a stream, which is chunked and has no length."""
    if known.written is None:
        known.written = _head_of(known.reason, known.headers, writer, stream=True).removesuffix(b"\r\n")
    return known.written


def _head_of(reason: bytes, headers: list[tuple[bytes, bytes]], writer: AnswerWriter, stream: bool) -> bytes:
    try:
        head, facts = writer.head(200, reason, headers, b"", chunked=True)
    except BadAnswer:
        return b""
    return head if facts.event_stream is facts.chunked is stream and not facts.encoded else b""


def own_lines(request_id: str, class_name: str, waited_s: float, upstream: str) -> bytes:
    """The lines that an answer gets from us."""
    tenths = int(waited_s * 10_000 + 0.5)  # of a millisecond; to format a float costs more than all the rest
    waited_ms = str(tenths // 10) + "." + str(tenths % 10)
    lines = (
        f"x-request-id: {request_id}\r\nrequest-id: {request_id}\r\nx-penstock-class: {class_name}\r\n"
        f"x-penstock-queue-ms: {waited_ms}\r\nx-penstock-upstream: {upstream}\r\n"
    )
    return lines.encode()


def plausible(end: StreamEnd, events: int) -> tuple[Usage | None, str | None]:
    """The counts of a stream. An event with output carries a token at least, and one or two more open and close the
    stream: who reports less than half of that counts something else, and what came is counted instead."""
    usage = end.usage
    if usage is None or 2 * usage.completion_tokens + 2 >= events:
        return usage, end.usage_problem
    return usage._replace(completion_tokens=events), "fewer_than_events"


class Ended(Waiter):
    """What an exchange knows at its end. No protocol: compiled, every attribute of one is looked up by name."""

    __slots__ = ("events", "granted_s", "inbound", "last_token_s", "relay", "streamed", "ticket", "ttft_s")

    def __init__(self, relay: Relay, inbound: Inbound, ticket: Ticket) -> None:
        self.relay, self.inbound, self.ticket = relay, inbound, ticket
        self.streamed = False
        self.granted_s = self.last_token_s = 0.0
        self.ttft_s: float | None = None
        self.events = 0


def record_of(
    ended: Ended,
    outcome: Outcome,
    status: int,
    phase: Phase | None,
    usage: Usage | None,
    problem: str | None,
    now: float,
) -> RequestRecord:
    """Everything about one request. `usage` is what the engine counted, `problem` why that could not be used."""
    inbound, ticket, granted_s, streamed = ended.inbound, ended.ticket, ended.granted_s, ended.streamed
    head, route = inbound.head, inbound.route
    if usage is None:
        prompt_tokens, tokens, cached_tokens = ticket.estimate.prompt_tokens, ended.events, 0
    else:
        prompt_tokens, tokens, cached_tokens = usage
    ttft_s = engine_ttft_s = tpot_s = None
    if ended.ttft_s is not None:
        ttft_s = ended.ttft_s - inbound.received_s
        engine_ttft_s = (ticket.first_token_s or ended.ttft_s) - granted_s
    if tokens > 1:
        first_s = ticket.first_token_s if streamed else None
        if first_s:
            span_s = (ended.last_token_s or now) - (first_s if ended.last_token_s else granted_s)
            tpot_s = max(0.0, span_s) / (tokens - 1)
        else:
            tpot_s = max(0.0, now - granted_s) / tokens
    # By position: it is made for every request, and names cost half as much again. In the order of RequestRecord.
    record = RequestRecord(
        inbound.request_id, "" if route is None else route.path, outcome, status, now - inbound.received_s,
        inbound.tenant, inbound.class_name, inbound.model, ticket.upstream, inbound.streaming,
        (granted_s or now) - ticket.arrived_s, ttft_s, engine_ttft_s, tpot_s, prompt_tokens, tokens, cached_tokens,
        False, len(ticket.tried), 0 if head is None else head.retry_count, phase, None, inbound.clamped,
        inbound.unknown_priority, problem or "", None if head is None else head.trace,
    )  # fmt: skip
    record.good = outcome is Outcome.SUCCESS and ended.relay.caps(ticket.upstream).met(record, streamed)
    return record
