"""A request as the public listener has read it: head facts, body pieces as they came, what was decided from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy.adapters.records import RequestRecord
from proxy.adapters.repeats import Repeat, cut, decimal
from proxy.dispatcher import Dispatcher
from proxy.types import Outcome, Phase
from proxy.wire.errors import ErrorStyle
from proxy.wire.facts import PrioritySpan, strip_priority
from proxy.wire.headers import HeadFacts, forward_parts
from proxy.wire.multipart import MultipartScanner
from proxy.wire.priority import ClassChoice, TenantRule
from proxy.wire.routes import Route
from proxy.wire.scan import BodyScanner

JOINED_BYTES_MAX: Final = 16 * 1024  # a longer body is not copied behind its head


class KnownHead(Repeat):
    """The head of a request that passed every check, with what was read from it. `intake` is the one that judged it."""

    __slots__ = ("choice", "head", "intake", "lane", "middle", "route", "rule", "start", "target")

    def __init__(self, parts: tuple[bytes, bytes], inbound: Inbound, intake: object) -> None:
        super().__init__(parts[0], parts[1])
        assert inbound.head is not None and inbound.route is not None and inbound.rule is not None
        self.intake, self.target = intake, inbound.target
        self.head, self.route, self.rule = inbound.head, inbound.route, inbound.rule
        self.choice: ClassChoice | None = None  # of a body that asks for no class
        self.lane: object = None  # the upstream that `start` and `middle` of the head sent on were written for
        self.start = self.middle = b""


@dataclass(slots=True, eq=False, init=False)
class Inbound:
    """Filled in by the connection (wire facts) and the intake (decisions). Times in seconds, monotonic."""

    received_s: float
    client_ip: bytes
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    head_bytes: int  # read until the head was complete; the first bytes of the body may be counted in
    version: str
    keep_alive: bool
    body: list[bytes]
    body_bytes: int
    complete: bool
    checked: bool  # the head has passed
    body_started_s: float
    scanner: BodyScanner | MultipartScanner | None  # of a body that is not read whole
    scanned_pieces: int

    route: Route | None
    head: HeadFacts | None
    request_id: str
    rule: TenantRule | None
    tenant: str
    class_name: str
    model: str
    streaming: bool
    clamped: bool
    unknown_priority: bool
    counted_bytes: int  # of the body, on the account of `queue.max_bytes`
    priority_span: PrioritySpan | None
    known: KnownHead | None  # its head has come before on this connection

    def __init__(
        self,
        received_s: float,
        client_ip: bytes = b"",
        method: bytes = b"GET",
        target: bytes = b"",
        headers: list[tuple[bytes, bytes]] | None = None,
        body: list[bytes] | None = None,
    ) -> None:
        self.received_s, self.client_ip, self.method, self.target = received_s, client_ip, method, target
        self.headers, self.head_bytes = [] if headers is None else headers, 0
        self.version, self.keep_alive = "1.1", True
        self.body = [] if body is None else body
        self.body_bytes = 0
        for piece in self.body:  # most often one; `sum` costs more
            self.body_bytes += len(piece)
        self.complete = self.checked = self.streaming = self.clamped = self.unknown_priority = False
        self.body_started_s = 0.0
        self.scanner = None
        self.scanned_pieces = self.counted_bytes = 0
        self.route = None
        self.head = None
        self.rule = None
        self.request_id = self.tenant = self.class_name = self.model = ""
        self.priority_span = None
        self.known = None

    @staticmethod
    def again(known: KnownHead, request_id: str, client_ip: bytes, body: bytes, now: float) -> Inbound:
        """One more whole request with a head that is known."""
        inbound = Inbound(now, client_ip, b"POST", known.target, None, [body])
        inbound.known, inbound.route, inbound.head, inbound.rule = known, known.route, known.head, known.rule
        inbound.tenant, inbound.request_id = known.rule.name, request_id
        inbound.body_started_s = now
        inbound.complete = inbound.checked = True
        return inbound

    @property
    def declared_bytes(self) -> int | None:
        """Content-Length of the request, None for a chunked body."""
        return self.head.content_length if self.head is not None else 0

    @property
    def error_style(self) -> ErrorStyle:
        return self.route.error_style if self.route is not None else "openai"

    def remember(self, data: bytes, intake: object) -> KnownHead | None:
        """The head of this request, which is all of `data` but its body, to be known again; None: it cannot be."""
        head = self.head
        if head is None or head.expects_continue or head.trace is not None or self.rule is None or not self.keep_alive:
            return None
        if self.method != b"POST" or self.version != "1.1" or self.route is None or self.route.multipart:
            return None
        parts = cut(data, self.body_bytes)
        return None if parts is None else KnownHead(parts, self, intake)

    def body_to_send(self) -> list[bytes]:
        """The pieces as they came, without the bytes of body `priority`.

        The order is decided here; engines that do not schedule by priority refuse the field, and they differ in sign.
        """
        if self.priority_span is None:
            return self.body
        return strip_priority(self.body, self.priority_span)

    def pieces_as_before(self, known: KnownHead, lane: object, base_path: bytes, lines: bytes) -> list[bytes]:
        """The whole request for an upstream, all of whose head but its id and length was written for an earlier one."""
        if known.lane is not lane:
            known.lane = lane
            target = base_path + self.target
            known.start, middle = forward_parts(self.method, target, known.head, lines, self.client_ip)
            known.middle = middle + b"\r\ncontent-length: "
        (body,) = self.body
        size = self.body_bytes
        head = [known.start, self.request_id.encode("ascii"), known.middle, decimal(size), b"\r\n\r\n"]
        if size > JOINED_BYTES_MAX:
            return [b"".join(head), body]
        head.append(body)
        return [b"".join(head)]

    def count_body(self, account: Dispatcher) -> bool:
        """Put the bytes read since the last call on the account; False when they do not fit."""
        new = self.body_bytes - self.counted_bytes
        if new and not account.reserve_bytes(self.tenant, new):
            return False
        self.counted_bytes += new
        return True

    def drop_body(self, account: Dispatcher) -> None:
        """Let the body go, from memory and from the account. Calling it again does nothing."""
        if self.counted_bytes:
            account.release_bytes(self.tenant, self.counted_bytes)
            self.counted_bytes = 0
        self.body = []

    def record(self, outcome: Outcome, status: int, now: float, phase: Phase | None = None) -> RequestRecord:
        """The record of this request's end, without what only an exchange knows."""
        return RequestRecord(
            request_id=self.request_id,
            path=self.route.path if self.route is not None else "",
            outcome=outcome,
            status=status,
            duration_s=now - self.received_s,
            tenant=self.tenant,
            class_name=self.class_name,
            model=self.model,
            streaming=self.streaming,
            client_attempt=self.head.retry_count if self.head is not None else 0,
            gone_phase=phase,
            clamped=self.clamped,
            unknown_priority=self.unknown_priority,
            trace=self.head.trace if self.head is not None else None,
        )
